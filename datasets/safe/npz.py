"""Reading .npz archives of unknown origin: names, types, shapes and sizes come from the archive's directory and the
arrays' headers before a byte is unpacked. Objects (pickle) are refused; CRC errors, truncation and bombs are one-line
errors.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from offline_vi.datasets.safe.hdf5 import allowed_bytes
from offline_vi.errors import DatasetCorruptError, DatasetFormatError, DatasetTooLargeError, UnsafeDatasetError

MAX_EXPANSION = 2000  # of deflate, beyond what its format can reach: 1032
# what zipfile raises on damaged archives
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """An array in an archive, as its header declares it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def read_directory(path: Path, max_bytes: int = 0) -> dict[str, Member]:
    """The arrays of an .npz file by their headers; nothing else is unpacked.

    Raises DatasetCorruptError, DatasetFormatError, DatasetTooLargeError, UnsafeDatasetError.
    """
    members: dict[str, Member] = {}
    with _archive(path) as archive:
        for info in archive.infolist():
            key = info.filename.removesuffix(".npy")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
                raise UnsafeDatasetError(f"{path}: '{key[:60]}' is packed in an unusual way", "np.savez_compressed")
            if info.file_size > MAX_EXPANSION * max(info.compress_size, 1):
                raise DatasetTooLargeError(
                    f"{path}: '{key[:60]}' declares {info.file_size:,} bytes in {info.compress_size:,}", "distrust it"
                )
            with _damage(path, key), archive.open(info) as stream:
                member = _header(stream, path, key)
                if member.nbytes + stream.tell() != info.file_size:
                    raise DatasetCorruptError(
                        f"{path}: '{key[:60]}' declares {member.shape} {member.dtype}, {info.file_size:,} bytes follow",
                        "the file is damaged: get it again",
                    )
            members[key] = member
    total, allowed = sum(member.nbytes for member in members.values()), allowed_bytes(max_bytes, path.stat().st_size)
    if total > allowed:
        raise DatasetTooLargeError(
            f"{path}: {total:,} bytes declared, {allowed:,} allowed", "if you trust it: max_dataset_bytes=N"
        )
    return members


def _header(stream: IO[bytes], path: Path, key: str) -> Member:
    version = npy.read_magic(stream)
    read: Any = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise DatasetFormatError(f"{path}: '{key[:60]}' has the .npy version {version}", "1.0 and 2.0 are read")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise UnsafeDatasetError(f"{path}: '{key[:60]}' holds {dtype}, not numbers", "objects would run code: refused")
    if fortran and len(shape) > 1:
        raise DatasetFormatError(f"{path}: '{key[:60]}' is in Fortran's order", "np.ascontiguousarray before saving")
    return Member(shape, dtype)


def read_arrays(path: Path, members: Mapping[str, Member], keys: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The named arrays, whose ``members`` have been found good. Raises DatasetCorruptError naming file and key."""
    with _archive(path) as archive:
        return {key: _read(archive, path, key, members[key]) for key in keys}


def _read(archive: zipfile.ZipFile, path: Path, key: str, member: Member) -> NDArray[Any]:
    with _damage(path, key), archive.open(f"{key}.npy") as stream:
        _header(stream, path, key)
        data = stream.read(member.nbytes + 1)  # one more: the stream's end checks the CRC
        if len(data) != member.nbytes:
            raise DatasetCorruptError(f"{path}: '{key}' ends early", "the file is truncated: get it again")
    return np.frombuffer(data, member.dtype).reshape(member.shape)


@contextmanager
def _damage(path: Path, key: str) -> Iterator[None]:
    """Whatever zipfile makes of a damaged archive becomes one error that names file and key."""
    try:
        yield
    except _ZIP_ERRORS as error:
        raise DatasetCorruptError(
            f"{path}: cannot read '{key[:60]}' ({error})", "damaged or truncated: get it again"
        ) from error


def _archive(path: Path) -> zipfile.ZipFile:
    with _damage(path, "the archive"):
        return zipfile.ZipFile(path)
