"""V-D4RL's layout of images: a folder of .npz archives, one episode each.

Alignment, the classic defect: V-D4RL (as Dreamer) stores with each image the action that *led to* it; this library and
Minari hold the action taken *at* it. `read_episode` shifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from offline_vi.data.frames import Frames
from offline_vi.data.transitions import Provenance
from offline_vi.datasets.frames import MAX_SIDE, Episode, cached_frames
from offline_vi.datasets.safe.hdf5 import allowed_bytes
from offline_vi.datasets.safe.npz import Member, read_arrays, read_directory
from offline_vi.errors import DatasetFormatError, DatasetTooLargeError, MissingInputError, SpaceMismatchError

Alignment = Literal["led-to", "taken-at"]

FIRST_ACTION = (
    "the first image has an action, but nothing led to it",
    'actions seem to be those taken at each image, shifted by one: alignment="taken-at"',
)
KEYS = ("image", "action", "reward", "discount", "is_first", "is_last")


def read(folder: Path, alignment: Alignment = "led-to", max_bytes: int = 0) -> Frames:
    """All episodes of a folder. Raises what `load_images` raises."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise MissingInputError(
            f"{folder} holds no .npz episode and no .hdf5 shard",
            "a folder of V-D4RL's layout: one .npz episode a file, or .hdf5 files of 84 pixels",
        )
    members = [read_directory(file, max_bytes) for file in files]
    for file, found in zip(files, members, strict=True):
        _check_members(found, file)
    shapes = [found["image"].shape for found in members]
    _same(files, [shape[1:] for shape in shapes], "images")
    _same(files, [found["action"].shape[1:] for found in members], "actions")
    allowed = allowed_bytes(max_bytes, sum(file.stat().st_size for file in files))
    if sum(found["image"].nbytes for found in members) > allowed:
        raise DatasetTooLargeError(
            f"{folder}: more than the {allowed:,} bytes allowed", "if you trust it: max_dataset_bytes=N"
        )
    height, width, channels = shapes[0][1:]
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    source = Provenance(folder.name, tuple(map(str, files)))
    return cached_frames(
        [str(folder.resolve()), alignment, *map(str, stamps)],
        (read_episode(file, alignment, max_bytes) for file in files),
        (sum(shape[0] for shape in shapes), channels, height, width),
        None,
        source,
    )


def _same(files: Sequence[Path], shapes: Sequence[tuple[int, ...]], what: str) -> None:
    for file, shape in zip(files, shapes, strict=True):
        if shape != shapes[0]:
            raise SpaceMismatchError(
                f"{file.name} has {what} of shape {shape}, {files[0].name} of {shapes[0]}", "one size for a data set"
            )


def _check_members(members: dict[str, Member], path: Path) -> None:
    missing = [key for key in KEYS if key not in members]
    if missing:
        raise DatasetFormatError(f"{path}: {', '.join(missing)} missing", f"an episode has {', '.join(KEYS)}")
    image = members["image"]
    if image.dtype != np.uint8 or len(image.shape) != 4:
        raise DatasetFormatError(f"{path}: images are {image.dtype} {image.shape}", "uint8 (T + 1, H, W, C)")
    if max(image.shape[1:3]) > MAX_SIDE or image.shape[3] not in (1, 3, 4):
        raise DatasetFormatError(f"{path}: images of shape {image.shape[1:]}", f"(H, W, C) up to {MAX_SIDE} pixels")
    rows = {key: members[key].shape[:1] for key in KEYS}
    if len(set(rows.values())) != 1:
        raise DatasetFormatError(f"{path}: rows {rows}", "one action and one reward with every image")
    if image.shape[0] < 2 or len(members["action"].shape) != 2:
        raise DatasetFormatError(
            f"{path}: {image.shape[0]} images, actions {members['action'].shape}", "at least two, and a vector each"
        )


def read_episode(path: Path, alignment: Alignment = "led-to", max_bytes: int = 0) -> Episode:
    """One .npz episode. Raises what `load_images` raises."""
    members = read_directory(path, max_bytes)
    _check_members(members, path)
    columns = read_arrays(path, members, [*KEYS, *({"is_terminal"} & members.keys())])
    terminal = columns.get("is_terminal")
    is_first, is_last = (columns[key].astype(np.bool_) for key in ("is_first", "is_last"))
    if not is_first[0] or is_first[1:].any() or not is_last[-1] or is_last[:-1].any():
        raise DatasetFormatError(f"{path}: is_first or is_last mark other rows than the ends", "one episode a file")
    ended = columns["discount"] == 0.0 if terminal is None else terminal.astype(np.bool_)
    if ended[:-1].any():
        raise DatasetFormatError(f"{path}: the task ends before the last image", "one episode a file")
    action, reward = columns["action"].astype(np.float32), columns["reward"].astype(np.float32)
    if alignment == "led-to" and (action[0] != 0.0).any():
        raise DatasetFormatError(f"{path}: {FIRST_ACTION[0]}", FIRST_ACTION[1])
    shift = slice(1, None) if alignment == "led-to" else slice(None, -1)
    return Episode(np.moveaxis(columns["image"], 3, 1), action[shift], reward[shift], ended[1:])


def save_episode(path: Path, episode: Episode) -> None:
    """One episode in V-D4RL's layout: the action that led to each image, zeros at the first."""
    steps = len(episode.reward)
    first, last = np.zeros((2, steps + 1), np.bool_)
    first[0] = last[-1] = True
    ended = np.append(False, episode.terminated)
    np.savez_compressed(
        path,
        image=np.moveaxis(episode.frames, 1, 3),
        action=np.concatenate([np.zeros_like(episode.action[:1]), episode.action]),
        reward=np.append(np.float32(0.0), episode.reward),
        discount=1.0 - ended.astype(np.float32),
        is_first=first,
        is_last=last,
        is_terminal=ended,
    )
