"""Numbers where people read them: evaluations on disk and on the terminal, progress, histories, interruptions."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from command_line import TINY, run
from small_data import pendulum

import offline_vi as ovi
from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.errors import EnvError, EvaluationWarning, InterruptedWarning, UsageError
from offline_vi.runs.ownership import strangers
from offline_vi.study import video
from offline_vi.training.metrics import History
from offline_vi.types import Batch, Metrics

NETS = ["--hidden", "8", "--batch-size", "16"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run and its data."""
    from offline_vi.scripts import main

    folder = tmp_path_factory.mktemp("trained")
    data = pendulum(folder / "toy.hdf5")
    main(["train", "bc", "--dataset", data, "--env", "Pendulum-v1", "--output", str(folder / "run"), *TINY, *NETS])
    return folder / "run", data


def data_return(file: str) -> float:
    """Mean return of the four episodes, by NumPy: all rewards count, those of the last rows, too."""
    with h5py.File(file) as found:
        return float(np.asarray(found["rewards"], np.float64).reshape(4, 100).sum(1).mean())


def test_a_run_says_what_its_data_scored(trained: tuple[Path, str]) -> None:
    result = json.loads((trained[0] / "result.json").read_text())
    assert result["data"]["episodes"] == 4
    assert result["data"]["return_mean"] == pytest.approx(data_return(trained[1]), rel=1e-5)
    assert "normalized_score" not in result["data"]


def test_an_evaluation_is_kept_and_every_number_is_named(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(trained[0]), "--episodes", "4", "-q"]
    for _ in range(2):
        code, out, _ = run(words, capsys)
        assert code == 0
    files = sorted((trained[0] / "evaluations").iterdir())
    assert len(files) == 2
    first, second = (json.loads(path.read_text()) for path in files)
    assert first["returns"] == second["returns"]
    returns = np.array(first["returns"])
    low, high = first["return_interval"]
    assert returns.min() <= low <= returns.mean() <= high <= returns.max()
    assert first["options"]["episodes"] == 4
    data = json.loads((trained[0] / "result.json").read_text())["data"]["return_mean"]
    assert first["data"]["return_mean"] == data
    for number in (returns.mean(), low, high, returns.std(), data):
        assert f"{number:.2f}" in out
    assert str(files[1]) in out
    assert "+-" not in out
    assert strangers(trained[0]) == []


def test_a_score_is_printed_before_filming_fails(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise EnvError("nothing can be drawn", "draw elsewhere")

    monkeypatch.setattr(video, "film", refuse)
    code, out, error = run(["evaluate", str(trained[0]), "--episodes", "2", "--video", "1", "-q"], capsys)
    assert code == 70
    assert "mean over episodes" in out
    assert "nothing can be drawn" in error


def test_the_first_renderer_that_draws_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(video, "renders", lambda name: name == "osmesa")
    assert video.choose_renderer() == os.environ["MUJOCO_GL"] == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # what people say is not overruled
    with pytest.raises(EnvError, match="glfw"):
        video.choose_renderer()


def test_phases_and_the_time_left_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pendulum(tmp_path / "toy.hdf5")
    words = ["train", "bcq", "--preset", "fast", "--dataset", data, "--env", "Pendulum-v1", *TINY[:-1], *NETS]
    few = ["--behavior-steps", "20", "--behavior.hidden", "8", "--bank-period", "0"]
    code, _, error = run([*words, *few, "--output", str(tmp_path / "run")], capsys)
    assert code == 0
    lines = error.splitlines()
    assert any("20 steps, then bcq: 30 steps" in line for line in lines)
    steps = [line for line in lines if "step " in line and "/" in line]
    assert {line.split(":")[0] for line in steps} == {"gaussian", "bcq"}
    assert all(" left  " in line for line in steps)
    assert any(
        "% of actions outside the data at its states (usual: 1)" in line for line in steps if "evaluation" in line
    )


class Interrupting(BC):
    """Ctrl-C in the seventh step."""

    def update(self, batch: Batch) -> Metrics:
        if self.trained_steps == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return super().update(batch)


@pytest.mark.parametrize("kept", [False, True])
def test_ctrl_c_returns_what_was_trained(kept: bool, tmp_path: Path) -> None:
    data = ovi.datasets.load(pendulum(tmp_path / "toy.hdf5"))
    algorithm = Interrupting(data.spec, BCConfig(hidden=(8,), batch_size=16))
    before = signal.getsignal(signal.SIGINT)
    with pytest.warns(InterruptedWarning, match="step 7"):
        run = {"run": tmp_path / "run"} if kept else {}
        history = ovi.fit(algorithm, data, 100, log_every=2, progress=False, **run)  # type: ignore[arg-type]
    assert [row["step"] for row in history.rows] == [2, 4, 6]
    assert algorithm.trained_steps == 7
    assert signal.getsignal(signal.SIGINT) is before
    assert algorithm.act(torch.zeros(2, 3)).shape == (2, 1)
    if kept:
        assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"


def test_a_history_is_drawn_and_told_in_a_line() -> None:
    history = History([{"step": 10.0, "a/loss": 2.0}, {"step": 20.0, "a/loss": 1.0, "b": 3.0}])
    figure = history.plot()
    drawn = {ax.get_title(): ax.lines[0] for ax in figure.axes if ax.lines}
    assert drawn["a/loss"].get_xydata().tolist() == [[10.0, 2.0], [20.0, 1.0]]  # type: ignore[union-attr]
    assert drawn["b"].get_marker() == "o"  # a single point would be no line
    assert all(ax.get_xlabel() == "gradient steps" for ax in figure.axes if ax.lines)
    assert [ax.get_title() for ax in history.plot("b").axes] == ["b"]
    with pytest.raises(UsageError) as unknown:
        history.plot("a/los")
    assert "a/loss" in unknown.value.hint
    assert repr(history) == "History(2 rows, up to step 20: a/loss 1, b 3)"
    assert History().plot().axes
    assert history.plot("b")._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]  # how notebooks show it


def test_representations_are_a_line(tmp_path: Path) -> None:
    data = ovi.datasets.load(pendulum(tmp_path / "toy.hdf5"))
    assert repr(data) == f"Transitions(toy: {len(data)} rows, {len(data.episode_slices())} episodes)"
    evaluation = ovi.evaluate(BC(data.spec, BCConfig(hidden=(8,))), "Pendulum-v1", 2)
    assert repr(evaluation) == f"Evaluation(Pendulum-v1, 2 episodes: return {evaluation.mean_return:.1f})"
    assert evaluation.interval(scores=False).value == pytest.approx(evaluation.mean_return)


@pytest.mark.parametrize(("factor", "warned"), [(1.0, False), (1000.0, True)])
def test_a_useless_behavior_model_is_not_believed(
    factor: float,
    warned: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    """A published CVAE of raw observations in the thousands: its share of actions outside the data says nothing."""

    def large(columns: dict[str, Any]) -> None:
        columns["observations"] = factor * columns["observations"]

    words = ["train", "bcq", "--dataset", pendulum(tmp_path / "toy.hdf5", large), "--env", "Pendulum-v1", *TINY]
    words += ["--steps", "150", "--behavior.hidden", "32", *NETS, "--output", str(tmp_path / "run")]
    assert run(words, capsys)[0] == 0
    found = [str(one.message) for one in recwarn if issubclass(one.category, EvaluationWarning)]
    assert any("less likely than a uniform one" in text for text in found) == warned
