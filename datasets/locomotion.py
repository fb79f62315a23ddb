"""D4RL's recipe on today's simulator: random, medium, medium-replay, medium-expert, expert, with nothing to download.

The policies are the library's own SAC, kept on the way (`offline-vi train-online sac --env Hopper-v5 --keep-policies`)
as behavior models of the family "gaussian", so that the log-probabilities in a data set are `log_prob` of the very
model that acted. "medium" returns about a third of "expert"; "medium-replay" is collected by the policies from the
first steps to medium, equally many rows each; "random" is uniform. Scores are on D4RL's scale.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
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


def stages(version: str, robot: str, level: str) -> list[str]:
    """The names of the policies of a data set. Each collects equally many rows, one after the other."""
    if level != "medium-replay":
        return level.split("-")
    kept = (POLICIES / version / robot).glob("replay-*")
    return sorted((folder.name for folder in kept), key=lambda name: int(name.removeprefix("replay-")))


def policy_of(version: str, robot: str, name: str, action_dim: int) -> DensityModel | Uniform:
    """The policy of that name; "random" is the uniform one."""
    if name == "random":
        return Uniform(action_dim)
    model = load_behavior(POLICIES / version / robot / name)
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
    robot, level, version = parts(name)
    task = environment(ROBOTS[robot])
    names = stages(version, robot, level)
    if rows < 1 or rows % (SLOTS * len(names)):
        raise UsageError(f"{rows} rows", f"{name} is made of multiples of {SLOTS * len(names)}")
    print(f"collecting {name} ({rows:,} steps of {task.env_id}) into {folder_of(name)}", file=sys.stderr)
    policies = [policy_of(version, robot, stage, len(task.action_low)) for stage in names]
    episodes = list(_numbered(policies, task, rows, seed))
    assert task.ref_min is not None
    assert task.ref_max is not None
    return write(
        name, episodes, specified(task), task.ref_min, task.ref_max, f"{__doc__}\nPolicies: {', '.join(names)}"
    )


def parts(name: str) -> tuple[str, str, str]:
    """``offline-vi/hopper/medium-replay-v0`` -> ("hopper", "medium-replay", "v0")."""
    _, robot, recipe = name.split("/")
    level, _, version = recipe.rpartition("-")
    return robot, level, version


def _numbered(policies: Sequence[DensityModel | Uniform], task: Task, rows: int, seed: int) -> Iterator[EpisodeBuffer]:
    numbers = itertools.count()
    for stage, policy in enumerate(policies):
        stage_seed = int(np.random.SeedSequence([seed, stage]).generate_state(1)[0] >> 1)
        for episode in roll_out(policy, task, rows // len(policies), stage_seed):
            yield replace(episode, id=next(numbers))
