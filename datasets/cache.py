"""What is converted once and kept in $OFFLINE_VI_HOME: a folder under a key, whole or not at all.

A manifest is written last: the size and SHA-256 of every file. Whoever uses the folder compares them, so that a column
that was cut or changed is made anew, and never trained on. Columns are written, not mapped, while they are made: a disk
that fills up is an error then, where a write to mapped memory would be the end of the process.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from offline_vi import homes
from offline_vi.errors import DataWarning, OutputDirError
from offline_vi.runs.files import (
    MAX_JSON,
    is_regular,
    kind_of,
    open_regular,
    parse_json,
    read_file,
    require_folder,
    write_json,
)
from offline_vi.runs.ownership import OWN


def home() -> Path:
    """$OFFLINE_VI_HOME, else ~/.cache/offline_vi."""
    return homes.cache()


def cached_folder(kind: str, key: str, write: Callable[[Path], None]) -> Path:
    """The folder of ``kind`` under a key; where it is missing or damaged, ``write`` fills an empty one first.

    Of several processes that write the same key at once, one wins. Raises what ``write`` raises and leaves nothing,
    OutputDirError where the folder cannot be written, or holds what is none of its files.
    """
    folder = home() / kind / hashlib.sha256(key.encode()).hexdigest()[:24]
    if is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".write-", dir=folder.parent) as scratch:
            whole = Path(scratch) / "columns"
            whole.mkdir()
            write(whole)
            write_json(whole / OWN, {"offline_vi": "cache", "files": _files(whole)})
            if is_whole(folder):  # another process was faster: same key, same data
                return folder
            _set_aside(folder, Path(scratch) / "damaged")
            try:
                os.rename(whole, folder)
            except OSError:
                if not is_whole(folder):
                    raise
    except OSError as error:
        raise OutputDirError(
            f"converted data cannot be kept in {folder.parent} ({error.strerror or error})",
            "make room there, or let the variable OFFLINE_VI_HOME name another folder",
        ) from error
    return folder


def is_whole(folder: Path) -> bool:
    """Whether all files of a folder are those that were written."""
    with suppress(ValueError, OSError):
        record = parse_json(read_file(folder / OWN, MAX_JSON))
        return record.get("offline_vi") == "cache" and record.get("files") == _files(folder)
    return False


def _files(folder: Path) -> dict[str, Any]:
    """Size and SHA-256 of every file but the manifest. Raises ValueError where one is not regular."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.name != OWN:
            with open_regular(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[path.name] = {"bytes": file.tell(), "sha256": digest}
    return found


def _set_aside(folder: Path, aside: Path) -> None:
    """Move a damaged folder out of the way. Raises OutputDirError where anything but columns is in it."""
    if not kind_of(require_folder(folder)):
        return
    for path in folder.iterdir():
        if not is_regular(path) or path.suffix not in (".npy", ".json"):
            raise OutputDirError(f"{path} is in a folder of converted data, and is none of its columns", "move it away")
    warnings.warn(f"the converted data in {folder} are damaged: they are made anew", DataWarning, stacklevel=4)
    os.rename(folder, aside)


class ColumnWriter:
    """A ``.npy`` file of a known shape, written row after row; a context manager."""

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self.dtype, self.file, self.rows = np.dtype(dtype), path.open("xb"), 0
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)

    def write(self, rows: NDArray[Any]) -> None:
        """The next rows. Raises OSError where the disk is full."""
        self.file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.rows += len(rows)

    def __enter__(self) -> ColumnWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.close()
