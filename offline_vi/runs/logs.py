"""CSV logs that end where a checkpoint does."""

from __future__ import annotations

import csv
import errno
import io
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from offline_vi.errors import (
    CheckpointWarning,
)
from offline_vi.escaping import csv_cell
from offline_vi.runs.files import read_file, replace_file, safely, writing


class CsvLog:
    """A CSV file that grows by whole lines and can be cut back to where a checkpoint saw it.

    The first row fixes the columns; a row with a new one rewrites the file with an empty cell in the rows before.
    `mark` therefore remembers columns and rows, not bytes: `rewind` gives back the very bytes of that moment.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.rows = 0
        if path.exists():
            self._rewrite(*self._table())  # a line that a kill cut short goes

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Write one line by one call of the system. Raises CheckpointWriteError, with the file as it was."""
        added = [name for name in row if name not in self.columns]
        with writing(self.path.parent, 4096):
            if added:
                self._rewrite(self.columns + added, self._table()[1])
            line = csv_bytes([[row.get(name, "") for name in self.columns]])
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | safely())
            try:
                size = os.fstat(descriptor).st_size
                if os.write(descriptor, line) != len(line):
                    os.ftruncate(descriptor, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        self.rows += 1

    def read(self) -> list[dict[str, float | int | str]]:
        """The rows as they were given: numbers as numbers, without the columns that a row did not have."""
        table = self._table()[1]
        return [{name: number(cell) for name, cell in row.items() if cell != ""} for row in table]

    def mark(self) -> dict[str, Any]:
        """JSON value for `rewind`; what it stands for is on the disk."""
        if self.rows:
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
        return {"columns": list(self.columns), "rows": self.rows}

    def rewind(self, mark: Mapping[str, Any]) -> None:
        """Drop what came after ``mark``. Warns where rows from before are gone."""
        rows = self._table()[1]
        if len(rows) < mark["rows"]:
            warnings.warn(
                f"{self.path.name} has {len(rows)} rows, the checkpoint saw {mark['rows']}: the others are lost",
                CheckpointWarning,
                stacklevel=3,
            )
        self._rewrite(list(mark["columns"]), rows[: mark["rows"]])

    def _table(self) -> tuple[list[str], list[dict[str, str]]]:
        try:
            text = read_file(self.path).decode(errors="replace")
        except ValueError:
            return [], []
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]), restval="")
        rows = list(reader)
        return list(reader.fieldnames or []), rows

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        data = csv_bytes([columns, *([row.get(name, "") for name in columns] for row in rows)]) if columns else b""
        if not data:
            self.path.unlink(missing_ok=True)
        elif not self.path.exists() or self.path.read_bytes() != data:
            replace_file(self.path, data)
        self.columns, self.rows = columns, len(rows)


def csv_bytes(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([map(csv_cell, row) for row in rows])
    return text.getvalue().encode()


def number(cell: str) -> float | int | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(cell)
    return cell
