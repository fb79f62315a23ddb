"""The same seed, the same bytes: of every algorithm, whatever the surroundings; where it cannot be, a warning."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agents import built, small_choice
from commands import PENDULUM, write_pendulum
from fresh import environment
from works import SPEC, opened, rows

from offline_vi import registry
from offline_vi.errors import DeterminismWarning
from offline_vi.scripts import main
from offline_vi.training.loop import fit

Reached = Callable[[int, str, int], None]


def trained(name: str, seed: int) -> tuple[str, list[dict[str, float]]]:
    """(SHA-256 of everything that 200 steps left behind, the rows of metrics)."""
    torch.manual_seed(0)
    algorithm = built(small_choice(name, SPEC, batch_size=8), SPEC)
    history = fit(algorithm, rows(), 200, seed=seed, log_every=50, progress=False)
    digest = hashlib.sha256()
    for key, tensor in sorted(algorithm.snapshot().items()):
        digest.update(key.encode() + tensor.numpy().tobytes())
    return digest.hexdigest(), history.rows


@pytest.mark.parametrize("name", registry.trainable())
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(name: str, reached: Reached) -> None:
    first, again, other = trained(name, 1), trained(name, 1), trained(name, 2)
    assert first == again
    reached(37, "algorithms", 1)
    assert first[0] != other[0] and first[1] != other[1]
    reached(38, "algorithms", 1)


_TRAIN = """
import hashlib, sys, torch
from test_determinism import trained
torch.set_num_threads(1)
print(trained("bcq", 1)[0])
"""


def test_the_surroundings_do_not_matter(tmp_path: Path, reached: Reached) -> None:
    """Hash seed, locale, time zone, working directory."""
    surroundings: list[dict[str, Any]] = [
        {"env": {"PYTHONHASHSEED": "0"}},
        {"env": {"PYTHONHASHSEED": "12345"}},
        {"env": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}},
        {"env": {"TZ": "Pacific/Chatham"}},
        {"cwd": tmp_path},
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _TRAIN],
            stdout=subprocess.PIPE,
            text=True,
            env={**environment(), **setting.get("env", {})},
            cwd=setting.get("cwd"),
        )
        for setting in surroundings
    ]
    found = [process.communicate(timeout=250)[0].strip() for process in running]
    assert len(found[0]) == 64 and set(found) == {found[0]}
    reached(42, "settings", len(found) - 1)


def test_another_number_of_threads_is_told_on_resume(tmp_path: Path) -> None:
    def train(threads: int, steps: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        algorithm = built(small_choice("bc", SPEC, batch_size=8), SPEC)
        with opened(tmp_path / "run") as run:
            fit(algorithm, rows(), steps, run=run, resume=run.has_checkpoint(), progress=False)

    try:
        train(1, 5)
        with pytest.warns(DeterminismWarning, match="threads 1 -> 2"):
            train(2, 10)
    finally:
        torch.set_num_threads(1)


def test_the_command_refuses_to_resume_otherwise_where_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--steps", "4", "--eval-every", "2", "--eval-episodes", "1", "--save-every", "2", "--hidden", "8", "-q"]
    pendulum = write_pendulum(tmp_path / PENDULUM)
    data = ["--dataset", str(pendulum), "--env", "Pendulum-v1", "--output", str(tmp_path / "run")]
    try:
        main(["train", "bc", *data, *small])
        with pytest.raises(SystemExit) as stopped:
            main(["train", "bc", *data, *small, "--resume", "--strict", "--threads", "2"])
        assert stopped.value.code == 78
        assert "threads 1 -> 2" in capsys.readouterr().err
        main(["train", "bc", *data, *small, "--resume", "--strict"])
    finally:
        torch.set_num_threads(1)


def test_what_is_compared_is_there() -> None:
    from offline_vi.nn.precision import facts

    assert facts(torch.device("cpu"))["numpy"] == np.__version__
