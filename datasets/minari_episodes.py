"""The episodes of Minari's sets of vectors as they are stored: in one HDF5 file, or in a folder of Arrow or Parquet
files. A storage says which episodes it holds and reads one at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from offline_vi.data.columns import warn
from offline_vi.datasets.reading import OnBadEpisode
from offline_vi.datasets.safe import arrow
from offline_vi.datasets.safe.hdf5 import Budget, child, names_in, open_hdf5, read_array
from offline_vi.errors import DatasetCorruptError, DatasetFormatError

Columns = dict[str, NDArray[Any]]
_STEP_ARRAYS = {"rewards": "reward", "terminations": "terminal", "truncations": "timeout"}
_LOG_PROBS = "action_log_probs"
AGAIN = "get the data set again"


class Storage(NamedTuple):
    """What holds the episodes of a set, opened."""

    path: Path  # of the file, or of the folder of files
    files: tuple[Path, ...]
    numbers: list[int]  # of the episodes that it holds
    array: Callable[[int, str], NDArray[Any] | None]  # (episode, "rewards" or "observations/goal") -> rows, or None
    padded: bool  # whether arrays of steps have T + 1 rows, like observations


@contextmanager
def opened(folder: Path, kind: str, max_bytes: int) -> Iterator[Storage]:
    """The storage in a set's folder, by the ``data_format`` of its metadata.

    Raises DatasetFormatError for another format, MissingInputError, MissingDependencyError, and, while it is read,
    DatasetCorruptError, UnsafeDatasetError, DatasetTooLargeError.
    """
    if kind == "hdf5":
        path = folder / "main_data.hdf5"
        with open_hdf5(path) as file:
            budget = Budget(path, max_bytes)
            numbers = sorted(int(key[8:]) for key in names_in(file, path) if re.fullmatch(r"episode_\d{1,9}", key))
            yield Storage(path, (path,), numbers, lambda number, key: _hdf5_array(file, number, key, budget), False)
    elif kind in arrow.FORMATS:
        numbers = sorted(
            int(path.name) for path in folder.iterdir() if path.is_dir() and re.fullmatch(r"\d{1,9}", path.name)
        )
        files = {number: arrow.files_in(folder / str(number), kind) for number in numbers}
        tables = arrow.Tables(files, kind, max_bytes)
        yield Storage(folder, tuple(path for paths in files.values() for path in paths), numbers, tables.array, True)
    else:
        raise DatasetFormatError(
            f"{folder}: stored as {kind[:60]!r}", "convert it to hdf5, arrow or parquet with Minari"
        )


def _hdf5_array(file: h5py.File, number: int, key: str, budget: Budget) -> NDArray[Any] | None:
    item: Any = file
    for part in (f"episode_{number}", *key.split("/")):
        item = child(item, part, budget.path) if isinstance(item, h5py.Group) else None
    if not isinstance(item, h5py.Dataset):
        return None
    where = f"episode_{number}/{key}"
    budget.admit(item, where)
    return read_array(item, budget.path, where)


def episodes_in(storage: Storage, total: int, on_bad_episode: OnBadEpisode) -> list[int]:
    """The numbers of the episodes to read, of which the metadata count ``total``.

    Raises DatasetFormatError where the storage holds more or fewer; on_bad_episode="drop" takes those that are there.
    """
    found = len(storage.numbers)
    if storage.numbers == list(range(total)):
        return storage.numbers
    message = f"{storage.path}: {found} episodes are stored, the metadata count {total}"
    if on_bad_episode == "error":
        raise DatasetFormatError(message, f'read those that are there: on_bad_episode="drop"; or {AGAIN}')
    warn(f"{message}: those that are stored are read")
    return storage.numbers


def read_episodes(
    storage: Storage,
    numbers: Sequence[int],
    obs_keys: tuple[str, ...],
    widths: tuple[int, int],
    on_bad_episode: OnBadEpisode,
) -> Iterator[Columns]:
    """The columns of one episode after the other by the fields of `data.Columns`, reals as float32; those without a
    step are passed over.

    Raises DatasetFormatError and DatasetCorruptError for an episode that cannot be read; on_bad_episode="drop" leaves
    it out, and counts.
    """
    dropped: list[str] = []
    for number in numbers:
        try:
            episode = read_episode(storage, number, obs_keys, widths)
        except (DatasetFormatError, DatasetCorruptError) as error:
            if on_bad_episode == "error":
                raise type(error)(str(error), f'leave such episodes out: on_bad_episode="drop"; or {AGAIN}') from error
            dropped.append(str(error))
            continue
        if len(episode["reward"]) > 0:
            yield episode
    if dropped:
        warn(f"{storage.path}: left out {len(dropped)} of {len(numbers)} episodes; the first: {dropped[0]}")


def read_episode(storage: Storage, number: int, obs_keys: tuple[str, ...], widths: tuple[int, int]) -> Columns:
    """The columns of one episode; observations (T + 1, O) and actions (T, A) of the ``widths`` (O, A)."""
    where = f"{storage.path}: 'episode_{number}'"
    arrays: Columns = {}
    for name, keys in (
        ("obs", [f"observations/{key}" for key in obs_keys] or ["observations"]),
        ("action", ["actions"]),
    ):
        parts = [_required(storage, number, key, where) for key in keys]
        rows = {key: len(part) for key, part in zip(keys, parts, strict=True)}
        if len(set(rows.values())) != 1:
            raise DatasetFormatError(f"{where} has {rows} rows", AGAIN)
        arrays[name] = np.concatenate([_narrow(_matrix(part), name) for part in parts], axis=1)
    arrays |= {ours: _narrow(_required(storage, number, key, where), ours) for key, ours in _STEP_ARRAYS.items()}
    observations = arrays.pop("obs")
    if storage.padded:
        arrays = {name: values[:-1] for name, values in arrays.items()}
    steps = len(arrays["reward"])
    lengths = {"observations": len(observations) - 1} | {name: len(values) for name, values in arrays.items()}
    if set(lengths.values()) != {steps}:
        raise DatasetFormatError(f"{where} has {lengths} steps (observations without the last)", AGAIN)
    if (found := (observations.shape[1], arrays["action"].shape[1])) != widths:
        raise DatasetFormatError(
            f"{where} has observations and actions of {found} numbers, the metadata {widths}", AGAIN
        )
    arrays |= {"obs": observations[:-1], "next_obs": observations[1:]}
    arrays["timeout"] = arrays["timeout"].astype(np.bool_)
    if steps:  # an episode that simply stops was cut
        arrays["timeout"][-1] |= not bool(arrays["terminal"][-1])
    log_prob = storage.array(number, f"infos/{_LOG_PROBS}")
    if log_prob is not None and len(log_prob) >= steps:
        arrays["log_prob"] = log_prob.reshape(len(log_prob), -1)[:steps, 0]  # infos have T + 1 rows
    return arrays


def _required(storage: Storage, number: int, key: str, where: str) -> NDArray[Any]:
    values = storage.array(number, key)
    if values is None:
        raise DatasetFormatError(f"{where}: '{key}' is missing or no array", AGAIN)
    if values.ndim == 0:
        raise DatasetFormatError(f"{where}: '{key}' is a single number", AGAIN)
    return values


def _matrix(values: NDArray[Any]) -> NDArray[Any]:
    """(T, ...) as (T, F)."""
    return values.reshape(len(values), int(np.prod(values.shape[1:])))


def _narrow(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Reals as float32, so that memory holds no more; integers for actions may be labels."""
    wide = values.dtype.itemsize > 4 and (values.dtype.kind == "f" or name != "action")
    with np.errstate(over="ignore"):  # becomes infinite and is reported as such
        return values.astype(np.float32) if wide else values
