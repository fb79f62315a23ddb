"""Cells of a table: how truth is said, and which remedy is named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from offline_vi import datasets
from offline_vi.errors import ConfigError, DatasetFormatError, UsageError

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


@pytest.mark.parametrize("mark", [".", ","])
def test_the_file_that_is_proposed_leaves_text_out_and_can_be_read(tmp_path: Path, mark: str) -> None:
    """It becomes one that works by naming what nobody can guess."""
    lines = ["site;heat;cold;power;eur;tripped;note"]
    for row in range(40):
        cells = [f"{0.5 + row}", f"{1.5 * row}", "0.5", "-1.25"]
        numbers = ";".join("" if row == 3 and k == 0 else cell.replace(".", mark) for k, cell in enumerate(cells))
        lines.append(f"north;{numbers};{row == 39};ok")
    (tmp_path / "log.csv").write_text("\n".join(lines))
    with pytest.raises(UsageError) as caught:
        datasets.load(tmp_path / "log.csv")
    proposed = str(caught.value.hint).split("such as", 1)[1]
    found = tomllib.loads(proposed)
    assert found["obs"] == ["heat", "cold", "power", "eur"]
    assert (found["terminated"], found.get("decimal", ".")) == ("tripped", mark)
    text = proposed.replace('action = ["COLUMN"]', 'action = ["power"]').replace('reward = "COLUMN"', 'reward = "eur"')
    text = re.sub(r'(?m)^ *(episode|time) = "COLUMN".*$', "", text.replace(', "power", "eur"]', "]"))
    (tmp_path / "log.toml").write_text(f"{text}\nmax_episode_steps = 100\n")
    data = datasets.load(tmp_path / "log.csv", columns=tmp_path / "log.toml", on_nonfinite="hold", unscored=True)
    assert (len(data), data.terminated.sum()) == (40, 1)


def test_a_file_of_columns_may_name_the_gap_between_episodes(tmp_path: Path) -> None:
    rows = ["t,x,u,r", *(f"2026-01-0{day} {hour}:00,{hour},0.5,1" for day in (1, 2, 3) for hour in (22, 23))]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    text = 'time = "t"\nobs = "x"\naction = "u"\nreward = "r"\nterminated = false\nepisode_gap = '
    (tmp_path / "log.toml").write_text(f"{text}7200\n")
    data = datasets.load(tmp_path / "log.csv", columns=tmp_path / "log.toml", unscored=True)
    assert (len(data), data.episode_end.sum()) == (3, 3)
    for wrong in ('"long"', "true", "-1"):
        (tmp_path / "log.toml").write_text(f"{text}{wrong}\n")
        with pytest.raises((ConfigError, UsageError)):
            datasets.load(tmp_path / "log.csv", columns=tmp_path / "log.toml", unscored=True)


@pytest.mark.parametrize("bill", [0.0, -40.0])
def test_a_final_bill_in_rows_that_nobody_learns_from_is_remarked(tmp_path: Path, bill: float) -> None:
    """The remark names the remedy, and the remedy works."""
    rows = [
        f"{day},{hour},0.5,{-1.0 + bill * (hour == 9)},{day == 3 and hour == 9}"
        for day in range(8)
        for hour in range(10)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["e,x,u,r,d", *rows]))
    text = 'episode = "e"\nobs = "x"\naction = "u"\nreward = "r"\n'
    (tmp_path / "log.toml").write_text(f'{text}terminated = "d"\n')

    def checked() -> list[str]:
        report = datasets.inspect(tmp_path / "log.csv", columns=tmp_path / "log.toml", unscored=True)
        return [message for message in report.warnings if "terminated = true" in message]

    assert len(checked()) == (bill != 0.0)
    (tmp_path / "log.toml").write_text(f'{text}terminated = true\nfailed = "d"\n')
    assert not checked()
    data = datasets.load(tmp_path / "log.csv", columns=tmp_path / "log.toml", unscored=True)
    assert (len(data), data.terminated.sum(), data.failures.sum()) == (80, 8, 1)
    report = datasets.inspect(tmp_path / "log.csv", columns=tmp_path / "log.toml", unscored=True)
    assert (report.ends.terminal, report.ends.failed) == (8, 1)
