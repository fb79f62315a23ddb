"""Whatever happens to a cell, or in the thread that waits for it, is the outcome of that cell: a study ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from offline_vi.study import cells
from offline_vi.study.benchmark import run_jobs
from offline_vi.study.cells import Job, is_done, last_step, signal_name, status, table
from offline_vi.study.engines import LocalEngine, LocalOptions


def failures(folder: Path, count: int = 3) -> list[str]:
    """The errors of so many cells, none of which came to its end."""
    jobs = [Job(folder / "runs" / str(number), ("train", "bc")) for number in range(count)]
    failed = run_jobs(jobs, folder, LocalOptions(2), quiet=True)
    assert failed.keys() == {job.path for job in jobs}
    return list(failed.values())


def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """What cells are run with."""
    path = tmp_path / "interpreter"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(path))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [9, 11, 35, 40, 63])
def test_a_cell_may_die_of_any_signal(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path, monkeypatch, f"kill -{number} $$")
    assert failures(tmp_path) == [f"killed by {signal_name(number)}"] * 3


def test_every_signal_has_a_name() -> None:
    assert signal_name(9) == "SIGKILL"
    assert all(signal_name(number) for number in range(1, signal.SIGRTMAX + 1))


@pytest.mark.timeout(60)
def test_a_study_whose_folder_disappears_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    interpreter(tmp_path, monkeypatch, f"rm -rf {folder}")
    assert all("No such file" in error for error in failures(folder))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError(), SystemExit(0)])
def test_what_is_raised_in_a_thread_is_heard(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "Popen", fail)
    assert all(type(error).__name__ in text for text in failures(tmp_path))


@pytest.mark.timeout(60)
def test_a_thread_that_cannot_be_started_fails_its_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    engine = LocalEngine(1, tmp_path / "journal.csv")
    monkeypatch.setattr(engine.pool, "submit", fail)
    engine.submit(Job(tmp_path / "run", ("train", "bc")))
    ((_, outcome),) = engine.finished(0.0)
    assert not outcome.done and "thread" in outcome.error
    engine.stop()


@pytest.mark.timeout(20)
def test_pipes_in_the_place_of_a_cell_s_files_keep_nobody_waiting(tmp_path: Path) -> None:
    for name in ("run.json", "metrics.csv", "result.json"):
        os.mkfifo(tmp_path / name)
    assert not is_done(tmp_path) and status(tmp_path) == {} and last_step(tmp_path) == 0
    os.mkfifo(tmp_path / "journal.csv")
    assert table(tmp_path / "journal.csv") == []
    with pytest.raises(OSError, match=r"No such device|not a regular file"):
        cells.note(tmp_path / "journal.csv", "run")
