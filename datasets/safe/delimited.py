"""CSV files of unknown origin: every row has the cells of the first line, every cell that is read is what it should be,
and a refusal names the line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_vi.errors import DatasetFormatError, EmptyDatasetError

DELIMITERS = (",", ";", "\t", "|")
MISSING = ("", "na", "n/a", "nan", "null", "none")
TRUTH = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
BLOCK = 20_000  # rows whose cells are in memory as text
SWAPPED = str.maketrans(",.", ".,")


@dataclass(frozen=True)
class FileTable:
    """The columns of a file that were read, by their names."""

    columns: list[str]  # all of the file, in its order
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (N,)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.values[name]


def header(path: Path, delimiter: str = "") -> tuple[list[str], str]:
    """(the names in the first line, the delimiter); without one, that which makes the most of the first line.

    Raises EmptyDatasetError, DatasetFormatError.
    """
    with _text_of(path) as file:
        line = file.readline(1 << 20)
    if not line.strip():
        raise EmptyDatasetError(f"{path}: the first line is empty", "it has the names of the columns")
    rows = {mark: next(csv.reader([line], delimiter=mark)) for mark in ([delimiter] if delimiter else DELIMITERS)}
    delimiter, names = max(rows.items(), key=lambda row: len(row[1]))
    names = [name.strip() for name in names]
    if all(_is_number(name) for name in names):
        raise DatasetFormatError(f"{path}: the first line holds numbers", "it has to have the names of the columns")
    return names, delimiter


def first_rows(path: Path, delimiter: str, count: int = 20) -> list[list[str]]:
    """The first rows below the names, at most ``count``, as far as they can be read."""
    found: list[list[str]] = []
    with suppress(csv.Error, DatasetFormatError), _text_of(path) as file:
        reader = csv.reader(file, delimiter=delimiter)
        next(reader)
        found.extend(islice(reader, count))
    return found


def kind_of(cells: Sequence[str]) -> str:
    """What the cells of a column look like: "numbers", "decimal commas", "truths" or "text"; empty where none says."""
    known = [word for cell in cells if (word := cell.strip().lower()) not in MISSING]
    if not known:
        return ""
    if all(map(_is_number, known)):
        return "numbers"
    if all(_is_number(word.translate(SWAPPED)) for word in known):
        return "decimal commas"
    return "truths" if all(word in TRUTH for word in known) else "text"


def read(path: Path, names: Sequence[str], texts: Sequence[str], delimiter: str, decimal: str) -> FileTable:
    """The columns ``names``: those of ``texts`` as text, the others as numbers, NaN where a cell is empty or says so.

    Raises DatasetFormatError naming line and column.
    """
    columns = header(path, delimiter)[0]
    places = {name: columns.index(name) for name in names}
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for lines, rows in _blocks(path, delimiter, len(columns)):
        for name, place in places.items():
            cells = [row[place] for row in rows]
            if decimal == ",":  # points would separate thousands: they become commas, which no number has
                cells = [cell.translate(SWAPPED) for cell in cells]
            parts[name].append(_texts(cells) if name in texts else _numbers(cells, lines, name, path))
    return FileTable(columns, {name: np.concatenate(part or [np.zeros(0)]) for name, part in parts.items()})


def _blocks(path: Path, delimiter: str, width: int) -> Iterator[tuple[list[int], list[list[str]]]]:
    """(their lines, some rows) after the first line; empty lines are left out."""
    with _text_of(path) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            next(reader)
            lines: list[int] = []
            rows: list[list[str]] = []
            for row in reader:
                if row and len(row) != width:
                    raise DatasetFormatError(
                        f"{path}: line {reader.line_num} has {len(row)} cells, the first line {width}",
                        "the file was cut, or cells with the delimiter in them lack quotes",
                    )
                if row:
                    lines.append(reader.line_num)
                    rows.append(row)
                if len(rows) == BLOCK:
                    yield lines, rows
                    lines, rows = [], []
            if rows:
                yield lines, rows
        except csv.Error as error:
            raise DatasetFormatError(f"{path}: line {reader.line_num}: {error}", "look at its quotes") from error


@contextmanager
def _text_of(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DatasetFormatError(f"{path} is no UTF-8 text ({error.reason})", "save it as CSV in UTF-8") from error


def _texts(cells: list[str]) -> NDArray[Any]:
    """(rows,) objects; a missing one is None."""
    found = np.empty(len(cells), object)
    found[:] = [None if cell.strip().lower() in MISSING else cell.strip() for cell in cells]
    return found


def _numbers(cells: list[str], lines: list[int], name: str, path: Path) -> NDArray[np.float64]:
    try:
        if "_" in "".join(cells):
            raise ValueError
        return np.array(list(map(float, cells)))
    except ValueError:
        return np.array([_number(cell, line, name, path) for cell, line in zip(cells, lines, strict=True)])


def _number(cell: str, line: int, name: str, path: Path) -> float:
    word = cell.strip().lower()
    if word in MISSING:
        return float("nan")
    if word in TRUTH:
        return TRUTH[word]
    if not _is_number(word):
        raise DatasetFormatError(
            f"{path}: line {line}: {name!r} is {cell.strip()[:40]!r}, which is no number",
            'say how numbers are written in the file of columns: decimal = ","'
            if _is_number(word.translate(SWAPPED))
            else "leave the column out, or make it numbers: 1234.5, without units and separators of thousands; "
            "a label becomes one column of 0 and 1 for each kind",
        )
    return float(word)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
