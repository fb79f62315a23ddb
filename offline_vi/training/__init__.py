"""Training loops, and what they need: metrics, progress, random streams, experience."""

from __future__ import annotations

from offline_vi.training.behavior import BehaviorFit as BehaviorFit, fit_behavior as fit_behavior
from offline_vi.training.best_steps import (
    BestSteps as BestSteps,
    BestStepsConfig as BestStepsConfig,
    Worthwhile as Worthwhile,
    fit_gains as fit_gains,
    improving_rows as improving_rows,
    worthwhile_rows as worthwhile_rows,
)
from offline_vi.training.collector import (
    Blended as Blended,
    Collection as Collection,
    Collector as Collector,
    Experience as Experience,
)
from offline_vi.training.critic_start import start_critics as start_critics
from offline_vi.training.loop import (
    Loop as Loop,
    LoopOptions as LoopOptions,
    OnEval as OnEval,
    fit as fit,
    train as train,
)
from offline_vi.training.metrics import History as History, IntervalMean as IntervalMean, over_seeds as over_seeds
from offline_vi.training.online import (
    OnlineOptions as OnlineOptions,
    collecting as collecting,
    fit_online as fit_online,
    split as split,
)
from offline_vi.training.progress import Progress as Progress, clock as clock
from offline_vi.training.randomness import (
    own_random_state as own_random_state,
    random_state as random_state,
    seeded as seeded,
    seeds as seeds,
    set_random_state as set_random_state,
    set_seed as set_seed,
    torch_seed as torch_seed,
)
from offline_vi.training.trajectory_values import (
    TrajectoryValues as TrajectoryValues,
    TrajectoryValuesConfig as TrajectoryValuesConfig,
    fit_advantages as fit_advantages,
    fit_returns as fit_returns,
    fit_values as fit_values,
)
