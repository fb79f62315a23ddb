"""A static data set in memory, its normalisation, and the sources of batches.

Two flags stay apart from the file to the target: ``terminated`` (do not bootstrap) and ``episode_end`` (the next row
belongs to another episode, whatever the reason).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline_vi.errors import EmptyDatasetError, SpaceMismatchError
from offline_vi.types import Batch, BoolArray, FloatArray, Spec, Task


@dataclass(frozen=True)
class Provenance:
    """Where rows came from: enough to say in a result which data it stands on."""

    name: str  # data set name or file stem
    paths: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()  # of each file
    rows: str = "d4rl"  # "d4rl" (rows of d4rl.qlearning_dataset) or "strict"


@dataclass(frozen=True)
class Transitions:
    """R transitions in the order in which they were collected.

    ``next_obs[i]`` is the observation that followed ``action[i]``; on terminal rows in "d4rl" mode it is, as in D4RL,
    the first observation of the next episode (masked by ``terminated``).
    """

    obs: FloatArray  # (R, O)
    action: FloatArray  # (R, A), in [-1, 1]
    reward: FloatArray  # (R,)
    next_obs: FloatArray  # (R, O)
    terminated: BoolArray  # (R,)
    episode_end: BoolArray  # (R,)
    spec: Spec
    task: Task | None = None
    behavior_log_prob: FloatArray | None = None  # (R,) true log pi_beta(a|s) in nats, of library actions in [-1, 1]
    source: Provenance = field(default_factory=lambda: Provenance("arrays"))

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise EmptyDatasetError(f"{self.source.name}: no transition is left", "check the file with `data check`")

    def __len__(self) -> int:
        return len(self.reward)

    def episode_slices(self) -> list[slice]:
        """One slice of rows per episode; a trailing unfinished episode counts as one."""
        ends = np.flatnonzero(self.episode_end) + 1
        if len(ends) == 0 or ends[-1] != len(self):
            ends = np.append(ends, len(self))
        starts = np.concatenate([[0], ends[:-1]])
        return [slice(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]

    def episode_returns(self) -> NDArray[np.float64]:
        """Undiscounted sum of rewards of each episode (rows that the row mode drops are not in the sum)."""
        return np.array([self.reward[rows].sum(dtype=np.float64) for rows in self.episode_slices()])

    def select(self, rows: NDArray[np.int64] | slice) -> Transitions:
        """The given rows, in the given order, with everything else kept."""
        log_prob = None if self.behavior_log_prob is None else self.behavior_log_prob[rows]
        return replace(
            self,
            obs=self.obs[rows],
            action=self.action[rows],
            reward=self.reward[rows],
            next_obs=self.next_obs[rows],
            terminated=self.terminated[rows],
            episode_end=self.episode_end[rows],
            behavior_log_prob=log_prob,
        )

    def split_episodes(self, held_out: float = 0.1) -> tuple[Transitions, Transitions]:
        """(training, held-out): the last ``held_out`` share of the episodes, at least one of each.

        Raises EmptyDatasetError where there are fewer than two episodes.
        """
        episodes = self.episode_slices()
        if len(episodes) < 2:
            raise EmptyDatasetError(f"{self.source.name}: one episode cannot be split", "give a data set with more")
        count = min(max(round(held_out * len(episodes)), 1), len(episodes) - 1)
        border = episodes[-count].start
        return self.select(slice(0, border)), self.select(slice(border, len(self)))


def concatenate(parts: Sequence[Transitions]) -> Transitions:
    """Join data sets that were each read alone: episodes never run across.

    Raises SpaceMismatchError where shapes differ.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part in parts[1:]:
        if part.spec != first.spec:
            raise SpaceMismatchError(
                f"{part.source.name} has {part.spec.obs_shape} observations and {part.spec.action_dim}-d actions, "
                f"{first.source.name} has {first.spec.obs_shape} and {first.spec.action_dim}",
                "join only data sets of one task",
            )
        if (part.task is None) != (first.task is None) or (
            part.task is not None
            and first.task is not None
            and (part.task.action_low, part.task.action_high) != (first.task.action_low, first.task.action_high)
        ):
            raise SpaceMismatchError(
                f"{part.source.name} and {first.source.name} scale their actions differently",
                "join only data sets of one task, with --action-range error or clip",
            )
    episode_end = [part.episode_end.copy() for part in parts]
    for flags in episode_end:
        flags[-1] = True
    log_probs = [part.behavior_log_prob for part in parts if part.behavior_log_prob is not None]
    return replace(
        first,
        obs=np.concatenate([part.obs for part in parts]),
        action=np.concatenate([part.action for part in parts]),
        reward=np.concatenate([part.reward for part in parts]),
        next_obs=np.concatenate([part.next_obs for part in parts]),
        terminated=np.concatenate([part.terminated for part in parts]),
        episode_end=np.concatenate(episode_end),
        behavior_log_prob=np.concatenate(log_probs) if len(log_probs) == len(parts) else None,
        source=Provenance(
            "+".join(part.source.name for part in parts),
            tuple(path for part in parts for path in part.source.paths),
            tuple(digest for part in parts for digest in part.source.sha256),
            first.source.rows,
        ),
    )


class Normalizer(nn.Module):
    """(x - mean) / std with statistics kept as buffers, so that they are saved with whoever owns it.

    The standard deviation has a floor of 1e-3 (as in CORL), so that constant features stay finite.
    """

    mean: Tensor  # (O,)
    std: Tensor  # (O,)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, values: FloatArray) -> Normalizer:
        """Take mean and standard deviation over the rows of ``values`` (R, O); returns self."""
        self.mean.copy_(torch.from_numpy(values.mean(0, dtype=np.float64)))
        self.std.copy_(torch.from_numpy(np.maximum(values.std(0, dtype=np.float64), 1e-3)))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Source(Protocol):
    """What a training loop draws batches from. Its state makes the next batches reproducible."""

    def sample(self) -> Batch: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class Sampler:
    """Uniform batches with replacement from rows that lie on the device; owns its random stream."""

    def __init__(
        self,
        transitions: Transitions,
        batch_size: int,
        seed: int | np.random.SeedSequence = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.batch_size = batch_size
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.device = torch.device(device)
        self.rows = len(transitions)
        self._columns = tuple(
            torch.from_numpy(np.ascontiguousarray(column)).to(self.device)
            for column in (
                transitions.obs,
                transitions.action,
                transitions.reward,
                transitions.next_obs,
                transitions.terminated.astype(np.float32),
            )
        )

    def sample(self) -> Batch:
        """The next batch."""
        index = torch.from_numpy(self.rng.integers(self.rows, size=self.batch_size)).to(self.device)
        obs, action, reward, next_obs, terminated = (column.index_select(0, index) for column in self._columns)
        return Batch(obs, action, reward, next_obs, terminated, index)

    def state(self) -> dict[str, Any]:
        """JSON-ready state of the random stream."""
        return {"rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]
