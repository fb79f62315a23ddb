"""Minari's episodes in Arrow's and Parquet's files of unknown origin: types and sizes are looked at before values."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_vi.datasets.safe.hdf5 import allowed_bytes
from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    MissingDependencyError,
    OfflineVIError,
    UnsafeDatasetError,
)

FORMATS = ("arrow", "parquet")
MAX_FILES = 64  # of one episode
_MAGIC = 8  # bytes of an Arrow file before its first message


def files_in(folder: Path, kind: str) -> list[Path]:
    """The files of one episode. Raises UnsafeDatasetError for links and for too many."""
    files = sorted(path for path in folder.iterdir() if path.suffix == f".{kind}")
    if folder.is_symlink() or any(path.is_symlink() for path in files) or len(files) > MAX_FILES:
        raise UnsafeDatasetError(f"{folder}: a link, or more than {MAX_FILES} files", "a set holds its own episodes")
    return files


class Tables:
    """The tables of episodes, read when they are asked for; the last one is kept."""

    def __init__(self, files: Mapping[int, list[Path]], kind: str, max_bytes: int) -> None:
        self.files, self.kind = files, kind
        self.stored = sum(path.stat().st_size for paths in files.values() for path in paths)
        self.allowed = allowed_bytes(max_bytes, self.stored)
        self.declared = 0
        self._last: tuple[int, Any] | None = None

    def array(self, number: int, key: str) -> NDArray[Any] | None:
        """The rows of a column, or of a field of one ("observations/goal"), (T + 1,) or (T + 1, width); None where
        there is none.

        Raises MissingDependencyError, DatasetCorruptError, DatasetFormatError, DatasetTooLargeError.
        """
        if self._last is None or self._last[0] != number:
            parts = [self._table(path) for path in self.files[number]]
            self._last = (number, parts)
        column, *fields = key.split("/")
        found = []
        for path, table in zip(self.files[number], self._last[1], strict=True):
            with _damage(path):
                values = _field(table, column, fields)
            if values is None:
                return None
            found.append(_numbers(values, path, key))
        return np.concatenate(found) if found else None

    def _table(self, path: Path) -> Any:
        with _damage(path):
            if self.kind == "parquet":
                return self._parquet(path)
            return self._arrow(path)

    def _parquet(self, path: Path) -> Any:
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            unpacked = sum(group.total_byte_size for group in groups)
            _check_types(file.schema_arrow, path)
            self._admit(max(unpacked, file.metadata.num_rows * _row_bytes(file.schema_arrow)), path)
            return file.read()

    def _arrow(self, path: Path) -> Any:
        import pyarrow as pa

        with pa.memory_map(str(path)) as source:
            if any(_is_compressed(message) for message in _messages(source.read_buffer())):
                raise UnsafeDatasetError(f"{path}: its buffers are compressed", "write it uncompressed, as Minari does")
            with pa.ipc.open_file(source) as file:
                _check_types(file.schema, path)
                table = file.read_all()
                table.validate(full=True)
                self._admit(table.nbytes, path)
                return table

    def _admit(self, size: int, path: Path) -> None:
        self.declared += size
        if self.declared > self.allowed:
            raise DatasetTooLargeError(
                f"{path}: with it {self.declared:,} bytes are declared in files of {self.stored:,}, {self.allowed:,} "
                "allowed",
                "if you trust it: max_dataset_bytes=N",
            )


def _field(table: Any, column: str, fields: list[str]) -> Any:
    """A column or a field below it, as one array; None where there is none."""
    import pyarrow as pa

    if column not in table.column_names:
        return None
    values = table.column(column).combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    for name in fields:
        if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
            return None
        values = values.field(name)
    return values


def _numbers(values: Any, path: Path, key: str) -> NDArray[Any]:
    import pyarrow as pa

    kind, width = values.type, 0
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
        if values.null_count:
            raise DatasetFormatError(f"{path}: '{key}' has missing values", "get the data set again")
        values = values.flatten()
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)):
        raise DatasetFormatError(f"{path}: '{key}' holds {kind}, not numbers", "get the data set again")
    if values.null_count:
        raise DatasetFormatError(f"{path}: '{key}' has missing values", "get the data set again")
    array = np.asarray(values.to_numpy(zero_copy_only=False))
    return array.reshape(-1, width) if width else array


def _check_types(schema: Any, path: Path) -> None:
    """Raises DatasetFormatError for types that unpack to anything larger than what is stored."""
    import pyarrow as pa

    pending = [field.type for field in schema]
    for kind in pending:  # it grows
        if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) or isinstance(kind, pa.ExtensionType):
            raise DatasetFormatError(f"{path}: holds {kind}", "numbers and lists of them are expected")
        pending.extend(kind.field(number).type for number in range(kind.num_fields))


def _row_bytes(schema: Any) -> int:
    """Of the numbers in fixed places, bytes."""
    import pyarrow as pa

    def size(kind: Any) -> int:
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size) * size(kind.value_type)
        if pa.types.is_struct(kind):
            return sum(size(kind.field(number).type) for number in range(kind.num_fields))
        return 8

    return sum(size(field.type) for field in schema)


def _messages(data: Any) -> Iterator[bytes]:
    """The metadata of each message of an Arrow file."""
    import pyarrow as pa

    reader = pa.ipc.MessageReader.open_stream(data.slice(_MAGIC))
    while True:
        try:
            yield reader.read_next_message().metadata.to_pybytes()
        except StopIteration:
            return


def _is_compressed(metadata: bytes) -> bool:
    """Whether a message (a flatbuffer of Arrow's Message.fbs) is a batch of rows with compressed buffers.

    Message: version, header type (3: batch of rows), header. RecordBatch: length, nodes, buffers, compression.
    """

    def u16(at: int) -> int:
        return int(struct.unpack_from("<H", metadata, at)[0])

    def u32(at: int) -> int:
        return int(struct.unpack_from("<I", metadata, at)[0])

    def field(table: int, number: int) -> int:
        """Where a field of a table lies; 0 where it is not there."""
        fields = table - int(struct.unpack_from("<i", metadata, table)[0])
        offset = u16(fields + 4 + 2 * number) if 4 + 2 * number < u16(fields) else 0
        return table + offset if offset else 0

    message = u32(0)
    kind, header = field(message, 1), field(message, 2)
    if not kind or metadata[kind] not in (2, 3) or not header:
        return False
    batch = header + u32(header)
    if metadata[kind] == 2:  # a batch of a dictionary: id, data
        return True
    return field(batch, 3) != 0


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever pyarrow makes of a damaged file becomes one error that names it."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError(f"{path} needs {error.name}", "pip install 'offline-vi[arrow]'") from error
    try:
        yield
    except OfflineVIError:
        raise
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        MemoryError,
        struct.error,
        IndexError,
    ) as error:
        raise DatasetCorruptError(f"{path}: cannot be read ({str(error)[:200]})", "get it again") from error
