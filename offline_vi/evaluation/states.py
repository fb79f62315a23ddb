"""Fit the density of a data set's states, by which a guarded policy knows the states that are unlike them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offline_vi.behavior.pretrained import CARD, load_recorded, save_recorded
from offline_vi.data.samplers import Sampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError
from offline_vi.nn.description import describe
from offline_vi.nn.optim import adam, cosine_, gradient_step
from offline_vi.rl.states import KnownStates, KnownStatesConfig
from offline_vi.stopping import obey

STEPS = 5_000


@dataclass(frozen=True)
class StateGuardFit:
    """A density of states, and how often it raises a false alarm."""

    states: KnownStates  # the density, with its quantiles
    rows: int  # states that it was fitted to
    calibration_rows: int  # of other episodes, which gave the quantiles
    false_alarms: dict[float, float]  # level -> share of states of yet other episodes that it calls unknown
    episodes: int  # of these

    def to_json(self) -> dict[str, Any]:
        alarms = {str(level): share for level, share in self.false_alarms.items()}
        counts = {"rows": self.rows, "calibration_rows": self.calibration_rows, "episodes": self.episodes}
        return {"false_alarms": alarms, **counts}


def fit_states(
    data: Transitions,
    steps: int = STEPS,
    *,
    held_out: float = 0.3,
    seed: int = 0,
    config: KnownStatesConfig | None = None,
) -> StateGuardFit:
    """Fit `KnownStates` to the states of a data set for ``steps`` gradient steps (default 5,000) with Adam, whose rate
    falls to 0 as half a cosine.

    The share ``held_out`` of the episodes is not fitted to: two thirds of them give the quantiles, the others tell how
    often states like those of the data are called unknown. Raises what `Transitions.split_episodes` raises.
    """
    fitted, others = data.split_episodes(held_out)
    test, calibration = others.split_episodes(2.0 / 3.0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        states = KnownStates(data.spec, config)
        states.inputs.fit(fitted.obs)
        optimizer = adam(states.parameters(), states.config.lr)
        sampler = Sampler(fitted, states.config.batch_size, seed)
        for _ in range(steps):
            obey()
            cosine_(optimizer, states.config.lr, steps)
            gradient_step(optimizer, states.loss(sampler.sample().obs)[0])
    states.eval().requires_grad_(False).calibrate(torch.from_numpy(calibration.obs))
    alarms = {level: share_unknown(states, torch.from_numpy(test.obs), level) for level in KnownStates.LEVELS}
    return StateGuardFit(states, len(fitted), len(calibration), alarms, int(test.episode_end.sum()))


@torch.no_grad()
def share_unknown(states: KnownStates, obs: Tensor, level: float) -> float:
    """The share of states (R, O) that are unknown at a level; what is not finite is unknown."""
    return float((~(states.score(obs) >= states.threshold(level))).double().mean())


def save_states(fit: StateGuardFit, directory: str | Path) -> Path:
    """Keep a density of states as a directory, like `save_behavior`; an older one there is replaced."""
    save_recorded(fit.states, Path(directory), describe(fit.states), **fit.to_json())
    return Path(directory)


def load_states(directory: str | Path) -> KnownStates:
    """The density of states in a directory, in evaluation mode and frozen. Raises ConfigError where there is none, and
    what `load_behavior` raises."""
    if not (Path(directory) / CARD).is_file():
        raise ConfigError(
            f"there is no density of states in {directory}", "`save_states(fit_states(...), directory)` writes one"
        )
    return load_recorded(directory, KnownStates)
