"""Episodes of images, and batches of sequences from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offline_vi.data.columns import IntArray
from offline_vi.data.transitions import Provenance
from offline_vi.errors import (
    DatasetFormatError,
    EmptyDatasetError,
    UsageError,
)
from offline_vi.types import Batch, BoolArray, FloatArray, Spec, Task


@dataclass(frozen=True)
class Frames:
    """Episodes of images: R steps in E episodes, every frame stored once, so that an episode of T steps has T + 1.

    ``frames`` is uint8 and may be memory-mapped: nothing here reads more of it than a batch, and nothing makes floats
    of it. ``action[i]`` is taken at the frame before it, as everywhere in this library.
    """

    frames: NDArray[np.uint8]  # (R + E, C, H, W)
    action: FloatArray  # (R, A), in [-1, 1]
    reward: FloatArray  # (R,)
    terminated: BoolArray  # (R,)
    lengths: IntArray  # (E,), steps of each episode
    spec: Spec  # the shapes
    task: Task | None = None  # the environment that policies are scored on; None: they are not scored
    source: Provenance = field(default_factory=lambda: Provenance("arrays"))  # where the images came from

    def __post_init__(self) -> None:
        steps = int(self.lengths.sum())
        if steps == 0:
            raise EmptyDatasetError(f"{self.source.name}: no step is left", "check the files")
        rows = {"frames": len(self.frames) - len(self.lengths), "action": len(self.action)}
        rows |= {"reward": len(self.reward), "terminated": len(self.terminated)}
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or set(rows.values()) != {steps}:
            raise DatasetFormatError(
                f"{self.source.name}: {self.frames.dtype} frames {self.frames.shape}, rows {rows} for {steps} steps",
                "uint8 (R + E, C, H, W), one frame more than steps in every episode",
            )

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def starts(self) -> IntArray:
        """(E,), the row of the first step of each episode; its first frame is ``starts[e] + e``."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]])

    def episode_returns(self) -> NDArray[np.float64]:
        """(E,), undiscounted sums of rewards."""
        return np.add.reduceat(self.reward.astype(np.float64), self.starts)

    def split_episodes(self, held_out: float = 0.1) -> tuple[Frames, Frames]:
        """(training, held-out): the last ``held_out`` share of the episodes, at least one of each; views, no copies.

        Raises EmptyDatasetError where there are fewer than two episodes.
        """
        if len(self.lengths) < 2:
            raise EmptyDatasetError(f"{self.source.name}: one episode cannot be split", "give a data set with more")
        count = min(max(round(held_out * len(self.lengths)), 1), len(self.lengths) - 1)
        border = len(self.lengths) - count
        return self._part(slice(0, border)), self._part(slice(border, None))

    def _part(self, episodes: slice) -> Frames:
        lengths, first = self.lengths[episodes], episodes.start
        start, steps = int(self.starts[first]), int(lengths.sum())
        rows, frames = slice(start, start + steps), slice(start + first, start + first + steps + len(lengths))
        return replace(
            self,
            frames=self.frames[frames],
            action=self.action[rows],
            reward=self.reward[rows],
            terminated=self.terminated[rows],
            lengths=lengths,
        )


class SequenceSampler:
    """Uniform batches of sequences of L steps within one episode; owns its random stream.

    A `Batch` with a time axis first: obs (L, B, K C, H, W) uint8, the last K = ``stack`` frames one after the other
    (the first frame repeated where an episode begins), action (L, B, A), ..., next_obs[t] is obs[t + 1]. Steps after
    the end of an episode shorter than L have ``index`` -1 and repeat the last frame.
    """

    def __init__(
        self,
        data: Frames,
        batch_size: int,
        length: int,
        seed: int | np.random.SeedSequence = 0,
        device: str | torch.device = "cpu",
        stack: int = 1,
    ) -> None:
        if length < 1 or stack < 1 or batch_size < 1:
            raise UsageError(f"{batch_size} sequences of {length} steps, {stack} frames", "at least one of each")
        self.data, self.batch_size, self.length, self.stack = data, batch_size, length, stack
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.device = torch.device(device)
        self._starts = data.starts
        self._windows = np.cumsum(np.maximum(data.lengths - length, 0) + 1)  # how many begin up to each episode's end

    def sample(self) -> Batch:
        """The next batch."""
        drawn = self.rng.integers(self._windows[-1], size=self.batch_size)
        episode = np.searchsorted(self._windows, drawn, side="right")  # (B,)
        first = drawn - np.concatenate([[0], self._windows])[episode]  # (B,), within the episode
        return self.windows(episode, first)

    def windows(self, episode: IntArray, first: IntArray) -> Batch:
        """The sequences that begin at the given steps of the given episodes, (B,) each."""
        last = self.data.lengths[episode]  # (B,), the episode's last frame
        step = first + np.arange(self.length + 1)[:, None]  # (L + 1, B)
        inside = step[:-1] < last
        row = self._starts[episode] + np.minimum(step[:-1], last - 1)  # (L, B)
        at = self._starts[episode] + episode  # the row of the episode's first frame
        behind = np.arange(self.stack)[::-1]  # oldest first
        wanted = at[:, None] + np.clip(np.minimum(step, last)[..., None] - behind, 0, None)  # (L + 1, B, K)
        frames = torch.from_numpy(self.data.frames[wanted].reshape(*step.shape, -1, *self.data.frames.shape[2:]))
        frames = frames.to(self.device)
        columns = (self.data.action[row], self.data.reward[row], self.data.terminated[row].astype(np.float32))
        action, reward, terminated = (torch.from_numpy(column).to(self.device) for column in columns)
        index = torch.from_numpy(np.where(inside, row, -1)).to(self.device)
        return Batch(frames[:-1], action, reward, frames[1:], terminated, index)

    def state(self) -> dict[str, Any]:
        """JSON-ready state of the random stream."""
        return {"rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]
