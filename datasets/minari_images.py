"""Minari's data sets whose observations are images, and ours, which are drawn on first use."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import h5py
import numpy as np
from numpy.typing import NDArray

from offline_vi.data.frames import Frames
from offline_vi.data.transitions import Provenance
from offline_vi.datasets import minari, pixels
from offline_vi.datasets.frames import MAX_SIDE, Episode, cached_frames
from offline_vi.datasets.minari_metadata import read_metadata, space_in, task_in, total_episodes
from offline_vi.datasets.safe.hdf5 import Budget, allowed_bytes, child, open_hdf5, read_array, sha256_of
from offline_vi.datasets.tasks import PIXEL_NAMES
from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    MissingInputError,
    SpaceMismatchError,
)


def read(name: str, max_bytes: int) -> Frames:
    """A data set of Minari whose observations are images; ours are drawn where they are missing."""
    folder = minari.folder_of(name)
    if not (folder / "data").is_dir() and name in PIXEL_NAMES:
        pixels.collect(name)
    if not (folder / "data").is_dir():
        raise MissingInputError(f"{name} is neither a folder nor in {minari.root()}", "`offline-vi data list`")
    metadata = read_metadata(folder / "data" / "metadata.json")
    box, actions = (space_in(metadata, f"{key}_space", name) for key in ("observation", "action"))
    spaces = gymnasium.spaces
    if not isinstance(box, spaces.Box) or len(box.shape) != 3 or box.dtype != np.uint8 or max(box.shape) > MAX_SIDE:
        raise DatasetFormatError(f"{name}: observation space {box}", "uint8 images of three axes")
    if not isinstance(actions, spaces.Box) or len(actions.shape) != 1 or not actions.is_bounded():
        raise SpaceMismatchError(f"{name}: action space {actions}", "a bounded vector is needed")
    task = task_in(metadata, name, actions, (), None)
    if name in PIXEL_NAMES:  # whoever makes the environment must find the module that registers it
        task = replace(task, env_id=f"{pixels.MODULE}:{task.env_id}")
    path = folder / "data" / "main_data.hdf5"
    episodes = total_episodes(metadata, name)
    last = box.shape[2] in (1, 3, 4) and box.shape[0] not in (1, 3, 4)  # channels last
    shape = (box.shape[2], *box.shape[:2]) if last else box.shape
    steps = _total_steps(path, episodes)
    allowed = allowed_bytes(max_bytes, path.stat().st_size)
    if (steps + episodes) * int(np.prod(shape)) > allowed:
        raise DatasetTooLargeError(
            f"{name}: more than the {allowed:,} bytes allowed", "if you trust it: max_dataset_bytes=N"
        )
    digest = sha256_of(path)
    return cached_frames(
        [name, digest],
        _episodes(path, episodes, box.shape, last, max_bytes),
        (steps + episodes, *shape),
        task,
        Provenance(name, (str(path),), (digest,), "within_episode"),
    )


def _total_steps(path: Path, episodes: int) -> int:
    """By the shapes of the rewards; nothing is read."""
    with open_hdf5(path) as file:
        return sum(_array(file, f"episode_{number}", "rewards", path).shape[0] for number in range(episodes))


def _array(file: h5py.File, episode: str, key: str, path: Path) -> h5py.Dataset:
    group = child(file, episode, path)
    array = child(group, key, path) if isinstance(group, h5py.Group) else None
    if not isinstance(array, h5py.Dataset) or array.shape is None or array.ndim == 0:
        raise DatasetFormatError(f"{path}: '{episode}/{key}' is missing or no array", "get the data set again")
    return array


def _episodes(path: Path, episodes: int, shape: tuple[int, ...], last: bool, max_bytes: int) -> Iterator[Episode]:
    with open_hdf5(path) as file:
        budget = Budget(path, max_bytes)
        for number in range(episodes):
            name = f"episode_{number}"
            columns = {}
            for key in ("actions", "rewards", "terminations"):
                array = _array(file, name, key, path)
                budget.admit(array, f"{name}/{key}")
                columns[key] = read_array(array, path, f"{name}/{key}")
            observations = _array(file, name, "observations", path)
            if observations.ndim < 4:  # Minari packs pictures of 32 pixels and more as JPEG, each a row of bytes
                frames = _decode(observations, shape, path, name)
            else:
                budget.admit(observations, f"{name}/observations")
                frames = read_array(observations, path, f"{name}/observations")
            if frames.dtype != np.uint8 or frames.shape[1:] != shape:
                raise SpaceMismatchError(
                    f"{path}: '{name}' has {frames.dtype} images of shape {frames.shape[1:]}, the metadata say {shape}",
                    "one size for a data set",
                )
            steps = {key: len(values) for key, values in columns.items()} | {"observations": len(frames) - 1}
            if len(set(steps.values())) != 1:
                raise DatasetFormatError(f"{path}: '{name}' has {steps} steps", "get the data set again")
            yield Episode(
                np.moveaxis(frames, 3, 1) if last else frames,
                columns["actions"].astype(np.float32),
                columns["rewards"].astype(np.float32),
                columns["terminations"].astype(np.bool_),
            )


def _decode(array: h5py.Dataset, shape: tuple[int, ...], path: Path, name: str) -> NDArray[np.uint8]:
    """JPEG pictures of a known size, which is checked before one is unpacked."""
    from PIL import Image, UnidentifiedImageError

    frames = np.empty((array.shape[0], *shape), np.uint8)
    for row in range(array.shape[0]):
        data = np.asarray(array[row])
        if data.dtype != np.uint8 or data.ndim != 1:
            raise DatasetFormatError(f"{path}: '{name}/observations' holds {data.dtype}", "bytes of JPEG pictures")
        try:
            with Image.open(io.BytesIO(data.tobytes()), formats=["JPEG"]) as picture:
                if picture.size != (shape[1], shape[0]):
                    raise SpaceMismatchError(f"{path}: a picture of {picture.size} pixels in '{name}'", f"{shape[:2]}")
                frames[row] = np.asarray(picture).reshape(shape)
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise DatasetCorruptError(f"{path}: '{name}' holds a damaged picture ({error})", "get it again") from error
    return frames
