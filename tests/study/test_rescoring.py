"""`offline-vi compare --evaluations`: what is compared is what `offline-vi evaluate` kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import TINY, run
from small_data import pendulum

from offline_vi.errors import ConfigError, UsageError
from offline_vi.scripts import main
from offline_vi.study.kept_evaluations import evaluations
from offline_vi.study.rescoring import with_kept_scores
from offline_vi.study.single_runs import read_runs

NETS = ["--hidden", "8", "--batch-size", "16"]


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """A clone and an actor-critic."""
    data = pendulum(tmp_path / "toy.hdf5")
    for kind in ("bc", "td3-bc"):
        words = ["train", kind, "--dataset", data, "--env", "Pendulum-v1", *TINY, *NETS]
        main([*words, "--output", str(tmp_path / kind)])
    return [str(tmp_path / "bc"), str(tmp_path / "td3-bc")]


def test_the_newest_evaluations_are_compared(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", *runs, "--evaluations", "--output", str(tmp_path / "out")]
    code, _, error = run(words, capsys)
    assert (code, all(path in error for path in runs)) == (2, True)  # nothing is kept of them
    for path, episodes in ((runs[0], "2"), (runs[1], "3")):
        main(["evaluate", path, "--episodes", episodes, "-q"])
    code, _, error = run(words, capsys)
    assert (code, "episodes" in error) == (2, True)
    main(["evaluate", runs[0], "--episodes", "3", "-q"])
    main(["evaluate", runs[0], "--episodes", "4", "-q"])  # the newest that all runs have counts
    code, out, _ = run(words, capsys)
    assert code == 0
    assert "over 3 episodes" in " ".join(out.split())
    before, after = read_runs(runs), with_kept_scores(read_runs(runs))
    for path, one, other in zip(runs, before.runs, after.runs, strict=True):
        returns = next(one for one in evaluations(path, "rollouts") if len(one["returns"]) == 3)["returns"]
        assert other.scores.final == other.scores.mean_return == pytest.approx(np.mean(returns))
        assert other.scores.over_episodes == pytest.approx(np.std(returns, ddof=1) / np.sqrt(3))
        assert (other.scores.curve, other.scores.data) == (one.scores.curve, one.scores.data)
        assert f"{other.scores.final:.0f}" in out.replace("−", "-")


def test_policies_are_compared_from_the_same_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seeds of a method count with their mean in each start; starts that one run lacks are left out."""
    data, paths = pendulum(tmp_path / "toy.hdf5"), []
    for kind, seed in (("bc", 0), ("bc", 1), ("td3-bc", 0)):
        words = ["train", kind, "--dataset", data, "--env", "Pendulum-v1", *TINY, *NETS, "--seed", str(seed)]
        paths.append(str(tmp_path / f"{kind}-{seed}"))
        main([*words, "--output", paths[-1]])
        main(["evaluate", paths[-1], "--episodes", "4", "-q"])
    (file,) = (Path(paths[2]) / "evaluations").iterdir()
    record = json.loads(file.read_text())
    lists = ("returns", "seeds", "lengths", "terminated")
    lacking = {**record, **{name: record[name][1:] for name in lists}, "failures": {"1000": "the motor is hot"}}
    file.write_text(json.dumps(lacking))
    code, out, _ = run(["compare", *paths, "--evaluations", "--output", str(tmp_path / "out")], capsys)
    assert code == 0
    returns = [np.array(next(evaluations(path, "rollouts"))["returns"]) for path in paths]
    apart = returns[2] - (returns[0][1:] + returns[1][1:]) / 2.0
    (line,) = [line for line in out.splitlines() if "better from" in line]
    assert f"better from {int((apart > 0.0).sum())} of 3 starts" in line
    (row,) = [row for row in (tmp_path / "out" / "report.md").read_text().splitlines() if "1 against 2" in row][-1:]
    assert f"{apart.mean():.0f}" in row.replace("−", "-")
    assert ">1 against 2<" in (tmp_path / "out" / "report.html").read_text()
    file.write_text(json.dumps({**lacking, "seeds": [1001]}))
    with pytest.raises(ConfigError):
        with_kept_scores(read_runs(paths))


def test_another_environment_or_guard_is_not_compared(runs: list[str]) -> None:
    for path in runs:
        main(["evaluate", path, "--episodes", "2", "-q"])
    kept = next(evaluations(runs[1], "rollouts"))
    (file,) = (Path(runs[1]) / "evaluations").iterdir()
    guarded = {**kept, "options": {**kept["options"], "guard": 0.01}}
    older = {name: value for name, value in kept["options"].items() if name not in ("safe_action", "deterministic")}
    file.write_text(json.dumps({**kept, "options": older}))
    assert len(with_kept_scores(read_runs(runs)).runs) == 2
    fixed = {**kept, "options": {**kept["options"], "deterministic": True}}
    others = {"env_id": "Pendulum-v0", "kwargs": {"g": 9.0}, "max_episode_steps": 20}
    for name, record in {
        **{name: {**kept, name: value} for name, value in others.items()},
        "guard": guarded,
        "deterministic": fixed,
    }.items():
        file.write_text(json.dumps(record))
        with pytest.raises(UsageError, match=name):
            with_kept_scores(read_runs(runs))
    file.write_text(json.dumps({**kept, "returns": "many"}))
    with pytest.raises(ConfigError):
        with_kept_scores(read_runs(runs))


def test_each_of_several_seeds_in_parallel_has_its_own_evaluation(tmp_path: Path) -> None:
    data, path = pendulum(tmp_path / "toy.hdf5"), str(tmp_path / "two")
    words = ["train", "bc", "--dataset", data, "--env", "Pendulum-v1", *TINY, *NETS, "--parallel-seeds", "2"]
    main([*words, "--output", path])
    main(["evaluate", path, "--episodes", "2", "-q", "--seed-index", "1"])
    with pytest.raises(UsageError):
        with_kept_scores(read_runs([path]))
    main(["evaluate", path, "--episodes", "2", "-q"])
    finals = {
        json.dumps(one["options"]["seed_index"]): float(np.mean(one["returns"]))
        for one in evaluations(path, "rollouts")
    }
    found = {str(run.cell.seed): run.scores.final for run in with_kept_scores(read_runs([path])).runs}
    assert found == pytest.approx(finals)
