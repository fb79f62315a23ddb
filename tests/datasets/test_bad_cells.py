"""A cell without a number is named as people see it: the column, the row of the file, the episode."""

from __future__ import annotations

import json
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


def test_columns_keep_their_names_up_to_the_card_of_the_exported_policy(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever serves a policy has to know which input is which; resuming a run does not ask for them."""
    run_words = ["--on-nonfinite", "split", "--output", str(tmp_path / "run"), "--unscored", "-q"]
    words = ["train", "bc", "--dataset", *files, *run_words, "--hidden", "4"]
    assert run([*words, "--steps", "2"], capsys)[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["obs_names"] == ["level", "demand"]
    for name in ("obs_names", "action_names"):
        del config["data"][name]
    older = json.dumps(config)
    assert run(["export", str(tmp_path / "run"), "--to", "torchscript"], capsys)[0] == 0
    card = json.loads((tmp_path / "run" / "policy.ts.json").read_text())
    assert (card["observation"]["entries"], card["action"]["entries"]) == (["level", "demand"], ["pump"])
    (tmp_path / "run" / "config.json").write_text(older)  # as a version without names wrote it
    assert run(["resume", str(tmp_path / "run"), "--steps", "4", "-q"], capsys)[0] == 0
