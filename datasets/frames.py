"""Episodes of images from any reader, written once as flat .npy columns into the cache and memory-mapped from there.
They stay uint8.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline_vi.data.frames import Frames
from offline_vi.data.rows import ACTION_TOLERANCE
from offline_vi.data.transitions import Provenance
from offline_vi.datasets.cache import ColumnWriter, cached_folder
from offline_vi.errors import ActionRangeError, DatasetCorruptError, EmptyDatasetError, NonFiniteDataError
from offline_vi.types import Spec, Task

MAX_SIDE = 1024  # pixels
LENGTHS = "lengths.npy"  # (E,) steps of every episode


class Episode(NamedTuple):
    """One episode of T steps, aligned as everywhere here: action[t] is taken at frames[t]."""

    frames: NDArray[np.uint8]  # (T + 1, C, H, W)
    action: NDArray[np.float32]  # (T, A)
    reward: NDArray[np.float32]  # (T,)
    terminated: NDArray[np.bool_]  # (T,)


def cached_frames(
    key: list[str], episodes: Iterator[Episode], shape: tuple[int, ...], task: Task | None, source: Provenance
) -> Frames:
    """The episodes of a data set as mapped columns; they are read where the cache has nothing under ``key``.

    ``shape`` is that of all frames together, (R + E, C, H, W). Raises what the reader of the episodes raises,
    NonFiniteDataError, ActionRangeError, EmptyDatasetError.
    """
    folder = cached_folder("frames", "\n".join(key), lambda path: _write(path, episodes, shape, source.name))
    columns: dict[str, NDArray[Any]] = {
        name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("action", "reward", "terminated")
    }
    frames: NDArray[np.uint8] = np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
    action = _in_the_box(columns["action"], task, source.name)
    return Frames(
        frames,
        action,
        columns["reward"],
        columns["terminated"],
        np.load(folder / LENGTHS, allow_pickle=False),
        Spec(frames.shape[1:], action.shape[1], "uint8"),
        task,
        source,
    )


def _write(folder: Path, episodes: Iterator[Episode], shape: tuple[int, ...], name: str) -> None:
    """One episode in memory at a time."""
    columns: dict[str, list[NDArray[Any]]] = {"action": [], "reward": [], "terminated": []}
    with ColumnWriter(folder / "frames.npy", np.uint8, shape) as frames:
        for number, episode in enumerate(episodes):
            for key in ("action", "reward"):
                if not np.isfinite(getattr(episode, key)).all():
                    raise NonFiniteDataError(
                        f"{name}: {key} of episode {number} is not finite", "leave the episode out"
                    )
            frames.write(episode.frames)
            for key, parts in columns.items():
                parts.append(getattr(episode, key))
    if not columns["reward"]:
        raise EmptyDatasetError(f"{name}: no episode has a step", "check the files")
    if frames.rows != shape[0]:
        raise DatasetCorruptError(f"{name}: {frames.rows:,} frames, where {shape[0]:,} were announced", "get it again")
    for key, parts in columns.items():
        np.save(folder / f"{key}.npy", np.concatenate(parts))
    np.save(folder / LENGTHS, np.array([len(part) for part in columns["reward"]], np.int64))


def _in_the_box(action: NDArray[np.float32], task: Task | None, name: str) -> NDArray[np.float32]:
    action = action if task is None else task.from_env(action)
    largest = float(np.abs(action).max())
    if largest > ACTION_TOLERANCE:
        raise ActionRangeError(f"{name}: actions reach {largest:.4g}", "they must lie in [-1, 1] of the task's box")
    return action.clip(-1.0, 1.0)
