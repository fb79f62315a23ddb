"""The same command, the same bytes, in processes that share nothing: torch's generator starts anywhere in a new one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_kill import pendulum

from offline_vi.algorithms import ALGORITHMS
from offline_vi.study.presets import PRESETS

__all__ = ["pendulum"]

SIZES = ["--hidden", "8", "--batch-size", "8", "--behavior.hidden", "8"]
FITTED = [
    (name, preset) for name, row in ALGORITHMS.items() for preset in PRESETS if row.behavior and preset != "likely"
]


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of every tensor file and log that the run left behind, its behaviour model's too."""
    files = [*run.rglob("*.safetensors"), *run.rglob("metrics.csv"), *run.rglob("episodes.csv")]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "offline_vi", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OFFLINE_VI_PRODUCTS": "highest"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(
    ("name", "preset"), [*FITTED, ("bcq", "likely"), ("emaq", "likely"), ("bc", "published"), ("td3-bc", "fast")]
)
def test_two_processes_end_with_the_same_bytes(name: str, preset: str, pendulum: Path, tmp_path: Path) -> None:
    ahead = ["--behavior-steps", "6"] if ALGORITHMS[name].behavior and preset != "published" else []
    sizes = SIZES if ALGORITHMS[name].behavior else SIZES[:4]
    rest = ["--steps", "8", "--log-every", "4", "--seed", "5", "--precision", "float32", "-q"]
    arguments = ["train", name, "--preset", preset, "--dataset", str(pendulum), *sizes, *ahead, *rest]
    running = [start([*arguments, "--output", str(tmp_path / run)]) for run in ("one", "other")]
    for process in running:
        assert process.wait(timeout=120) == 0, process.stderr.read() if process.stderr else ""
    first = digests(tmp_path / "one")
    assert len(first) >= 3
    assert first == digests(tmp_path / "other")
