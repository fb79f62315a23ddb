"""Which rows an experiment draws its batches from, as flags; what a rule needs is fitted ahead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from offline_vi.console import standard_error
from offline_vi.data.transitions import Transitions
from offline_vi.data.weights import Advantages, Best, Returns, Rule, agreeing_share
from offline_vi.errors import CheckpointCorruptError
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.tensors import load_tensors, save_tensors
from offline_vi.study.ahead import fitted_ahead
from offline_vi.study.run import Record, RunOptions
from offline_vi.training.best_steps import BestStepsConfig, fit_gains, improving_rows, worthwhile_rows
from offline_vi.training.loop import LoopOptions
from offline_vi.training.trajectory_values import TrajectoryValuesConfig, fit_advantages

FITTED = "rows.safetensors"  # a number for each row, when what it is made of is fitted
VALUES, GAINS = "values", "advantages of the steps"  # what is fitted, for people


@dataclass(frozen=True)
class WeightOptions:
    """Which rows count, and how much."""

    episode_weights: Literal["all", "best", "returns", "advantages", "improving", "worthwhile"] = "all"
    """How often batches draw each row. all: every row alike; best: only rows of the episodes with the highest returns;
    returns: by a softmax of the episode's return; advantages: by a softmax of how far that return exceeds a linear
    prediction from the first observation; improving: only the best steps in each state, among the best episodes, by
    values that are fitted first; worthwhile: every row of the best episodes if their returns agree, else the improving
    ones."""
    best_share: float = 0.25
    """best, improving, worthwhile: share of all rows that the best episodes hold at least."""
    best_steps: float = 0.3
    """improving, worthwhile: share of the steps of each state that count as its best."""
    weight_alpha: float = 0.1
    """returns, advantages: temperature of the softmax, whose arguments are scaled to [0, 1]."""
    value_steps: int = 4_000
    """improving, worthwhile: gradient steps of the value networks; the networks that predict advantages take as many
    again."""
    value_discount: float = 0.997
    """improving, worthwhile: discount of the values."""

    def recorded(self) -> Record:
        """What config.json says about the weights: nothing where all rows count alike."""
        return {"weights": self.rule()} if self.rule() else {}

    def rule(self) -> Record:
        """The name and the settings of the rule; empty where all rows count alike."""
        own = asdict(self)
        parts = {
            "all": (),
            "best": ("best_share",),
            "returns": ("weight_alpha",),
            "advantages": ("weight_alpha",),
            "improving": ("best_share", "best_steps", "value_steps", "value_discount"),
            "worthwhile": ("best_share", "best_steps", "value_steps", "value_discount"),
        }[self.episode_weights]
        return {"rule": self.episode_weights, **{name: own[name] for name in parts}} if parts else {}


def with_weights(data: Transitions, options: WeightOptions, run: RunDirectory, own: RunOptions) -> Transitions:
    """The data with the weights that the options ask for; what has to be fitted for them is a run within
    ``run``, which goes on where it was cut. Raises ConfigError for numbers out of range, and what `fit` raises."""
    if options.episode_weights == "all":
        return data
    share = options.best_share
    rules: dict[str, Rule] = {
        "best": Best(share),
        "returns": Returns(options.weight_alpha),
        "advantages": Advantages(options.weight_alpha),
        "improving": lambda data: improving_rows(data, gains(data, options, run, own), share),
        "worthwhile": lambda data: worthwhile_rows(data, lambda: gains(data, options, run, own), share),
    }
    weights = rules[options.episode_weights](data)
    if not own.quiet:
        drawn = np.count_nonzero(weights)
        print(f"batches are drawn from {drawn:,} of {len(data):,} rows", file=standard_error())
    return data.with_weights(weights, options.rule())


def gains(data: Transitions, options: WeightOptions, run: RunDirectory, own: RunOptions) -> NDArray[np.float64]:
    """(R,) gains of the rows by `BestSteps`, fitted to their advantages by `TrajectoryValues`; each in a run within
    ``run``."""
    steps = options.value_steps
    values = TrajectoryValuesConfig(discount=options.value_discount, steps=steps, refresh=max(steps // 5, 1))
    config = BestStepsConfig(kept=options.best_steps, steps=steps)
    rows = len(data)
    advantages = fitted(rows, run.inner("values"), own, VALUES, lambda loop: fit_advantages(data, values, **loop))
    return fitted(rows, run.inner("best-steps"), own, GAINS, lambda loop: fit_gains(data, advantages, config, **loop))


def fits_gains(data: Transitions, options: WeightOptions) -> bool:
    """Whether `gains` are fitted for the weights."""
    if options.episode_weights == "worthwhile":
        return not agreeing_share(data)
    return options.episode_weights == "improving"


def fitted(
    rows: int, path: Path, run: RunOptions, what: str, fit: Callable[[LoopOptions], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """(R,) what is fitted in the run ``path``, which goes on where it was cut, or read from it. Raises
    CheckpointCorruptError where what is read is not one finite number for each row."""
    if not (path / FITTED).is_file():
        with fitted_ahead(path, run, what) as loop:
            found = fit(loop)
        save_tensors(path / FITTED, {"rows": torch.from_numpy(found)})
    saved = load_tensors(path / FITTED).get("rows", torch.empty(0))
    if saved.shape != (rows,) or not saved.isfinite().all():
        raise CheckpointCorruptError(f"{path / FITTED} does not hold a number for each of {rows:,} rows", "remove it")
    return np.asarray(saved.double().numpy())
