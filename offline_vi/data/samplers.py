"""Sources of batches: random rows of a data set, uniform or in proportion to their weights, with rewards or returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.data.transitions import Transitions
from offline_vi.types import Batch

Draw = Callable[[np.random.Generator, int], NDArray[np.int64]]
"""(stream, B) -> (B,) row numbers."""


class Source(Protocol):
    """What a training loop draws batches from. Its state makes the next batches reproducible."""

    def sample(self) -> Batch: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class Sampler:
    """Batches with replacement from rows that lie on the device, drawn in proportion to `Transitions.weight`; owns its
    random stream."""

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
        self.rows, self.draw = len(transitions), drawing(transitions)
        self._columns = columns_on(transitions, self.device)

    def sample(self) -> Batch:
        """The next batch."""
        return self.rows_of(torch.from_numpy(self.numbers()).to(self.device))

    def numbers(self) -> NDArray[np.int64]:
        """The rows of the next batch, (B,)."""
        return self.draw(self.rng, self.batch_size)

    def rows_of(self, index: Tensor) -> Batch:
        """The batch of these rows, (B,) on the device."""
        obs, action, reward, next_obs, terminated = (column.index_select(0, index) for column in self._columns)
        return Batch(obs, action, reward, next_obs, terminated, index)

    def state(self) -> dict[str, Any]:
        """JSON-ready state of the random stream."""
        return {"rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]


class StackedSampler:
    """Batches (S, B, ...) for S seeds side by side, each from a random stream of its own: seed s meets the rows that a
    `Sampler` with its stream would show it."""

    def __init__(
        self,
        transitions: Transitions,
        batch_size: int,
        seeds: Sequence[int | np.random.SeedSequence],
        device: str | torch.device = "cpu",
    ) -> None:
        self.batch_size = batch_size
        self.rngs = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self.device = torch.device(device)
        self.rows, self.draw = len(transitions), drawing(transitions)
        self._columns = columns_on(transitions, self.device)

    def sample(self) -> Batch:
        """The next batch."""
        return self.rows_of(torch.from_numpy(self.numbers()).to(self.device))

    def numbers(self) -> NDArray[np.int64]:
        """The rows of the next batch, (S, B)."""
        return np.stack([self.draw(rng, self.batch_size) for rng in self.rngs])

    def rows_of(self, index: Tensor) -> Batch:
        """The batch of these rows, (S, B) on the device."""
        rows = (column.index_select(0, index.flatten()) for column in self._columns)
        obs, action, reward, next_obs, terminated = (column.unflatten(0, index.shape) for column in rows)
        return Batch(obs, action, reward, next_obs, terminated, index)

    def state(self) -> dict[str, Any]:
        """JSON-ready state of the random streams."""
        return {"rngs": [rng.bit_generator.state for rng in self.rngs]}

    def load_state(self, state: dict[str, Any]) -> None:
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved


def drawing(transitions: Transitions) -> Draw:
    """How row numbers are drawn: all rows alike, or in proportion to their weights, by inverting the distribution."""
    rows, weight = len(transitions), transitions.weight
    if weight is None:
        return lambda rng, size: rng.integers(rows, size=size)
    kept = np.flatnonzero(weight)
    upper = np.cumsum(weight[kept])
    return lambda rng, size: kept[np.searchsorted(upper[:-1], rng.random(size) * upper[-1], side="right")]


def columns_on(transitions: Transitions, device: torch.device) -> tuple[Tensor, ...]:
    """obs, action, reward, next_obs and terminated (as 1.0) of all rows, on the device. With `Transitions.returns` each
    row ends with its return for a reward."""
    reward, terminated = transitions.reward, transitions.terminated.astype(np.float32)
    if transitions.returns is not None:
        reward, terminated = transitions.returns, np.ones_like(terminated)
    columns = (transitions.obs, transitions.action, reward, transitions.next_obs, terminated)
    return tuple(torch.from_numpy(np.ascontiguousarray(column)).to(device) for column in columns)
