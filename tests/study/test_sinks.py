"""TensorBoard and Weights & Biases are told what the run's files say, once, also after a resume."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import TINY, run
from small_data import pendulum

from offline_vi.study.cells import table


class FakeWandB:
    """Stands for the package: remembers what it is told."""

    __spec__ = object()  # it looks installed

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **options: Any) -> Any:
        self.begun.append(options)

        def finish() -> None:
            self.finished += 1

        return SimpleNamespace(log=lambda row, step: self.rows.append((step, row)), finish=finish)


def train(folder: Path, *sinks: str) -> list[str]:
    data = pendulum(folder / "toy.hdf5")
    common = [
        "train",
        "td3-bc",
        "--dataset",
        data,
        "--env",
        "Pendulum-v1",
        *TINY,
        "--hidden",
        "8",
        "--batch-size",
        "16",
    ]
    return [*common, "--output", str(folder / "run"), "--log", "csv", *sinks]


def test_wandb_is_told_every_row_of_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert run(train(tmp_path, "wandb"), capsys)[0] == 0
    assert [options["id"] for options in fake.begun] == ["run"]
    assert fake.finished == 1
    told = {(step, name): value for step, row in fake.rows for name, value in row.items()}
    for row in table(tmp_path / "run" / "metrics.csv"):
        for name in ("critic/loss", "actor/loss"):
            if row.get(name):
                assert told[int(row["step"]), name] == float(row[name])
    episodes = table(tmp_path / "run" / "episodes.csv")
    for step in (15, 30):
        returns = [float(row["return"]) for row in episodes if int(row["step"]) == step]
        assert told[step, "evaluation/return"] == pytest.approx(sum(returns) / 2)
    assert [step for step, _ in fake.rows] == sorted(step for step, _ in fake.rows)


def test_tensorboard_holds_each_step_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = train(tmp_path, "tensorboard")
    assert run(words, capsys)[0] == 0
    assert run([*words, "--resume"], capsys)[0] == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    shown = events.Scalars("critic/loss")
    rows = table(tmp_path / "run" / "metrics.csv")
    assert [event.step for event in shown] == [int(row["step"]) for row in rows]
    assert [event.value for event in shown] == pytest.approx([float(row["critic/loss"]) for row in rows], rel=1e-6)
    assert [event.step for event in events.Scalars("evaluation/return")] == [15, 30]


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_package_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    code, _, error = run(train(tmp_path, name), capsys)
    assert (code, f"offline-vi[{name}]" in error) == (69, True)
    assert not (tmp_path / "run").exists()
