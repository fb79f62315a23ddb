"""Data sets of images by name or folder: V-D4RL's .npz episodes and .hdf5 shards, Minari's, and ours."""

from __future__ import annotations

from pathlib import Path

from offline_vi.data.frames import Frames
from offline_vi.datasets import minari_images, vd4rl, vd4rl_hdf5
from offline_vi.datasets.alignment import check_alignment as check_alignment
from offline_vi.datasets.frames import Episode as Episode
from offline_vi.datasets.vd4rl import Alignment, save_episode as save_episode
from offline_vi.errors import MissingInputError
from offline_vi.homes import expanded


def load_images(
    name_or_path: str | Path,
    *,
    alignment: Alignment = "led-to",
    max_dataset_bytes: int = 0,
    check: bool = True,
) -> Frames:
    """A data set of images: a folder of V-D4RL's .npz episodes (64 pixels) or .hdf5 shards (84 pixels), a Minari name,
    or one of ours, drawn on first use.

    ``alignment`` says what V-D4RL's files keep with each image: the action that "led-to" it (V-D4RL, Dreamer) or the
    one "taken-at" it; Minari's are always taken at it. ``check`` looks for a shift by one in the pixels
    (`check_alignment`). The frames are converted once, into $OFFLINE_VI_HOME (default ~/.cache/offline_vi), and
    memory-mapped.

    Raises MissingInputError, UnsafeDatasetError, DatasetCorruptError, DatasetFormatError (keys, types, alignment),
    DatasetTooLargeError, SpaceMismatchError (images of several sizes), NonFiniteDataError, ActionRangeError,
    EmptyDatasetError.
    """
    path = expanded(name_or_path)
    if path.is_dir():
        read = vd4rl_hdf5.read if vd4rl_hdf5.shards_in(path) else vd4rl.read
        data = read(path, alignment, max_dataset_bytes)
    elif path.is_absolute():
        raise MissingInputError(f"{path} is no folder", "a folder of V-D4RL's layout: .npz or .hdf5 files")
    else:
        data = minari_images.read(str(name_or_path), max_dataset_bytes)
    if check:
        check_alignment(data)
    return data
