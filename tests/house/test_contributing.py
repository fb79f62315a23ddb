"""Do what CONTRIBUTING.md says, to the letter, in a copy of the package: a newcomer's model and algorithm then work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_data import pendulum

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "CONTRIBUTING.md"
FOLDERS = {"algorithms": "offline_vi/algorithms"}


def follow(guide: str, root: Path) -> list[str]:
    """Carry out the code blocks that name a file: a whole one is written, "FILE: TABLE" puts rows first into a table,
    and lines for a stub are added to it. Returns what was done."""
    done = []
    for file, names in re.findall(r"```\n# (\S+\.pyi)\n(.*?)```", guide, re.DOTALL):
        (root / file).write_text((root / file).read_text() + names)
        done.append(file)
    for block in re.findall(r"```python\n(# .*?)```", guide, re.DOTALL):
        for part in re.split(r"^(?=# \S+\.py)", block, flags=re.MULTILINE)[1:]:
            head, _, body = part.partition("\n")
            file, _, table = head.removeprefix("# ").partition(": ")
            path = root / file
            if not table:
                path.write_text(body)
            else:
                text = path.read_text()
                found = re.search(rf"^{table}\b.*{{\n", text, re.MULTILINE)
                assert found is not None, f"{file} has no table {table}"
                path.write_text(text[: found.end()] + body + text[found.end() :])
            done.append(head)
    return done


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources as the guide sees them: a checkout with its three links."""
    root = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("offline_vi", "algorithms", "datasets", "scripts"):
        shutil.copytree(ROOT / folder, root / folder, symlinks=True, ignore=ignore)
    return root


def test_the_guide_followed_to_the_letter_gives_a_model_and_an_algorithm(copy: Path, tmp_path: Path) -> None:
    done = follow(GUIDE.read_text(), copy)
    assert len(done) == 6
    data = pendulum(tmp_path / "data.hdf5")
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def offline_vi(*arguments: str) -> str:
        command = [sys.executable, "-m", "offline_vi", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=240)
        assert result.returncode == 0, result.stderr
        return result.stdout

    common = ["--dataset", data, "--env", "Pendulum-v1", "--steps", "30", "--hidden", "8", "-q"]
    offline_vi("fit-behavior", "laplace", *common, "--output", "model", "--log-every", "10")
    assert "expected-sarsa" in offline_vi("train", "--help")
    train = [
        "train",
        "expected-sarsa",
        *common,
        "--behavior-from",
        "model",
        "--eval-episodes",
        "1",
        "--batch-size",
        "16",
    ]
    offline_vi(*train, "--output", "run")
    names = "import offline_vi as o; print(o.behavior.LaplaceBehavior.__name__, o.algorithms.ExpectedSarsa.__name__)"
    found = subprocess.run([sys.executable, "-c", names], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert found.stdout.split() == ["LaplaceBehavior", "ExpectedSarsa"]
    assert "Pendulum-v1" in offline_vi("evaluate", "run", "--episodes", "1", "-q")


def test_the_guide_keeps_the_style_of_the_house(tmp_path: Path) -> None:
    for block in re.findall(r"```python\n(# \S+\.py\n.*?)```", GUIDE.read_text(), re.DOTALL):
        file = tmp_path / "block.py"
        file.write_text(block)
        check = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(file)]
        found = subprocess.run(check, capture_output=True, text=True, timeout=60)
        assert found.returncode == 0, found.stdout
