"""Which rows an experiment draws its batches from, as flags; values are fitted ahead where the rule needs them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from offline_vi.data.transitions import Transitions
from offline_vi.data.weights import Advantages, Best, Returns, Rule
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.tensors import load_tensors, save_tensors
from offline_vi.study.run import Record, RunOptions
from offline_vi.training.trajectory_values import TrajectoryValuesConfig, fit_advantages, improving_rows

ADVANTAGES = "advantages.safetensors"  # of the rows, when their values are fitted


@dataclass(frozen=True)
class WeightOptions:
    """Which rows count, and how much."""

    episode_weights: Literal["all", "best", "returns", "advantages", "improving"] = "all"
    """Rows that batches are drawn from. all: alike; best: those of the best episodes by return; returns: all, by a
    softmax of their episode's return; advantages: by a softmax of that return above a linear prediction from the first
    observation; improving: of the best episodes, the steps that went better than expected, by values fitted ahead."""
    best_share: float = 0.25
    """best, improving: share of all rows that the best episodes hold at least."""
    weight_alpha: float = 0.1
    """returns, advantages: temperature of the softmax, whose arguments are scaled to [0, 1]."""
    value_steps: int = 4_000
    """improving: gradient steps of the values."""
    value_discount: float = 0.997
    """improving: discount of the values."""

    def recorded(self) -> Record:
        """For what config.json says of the data: nothing where all rows count alike."""
        return {"weights": self.rule()} if self.rule() else {}

    def rule(self) -> Record:
        """The name and the settings of the rule; empty where all rows count alike."""
        own = asdict(self)
        parts = {
            "all": (),
            "best": ("best_share",),
            "returns": ("weight_alpha",),
            "advantages": ("weight_alpha",),
            "improving": ("best_share", "value_steps", "value_discount"),
        }[self.episode_weights]
        return {"rule": self.episode_weights, **{name: own[name] for name in parts}} if parts else {}


def with_weights(data: Transitions, options: WeightOptions, path: Path, run: RunOptions) -> Transitions:
    """The data with the weights that the options ask for; what has to be fitted for them is a run in ``path``, which
    goes on where it was cut. Raises ConfigError for numbers out of range, and what `fit` raises."""
    if options.episode_weights == "all":
        return data
    rules: dict[str, Rule] = {
        "best": Best(options.best_share),
        "returns": Returns(options.weight_alpha),
        "advantages": Advantages(options.weight_alpha),
        "improving": lambda data: improving_rows(data, fitted(data, options, path, run), options.best_share),
    }
    return data.with_weights(rules[options.episode_weights](data), options.rule())


def fitted(data: Transitions, options: WeightOptions, path: Path, run: RunOptions) -> NDArray[np.float64]:
    """(R,) advantages of the rows by `TrajectoryValues`, fitted in the run ``path`` or read from it."""
    if (path / ADVANTAGES).is_file():
        return np.asarray(load_tensors(path / ADVANTAGES)["advantages"].numpy())
    steps = options.value_steps
    config = TrajectoryValuesConfig(discount=options.value_discount, steps=steps, refresh=max(steps // 5, 1))
    with RunDirectory.resume(path) if path.is_dir() else RunDirectory.create(path) as directory:
        advantages = fit_advantages(
            data,
            config,
            seed=run.seed,
            device=run.torch_device(),
            log_every=run.log_every,
            run=directory,
            save_every=run.save_every,
            resume=directory.has_checkpoint(),
            progress=not run.quiet,
        )
    save_tensors(path / ADVANTAGES, {"advantages": torch.from_numpy(advantages)})
    return advantages
