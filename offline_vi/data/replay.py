"""A replay buffer: transitions that an online run collects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offline_vi.data.transitions import Provenance, Transitions
from offline_vi.errors import (
    CheckpointCorruptError,
)
from offline_vi.types import Batch, Spec, Task


class Replay:
    """Transitions that an online run collects: uniform batches from them, and themselves as a `Transitions`.

    Rows lie on the device; from ``capacity`` on the oldest are overwritten. Owns its random stream.
    """

    def __init__(
        self,
        spec: Spec,
        batch_size: int,
        capacity: int = 1_000_000,
        seed: int | np.random.SeedSequence = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.spec, self.batch_size, self.capacity = spec, batch_size, capacity
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.device = torch.device(device)
        self.count = 0  # rows ever added
        self._columns = self._empty(min(capacity, 1024))

    def __len__(self) -> int:
        """Rows that can be drawn."""
        return min(self.count, self.capacity)

    def _empty(self, rows: int) -> dict[str, Tensor]:
        obs_dtype = getattr(torch, self.spec.obs_dtype)
        columns = {
            "obs": torch.zeros((rows, *self.spec.obs_shape), dtype=obs_dtype),
            "action": torch.zeros((rows, self.spec.action_dim)),
            "reward": torch.zeros(rows),
            "next_obs": torch.zeros((rows, *self.spec.obs_shape), dtype=obs_dtype),
            "terminated": torch.zeros(rows),
            "episode_end": torch.zeros(rows, dtype=torch.bool),
        }
        return {name: column.to(self.device) for name, column in columns.items()}

    def _grow(self) -> None:
        rows = len(self._columns["reward"])
        if rows == min(self.count, self.capacity) and rows < self.capacity:
            larger = self._empty(min(2 * rows, self.capacity))
            for name, column in self._columns.items():
                larger[name][:rows] = column
            self._columns = larger

    def add(
        self, obs: Tensor, action: Tensor, reward: float, next_obs: Tensor, terminated: bool, episode_end: bool
    ) -> None:
        """One transition: obs (O), action (A) in [-1, 1]."""
        self._grow()
        at = self.count % self.capacity
        row: tuple[Any, ...] = (obs, action, reward, next_obs, float(terminated), episode_end)
        for column, value in zip(self._columns.values(), row, strict=True):
            column[at] = value
        self.count += 1

    def cut(self, back: int) -> None:
        """The ``back``-th newest row is the last of its episode, which was broken off."""
        self._columns["episode_end"][(self.count - back) % self.capacity] = True

    def sample(self) -> Batch:
        """The next batch."""
        index = torch.from_numpy(self.rng.integers(len(self), size=self.batch_size)).to(self.device)
        obs, action, reward, next_obs, terminated = (
            self._columns[name].index_select(0, index) for name in ("obs", "action", "reward", "next_obs", "terminated")
        )
        return Batch(obs, action, reward, next_obs, terminated, index)

    def tensors(self) -> dict[str, Tensor]:
        """The rows, in the order of the buffer: what a checkpoint holds beside `state`."""
        return {name: column[: len(self)].cpu() for name, column in self._columns.items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over `tensors`, after `load_state`. Raises CheckpointCorruptError where they are of other shapes."""
        fresh = self._empty(min(self.capacity, max(1024, len(self))))
        for name, column in fresh.items():
            saved = tensors.get(name)
            if saved is None or saved.shape != column[: len(self)].shape or saved.dtype != column.dtype:
                raise CheckpointCorruptError(f"the checkpoint's replay buffer has no usable {name}", "train anew")
            column[: len(self)] = saved
        self._columns = fresh

    def state(self) -> dict[str, Any]:
        """JSON-ready: the random stream and how many rows there were."""
        return {"rng": self.rng.bit_generator.state, "count": self.count}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state, self.count = state["rng"], int(state["count"])

    def transitions(self, task: Task | None = None, name: str = "replay") -> Transitions:
        """The rows in the order of collection. Raises EmptyDatasetError before the first one."""
        order = (torch.arange(len(self)) + (self.count if self.count > self.capacity else 0)) % max(len(self), 1)
        rows = {key: column[: len(self)].cpu()[order].numpy() for key, column in self._columns.items()}
        terminated = rows.pop("terminated") > 0.0
        return Transitions(**rows, terminated=terminated, spec=self.spec, task=task, source=Provenance(name))
