"""The examples run as a reader would run them, with fewer steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_data import pendulum

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_read_in_a_minute(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["MINARI_DATASETS_PATH"] = str(folder / "minari")
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run_one_after_the_other(tmp_path: Path) -> None:
    """Train, keep and load; go on in the environment; code and data of one's own, from Python and by command."""
    run(tmp_path, "-c", "from offline_vi.datasets import recipes; recipes.collect('offline-vi/pendulum/mixed-v0', 6)")
    assert "normalized score" in run(tmp_path, str(EXAMPLES / "quickstart.py"), "--steps", "8")
    assert "->" in run(tmp_path, str(EXAMPLES / "finetune.py"), "runs/quickstart", "--steps", "8")
    run(tmp_path, str(EXAMPLES / "own_dataset.py"), "--steps", "8")
    run(tmp_path, str(EXAMPLES / "own_logs.py"), "--steps", "8")
    run(tmp_path, str(EXAMPLES / "own_behavior_model.py"), "8")
    data = pendulum(tmp_path / "data.hdf5")
    published = ["--dataset", data, "--env", "Pendulum-v1", "--steps", "4"]
    run(tmp_path, str(EXAMPLES / "published_bcq.py"), *published)

    plug = ["--plugin", str(EXAMPLES / "own_behavior_model.py")]
    assert "Pendulum" in run(
        tmp_path, "-m", "offline_vi", "evaluate", "runs/laplace-bcq", "--episodes", "1", "-q", *plug
    )
    suite = (EXAMPLES / "own.toml").read_text().replace("5000", "8").replace("2500", "8").replace("[0, 1]", "[0]")
    suite = suite.replace('"own_', f'"{EXAMPLES}/own_')
    (tmp_path / "own.toml").write_text(suite)
    run(tmp_path, "-m", "offline_vi", "benchmark", "own.toml", "--output", "study", "-q")
    rows = (tmp_path / "study" / "results.csv").read_text()
    assert rows.count(",done,") == 3 and "awac" in rows
