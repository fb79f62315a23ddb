"""Machines that fail: memory, disks, packages, poisoned data; many runs at once; many episodes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from forks import resident
from fresh import bytes_of, environment, whole
from test_tune import SUITE
from torch import Tensor
from works import SPEC, rows

from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.errors import (
    CheckpointWriteError,
    MissingDependencyError,
    NonFiniteLossError,
    OutOfMemoryError,
)
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import read_json
from offline_vi.study.run import recorded
from offline_vi.training.loop import fit
from offline_vi.types import Task

Reached = Callable[[int, str, int], None]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["cuda", "cpu"])
def test_memory_that_ran_out_is_one_line(error: Exception, tmp_path: Path) -> None:
    with (
        RunDirectory.create(tmp_path / "run") as run,
        pytest.raises(OutOfMemoryError, match="memory ran out") as told,
        recorded(run, {}),
    ):
        raise error
    assert told.value.exit_code == 71
    assert "--batch-size" in told.value.hint and "--device cpu" in told.value.hint
    assert read_json(tmp_path / "run" / "run.json")["status"] == "failed"


def test_a_poisoned_row_stops_training_and_is_in_the_dump(tmp_path: Path) -> None:
    data = rows(200)
    data.action[17, 0] = np.nan
    algorithm = BC(SPEC, BCConfig(hidden=(8,), batch_size=20))
    with (
        RunDirectory.create(tmp_path / "run") as run,
        pytest.raises(NonFiniteLossError, match="actor/loss"),
    ):
        fit(algorithm, data, 500, save_every=1, log_every=1000, run=run, progress=False)
    dump = read_json(tmp_path / "run" / "nonfinite.json")
    assert 17 in dump["rows"] and len(dump["rows"]) == 20 and dump["losses"] == "actor/loss"
    good = load_checkpoint(tmp_path / "run") if dump["step"] > 1 else None
    assert good is None or (good.step == dump["step"] - 1 and all(t.isfinite().all() for t in good.model.values()))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
@pytest.mark.slow
def test_a_small_disk_fills_up_and_nothing_is_lost(tmp_path: Path) -> None:
    """One megabyte: checkpoints of some hundred kilobytes fit once or twice."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with RunDirectory.create(disk / "run") as run:
            run.save(1, {"w": torch.full((60_000,), 1.0)}, {}, {})
            run.save(2, {"w": torch.full((60_000,), 2.0)}, {}, {})
            for step in range(3, 10):
                with pytest.raises(CheckpointWriteError, match=r"no space left \(need 2.0 MB, 0\.\d MB free\)") as told:
                    run.save(step, {"w": torch.zeros(500_000)}, {}, {})
                assert told.value.exit_code == 74
        assert load_checkpoint(disk / "run").step == 2
        assert not list((disk / "run").rglob(".tmp-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ------------------------------------------------------------------ packages that are not there


@pytest.mark.parametrize(("package", "extra"), [("jinja2", "report"), ("optuna", "optuna")])
def test_a_package_that_is_absent_is_named_with_its_extra(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from offline_vi.study.report import environment_of, render
    from offline_vi.study.search import SearchOptions, run_search
    from offline_vi.study.suite import read_suite

    monkeypatch.setitem(sys.modules, package, None)
    environment_of.cache_clear()
    (tmp_path / "suite.toml").write_text(SUITE)
    with pytest.raises(MissingDependencyError) as told:
        if package == "jinja2":
            render("report.md", {})
        else:
            run_search(read_suite(str(tmp_path / "suite.toml")), tmp_path / "out", SearchOptions())
    assert told.value.exit_code == 69
    assert told.value.hint == f"pip install 'offline-vi[{extra}]'"


# ------------------------------------------------------------------ load


FIFTY = """
import sys
from pathlib import Path

from forks import ended, forked
from works import WORKS

children = [forked(WORKS["bc"], Path(sys.argv[1]) / f"run-{number}") for number in range(50)]
sys.exit([ended(child) for child in children] != [0] * 50)
"""


def test_fifty_runs_in_one_directory_at_once(tmp_path: Path, reached: Reached) -> None:
    """Forked, since fifty interpreters that import torch would take minutes, and it is the directory that fifty share.
    The bytes that they must have are those of another interpreter."""
    whole("works", tmp_path, ["bc"])
    expected = bytes_of(tmp_path / "bc-0")
    subprocess.run([sys.executable, "-c", FIFTY, str(tmp_path)], env=environment(), check=True, timeout=250)
    for number in range(50):
        assert bytes_of(tmp_path / f"run-{number}") == expected, number
    assert not list(tmp_path.rglob(".tmp-*"))
    reached(30, "runs side by side in one directory", 50)


class Short(gymnasium.Env[Any, Any]):
    """Five steps of nothing."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.zeros(3, np.float32), 1.0, self.count == 5, False, {}


gymnasium.register("offline_vi_tests/Short-v0", entry_point=Short, max_episode_steps=50)  # type: ignore[arg-type]


class Still:
    def act(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), 2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_episodes_leave_neither_memory_nor_handles_behind(reached: Reached) -> None:
    task = Task("offline_vi_tests/Short-v0", (-1.0, -1.0), (1.0, 1.0))
    evaluate(Still(), task, 500)
    memory, handles = resident(), len(os.listdir("/proc/self/fd"))
    done = 0
    while done < 10_000:
        evaluation = evaluate(Still(), task, 500, seed=done)
        assert (evaluation.returns == 5.0).all()
        done += len(evaluation.returns)
    assert len(os.listdir("/proc/self/fd")) == handles
    assert resident() - memory < 16 << 20
    reached(31, "episodes without growth", done)
