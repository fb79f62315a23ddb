"""V-D4RL's 84-pixel half: a folder of .hdf5 shards, as DrQ-v2's agents read them; each holds many episodes, row by row.

Arrays: observation (N, C, 84, 84) uint8, action (N, A), reward, discount and step_type (N,). The step type is 0 at an
episode's first image, 2 at its last one, 1 between. The action of a row led to its image, as in the .npz episodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from offline_vi.data.columns import IntArray, warn
from offline_vi.data.frames import Frames
from offline_vi.data.transitions import Provenance
from offline_vi.datasets.frames import MAX_SIDE, Episode, cached_frames
from offline_vi.datasets.safe.hdf5 import Budget, allowed_bytes, arrays_of, open_hdf5, read_rows
from offline_vi.datasets.vd4rl import FIRST_ACTION, Alignment
from offline_vi.errors import DatasetFormatError, DatasetTooLargeError, EmptyDatasetError, SpaceMismatchError

KEYS = ("observation", "action", "reward", "discount", "step_type")
FIRST, LAST = 0, 2  # step types


class Shard(NamedTuple):
    """A file, looked at but for its images."""

    path: Path
    shape: tuple[int, ...]  # (C, H, W)
    starts: IntArray  # (E,) first rows of the pieces of episodes that have a step
    stops: IntArray  # (E,) rows after their last ones


def shards_in(folder: Path) -> list[Path]:
    """The .hdf5 files of a folder, 2.hdf5 before 10.hdf5."""
    return sorted(
        folder.glob("*.hdf5"), key=lambda path: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", path.name)]
    )


def read(folder: Path, alignment: Alignment = "led-to", max_bytes: int = 0) -> Frames:
    """All episodes of a folder. Raises what `load_images` raises."""
    files = shards_in(folder)
    shards = [_looked_at(file, alignment, max_bytes) for file in files]
    for shard in shards:
        if shard.shape != shards[0].shape:
            raise SpaceMismatchError(
                f"{shard.path.name} has images of shape {shard.shape}, {files[0].name} of {shards[0].shape}",
                "one size for a data set",
            )
    count = sum(int((shard.stops - shard.starts).sum()) for shard in shards)
    if count == 0:
        raise EmptyDatasetError(f"{folder}: no episode has a step", "check the files")
    shape = (count, *shards[0].shape)
    allowed = allowed_bytes(max_bytes, sum(file.stat().st_size for file in files))
    if int(np.prod(shape, dtype=object)) > allowed:
        raise DatasetTooLargeError(
            f"{folder}: more than the {allowed:,} bytes allowed", "if you trust it: max_dataset_bytes=N"
        )
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    source = Provenance(folder.name, tuple(map(str, files)))
    key = [str(folder.resolve()), alignment, "shards", *map(str, stamps)]
    episodes = (episode for shard in shards for episode in _episodes(shard, alignment, max_bytes))
    return cached_frames(key, episodes, shape, None, source)


def _admitted(file: h5py.File, path: Path, max_bytes: int) -> dict[str, h5py.Dataset]:
    """The five arrays, found safe and of the right shapes; nothing is read."""
    arrays = arrays_of(file, path, KEYS)
    if missing := [key for key in KEYS if key not in arrays]:
        raise DatasetFormatError(f"{path}: {', '.join(missing)} missing", f"a shard has {', '.join(KEYS)}")
    budget = Budget(path, max_bytes)
    for key in KEYS:
        budget.admit(arrays[key], key)
    images, action = arrays["observation"], arrays["action"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3, 4) or max(images.shape) == 0:
        raise DatasetFormatError(
            f"{path}: images are {images.dtype} {images.shape}", "uint8 (N, C, H, W), one image a row, not stacked"
        )
    if max(images.shape[2:]) > MAX_SIDE or action.ndim != 2:
        raise DatasetFormatError(
            f"{path}: images of shape {images.shape[1:]}, actions {action.shape}",
            f"images up to {MAX_SIDE} pixels, and a vector each",
        )
    rows = {key: arrays[key].shape[:1] for key in KEYS}
    if len(set(rows.values())) != 1 or any(arrays[key].size != len(images) for key in KEYS[2:]):
        raise DatasetFormatError(f"{path}: rows {rows}", "one action, reward, discount and step type with every image")
    return arrays


def _looked_at(path: Path, alignment: Alignment, max_bytes: int) -> Shard:
    with open_hdf5(path) as file:
        arrays = _admitted(file, path, max_bytes)
        kind = read_rows(arrays["step_type"], path, "step_type").reshape(-1)
        action = read_rows(arrays["action"], path, "action")
        shape = arrays["observation"].shape[1:]
    if not np.isin(kind, (FIRST, 1, LAST)).all():
        raise DatasetFormatError(f"{path}: step types {np.unique(kind)[:5].tolist()}", "0 first, 1 between, 2 last")
    if alignment == "led-to" and (action[kind == FIRST] != 0.0).any():
        raise DatasetFormatError(f"{path}: {FIRST_ACTION[0]}", FIRST_ACTION[1])
    starts, stops = _pieces(kind)
    open_ends = int((kind[starts] != FIRST).sum() + (kind[stops - 1] != LAST).sum())
    if open_ends:
        warn(
            f"{path}: {open_ends} ends of episodes are not in this file: their parts are read as episodes of their own"
        )
    stepping = stops - starts > 1  # two images
    return Shard(path, shape, starts[stepping], stops[stepping])


def _pieces(kind: NDArray[np.generic]) -> tuple[IntArray, IntArray]:
    """(first rows, rows after the last ones) of what lies between two ends."""
    begins = np.append(True, (kind[1:] == FIRST) | (kind[:-1] == LAST))
    starts = np.flatnonzero(begins)
    return starts, np.append(starts[1:], len(kind))


def _episodes(shard: Shard, alignment: Alignment, max_bytes: int) -> Iterator[Episode]:
    shift = slice(1, None) if alignment == "led-to" else slice(None, -1)
    with open_hdf5(shard.path) as file:
        arrays = _admitted(file, shard.path, max_bytes)
        for start, stop in zip(shard.starts.tolist(), shard.stops.tolist(), strict=True):
            rows = {key: read_rows(array, shard.path, key, start, stop) for key, array in arrays.items()}
            ended = (rows["discount"].reshape(-1) == 0.0) & (rows["step_type"].reshape(-1) == LAST)
            yield Episode(
                rows["observation"],
                rows["action"][shift].astype(np.float32),
                rows["reward"].reshape(-1)[shift].astype(np.float32),
                ended[1:],
            )
