"""Where the command writes: where its flags say, and over no file of other people."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_line import TINY, run
from small_data import pendulum

Capsys = pytest.CaptureFixture[str]
SMALL = [*TINY, "--env", "Pendulum-v1", "--hidden", "8", "--batch-size", "8"]


def train(tmp_path: Path, capsys: Capsys, *flags: str) -> tuple[int, str, str]:
    data = pendulum(tmp_path / "data.hdf5")
    return run(["train", "bc", "--dataset", data, *SMALL, "--output", str(tmp_path / "run"), *flags], capsys)


def test_a_configuration_names_no_place(tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(tmp_path, capsys)[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    for place in ({"output": str(tmp_path / "run"), "overwrite": True}, {"resume": True}, {"output": "elsewhere"}):
        changed = {**config, "run_options": {**config["run_options"], **place}}
        (tmp_path / "evil.json").write_text(json.dumps(changed))
        code, _, errors = run(["train", "--config", str(tmp_path / "evil.json")], capsys)
        assert code == 78 and next(iter(place)) in errors
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
    assert not (tmp_path / "runs").exists() and not (tmp_path / "elsewhere").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["log.txt", "learning_curve.png", "result.json", "config.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_nothing_but_files_of_the_run_is_written_over(name: str, kind: str, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "offline_vi.json").write_text('{"offline_vi": "run"}\n')
    place = tmp_path / "run" / name
    if kind == "link":
        place.symlink_to(tmp_path / "thesis")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    code, _, errors = train(tmp_path, capsys, "--overwrite")
    assert code == 73 and name in errors
    assert (tmp_path / "thesis").read_text() == "mine" and os.path.lexists(place)


def test_a_folder_that_is_no_run_is_not_resumed(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("step,mine\n1,2")
    code, _, errors = train(tmp_path, capsys, "--resume")
    assert code == 66 and "no run" in errors
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("threads", ["0", "-1", "1000000"])
def test_threads_that_no_machine_starts_are_refused(threads: str, tmp_path: Path, capsys: Capsys) -> None:
    code, _, errors = train(tmp_path, capsys, "--threads", threads)
    assert code == 78 and "threads" in errors


@pytest.mark.parametrize("name", ["../../outside", "a/b", ".hidden", "", "x" * 300])
def test_a_suite_s_name_leads_nowhere(name: str, tmp_path: Path, capsys: Capsys) -> None:
    suite = f'name = "{name}"\nalgorithms = ["bc"]\ndatasets = ["offline-vi/pendulum/mixed-v0"]\n'
    (tmp_path / "suite.toml").write_text(suite)
    code, _, errors = run(["benchmark", str(tmp_path / "suite.toml"), "--check"], capsys)
    assert code == 78 and "name" in errors


def test_a_report_is_not_written_over_another_one(tmp_path: Path, capsys: Capsys) -> None:
    assert train(tmp_path, capsys)[0] == 0
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "report.md").write_text("mine")
    for _ in range(2):  # the run's own folder is written again
        assert run(["report", str(tmp_path / "run"), "--no-html"], capsys)[0] == 0
    code, _, errors = run(["report", str(tmp_path / "run"), "--output", str(tmp_path / "docs"), "--no-html"], capsys)
    assert code == 73 and "report.md" in errors
    assert (tmp_path / "docs" / "report.md").read_text() == "mine"
    assert train(tmp_path, capsys, "--overwrite")[0] == 0  # a report is part of a run
