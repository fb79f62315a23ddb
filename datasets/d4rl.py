"""D4RL's HDF5 files: where they are, how they are downloaded, and their columns."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from offline_vi import homes
from offline_vi.console import as_drawn, standard_error
from offline_vi.data.columns import D4RL_KEYS, LOG_PROB_KEY, MATRICES, REQUIRED_KEYS, Columns, as_float32
from offline_vi.datasets.reading import Reading
from offline_vi.datasets.safe.hdf5 import Budget, arrays_of, attribute, open_hdf5, read_rows, sha256_of
from offline_vi.datasets.tasks import d4rl_hashes, d4rl_references
from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    EmptyDatasetError,
    MissingInputError,
    OfflineError,
)

# the groups are searched for links to elsewhere; of their arrays only the log-probabilities are read
TOP_LEVEL = (*(key for key in D4RL_KEYS.values() if key != LOG_PROB_KEY), "infos", "metadata")
_MATRICES = tuple(D4RL_KEYS[field] for field in MATRICES)
BOUNDS = ("action_low", "action_high")  # attributes of files that `data convert` writes
_TRIES = 5
_BLOCK = 1 << 20


def cache_folders() -> list[Path]:
    """Where files of D4RL's names are looked for: ours first, then the cache that D4RL's users have already."""
    ours = os.environ.get("OFFLINE_VI_DATA")
    return [*([Path(ours)] if ours else []), download_folder()]


def download_folder() -> Path:
    """$D4RL_DATASET_DIR, else ~/.d4rl/datasets."""
    return Path(os.environ.get("D4RL_DATASET_DIR") or homes.home() / ".d4rl" / "datasets")


def find_file(name: str) -> Path | None:
    """The file of a data set that is on this machine under D4RL's file name or its own; None where it is not."""
    reference = d4rl_references().get(name)
    file_names = [f"{name}.hdf5", *([reference.file_name] if reference else [])]
    for folder in cache_folders():
        for file_name in file_names:
            if (folder / file_name).is_file():
                return folder / file_name
    return None


def read_columns(path: Path, max_bytes: int = 0) -> Columns:
    """The columns of a file, as they are stored, in float32 where that is narrower.

    Raises MissingInputError, DatasetCorruptError, UnsafeDatasetError, DatasetFormatError, DatasetTooLargeError, all
    but corruption of the compressed data itself before anything is read.
    """
    with open_hdf5(path) as file:
        arrays = admitted(file, path, max_bytes)
        return Columns.from_d4rl({key: _column(array, path, key) for key, array in arrays.items()}, str(path))


def _column(array: h5py.Dataset, path: Path, key: str) -> NDArray[Any]:
    """As it is stored; numbers wider than float32 become float32 on the way, so that memory holds no more than that.
    Integers for actions stay what they are: they may be labels."""
    wide = array.dtype.itemsize > 4 and (array.dtype.kind == "f" or key != "actions")
    if not wide:
        return read_rows(array, path, key)
    return as_float32(
        lambda start, stop: read_rows(array, path, key, start, stop), array.shape, array.dtype, key, str(path)
    )


def admitted(file: h5py.File, path: Path, max_bytes: int) -> dict[str, h5py.Dataset]:
    """The arrays of D4RL's layout by their keys, found safe and of the right shapes before any of them is read."""
    present = arrays_of(file, path, TOP_LEVEL)
    arrays = {key: present[key] for key in D4RL_KEYS.values() if key in present}
    budget = Budget(path, max_bytes)
    for key, array in arrays.items():
        budget.admit(array, key)
    _check_shapes(arrays, path)
    return arrays


def with_stored_bounds(path: Path, action_dim: int, reading: Reading) -> Reading:
    """The options with the action bounds that the file itself has as attributes, where the call gives none.

    Raises DatasetFormatError where they are no bounds of so many actions, and what `open_hdf5` raises.
    """
    if reading.action_low or reading.action_high or reading.action_range == "data":
        return reading
    with open_hdf5(path) as file:
        found = [attribute(file, name, (action_dim,), path) for name in BOUNDS]
    low, high = found
    if low is None or high is None:
        return reading
    if not (np.isfinite([low, high]).all() and (low <= high).all()):
        raise DatasetFormatError(
            f"{path}: its bounds {low} and {high} are no intervals", "give others: action_low= and action_high="
        )
    return replace(reading, action_low=tuple(low.tolist()), action_high=tuple(high.tolist()))


def check_hash(path: Path, expected: str | None) -> str:
    """The file's SHA-256. Raises DatasetCorruptError where another one is expected."""
    found = sha256_of(path)
    if expected and found != expected.lower():
        raise DatasetCorruptError(
            f"{path}: SHA-256 is {found}, expected {expected}", "the file is damaged or another version: get it again"
        )
    return found


def download(name: str) -> Path:
    """Fetch a D4RL data set into D4RL's own cache, verified by its SHA-256 where that is known.

    Raises OfflineError (no network: the message says where to put the file), DatasetCorruptError (wrong hash).
    """
    reference = d4rl_references()[name]
    target = download_folder() / reference.file_name
    fetch(reference.url, target, d4rl_hashes().get(name))
    return target


def fetch(url: str, target: Path, sha256: str | None = None) -> None:
    """Download ``url`` to ``target``, which appears complete and verified or not at all.

    An interrupted download is kept next to it under a hidden name and is continued by the next call.
    Raises OfflineError, DatasetCorruptError.
    """
    if not url.startswith(("https://", "http://")):
        raise OfflineError(f"{url} is no address on the network", f"get it elsewhere and put it at {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    error: Exception | None = None
    for _ in range(_TRIES):
        try:
            _fetch_rest(url, part)
            break
        except (OSError, HTTPException) as failure:  # URLError and time-outs are OSErrors
            error = failure
            if isinstance(failure, urllib.error.HTTPError) and failure.code == 416:
                part.unlink(missing_ok=True)  # the part is longer than the file: it belongs to another version
    else:
        raise OfflineError(f"cannot download {url} ({error})", f"get it elsewhere and put it at {target}") from error
    try:
        check_hash(part, sha256)
    except DatasetCorruptError:
        part.unlink()
        raise
    os.replace(part, target)


def _fetch_rest(url: str, part: Path) -> None:
    """Append what is missing of ``url`` to ``part``. Raises OSError where the connection ends early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    # `fetch` has looked at the scheme
    with urllib.request.urlopen(request, timeout=30) as response:  # nosec B310
        resumed = response.status == 206  # a server that ignores Range sends the whole file again
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            _copy(response, file.write, have, total, part.name.strip("."))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"the connection ended at {part.stat().st_size:,} of {total:,} bytes")


def _copy(response: HTTPResponse, write: Any, have: int, total: int | None, label: str) -> None:
    console = standard_error(as_drawn)
    with tqdm(
        total=total, initial=have, unit="B", unit_scale=True, desc=label, disable=not console.isatty(), file=console
    ) as progress:
        while block := response.read(_BLOCK):
            write(block)
            progress.update(len(block))


def missing_file(name: str) -> MissingInputError:
    """The error for a data set that is not on this machine."""
    file_name = d4rl_references()[name].file_name
    return MissingInputError(
        f"{name} is not on this machine ({file_name} not in {' or '.join(map(str, cache_folders()))})",
        f"`offline-vi data download {name}`, or put the file there",
    )


def _check_shapes(arrays: dict[str, h5py.Dataset], path: Path) -> None:
    """What can be known of the columns without reading them."""
    missing = [key for key in REQUIRED_KEYS if key not in arrays]
    if missing:
        raise DatasetFormatError(
            f"{path}: no array {', '.join(map(repr, missing))}", f"a data set has the keys {', '.join(REQUIRED_KEYS)}"
        )
    rows = arrays["observations"].shape[:1]
    for key, array in arrays.items():
        if len(array.shape) not in ((2,) if key in _MATRICES else (1, 2)):
            raise DatasetFormatError(f"{path}: '{key}' has shape {array.shape}", "expected (rows,) or (rows, features)")
        if array.shape[:1] != rows:
            raise DatasetFormatError(
                f"{path}: '{key}' has {array.shape[0]} rows, 'observations' {rows[0]}",
                "the file was cut or joined badly",
            )
    if rows == (0,):
        raise EmptyDatasetError(f"{path}: the data set has no rows", "get the file again")
