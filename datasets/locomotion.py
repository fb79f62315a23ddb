"""D4RL's recipe on today's simulator: random, medium, medium-replay, medium-expert, expert, with nothing to download.

The policies are the library's own SAC, kept on the way (`offline-vi train-online sac --env Hopper-v5 --keep-policies`)
as behavior models of the family "gaussian", so that the log-probabilities in a data set are `log_prob` of the very
model that acted. "medium" returns about a third of "expert"; "medium-replay" is collected by ten policies from the
first steps to medium, equally many rows each; "random" is uniform. Scores are on D4RL's scale.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.behavior import DensityModel
from offline_vi.behavior.pretrained import load_behavior
from offline_vi.datasets import environment
from offline_vi.datasets.minari import folder_of
from offline_vi.datasets.recipes import specified, write
from offline_vi.datasets.tasks import ROBOTS
from offline_vi.environments import make_env
from offline_vi.errors import UsageError
from offline_vi.types import Task

POLICIES = Path(__file__).parent / "policies"
SLOTS = 20  # environments in lock-step
ROWS = 200_000
REPLAY = tuple(f"replay-{number}" for number in range(10))
LEVELS: dict[str, tuple[str, ...]] = {  # each policy collects equally many rows, one after the other
    "random": ("",),
    "medium": ("medium",),
    "medium-replay": REPLAY,
    "medium-expert": ("medium", "expert"),
    "expert": ("expert",),
}


class Uniform:
    """Every action alike: log pi = -A log 2."""

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        """(B, O) -> (N, B, A)."""
        return torch.rand(num_samples, len(obs), self.action_dim) * 2.0 - 1.0

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 1) -> Tensor:
        """(B,) nats."""
        return torch.full((len(obs),), -self.action_dim * float(np.log(2.0)))


def policy_of(robot: str, name: str, action_dim: int) -> DensityModel | Uniform:
    """The policy of that name; the empty name is the uniform one."""
    if not name:
        return Uniform(action_dim)
    model = load_behavior(POLICIES / robot / name)
    assert isinstance(model, DensityModel)
    return model.eval()


@dataclass
class Slot:
    """One environment's running episode."""

    env: Any
    seed: int
    obs: list[NDArray[Any]]
    action: list[NDArray[Any]]
    reward: list[float]
    log_prob: list[float]

    def buffer(self, terminated: bool, truncated: bool) -> EpisodeBuffer:
        steps = len(self.reward)
        return EpisodeBuffer(
            seed=self.seed,
            observations=self.obs,
            actions=self.action,
            rewards=self.reward,
            terminations=[False] * (steps - 1) + [terminated],
            truncations=[False] * (steps - 1) + [truncated],
            infos={"action_log_probs": np.array([*self.log_prob, 0.0])},  # Minari's infos have T + 1 rows
        )


def begin(env: Any, seed: int) -> Slot:
    return Slot(env, seed, [env.reset(seed=seed)[0]], [], [], [])


@torch.no_grad()
def roll_out(policy: DensityModel | Uniform, task: Task, rows: int, seed: int) -> list[EpisodeBuffer]:
    """``rows`` transitions, ``rows / SLOTS`` in each of the environments, the last episode of each cut; in the order of
    the environments."""
    draw = np.random.default_rng(seed)

    def fresh() -> int:
        return int(draw.integers(2**31))

    slots = [begin(make_env(task), fresh()) for _ in range(SLOTS)]
    done: list[list[EpisodeBuffer]] = [[] for _ in slots]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(rows // SLOTS):
            obs = torch.from_numpy(np.stack([slot.obs[-1] for slot in slots]).astype(np.float32))
            action = policy.sample(obs)[0]
            log_prob = policy.log_prob(obs, action).double() + task.log_jacobian
            commands = task.to_env(action.numpy())
            for place, slot in enumerate(slots):
                seen, reward, terminated, truncated, _ = slot.env.step(commands[place])
                slot.obs.append(seen)
                slot.action.append(commands[place])
                slot.reward.append(float(reward))
                slot.log_prob.append(float(log_prob[place]))
                last = step == rows // SLOTS - 1
                if terminated or truncated or last:
                    done[place].append(slot.buffer(bool(terminated), not terminated))
                    slots[place] = begin(slot.env, fresh())
    for slot in slots:
        slot.env.close()
    return [episode for episodes in done for episode in episodes]


def collect(name: str, rows: int = ROWS, seed: int = 0) -> Path:
    """Make a recipe's data set in Minari's root, whole or not at all; returns its folder. Same seed, same data."""
    robot, level = name.removesuffix("-v0").split("/")[1:]
    task = environment(ROBOTS[robot])
    policies = LEVELS[level]
    if rows < 1 or rows % (SLOTS * len(policies)):
        raise UsageError(f"{rows} rows", f"{name} is made of multiples of {SLOTS * len(policies)}")
    print(f"collecting {name} ({rows:,} steps of {task.env_id}) into {folder_of(name)}", file=sys.stderr)
    episodes = list(_numbered(robot, policies, task, rows, seed))
    assert task.ref_min is not None
    assert task.ref_max is not None
    return write(
        name, episodes, specified(task), task.ref_min, task.ref_max, f"{__doc__}\nPolicies: {', '.join(policies)}"
    )


def _numbered(robot: str, policies: tuple[str, ...], task: Task, rows: int, seed: int) -> Iterator[EpisodeBuffer]:
    numbers = itertools.count()
    for stage, name in enumerate(policies):
        policy = policy_of(robot, name, len(task.action_low))
        stage_seed = int(np.random.SeedSequence([seed, stage]).generate_state(1)[0] >> 1)
        for episode in roll_out(policy, task, rows // len(policies), stage_seed):
            yield replace(episode, id=next(numbers))
