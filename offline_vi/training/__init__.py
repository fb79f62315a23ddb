"""Training loops, and what they need: metrics, progress, random streams, experience."""

from __future__ import annotations

from offline_vi.training.collector import Blended as Blended, Collector as Collector, Experience as Experience
from offline_vi.training.loop import (
    OnEval as OnEval,
    fit as fit,
    fit_behavior as fit_behavior,
    fit_online as fit_online,
)
from offline_vi.training.metrics import History as History, IntervalMean as IntervalMean, over_seeds as over_seeds
from offline_vi.training.progress import Progress as Progress
from offline_vi.training.randomness import (
    own_random_state as own_random_state,
    random_state as random_state,
    seeds as seeds,
    set_random_state as set_random_state,
    set_seed as set_seed,
    torch_seed as torch_seed,
)
