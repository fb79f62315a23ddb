"""The tables of a benchmark's report, as plain records: what HTML, Markdown and CSV show alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from offline_vi.evaluation.statistics import (
    AGGREGATES,
    FEW,
    Comparison,
    Interval,
    PairedDifference,
    bootstrap_interval,
    compare,
    iqm,
    paired_difference,
    simulated_coverage,
)
from offline_vi.runs.files import read_json
from offline_vi.study.published import Published, Unlike, claims, reasons
from offline_vi.study.results import Method, Run, Study
from offline_vi.study.scores import RETURN, SCORE


def runs_of(study: Study, method: Method, dataset: str | None = None) -> list[Run]:
    """The method's runs that are done, on one data set or all."""
    return [run for run in study.runs if run.done and run.method == method and dataset in (None, run.cell.dataset)]


def measure_of(study: Study, dataset: str) -> str:
    """What policies are measured by on a data set: normalized scores where a run has one, or where the data have one
    and no run has a score; else returns."""
    scores = [run.scores for run in study.runs if run.cell.dataset == dataset]
    known = {one.measure for one in scores if one.final is not None}
    return SCORE if SCORE in (known or {name for one in scores for name in one.data}) else RETURN


def finals(study: Study, method: Method, dataset: str) -> dict[int, float]:
    """The scores of the final policies: seed -> a number in the data set's measure."""
    runs, measure = runs_of(study, method, dataset), measure_of(study, dataset)
    known = {run.cell.seed: run.scores.final for run in runs if run.scores.measure == measure}
    return {seed: known[seed] for seed in sorted(known) if known[seed] is not None}  # type: ignore[misc]


def data_score(study: Study, dataset: str) -> float | None:
    """The mean over the data's own episodes, in the data set's measure; None where no run recorded it."""
    measure = measure_of(study, dataset)
    return mean_of([run.scores.data.get(measure) for run in study.runs if run.cell.dataset == dataset])


@cache
def coverage(seeds: int) -> float:
    """What the interval of one task's IQM covers at so many seeds, of normal scores."""
    return simulated_coverage([0.0], 1.0, seeds)


def published_for(study: Study, method: Method, dataset: str) -> tuple[list[Published], list[Unlike]]:
    """The published scores beside which a method's runs may stand, and those at other settings; only for a data set of
    D4RL's own under its own name and version."""
    files = study.suite.datasets[dataset]
    path = runs_of(study, method, dataset)[0].path / "config.json"
    config = read_json(path) if path.exists() else {}
    alike, unlike = list[Published](), list[Unlike]()
    for claim in claims().get((files[0], method.algorithm), []) if len(files) == 1 and not method.variant else []:
        if found := tuple(reasons(claim, config)):
            unlike.append(Unlike(dataset, method.label, claim.published, found))
        else:
            alike.append(claim.published)
    return alike, unlike


@dataclass(frozen=True)
class ScoreRow:
    """A method on a data set; None where nothing is known."""

    dataset: str
    method: Method
    seeds: int  # runs that are done
    data: float | None  # the mean over the data's own episodes
    by_return: bool  # whether the numbers below are returns, where there are no normalized scores
    per_seed: list[float]  # of the final policies
    mean: float | None
    std: float | None  # of one seed nothing is known
    iqm: Interval | None
    coverage: float | None  # what the interval covers, where seeds are few
    best: float | None  # mean of the best evaluations: chosen by looking
    mean_return: float | None
    episodes: tuple[int, int]  # of a final evaluation, at least and at most
    over_episodes: float | None  # standard error of a run's score over its episodes, root mean square over runs
    failed_episodes: int  # of the final evaluations; in no number
    ended: list[float]  # of each run the share of its episodes that the task ended, where a run says it
    published: list[Published]  # at the runs' own settings
    unlike: list[Unlike]  # at others
    seconds: float  # a run
    steps: int | None
    env_id: str
    mujoco: str
    commands: list[str]
    digits: int  # decimals of scores on the data set
    return_digits: int  # of ``mean_return``


def digits_for(values: Sequence[float | None]) -> int:
    """Decimals of returns in a table: as many as leave the largest three significant digits, at most four; at least
    one below 1,000."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if largest == 0.0:
        return 1
    return 0 if largest >= 1000.0 else min(max(2 - math.floor(math.log10(largest)), 1), 4)


def digits_on(study: Study, dataset: str) -> int:
    """Decimals of all scores on a data set: one of normalized scores; of returns, what suits the largest."""
    if measure_of(study, dataset) == SCORE:
        return 1
    runs = [run.scores for run in study.runs if run.done and run.cell.dataset == dataset]
    values = [value for one in runs for value in (one.final, one.best) if one.measure == RETURN]
    return digits_for([data_score(study, dataset), *values])


def return_digits_on(study: Study, dataset: str) -> int:
    """Decimals of the returns on a data set."""
    return digits_for([run.scores.mean_return for run in study.runs if run.done and run.cell.dataset == dataset])


SHOWN = 3  # rows, or data sets, that a note names
MANY = 8  # rows of which a note gives a number each


def episode_notes(rows: Sequence[ScoreRow]) -> list[str]:
    """What the intervals over seeds leave out: each score is a mean over a few episodes, and all runs begin these in
    the same states. Empty where no row says how many episodes it has."""
    known = [row for row in rows if row.episodes[1] > 0]
    if not known:
        return []
    low, high = min(row.episodes[0] for row in known), max(row.episodes[1] for row in known)
    count = f"{low} to {high}" if low < high else f"{low}"
    errors = {row.dataset: standard_error([one for one in known if one.dataset == row.dataset]) for row in known}
    on = {name: f" on {name}" if len({row.dataset for row in rows}) > 1 else "" for name in errors}
    typical = [f"{error}{on[name]}" for name, error in errors.items() if error]
    spread = ""
    if any(row.seeds > 1 for row in known):
        spread = " The intervals are over training seeds alone and leave the choice of these episodes out."
    notes = [
        f"Each score is a mean over {count} episode{'s' if high > 1 else ''}. Runs that are evaluated with the "
        f"same seed, by default all, begin them in the same states.{spread}"
        + (f" Typical standard error of such a mean: {', '.join(typical)}." if 0 < len(typical) <= SHOWN else "")
    ]
    ended = [f"{row.method.label}{on[row.dataset]} {shares_of(row.ended)}" for row in known if row.ended]
    if len(ended) <= MANY and any(any(row.ended) for row in known):
        seeds = ", of each seed" if any(row.seeds > 1 for row in known) else ""
        notes.append(f"Share of these episodes that the task ended before the time limit{seeds}: {'; '.join(ended)}.")
    noisy = [row for row in known if (row.over_episodes or 0.0) > (math.inf if row.std is None else row.std)]
    if noisy:
        first = [f"{row.method.label}{on[row.dataset]} ({standard_error([row])})" for row in noisy[:SHOWN]]
        others = [f"{len(noisy) - SHOWN} more"] if len(noisy) > SHOWN else []
        notes.append(
            "The standard error of a score over its episodes is larger than the standard deviation over seeds, so the "
            f"interval is too short: {', '.join([*first, *others])}. This is harmless for a difference that is much "
            "larger than both. For a smaller one, score more episodes (offline-vi evaluate RUN --episodes "
            f"{max(100, 4 * high)} for each run, then offline-vi compare --evaluations). Four times as many episodes "
            "halve this error."
        )
    return notes


def standard_error(rows: Sequence[ScoreRow]) -> str:
    """The typical standard error of a run's score over its episodes, as text; empty where it is not known."""
    error = _root_mean_square([row.over_episodes for row in rows])
    return "" if error is None else f"{error:.{rows[0].digits}f}"


def score_rows(study: Study) -> list[ScoreRow]:
    """A row per data set and method that has a run."""
    pairs = [(dataset, method) for dataset in study.suite.datasets for method in study.methods]
    return [score_row(study, method, dataset) for dataset, method in pairs if runs_of(study, method, dataset)]


def score_row(study: Study, method: Method, dataset: str) -> ScoreRow:
    """The row of a method that has a run on the data set."""
    runs, scores = runs_of(study, method, dataset), list(finals(study, method, dataset).values())
    first = runs[0].scores
    alike, unlike = published_for(study, method, dataset)
    return ScoreRow(
        dataset=dataset,
        method=method,
        seeds=len(runs),
        data=data_score(study, dataset),
        by_return=measure_of(study, dataset) == RETURN,
        per_seed=scores,
        mean=mean_of(scores),
        std=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        iqm=bootstrap_interval([scores]) if scores else None,
        coverage=coverage(len(scores)) if 1 < len(scores) < FEW else None,
        best=mean_of([run.scores.best for run in runs if run.scores.measure == measure_of(study, dataset)]),
        mean_return=mean_of([run.scores.mean_return for run in runs]),
        episodes=(min(run.scores.episodes for run in runs), max(run.scores.episodes for run in runs)),
        over_episodes=_root_mean_square([run.scores.over_episodes for run in runs]),
        failed_episodes=sum(run.scores.failed_episodes for run in runs),
        ended=[
            run.scores.ended / run.scores.episodes
            for run in runs
            if run.scores.ended is not None and run.scores.episodes
        ],
        published=alike,
        unlike=unlike,
        seconds=float(np.mean([run.seconds for run in runs])),
        steps=first.steps,
        env_id=first.env_id or "none",
        mujoco=first.mujoco,
        commands=list(dict.fromkeys(run.command for run in runs)),
        digits=digits_on(study, dataset),
        return_digits=return_digits_on(study, dataset),
    )


def _root_mean_square(values: Sequence[float | None]) -> float | None:
    squares = mean_of([None if value is None else value * value for value in values])
    return None if squares is None else math.sqrt(squares)


def comparable(study: Study) -> list[str]:
    """The data sets on which every method has a score: aggregates over others would compare different tasks. Returns
    of different tasks have no common scale; of a single data set they are compared like scores."""
    methods, datasets = study.methods, list(study.suite.datasets)
    whole = [name for name in datasets if methods and all(finals(study, method, name) for method in methods)]
    return whole if len(datasets) == 1 else [name for name in whole if measure_of(study, name) == SCORE]


def tasks(study: Study, method: Method) -> list[list[float]]:
    """The method's final scores on the comparable data sets."""
    return [list(finals(study, method, dataset).values()) for dataset in comparable(study)]


def fewest_runs(study: Study) -> int:
    """The fewest runs of a method on a comparable data set; 0 where there is none."""
    return min((len(task) for method in study.methods for task in tasks(study, method)), default=0)


@dataclass(frozen=True)
class AggregateRow:
    """A method over all comparable data sets."""

    method: Method
    aggregates: Mapping[str, Interval]  # of `AGGREGATES`
    tasks: int
    runs: int
    fewest: int  # runs on a task, at least


def aggregate_rows(study: Study) -> list[AggregateRow]:
    """Each aggregate with its interval over the comparable data sets, the best IQM first; none of returns."""
    rows = []
    scored = any(measure_of(study, dataset) == SCORE for dataset in comparable(study))
    for method in study.methods if scored else []:
        scores = tasks(study, method)
        found = {name: bootstrap_interval(scores, statistic) for name, statistic in AGGREGATES.items()}
        rows.append(AggregateRow(method, found, len(scores), sum(map(len, scores)), min(map(len, scores))))
    return sorted(rows, key=lambda row: -row.aggregates["IQM"].value)


def data_aggregates(study: Study) -> dict[str, float]:
    """Each aggregate of the data's own scores over the comparable data sets; none where one of them is not known."""
    scores = [data_score(study, dataset) for dataset in comparable(study)]
    known = [np.array([score]) for score in scores if score is not None]
    if not known or len(known) < len(scores):
        return {}
    return {name: float(statistic(known)) for name, statistic in AGGREGATES.items()}


def aggregate_coverage(study: Study) -> float | None:
    """What the aggregate IQM's interval covers at this many tasks and seeds; None where seeds are enough, or one."""
    scores, fewest = [tasks(study, method) for method in study.methods], fewest_runs(study)
    if not 1 < fewest < FEW:
        return None
    means = np.mean([[np.mean(task) for task in one] for one in scores], axis=0)
    stds = np.mean([[np.std(task, ddof=1) for task in one] for one in scores], axis=0)
    return simulated_coverage(means, np.maximum(stds, 1e-6), fewest)


class Against(NamedTuple):
    """A method against the baseline."""

    dataset: str  # empty: on all comparable data sets together
    method: Method
    baseline: Method
    found: Comparison
    fewest: int  # runs of either on a data set, at least
    digits: int  # decimals of the difference


def comparisons(study: Study) -> list[Against]:
    """Every method against the first one: on all data sets on which everybody has a score, or, where there is no such
    common ground, on each data set for itself."""
    if not study.methods:
        return []
    first, *others = study.methods
    together = comparable(study)
    groups = {"": together} if together else {dataset: [dataset] for dataset in study.suite.datasets}
    rows = [against(study, name, group, method, first) for name, group in groups.items() for method in others]
    return [row for row in rows if row is not None]


def against(study: Study, name: str, datasets: Sequence[str], method: Method, baseline: Method) -> Against | None:
    """The comparison under a name; None where one side has no run. Runs are paired where both have the same seeds."""
    ours, theirs = ([finals(study, one, dataset) for dataset in datasets] for one in (method, baseline))
    if not all([*ours, *theirs]):
        return None
    paired = [set(task) for task in ours] == [set(task) for task in theirs]
    x, y = ([list(task.values()) for task in side] for side in (ours, theirs))
    found = compare(x, y, iqm, paired=paired)
    digits = max(digits_on(study, dataset) for dataset in datasets)
    return Against(name, method, baseline, found, min(map(len, [*ours, *theirs])), digits)


class FromStarts(NamedTuple):
    """The policies of a method against those of the baseline, from the same starts."""

    dataset: str
    method: Method
    baseline: Method
    found: PairedDifference
    policies: tuple[int, int]  # of either; each start counts with their mean
    digits: int  # decimals of the difference


def from_starts(study: Study) -> list[FromStarts]:
    """Every method against the first one on each data set, over the starts that all their runs have; none where the
    scores of single episodes are not kept."""
    rows = []
    for dataset in study.suite.datasets if study.methods else []:
        first, *others = (
            (method, [run.scores.by_start for run in runs_of(study, method, dataset)]) for method in study.methods
        )
        for method, ours in others:
            baseline, theirs = first
            starts = sorted(set.intersection(*map(set, [*ours, *theirs]))) if ours and theirs else []
            if len(starts) > 1:
                x, y = (np.mean([[run[start] for start in starts] for run in side], axis=0) for side in (ours, theirs))
                policies = (len(ours), len(theirs))
                digits = digits_on(study, dataset)
                rows.append(FromStarts(dataset, method, baseline, paired_difference(x, y), policies, digits))
    return rows


HELD_OUT = ("elbo", "iwae_64", "truth", "gap")


@dataclass(frozen=True)
class DensityRow:
    """A shared behavior model on a data set, mean over seeds: nats per action on held-out episodes."""

    dataset: str
    model: str
    seeds: int
    steps: int | None
    seconds: float | None
    held_out: Mapping[str, float | None]  # of `HELD_OUT`


def density_rows(study: Study) -> list[DensityRow]:
    """A row per data set and shared behavior model."""
    rows = []
    for dataset, model in dict.fromkeys((one.dataset, one.model) for one in study.models):
        group = [one for one in study.models if (one.dataset, one.model) == (dataset, model)]
        held_out = {name: mean_of([one.held_out.get(name) for one in group]) for name in HELD_OUT}
        seconds = mean_of([one.seconds for one in group])
        rows.append(DensityRow(dataset, model, len(group), group[0].steps, seconds, held_out))
    return rows


@dataclass(frozen=True)
class SupportRow:
    """Where a method's final policies leave the data, and what their critics believe, mean over seeds."""

    dataset: str
    method: Method
    seeds: int
    digits: int  # decimals of the last two
    outside: float | None  # share of actions
    log_prob: float | None  # of the policy's actions, nats
    data_log_prob: float | None  # of the data's actions, nats
    q_start: float | None
    q_return: float | None  # the discounted return that followed


def support_rows(study: Study) -> list[SupportRow]:
    """A row per data set and method that has a run."""
    rows = []
    names = ("support/outside", "support/log_prob", "support/data_log_prob", "q/start", "q/return")
    for dataset in study.suite.datasets:
        here = {method: [run.scores.diagnostics for run in runs_of(study, method, dataset)] for method in study.methods}
        values = [one.get(name) for found in here.values() for one in found for name in ("q/start", "q/return")]
        for method, found in here.items():
            if found:
                means = [mean_of([one.get(name) for one in found]) for name in names]
                rows.append(SupportRow(dataset, method, len(found), digits_for(values), *means))
    return rows


def shares_of(ended: Sequence[float]) -> str:
    """The shares of the episodes of several runs, for a sentence: each of a few, or from the least to the most."""
    several = [share_of(one) for one in sorted(ended)]
    if len(set(several)) == 1:
        return several[0]
    return ", ".join(map(share_of, ended)) if len(ended) <= SHOWN else f"{several[0]} to {several[-1]}"


def share_of(ended: float) -> str:
    """A share of the episodes, for a sentence."""
    return "< 1 %" if 0.0 < ended < 0.005 else f"{100.0 * ended:.0f} %"


def mean_of(values: Sequence[float | None]) -> float | None:
    """Over those that are known."""
    known = [float(value) for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


class Curve(NamedTuple):
    """IQM over seeds at each evaluation, with its interval."""

    method: Method
    steps: list[int]
    points: list[Interval]
    seeds: int


def score_curve(run: Run) -> Mapping[int, float]:
    """Step -> mean normalized score; empty where there are none."""
    return run.scores.curve if run.scores.measure == SCORE else {}


def return_curve(run: Run) -> Mapping[int, float]:
    """Step -> mean return."""
    return run.returns


def learning_curves(study: Study, dataset: str, curve_of: Callable[[Run], Mapping[int, float]]) -> list[Curve]:
    """The curve of each method on a data set; ``curve_of`` is `score_curve` or `return_curve`."""
    found = []
    for method in study.methods:
        scores = [curve_of(run) for run in runs_of(study, method, dataset) if curve_of(run)]
        steps = sorted(set.intersection(*map(set, scores))) if scores else []
        if steps:
            points = [bootstrap_interval([[curve[step] for curve in scores]], resamples=2_000) for step in steps]
            found.append(Curve(method, steps, points, len(scores)))
    return found
