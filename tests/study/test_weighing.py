"""Weights by flags: what the record says, and what batches are drawn from."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from fresh import bytes_of
from small_data import pendulum

from offline_vi import datasets
from offline_vi.data.samplers import Sampler
from offline_vi.errors import CheckpointCorruptError
from offline_vi.runs.tensors import load_tensors, save_tensors
from offline_vi.training import BestSteps, TrajectoryValues, improving_rows

SMALL = ["--hidden", "8", "--batch-size", "8", "--unscored", "-q", "--log-every", "5", "--save-every", "5"]


def better_and_better(columns: dict[str, Any]) -> None:
    """Four episodes of 100 rows, each with a higher return than the one before."""
    columns["rewards"] = np.repeat(np.arange(4.0), 100).astype(np.float32) + columns["rewards"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return pendulum(tmp_path / "pendulum.hdf5", better_and_better)


def train(data: str, output: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return run(["train", "bc", "--dataset", data, "--steps", "10", *SMALL, "--output", str(output), *flags], capsys)


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (["best", "--best-share", "0.5"], {"rule": "best", "best_share": 0.5}),
        (["returns"], {"rule": "returns", "weight_alpha": 0.1}),
        (["advantages", "--weight-alpha", "0.3"], {"rule": "advantages", "weight_alpha": 0.3}),
    ],
)
def test_the_record_says_which_rows_count(
    flags: list[str], rule: dict[str, Any], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path / "run", ["--episode-weights", *flags], capsys)[0] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["weights"] == rule


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of all batches."""
    rows: list[int] = []
    sample = Sampler.sample

    def noted(self: Sampler) -> Any:
        batch = sample(self)
        rows.extend(batch.index.tolist())
        return batch

    monkeypatch.setattr(Sampler, "sample", noted)
    return rows


def test_batches_are_drawn_from_the_best_episodes(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[int]
) -> None:
    assert train(data, tmp_path / "run", ["--episode-weights", "best", "--best-share", "0.25"], capsys)[0] == 0
    assert len(drawn) == 80
    assert min(drawn) >= 3 * 99  # `following_row` drops the last row of each episode


def test_an_end_that_costs_enough_makes_another_episode_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[int]
) -> None:
    """The first episode earns most, and the task ended it: it has all of its 100 rows."""

    def failing(columns: dict[str, Any]) -> None:
        columns["rewards"] = np.repeat([3.0, 0.0, 1.0, 2.0], 100).astype(np.float32)
        columns["terminals"], columns["timeouts"] = (np.arange(400) == 99), np.arange(400) % 100 == 99
        columns["timeouts"][99] = False

    data, rows = pendulum(tmp_path / "failing.hdf5", failing), {}
    for penalty in ("50", "150"):
        drawn.clear()
        flags = ["--episode-weights", "best", "--best-share", "0.2", "--end-penalty", penalty]
        assert train(data, tmp_path / penalty, flags, capsys)[0] == 0
        assert json.loads((tmp_path / penalty / "config.json").read_text())["data"]["end_penalty"] == float(penalty)
        rows[penalty] = set(drawn)
    assert max(rows["50"]) < 100
    assert min(rows["150"]) >= 100 + 2 * 99


def test_improving_rows_are_the_best_steps_of_the_better_half(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--episode-weights", "improving", "--best-share", "0.5", "--value-steps", "10"]
    assert train(data, tmp_path / "run", flags, capsys)[0] == 0
    gains = load_tensors(tmp_path / "run" / "best-steps" / "rows.safetensors")["rows"].numpy()
    assert gains.shape == (4 * 99,)
    weight = improving_rows(datasets.load(data), gains, 0.5)
    assert set(np.flatnonzero(weight == weight.max())) == {row for row in range(2 * 99, 4 * 99) if gains[row] > 0.0}
    assert set(np.flatnonzero(weight)) == set(range(2 * 99, 4 * 99))


def test_what_is_fitted_for_the_weights_is_announced(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [word for word in SMALL if word != "-q"]
    flags = ["--dataset", data, "--steps", "10", *small, "--value-steps", "20", "--output", str(tmp_path / "run")]
    code, _, err = run(["train", "bc", *flags, "--episode-weights", "improving"], capsys)
    assert code == 0
    assert err.splitlines()[0] == "values: 20 steps, then advantages of the steps: 20 steps, then bc: 10 steps"


@pytest.mark.parametrize(("spread", "fitted"), [(0.001, False), (1.0, True)])
def test_worthwhile_fits_values_only_where_the_best_episodes_differ(
    spread: float, fitted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def two_kinds(columns: dict[str, Any]) -> None:
        columns["rewards"] = np.repeat([1.0, 10.0, 10.0 + spread, 10.0 + 2 * spread], 100).astype(np.float32)

    data = pendulum(tmp_path / "pendulum.hdf5", two_kinds)
    flags = ["--episode-weights", "worthwhile", "--best-share", "0.5", "--value-steps", "10"]
    assert train(data, tmp_path / "run", flags, capsys)[0] == 0
    assert (tmp_path / "run" / "best-steps").exists() == fitted


@pytest.mark.parametrize("cls", [TrajectoryValues, BestSteps])
def test_an_interrupted_fit_of_the_rows_ends_with_the_same_bytes(
    cls: type[TrajectoryValues | BestSteps],
    data: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ["--episode-weights", "improving", "--value-steps", "20"]
    assert train(data, tmp_path / "whole", flags, capsys)[0] == 0
    update = cls.update

    def interrupted(self: Any, batch: Any) -> Any:
        if self.trained_steps == 12:
            signal.raise_signal(signal.SIGTERM)
        return update(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(cls, "update", interrupted)
        assert train(data, tmp_path / "cut", flags, capsys)[0] == 143
    assert run(["resume", str(tmp_path / "cut"), "-q"], capsys)[0] == 0
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "cut")


@pytest.mark.parametrize("tensors", [{}, {"rows": torch.zeros(7)}, {"rows": torch.full((4 * 99,), float("nan"))}])
def test_numbers_of_other_rows_are_refused(
    tensors: dict[str, torch.Tensor], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--episode-weights", "improving", "--value-steps", "2"]
    assert train(data, tmp_path / "run", flags, capsys)[0] == 0
    save_tensors(tmp_path / "run" / "best-steps" / "rows.safetensors", tensors)
    assert run(["resume", str(tmp_path / "run"), "--steps", "12", "-q"], capsys)[0] == CheckpointCorruptError.exit_code


def test_a_fitted_model_s_card_says_that_it_is_of_weighted_data(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", data, "--steps", "5", "--hidden", "8", "--unscored", "-q", "--episode-weights", "best"]
    assert run(["fit-behavior", "gaussian", *flags, "--output", str(tmp_path / "fit")], capsys)[0] == 0
    card = json.loads((tmp_path / "fit" / "model" / "card.json").read_text())
    assert card["data"]["weights"] == {"rule": "best", "best_share": 0.25}


def test_a_share_that_is_none_is_refused(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = train(data, tmp_path / "run", ["--episode-weights", "best", "--best-share", "1.5"], capsys)
    assert code == 78
    assert "1.5" in error
