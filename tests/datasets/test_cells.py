"""Cells of a table: how truth is said, and which remedy is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offline_vi import datasets
from offline_vi.errors import DatasetFormatError

COLUMNS = 'episode = "e"\nobs = "x"\naction = "u"\nreward = "r"\nterminated = "d"\n'


def table(folder: Path, cell: str, end: str = "no") -> Path:
    rows = [f'{row},"{cell}",0.{row + 1},1,{end if row == 3 else "no"},' for row in range(4)]
    (folder / "log.csv").write_text("\n".join(["t,x,u,r,d,e", *(f"{row}a" for row in rows)]) + "\n")
    (folder / "columns.toml").write_text(COLUMNS)
    return folder / "log.csv"


def test_yes_and_no_are_flags(tmp_path: Path) -> None:
    found = datasets.load(table(tmp_path, "1.5", "Yes"), columns=tmp_path / "columns.toml", unscored=True)
    np.testing.assert_array_equal(found.terminated, [False, False, False, True])


@pytest.mark.parametrize(("cell", "decimal"), [("1,5", True), ("1,234.5", False), ("5 %", False), ("mm", False)])
def test_another_decimal_mark_is_proposed_where_it_helps(tmp_path: Path, cell: str, decimal: bool) -> None:
    with pytest.raises(DatasetFormatError) as caught:
        datasets.load(table(tmp_path, cell), columns=tmp_path / "columns.toml", unscored=True)
    assert ("decimal =" in str(caught.value.hint)) == decimal
