"""A run is its process's as long as the lock on the disk is the one that the process holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from offline_vi.errors import RunLockedError
from offline_vi.runs.directory import RunDirectory

WRITES: list[Callable[[RunDirectory], object]] = [
    lambda run: run.save(2, {}, {}, {}),
    lambda run: run.log_metrics({"step": 2}),
    lambda run: run.write_json("result.json", {}),
]


@pytest.mark.parametrize("write", WRITES, ids=["checkpoint", "row", "record"])
@pytest.mark.parametrize("way", ["removed", "replaced", "moved"])
def test_who_has_lost_the_lock_writes_nothing(
    write: Callable[[RunDirectory], object], way: str, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    with RunDirectory.create(path) as run:
        run.save(1, {}, {}, {})
        if way == "moved":
            shutil.move(path, tmp_path / "elsewhere")
        else:
            (path / "run.lock").unlink()
        other = RunDirectory.resume(path) if way == "replaced" else None
        before = sorted(file.name for file in tmp_path.rglob("*"))
        with pytest.raises(RunLockedError):
            write(run)
        assert sorted(file.name for file in tmp_path.rglob("*")) == before
        if other is not None:
            write(other)
            other.close()
