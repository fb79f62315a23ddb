"""The demonstration on tiny data: its commands run, and what they came to is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import run
from small_data import pendulum

from offline_vi.study.demo import DataFacts, DemoOptions, picture, trained


def test_every_contender_trains_and_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pendulum(tmp_path / "pendulum.hdf5")
    options = DemoOptions(data, str(tmp_path / "demo"), steps=3, bcq_steps=2)
    small = ["--env", "Pendulum-v1", "--eval-episodes", "2", "--value-steps", "2", "-q"]
    found = {}
    for name, (path, words) in options.contenders().items():
        code, _, error = run(["train", *words, *small, "--output", str(path)], capsys)
        assert code == 0, error
        found[name] = trained(path)
        scores = np.genfromtxt(path / "episodes.csv", delimiter=",", names=True)
        assert found[name].steps == (2 if name.startswith("BCQ") else 3)
        assert found[name].score == pytest.approx(scores["return_"].mean(), rel=1e-6)
    assert len({path for path, _ in options.contenders().values()}) == len(found) == 4
    picture(DataFacts(400, 4, -1000.0, "return"), found, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").stat().st_size > 10_000
