"""The search: refused before anything runs, goes on where it was killed, tells what its journal holds."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run
from test_benchmark import swap, wait_for

from offline_vi.study.cells import Job, table
from offline_vi.study.search import corners, evaluations, prefix
from offline_vi.study.suite_values import Range, SearchSpace

SUITE = """
name = "tiny"
algorithms = ["td3-bc"]
datasets = ["offline-vi/pendulum/mixed-v0"]
seeds = [0]
[train]
steps = 40
eval-every = 10
eval-episodes = 2
save-every = 10
log-every = 10
hidden = [8]
batch-size = 16
[machine]
precision = "float32"
products = "highest"
[search.td3-bc]
alpha = { low = 0.5, high = 5.0, log = true }
tau = [0.005, 0.05]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a small data set of the recipe."""
    from offline_vi.datasets.recipes import PENDULUM, collect

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    collect(PENDULUM, episodes=3)
    return tmp_path


def write(folder: Path, change: Callable[[str], str] = str) -> str:
    (folder / "tiny.toml").write_text(change(SUITE))
    return str(folder / "tiny.toml")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (swap("alpha =", "alhpa ="), 78, "'alhpa'"),
        (swap("low = 0.5", "low = 9.5"), 78, "is no range"),
        (swap("[0.005, 0.05]", "[0.005]"), 78, "is no range"),
        (swap("[0.005, 0.05]", '["fast", "slow"]'), 78, "tau fast"),
        (swap("search.td3-bc", "search.td3bc"), 2, "'td3-bc'"),
        (lambda text: text[: text.index("[search")], 78, "has no [search.ALGORITHM] table"),
    ],
)
def test_a_bad_search_is_one_line_before_anything_runs(
    change: Callable[[str], str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="the extra optuna is not installed")
    found, _, error = run(["tune", write(tmp_path, change), "--output", str(tmp_path / "out")], capsys)
    assert found == code, error
    assert words in error
    assert not (tmp_path / "out").exists()


def test_a_check_tries_every_end_and_every_choice() -> None:
    ranges: SearchSpace = {"alpha": Range(0.5, 5.0), "tau": (0.005, 0.05, 0.5)}
    assert corners(ranges)[:2] == [{"alpha": 0.5, "tau": 0.005}, {"alpha": 5.0, "tau": 0.5}]
    assert {one["tau"] for one in corners(ranges)} == {0.005, 0.05, 0.5}


def test_only_whole_evaluations_in_their_order_count(tmp_path: Path) -> None:
    """Whatever of later cells is there already: the median of other trials is of the same evaluations."""
    runs = [tmp_path / name for name in "abc"]
    for path, steps, done in zip(runs, ([10, 20], [10, 20], [10]), (True, False, False), strict=True):
        path.mkdir()
        rows = [f"{step},-1.0,{step + episode}" for step in steps for episode in (0, 2)]
        (path / "episodes.csv").write_text("step,return,normalized\n" + "\n".join(rows) + "\n")
        if done:
            (path / "result.json").write_text("{}")
            (path / "run.json").write_text(json.dumps({"status": "done"}))
    assert [evaluations(path) for path in runs] == [[11.0, 21.0], [11.0], []]
    assert prefix([Job(path, ()) for path in runs]) == [11.0, 21.0, 11.0]
    with (runs[1] / "episodes.csv").open("a") as file:
        file.write("30,")
    assert evaluations(runs[1]) == [11.0, 21.0]  # another one has begun


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_cuts_hopeless_trials(folder: Path) -> None:
    pytest.importorskip("optuna", reason="the extra optuna is not installed")
    output = folder / "out"
    words = [sys.executable, "-m", "offline_vi", "tune", write(folder), "--output", str(output)]
    words += ["--trials", "3", "--startup", "1", "--jobs", "1"]
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    wait_for(lambda: list(output.glob("trials/*/*/config.json")))
    first.kill()
    first.wait()
    (begun,) = (path.name for path in (output / "trials").iterdir())
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=200)
    rows = table(output / "td3-bc-trials.csv")
    assert len(rows) == 3
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert all(0.5 <= float(row["alpha"]) <= 5.0 and float(row["tau"]) in (0.005, 0.05) for row in rows)
    assert begun in {path.name for path in (output / "trials").iterdir()}
    assert len(list((output / "trials").iterdir())) == 3  # the one that was killed is one of the three
    best = tomllib.loads((output / "td3-bc-best.toml").read_text())["algorithm"]["td3-bc"]
    scores = {row["alpha"]: float(row["score"]) for row in rows if row["score"]}
    assert float(max(scores, key=lambda alpha: scores[alpha])) == best["alpha"]
    assert (output / "td3-bc.png").read_bytes()[:4] == b"\x89PNG"

    before = (output / "td3-bc-trials.csv").read_bytes()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=100)
    assert (output / "td3-bc-trials.csv").read_bytes() == before
