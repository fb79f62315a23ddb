"""Reading HDF5 files of unknown origin: everything is checked against the file's structure before a byte is read.

HDF5 can name other files (external links, external storage, virtual data sets), declare terabytes in a kilobyte (fill
values, gzip), load plug-ins (filters) and contain itself (hard links). None of it belongs in a data set.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    MissingInputError,
    OfflineVIError,
    UnsafeDatasetError,
)

MAX_MAPPED = 32 << 30  # bytes
MAX_DEPTH = 4
MAX_OBJECTS = 256
# LZF is h5py's own
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF,
}  # fmt: skip
# D4RL's files expand one- to threefold, one-hot logs a hundredfold, a gzip bomb a thousandfold
MAX_EXPANSION = 50
_FREE_BYTES = 64 << 20
# what h5py raises on damaged files
_H5PY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, NotImplementedError, SystemError)


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, read-only, without following it anywhere. Raises MissingInputError, DatasetCorruptError."""
    if not path.is_file():
        raise MissingInputError(f"{path} is not there" if not path.exists() else f"{path} is not a file", "check it")
    with _damage(path, "the file's structure"):
        file = _opened(path)
    with file:
        yield file


def _opened(path: Path) -> h5py.File:
    """Without a lock, or with the lock under which this process has the file open already: HDF5 wants them the same."""
    for locking in (False, True, "best-effort"):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "flag values don't match" not in str(error):
                raise
    return h5py.File(path, "r")


def child(group: h5py.Group, name: str, path: Path) -> h5py.Dataset | h5py.Group | None:
    """The array or group of that name; None where there is none. What lies in another file is not opened.

    Raises UnsafeDatasetError for links and foreign storage, DatasetFormatError for anything else than arrays.
    """
    key = f"{group.name}/{name}".lstrip("/")
    with _damage(path, key):
        link = group.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise UnsafeDatasetError(f"{path}: '{key}' is a link to elsewhere", "a data set holds its own arrays")
        item = group[name]
        if isinstance(item, h5py.Dataset):
            plist = item.id.get_create_plist()
            if plist.get_external_count() > 0 or plist.get_layout() == h5py.h5d.VIRTUAL:
                raise UnsafeDatasetError(f"{path}: '{key}' is stored elsewhere", "a data set holds its own arrays")
        elif not isinstance(item, h5py.Group):
            raise DatasetFormatError(f"{path}: '{key}' is neither an array nor a group", "convert the file")
        return item


def names_in(group: h5py.Group, path: Path) -> list[str]:
    """The names of everything in a group; nothing is opened. Raises DatasetCorruptError."""
    with _damage(path, str(group.name)):
        return list(group)


def arrays_of(file: h5py.File, path: Path, names: Iterable[str]) -> dict[str, h5py.Dataset]:
    """The arrays below the top-level ``names`` by their path, e.g. "infos/qpos". Other names are not touched.

    Raises UnsafeDatasetError for links, foreign storage, too many or too deep objects.
    """
    found: dict[str, h5py.Dataset] = {}
    seen = 0
    pending: list[tuple[h5py.Group, str, str]] = [(file, name, name) for name in names]
    while pending:
        group, name, key = pending.pop()
        item = child(group, name, path)
        if item is None:
            continue
        seen += 1
        if isinstance(item, h5py.Dataset):
            found[key] = item
            continue
        with _damage(path, key):
            below = list(islice(item, MAX_OBJECTS + 1))
        too_deep = bool(below) and key.count("/") + 1 >= MAX_DEPTH
        if too_deep or seen + len(pending) + len(below) > MAX_OBJECTS:
            raise UnsafeDatasetError(
                f"{path}: more than {MAX_OBJECTS} objects or {MAX_DEPTH} levels at '{key[:60]}'",
                "a data set is flat; groups that contain themselves are refused",
            )
        pending.extend((item, name, f"{key}/{name}") for name in below)
    return found


def half_of_memory() -> int:
    """Bytes: half of the machine's memory; 4 GiB where the system does not tell (Windows)."""
    try:
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES")) // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30


def attribute(file: h5py.File, name: str, shape: tuple[int, ...], path: Path) -> NDArray[np.float64] | None:
    """An attribute of the file: real numbers of the shape that is expected; None where there is none.

    Raises DatasetFormatError before anything else is read, DatasetCorruptError.
    """
    with _damage(path, name):
        if name not in file.attrs:
            return None
        stored = file.attrs.get_id(name)
        if stored.dtype.kind not in "iuf" or stored.shape != shape:
            raise DatasetFormatError(
                f"{path}: the attribute {name!r} holds {stored.dtype} {stored.shape}, not numbers {shape}", "remove it"
            )
        return np.asarray(file.attrs[name], np.float64)


def allowed_bytes(max_bytes: int, stored: int) -> int:
    """What the arrays of a file of ``stored`` bytes may declare: ``max_bytes``, where that is not 0.

    Else what fits into half of the memory, and beyond that 50 times what the file stores, at most 32 GiB.
    """
    return max_bytes or max(half_of_memory(), min(MAX_EXPANSION * stored, MAX_MAPPED))


class Budget:
    """What the arrays of one file may occupy (`allowed_bytes`)."""

    def __init__(self, path: Path, max_bytes: int = 0) -> None:
        self.path = path
        self.stored = path.stat().st_size
        self.allowed = allowed_bytes(max_bytes, self.stored)
        self.declared = 0

    def admit(self, array: h5py.Dataset, key: str) -> None:
        """Check type, filters and size of an array that is about to be read.

        Raises DatasetFormatError, UnsafeDatasetError, DatasetTooLargeError.
        """
        with _damage(self.path, key):
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8 or array.shape is None:
                raise DatasetFormatError(f"{self.path}: '{key}' holds {array.dtype}, not numbers", "convert the file")
            _refuse_unknown_filters(array, self.path, key)
            size = array.nbytes
            if size > 0 and array.id.get_storage_size() == 0:
                raise DatasetTooLargeError(
                    f"{self.path}: '{key}' declares {size:,} bytes and stores none", "it was never filled: distrust it"
                )
            # a chunk is unpacked whole, however few of its rows exist
            chunk = math.prod(array.chunks) * array.dtype.itemsize if array.chunks else 0
            if chunk > size + _FREE_BYTES:
                raise DatasetTooLargeError(
                    f"{self.path}: a chunk of '{key}' takes {chunk:,} bytes, all its rows {size:,}", "repack the file"
                )
            self.declared += max(size, chunk)
        if self.declared > self.allowed:
            raise DatasetTooLargeError(
                f"{self.path}: {self.declared:,} bytes declared in a file of {self.stored:,}, {self.allowed:,} allowed",
                "if you trust it: max_dataset_bytes=N",
            )


def read_array(array: h5py.Dataset, path: Path, key: str) -> NDArray[Any]:
    """The whole array. Raises DatasetCorruptError naming file and key."""
    with _damage(path, key):
        return np.asarray(array[()])


def read_rows(array: h5py.Dataset, path: Path, key: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Rows ``start`` to ``stop``, all of them by default. Raises DatasetCorruptError naming file and key."""
    with _damage(path, key):
        return np.asarray(array[start:stop])


def sha256_of(path: Path) -> str:
    """Of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_unknown_filters(array: h5py.Dataset, path: Path, key: str) -> None:
    plist = array.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, label = plist.get_filter(number)
        if code not in _FILTERS:
            name = label.decode(errors="replace") or code
            raise UnsafeDatasetError(
                f"{path}: '{key}' needs the filter {name}",
                "gzip, LZF, shuffle and fletcher32 are accepted: repack the file",
            )


@contextmanager
def _damage(path: Path, key: str) -> Iterator[None]:
    """Whatever h5py makes of a damaged file becomes one error that names file and key."""
    try:
        yield
    except OfflineVIError:
        raise
    except MemoryError as error:
        raise DatasetTooLargeError(f"{path}: no memory for {key!r}", "map it from the disk: memory_budget=N") from error
    except _H5PY_ERRORS as error:
        raise DatasetCorruptError(f"{path}: cannot read {key!r} ({error})", "get the file again") from error
