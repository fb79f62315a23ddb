"""Scores of policies: in an environment, by density, from the data alone; and the statistics of scores."""

from __future__ import annotations

from offline_vi.evaluation.episodes import WithoutTime as WithoutTime, whole_episodes as whole_episodes
from offline_vi.evaluation.evaluate import Evaluation as Evaluation, evaluate as evaluate
from offline_vi.evaluation.fitting_q import (
    FittedQReport as FittedQReport,
    discounted_returns as discounted_returns,
    fitted_q_report as fitted_q_report,
)
from offline_vi.evaluation.off_policy import (
    Estimate as Estimate,
    FittedQ as FittedQ,
    FQEConfig as FQEConfig,
    ImportanceEstimate as ImportanceEstimate,
    actions_of as actions_of,
    fitted_q as fitted_q,
    importance_weighted as importance_weighted,
)
from offline_vi.evaluation.selection import (
    Bandit as Bandit,
    BanditConfig as BanditConfig,
    RegretCurve as RegretCurve,
    regret_curve as regret_curve,
)
from offline_vi.evaluation.statistics import (
    Array as Array,
    Comparison as Comparison,
    Interval as Interval,
    PairedDifference as PairedDifference,
    Profile as Profile,
    Statistic as Statistic,
    Tasks as Tasks,
    bootstrap_interval as bootstrap_interval,
    compare as compare,
    exceedance as exceedance,
    improvement as improvement,
    iqm as iqm,
    mean as mean,
    median as median,
    optimality_gap as optimality_gap,
    paired_difference as paired_difference,
    performance_profile as performance_profile,
    probability_of_improvement as probability_of_improvement,
    simulated_coverage as simulated_coverage,
)
from offline_vi.evaluation.support import (
    Support as Support,
    log_probs as log_probs,
    measure_support as measure_support,
    overestimation_report as overestimation_report,
    some_rows as some_rows,
    support_report as support_report,
)
