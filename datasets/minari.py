"""Minari's data sets of vectors: where they are, how they are downloaded, and their columns.

Minari joins names to paths unchecked. Here names are matched and resolved inside the root, and arrays are read through
the guards of `offline_vi.datasets.safe.hdf5`.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from offline_vi.data.columns import Columns
from offline_vi.data.discrete import FOR_LABELS
from offline_vi.data.transitions import Provenance
from offline_vi.datasets.d4rl import check_hash
from offline_vi.datasets.local import NAME, root as root
from offline_vi.datasets.minari_episodes import Storage, episodes_in, opened, read_episodes
from offline_vi.datasets.minari_metadata import (
    observation_keys,
    read_metadata,
    recorded_in,
    space_in,
    task_in,
    total_episodes,
)
from offline_vi.datasets.reading import OnBadEpisode, Read
from offline_vi.datasets.safe.hdf5 import sha256_of
from offline_vi.datasets.tasks import RECIPES
from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    MissingDependencyError,
    MissingInputError,
    OfflineError,
    SpaceMismatchError,
    UnsafeDatasetError,
)
from offline_vi.observations import entries
from offline_vi.types import Task


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


class Described(NamedTuple):
    """What a set's metadata say of it."""

    name: str
    folder: Path  # of its files
    kind: str  # hdf5, arrow or parquet
    total: int  # episodes
    steps: int  # of all episodes, for an estimate
    widths: tuple[int, int]  # (O, A)
    obs_keys: tuple[str, ...]  # entries of dict observations; () where they are vectors
    task: Task


def describe(
    name: str, download_missing: bool = False, env: str | None = None, obs_keys: tuple[str, ...] = ()
) -> Described:
    """A set by its metadata; where it is missing, a recipe of ours is collected.

    ``env`` is the environment that the caller names, or "" for none; None takes the file's. ``obs_keys`` are those of
    `observation_keys`. Raises MissingInputError, OfflineError, UnsafeDatasetError, DatasetFormatError,
    DatasetCorruptError, SpaceMismatchError.
    """
    folder = folder_of(name)
    if not (folder / "data").is_dir():
        fetch(name, download_missing)
    metadata = read_metadata(folder / "data" / "metadata.json")
    observations, actions = (space_in(metadata, f"{key}_space", name) for key in ("observation", "action"))
    if not isinstance(actions, spaces.Box) or len(actions.shape) != 1:
        raise SpaceMismatchError(f"{name}: action space {actions}, a vector of real numbers is needed", FOR_LABELS)
    chosen = observation_keys(observations, obs_keys, name)
    inner = entries(observations)
    boxes = [inner[key] for key in chosen] if inner else [observations]
    width = sum(int(np.prod(box.shape or ())) for box in boxes)
    steps = metadata.get("total_steps")
    return Described(
        name,
        folder / "data",
        str(metadata.get("data_format", "hdf5")),
        total_episodes(metadata, name),
        steps if isinstance(steps, int) else 0,
        (width, actions.shape[0]),
        chosen if inner else (),
        task_in(metadata, name, actions, chosen, env),
    )


def read(
    found: Described, max_bytes: int = 0, sha256: str | None = None, on_bad_episode: OnBadEpisode = "error"
) -> Read:
    """The columns of a data set (next observations from the T + 1 of each episode, timeouts where an episode was cut),
    its task with the bounds of its own action space, and where it came from.

    ``on_bad_episode="drop"`` leaves out episodes that cannot be read, and counts them.
    Raises MissingInputError, MissingDependencyError, UnsafeDatasetError, DatasetFormatError, DatasetCorruptError,
    DatasetTooLargeError.
    """
    with opened(found.folder, found.kind, max_bytes) as storage:
        numbers = episodes_in(storage, found.total, on_bad_episode)
        parts = list(read_episodes(storage, numbers, found.obs_keys, found.widths, on_bad_episode))
        source = Provenance(found.name, (str(storage.path),), (hash_of(storage, sha256),), "within_episode")
    if not parts:
        raise DatasetFormatError(f"{storage.path}: no episode has a step", "get the data set again")
    columns: dict[str, NDArray[Any]] = {}
    for key in {key for key in parts[0] if all(key in part for part in parts)}:
        columns[key] = np.concatenate([part.pop(key) for part in parts])  # a column at a time: memory holds it twice
    return Read(Columns(**columns), found.task, source)


def hash_of(storage: Storage, expected: str | None) -> str:
    """SHA-256 of the one file, or of a list of those of all files. Raises DatasetCorruptError where it is another."""
    if len(storage.files) == 1:
        return check_hash(storage.files[0], expected)
    lines = [f"{sha256_of(path)}  {path.relative_to(storage.path)}\n" for path in storage.files]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    if expected and digest != expected.lower():
        raise DatasetCorruptError(f"{storage.path}: SHA-256 is {digest}, expected {expected}", "get it again")
    return digest


def origin(name: str) -> str:
    """The environment that a set on this machine says it was recorded in, in a few words; empty where it does not."""
    return recorded_in(read_metadata(folder_of(name) / "data" / "metadata.json"))


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
