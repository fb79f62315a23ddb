"""A cell without a number is named as people see it: the column, the row of the file, the episode."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run

from offline_vi.errors import DataWarning

COLUMNS = """
episode = "shift"
time = "minute"
obs = ["level", "demand"]
action = ["pump"]
reward = "reward"
terminated = false
action_low = [0.0]
action_high = [1.0]
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Four shifts of five minutes, numbered from 11; one cell of the third is NaN."""
    lines = ["shift,minute,level,demand,pump,reward"]
    for shift in range(11, 15):
        for minute in range(5):
            demand = "nan" if (shift, minute) == (13, 2) else f"{0.1 * minute:.1f}"
            lines.append(f"{shift},{minute},{shift + minute / 10},{demand},{minute / 5},1.0")
    (tmp_path / "logs.csv").write_text("\n".join(lines))
    (tmp_path / "columns.toml").write_text(COLUMNS)
    return [str(tmp_path / "logs.csv"), "--columns", str(tmp_path / "columns.toml")]


def test_a_refusal_comes_with_the_place_in_the_file(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(DataWarning) as caught:
        code, _, error = run(["data", "check", *files], capsys)
    assert code != 0
    (place,) = (str(warning.message) for warning in caught)
    line = next(line for line in Path(files[0]).read_text().splitlines() if "nan" in line)
    row = Path(files[0]).read_text().splitlines().index(line)  # the names of the columns are line 0
    assert f"1 of 20 cells of 'demand', first in row {row} " in place and "shift 13" in place
    assert "next_observations" not in error  # the same cell once more


def test_a_repair_says_that_the_row_before_is_lost_too(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(["data", "check", *files, "--on-nonfinite", "split"], capsys)
    assert code == 0
    text = out + error
    assert "left out 2 rows" in text and "next observation" in text
