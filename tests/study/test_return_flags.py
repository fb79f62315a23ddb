"""Returns by flags: what the record says, what batches are drawn from, and runs that are cut anywhere."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from fresh import bytes_of
from small_data import pendulum

from offline_vi.algorithms.iql import IQL
from offline_vi.data.samplers import Sampler
from offline_vi.errors import CapabilityError, ConfigError
from offline_vi.study.kept import load_agent
from offline_vi.training.trajectory_values import TrajectoryValues

SMALL = ["--steps", "20", "--hidden", "8", "--batch-size", "8", "--unscored", "-q", "--log-every", "4"]
SMALL += ["--save-every", "5", "--return-steps", "10"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return pendulum(tmp_path / "pendulum.hdf5")


def train(
    algorithm: str, data: str, output: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    return run(["train", algorithm, "--dataset", data, *SMALL, "--output", str(output), *flags], capsys)


def test_onestep_regresses_returns_and_says_so(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: dict[str, set[bool]] = {}
    sample = Sampler.sample

    def noted(self: Sampler) -> Any:
        batch = sample(self)
        ended.setdefault("any", set()).add(bool((batch.terminated == 1.0).all()))
        return batch

    monkeypatch.setattr(Sampler, "sample", noted)
    flags = ["--behavior.hidden", "8", "--behavior-steps", "10", "--return-lambda", "0.5"]
    assert train("onestep", data, tmp_path / "run", flags, capsys)[0] == 0
    assert ended["any"] == {False, True}  # the values of rows that do not end, and then the critics
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    expected = {"returns": True, "critic_start_steps": 0, "return_lambda": 0.5, "return_steps": 10}
    assert record["data"]["returns"] == expected
    ended.clear()
    assert train("onestep", data, tmp_path / "td", [*flags, "--no-returns"], capsys)[0] == 0
    assert ended["any"] == {False}
    assert "returns" not in json.loads((tmp_path / "td" / "config.json").read_text())["data"]


def test_a_run_that_was_cut_anywhere_ends_with_the_same_bytes(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the values, in the start and after it, one after the other."""
    flags = ["--critic-start-steps", "12", "--reward-scale", "2.0"]
    whole, path = tmp_path / "whole", tmp_path / "cut"
    assert train("iql", data, whole, flags, capsys)[0] == 0
    begin = ["train", "iql", "--dataset", data, *SMALL, "--output", str(path), *flags]
    for cls, step in ((TrajectoryValues, 7), (IQL, 6), (IQL, 19)):
        with monkeypatch.context() as patch:
            patch.setattr(cls, "update", interrupted(cls.update, step))
            assert run(begin, capsys)[0] == 143
        begin = ["resume", str(path), "-q"]
    assert run(begin, capsys)[0] == 0
    for part in ("", "returns", "start"):
        assert bytes_of(whole / part) == bytes_of(path / part), part


def interrupted(update: Any, step: int) -> Any:
    """An update at whose step the process is asked to stop."""

    def change(self: Any, batch: Any) -> Any:
        if self.trained_steps == step:
            signal.raise_signal(signal.SIGTERM)
        return update(self, batch)

    return change


def test_seeds_in_parallel_start_as_each_would_alone(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--critic-start-steps", "6", "--steps", "6"]
    assert train("iql", data, tmp_path / "both", [*flags, "--parallel-seeds", "2"], capsys)[0] == 0
    assert train("iql", data, tmp_path / "one", flags, capsys)[0] == 0
    alone, first = load_agent(tmp_path / "one"), load_agent(tmp_path / "both", 0)
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(first.state_dict()[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_flags_that_cannot_be_meant_are_refused_before_anything_is_written(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    code, _, error = train("bc", data, output, ["--critic-start-steps", "5"], capsys)
    assert code == CapabilityError.exit_code and "BC" in error
    for flags in (["--critic-start-steps", "-1"], ["--critic-start-steps", "5", "--returns"], ["--return-lambda", "2"]):
        algorithm = "onestep" if "--return-lambda" in flags else "iql"
        assert train(algorithm, data, tmp_path / "refused", flags, capsys)[0] == ConfigError.exit_code, flags
    assert not output.exists()
