"""Minari's data sets of vectors: where they lie, how they are fetched, and their columns.

Minari joins names to paths unchecked. Here names are matched and resolved inside the root, and arrays are read through
the guards of `offline_vi.datasets.safe.hdf5`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from offline_vi.data.columns import Columns
from offline_vi.data.transitions import Provenance
from offline_vi.datasets.d4rl import check_hash
from offline_vi.datasets.local import NAME, root as root
from offline_vi.datasets.minari_metadata import observation_keys, read_metadata, space_in, task_in, total_episodes
from offline_vi.datasets.reading import Read
from offline_vi.datasets.safe.hdf5 import Budget, child, open_hdf5, read_array
from offline_vi.datasets.tasks import RECIPES
from offline_vi.errors import (
    DatasetFormatError,
    MissingDependencyError,
    MissingInputError,
    OfflineError,
    SpaceMismatchError,
    UnsafeDatasetError,
)

_STEP_ARRAYS = {"rewards": "reward", "terminations": "terminal", "truncations": "timeout"}


def folder_of(name: str) -> Path:
    """Where a data set lies or would lie. Raises UnsafeDatasetError for names that lead out of the root."""
    folder = root() / name
    if not NAME.fullmatch(name) or not folder.resolve().is_relative_to(root().resolve()):
        raise UnsafeDatasetError(f"{name!r} is no data set below {root()}", "names look like mujoco/hopper/medium-v0")
    return folder


def is_local(name: str) -> bool:
    """Whether a name is Minari's and on this machine."""
    return bool(NAME.fullmatch(name)) and (folder_of(name) / "data").is_dir()


def download(name: str) -> None:
    """Fetch a data set into Minari's root. Raises OfflineError, MissingDependencyError."""
    folder = folder_of(name)
    import minari

    try:
        minari.download_dataset(name)
    except ImportError as error:
        raise MissingDependencyError(f"downloading {name} needs {error.name}", "pip install 'minari[hf]'") from error
    except Exception as error:  # the remote's client may raise anything
        raise OfflineError(f"cannot download {name} ({error})", f"get it elsewhere and put it at {folder}") from error


def read(
    name: str,
    max_bytes: int = 0,
    sha256: str | None = None,
    download_missing: bool = False,
    env: str | None = None,
    obs_keys: tuple[str, ...] = (),
) -> Read:
    """The columns of a data set (next observations from the T + 1 of each episode, timeouts where an episode was cut),
    its task with the bounds of its own action space, and where it came from.

    A recipe of ours is collected where it is missing. ``env`` is the environment that the caller names, or "" for none;
    None takes the file's. ``obs_keys`` are those of `observation_keys`.
    Raises MissingInputError, OfflineError, UnsafeDatasetError, DatasetFormatError, DatasetCorruptError,
    DatasetTooLargeError, SpaceMismatchError.
    """
    folder = folder_of(name)
    if not (folder / "data").is_dir():
        fetch(name, download_missing)
    metadata = read_metadata(folder / "data" / "metadata.json")
    path = folder / "data" / "main_data.hdf5"
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise DatasetFormatError(f"{name}: stored as {metadata['data_format']!r}", "convert it to hdf5 with Minari")
    observations, actions = (space_in(metadata, f"{key}_space", name) for key in ("observation", "action"))
    if not isinstance(actions, spaces.Box) or len(actions.shape) != 1:
        raise SpaceMismatchError(f"{name}: action space {actions}", "a vector of real numbers is needed")
    obs_keys = observation_keys(observations, obs_keys, name)
    task = task_in(metadata, name, actions, obs_keys, env)
    columns = _read_episodes(path, total_episodes(metadata, name), obs_keys, max_bytes)
    return Read(columns, task, Provenance(name, (str(path),), (check_hash(path, sha256),), "within_episode"))


def fetch(name: str, download_missing: bool) -> None:
    """Collect a recipe's data set, download one of Minari's where that is wanted. Raises what `download` raises."""
    if name in RECIPES:
        importlib.import_module(f"offline_vi.datasets.{RECIPES[name].module}").collect(name)  # it imports this module
    elif download_missing:
        download(name)
    else:
        raise MissingInputError(
            f"{name} is not on this machine (not in {root()})",
            f"`offline-vi data download {name}`, or put it there",
        )


def _read_episodes(path: Path, episodes: int, obs_keys: tuple[str, ...], max_bytes: int) -> Columns:
    """One episode after the other, so that no more than the arrays themselves lies in memory."""
    parts: list[dict[str, NDArray[Any]]] = []
    with open_hdf5(path) as file:
        budget = Budget(path, max_bytes)
        for number in range(episodes):
            episode = _read_episode(file, f"episode_{number}", path, obs_keys, budget)
            if len(episode["reward"]) > 0:
                parts.append(episode)
    keys = {key for key in parts[0] if all(key in part for part in parts)} if parts else set()
    if not parts:
        raise DatasetFormatError(f"{path}: no episode has a step", "get the data set again")
    return Columns(**{key: np.concatenate([part[key] for part in parts]) for key in keys})


def _read_episode(
    file: h5py.File, name: str, path: Path, obs_keys: tuple[str, ...], budget: Budget
) -> dict[str, NDArray[Any]]:
    """The columns of one episode by the fields of `Columns`."""
    group = child(file, name, path)
    if not isinstance(group, h5py.Group):
        raise DatasetFormatError(f"{path}: '{name}' is missing", "metadata promise it: get the data set again")
    observations = _observations(group, path, budget, obs_keys)
    episode = {"action": _read(group, "actions", path, budget)}
    episode |= {ours: _read(group, key, path, budget) for key, ours in _STEP_ARRAYS.items()}
    steps = len(episode["reward"])
    lengths = {"observations": len(observations) - 1} | {key: len(values) for key, values in episode.items()}
    if set(lengths.values()) != {steps}:
        raise DatasetFormatError(
            f"{path}: '{name}' has {lengths} steps (observations without the last)", "get the data set again"
        )
    episode |= {"obs": observations[:-1], "next_obs": observations[1:]}
    episode["timeout"] = episode["timeout"].astype(np.bool_)
    if steps:  # an episode that simply stops was cut
        episode["timeout"][-1] |= not bool(episode["terminal"][-1])
    infos = child(group, "infos", path)
    if isinstance(infos, h5py.Group) and child(infos, "action_log_probs", path) is not None:
        episode["log_prob"] = _read(infos, "action_log_probs", path, budget)[:steps]  # infos have T + 1 rows
    return episode


def _observations(group: h5py.Group, path: Path, budget: Budget, keys: tuple[str, ...]) -> NDArray[Any]:
    """(T + 1, O): an array, or the entries of a group joined in the order of ``keys``."""
    if not keys:
        return _read(group, "observations", path, budget)
    parts = [_read(group, f"observations/{key}", path, budget) for key in keys]
    rows = {key: len(part) for key, part in zip(keys, parts, strict=True)}
    if len(set(rows.values())) != 1:
        raise DatasetFormatError(f"{path}: '{group.name}/observations' has {rows} rows", "get the data set again")
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _read(group: h5py.Group, name: str, path: Path, budget: Budget) -> NDArray[Any]:
    array: Any = group
    for part in name.split("/"):
        array = child(array, part, path) if isinstance(array, h5py.Group) else None
    key = f"{group.name}/{name}".lstrip("/")
    if not isinstance(array, h5py.Dataset):
        raise DatasetFormatError(f"{path}: '{key}' is missing or no array", "get the data set again")
    budget.admit(array, key)
    values = read_array(array, path, key)
    if values.ndim == 0:
        raise DatasetFormatError(f"{path}: '{key}' is a single number", "get the data set again")
    return values
