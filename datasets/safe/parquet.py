"""Parquet files of unknown origin: sizes and types are looked at before a column is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_vi.datasets.safe.delimited import FileTable
from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    MissingDependencyError,
    OfflineVIError,
)


def header(path: Path) -> list[str]:
    """The names of the columns. Raises MissingDependencyError, DatasetCorruptError."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read(path: Path, names: Sequence[str], texts: Sequence[str], max_bytes: int, remedy: str) -> FileTable:
    """The columns ``names``; those of ``texts`` may hold text. ``remedy`` is the argument that raises ``max_bytes``.

    Raises DatasetTooLargeError and DatasetFormatError before anything is read, DatasetCorruptError.
    """
    with _opened(path, texts) as file:
        columns = list(file.schema_arrow.names)
        _check_types(file, path, names, texts)
        _check_size(file, path, names, max_bytes, remedy)
        table = file.read(columns=list(names))
        return FileTable(columns, {name: _values(table.column(name)) for name in names})


@contextmanager
def _opened(path: Path, texts: Sequence[str] = ()) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(f"{path} needs {error.name}", "pip install 'offline-vi[arrow]'") from error
    try:
        with parquet.ParquetFile(path, read_dictionary=list(texts)) as file:
            yield file
    except OfflineVIError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise DatasetCorruptError(f"{path}: cannot be read ({str(error)[:200]})", "is it a Parquet file?") from error


def _check_types(file: Any, path: Path, names: Sequence[str], texts: Sequence[str]) -> None:
    from pyarrow import types

    for name in names:
        kind = file.schema_arrow.field(name).type
        text = types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind)
        if not (types.is_primitive(kind) or types.is_decimal(kind) or (text and name in texts)):
            raise DatasetFormatError(f"{path}: the column {name!r} holds {kind}, not numbers", "leave it out")


def _check_size(file: Any, path: Path, names: Sequence[str], max_bytes: int, remedy: str) -> None:
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    stored = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in names)
    declared = max(8 * file.metadata.num_rows * len(names), stored)
    if declared > max_bytes:
        raise DatasetTooLargeError(
            f"{path}: {declared:,} bytes declared, {max_bytes:,} allowed", f"if you trust it: {remedy}"
        )


def _values(column: Any) -> NDArray[Any]:
    """(N,) of a column; one of texts as objects, of which equal ones are the same."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        parts = [_taken(chunk) for chunk in column.chunks]
        return np.concatenate(parts) if parts else np.zeros(0, object)
    if types.is_decimal(column.type):
        column = column.cast("float64")
    return np.asarray(column.to_numpy())


def _taken(chunk: Any) -> NDArray[Any]:
    words: NDArray[Any] = np.array([*chunk.dictionary.to_pylist(), None], object)
    taken: NDArray[Any] = words[chunk.indices.fill_null(len(words) - 1).to_numpy()]
    return taken
