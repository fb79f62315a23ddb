"""`offline-vi resume`: what was interrupted, or is extended, ends with the bytes of a run made in one piece."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from command_line import run
from commands import WALKS, write_walks
from fresh import bytes_of
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from small_data import pendulum

import offline_vi
from offline_vi import datasets
from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.errors import DeterminismWarning, EvaluationWarning
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.tensors import load_tensors
from offline_vi.scripts import main
from offline_vi.simulator import Simulator
from offline_vi.study import format_1, train
from offline_vi.study.fit_behavior import fit_ahead
from offline_vi.study.train import Training, parse_options
from offline_vi.training import collector, loop

ENV = ["--env", "Pendulum-v1"]
SCORED = ["--eval-every", "8", "--eval-episodes", "1", "--log-every", "7", "--save-every", "5", "-q"]
SMALL = ["--hidden", "8", "--batch-size", "8"]
RUN_FORMAT_1 = Path(__file__).parents[1] / "data" / "run-format-1"


@pytest.fixture
def data(tmp_path: Path) -> str:
    return pendulum(tmp_path / "pendulum.hdf5")


def arguments(verb: str, data: str) -> list[str]:
    """Small runs of 20 steps, of every verb that trains. What is logged, scored and saved has intervals of its own."""
    train = ["--dataset", data, *ENV, *SCORED, *SMALL, "--steps", "20"]
    fitted = ["--behavior.hidden", "8", "--behavior-steps", "12", "--precision", "float32"]
    online = [*SCORED, "--steps", "20", "--warmup", "8"]
    if verb == "finetune":
        start = Path(data).with_name("start")
        main(["train", "td3-bc", *train, "--output", str(start)])
        return ["finetune", str(start), *online]
    images = "--hidden 8 --features 8 --channels 4 --ensemble 2 --horizon 2 --num-samples 4 --elite 2 --iterations 1"
    return {
        "fast": ["train", "bcq", "--preset", "fast", *train, *fitted],
        "parallel": ["train", "td3-bc", *train, "--parallel-seeds", "3"],
        "online": ["train-online", "sac", *ENV, *online, *SMALL, "--bonus", "vime", "--vime.features", "8"],
        "pixels": [
            *["train-pixels", "--dataset", str(Path(data).with_name(WALKS)), "--env", "offline-vi/PixelPointMass-v0"],
            *[*SCORED, "--steps", "20", "--batch-size", "4", "--length", "4", *images.split()],
        ],
        "behavior": ["fit-behavior", "cvae", "--dataset", data, "--steps", "20", "--hidden", "8", *SCORED[4:]],
    }[verb]


@contextmanager
def signal_at(step: int, signum: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """The signal comes in the course of the gradient step of that number, counted over all that is trained."""
    count, original = 0, loop._Training._step

    def stepping(self: Any, number: int) -> Any:
        nonlocal count
        count += 1
        if count == step:
            signal.raise_signal(signum)
        return original(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Training, "_step", stepping)
        yield


def interrupted(words: list[str], step: int, signum: signal.Signals = signal.SIGTERM) -> None:
    with signal_at(step, signum), pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 128 + signum


def record(path: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / name).read_text())
    return found


def status(path: Path) -> str:
    return str(record(path, "run.json")["status"])


# ------------------------------------------------------------------ interruptions


@pytest.mark.parametrize(
    ("verb", "steps"),
    [
        ("fast", (7, 12 - 7 + 13)),  # in the fit of the model, then in step 13 of the algorithm
        ("parallel", (13,)),
        ("online", (3, 13)),  # before the first checkpoint, then between two
        ("pixels", (13,)),
        ("finetune", (13,)),
        ("behavior", (3, 10)),
    ],
)
def test_an_interrupted_run_ends_with_the_bytes_of_a_whole_one(
    verb: str, steps: tuple[int, ...], data: str, tmp_path: Path
) -> None:
    write_walks(tmp_path / WALKS)
    words, whole, broken = arguments(verb, data), tmp_path / "whole", tmp_path / "broken"
    main([*words, "--output", str(whole)])
    interrupted([*words, "--output", str(broken)], steps[0])
    for step in steps[1:]:
        assert status(broken) == "interrupted"
        interrupted(["resume", str(broken), "-q"], step)
    main(["resume", str(broken), "-q"])
    assert bytes_of(broken) == bytes_of(whole)
    assert record(broken, "result.json") == record(whole, "result.json")
    assert status(broken) == "done"
    if verb == "fast":
        assert bytes_of(broken / "behavior") == bytes_of(whole / "behavior")


@pytest.mark.parametrize("verb", ["parallel", "online"])
def test_a_run_whose_last_checkpoints_are_lost_ends_with_the_same_bytes(verb: str, data: str, tmp_path: Path) -> None:
    """Also one that was done: everything after the checkpoint is made again."""
    path = tmp_path / "run"
    main([*arguments(verb, data), "--output", str(path)])
    expected, result = bytes_of(path), record(path, "result.json")
    shutil.rmtree(path / "checkpoints" / "step_00000020")
    main(["resume", str(path), "-q"])
    assert (bytes_of(path), record(path, "result.json")) == (expected, result)
    main(["resume", str(path), "-q"])  # nothing is left to do
    assert (bytes_of(path), record(path, "result.json")) == (expected, result)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_says_how_the_run_goes_on(
    signum: signal.Signals, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    interrupted([*arguments("parallel", data), "--output", str(path)], 13, signum)
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == f"hint: offline-vi resume {path}"
    assert "step 13" in error
    assert status(path) == "interrupted"
    assert load_checkpoint(path).step == 13


@pytest.mark.parametrize(
    ("step", "doing", "at"), [(7, "the behavior model gaussian", "7 of 12"), (12 + 13, "training bcq", "13 of ")]
)
def test_an_interruption_names_what_was_going_on_and_what_is_kept(
    step: int, doing: str, at: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    interrupted([*arguments("fast", data), "--output", str(path)], step)
    message, hint = capsys.readouterr().err.splitlines()[-2:]
    assert doing in message and f"step {at}" in message and "is saved" in message
    assert doing in record(path, "run.json")["error"]
    assert hint == f"hint: offline-vi resume {path}"


def test_an_interruption_between_two_phases_says_that_the_first_is_kept(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "fit_ahead", then_a_signal(fit_ahead))
    path = tmp_path / "run"
    with pytest.raises(SystemExit):
        main([*arguments("fast", data), "--output", str(path)])
    message = capsys.readouterr().err.splitlines()[-2]
    assert "step 0" not in message and "preparing" in message
    assert "what was fitted before" in message and load_checkpoint(path / "behavior").step == 12


def then_a_signal(function: Any) -> Any:
    """The same function; a signal comes right after it."""

    def wrapped(*arguments: Any) -> None:
        function(*arguments)
        signal.raise_signal(signal.SIGTERM)

    return wrapped


# ------------------------------------------------------------------ more steps


def long(verb: str, data: str, steps: int, path: Path, *more: str) -> list[str]:
    """A run of some hundred steps; neither its rows of metrics nor its evaluations end with step 300."""
    every = ["--log-every", "70", "--eval-every", "110", "--eval-episodes", "1", "--save-every", "50", "-q"]
    words = {
        "train": ["train", "bcq", "--dataset", data, *ENV, "--behavior.hidden", "8"],
        "train-online": ["train-online", "sac", *ENV, "--warmup", "20"],
        "fit-behavior": ["fit-behavior", "gaussian", "--dataset", data],
    }[verb]
    if verb == "fit-behavior":
        return [*words, "--hidden", "8", *every[:2], *every[6:], "--steps", str(steps), "--output", str(path)]
    return [*words, *SMALL, *every, *more, "--steps", str(steps), "--output", str(path)]


@pytest.mark.parametrize("verb", ["train", "train-online"])
@pytest.mark.parametrize("every", [[], ["--log-every", "100", "--eval-every", "150"]], ids=["odd", "even"])
def test_an_extended_run_ends_with_the_bytes_of_one_that_was_begun_so(
    verb: str, every: list[str], data: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    whole, extended = tmp_path / "whole", tmp_path / "extended"
    main(long(verb, data, 600, whole, *every))
    main(long(verb, data, 300, extended, *every))
    interrupted(["resume", str(extended), "--steps", "600", "-q"], 123)
    main(["resume", str(extended), "-q"])  # it knows its new number of steps
    assert bytes_of(extended) == bytes_of(whole)
    assert record(extended, "result.json") == record(whole, "result.json")
    configs = [record(path, "config.json") for path in (extended, whole)]
    assert configs[0] == configs[1]
    assert not [warning for warning in recwarn if isinstance(warning.message, DeterminismWarning)]


def test_where_an_extended_run_goes_another_way_a_warning_says_why(data: str, tmp_path: Path) -> None:
    fitted, online = tmp_path / "fitted", tmp_path / "online"
    main(long("fit-behavior", data, 30, fitted))
    with pytest.warns(DeterminismWarning, match="learning rate"):
        main(["resume", str(fitted), "--steps", "60", "-q"])
    assert record(fitted, "result.json")["steps"] == 60
    assert load_checkpoint(fitted).step == 60
    main(long("train-online", data, 30, online, "--save-every", "20"))
    with pytest.warns(DeterminismWarning, match="episodes"):
        main(["resume", str(online), "--steps", "40", "-q"])
    assert load_checkpoint(online).step == 40


def test_fewer_steps_are_refused_and_as_many_are_fine(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    main([*arguments("parallel", data), "--output", str(path)])
    before = bytes_of(path)
    code, _, error = run(["resume", str(path), "--steps", "19"], capsys)
    assert (code, "19" in error, "20" in error) == (78, True, True)
    assert run(["resume", str(path), "--steps", "20", "-q"], capsys)[0] == 0
    assert bytes_of(path) == before
    assert (status(path), record(path, "config.json")["steps"]) == ("done", 20)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("changed", "field", "old", "new"),
    [
        (["--steps", "30"], "steps", "20", "30"),
        (["--seed", "7"], "seed", "0", "7"),
        (["--alpha", "5"], "alpha", "2.5", "5.0"),
        (["--parallel-seeds", "2"], "stack", "[3]", "[2]"),
        (["--next-obs", "within_episode"], "next_obs", "following_row", "within_episode"),
        (["--reward-scale", "10"], "reward_scale", "1.0", "10.0"),
    ],
)
def test_a_refused_resume_names_the_field_with_both_values(
    changed: list[str],
    field: str,
    old: str,
    new: str,
    data: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*arguments("parallel", data), "--output", str(tmp_path / "run")]
    interrupted(words, 5)
    capsys.readouterr()
    code, _, error = run([*words, *changed, "--resume"], capsys)
    message, hint = error.splitlines()
    assert code == 78
    assert f"{field} = " in message and old in message.partition(f"{field} = ")[2]
    assert new in message.partition(", not ")[2]
    assert f"offline-vi resume {tmp_path / 'run'}" in hint


def test_a_run_without_a_policy_yet_is_to_be_resumed_not_overwritten(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    interrupted([*arguments("fast", data), "--output", str(path)], 3)  # in the fit of the model
    capsys.readouterr()
    code, _, error = run(["evaluate", str(path)], capsys)
    assert code != 0
    assert f"`offline-vi resume {path}`" in error
    assert "--overwrite" not in error


def test_what_is_no_run_of_the_command_is_refused_in_one_line(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["resume", str(tmp_path / "nowhere")], capsys)[0] == 66
    main([*arguments("fast", data), "--output", str(tmp_path / "run")])
    python = tmp_path / "python"
    rows = datasets.load(data, env="Pendulum-v1")
    offline_vi.fit(BC(rows.spec, BCConfig(hidden=(8,))), rows, 5, run=python, progress=False)
    # a part of a run, a run of the first format, a run of Python
    for path in (tmp_path / "run" / "behavior", RUN_FORMAT_1, python):
        code, _, error = run(["resume", str(path)], capsys)
        assert (code, len(error.splitlines())) == (78, 2)


@pytest.mark.parametrize("name", ["nowhere.py", "no_such_package.module"])
def test_an_unknown_plugin_is_one_line(
    name: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "bc", "--dataset", data, "--output", str(tmp_path / "run")]
    for arguments in ([*words, "--plugin", name], ["resume", str(tmp_path / "run"), "--plugin", name]):
        code, out, error = run(arguments, capsys)
        assert (code, out, name in error, len(error.splitlines())) == (66, "", True, 2)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ the same again


@pytest.mark.parametrize("verb", ["fast", "parallel", "online", "pixels", "finetune", "behavior"])
def test_a_configuration_reproduces_its_run(verb: str, data: str, tmp_path: Path) -> None:
    write_walks(tmp_path / WALKS)
    first, again = tmp_path / "first", tmp_path / "again"
    words = arguments(verb, data)
    main([*words, "--output", str(first)])
    main([words[0], "--config", str(first / "config.json"), "--output", str(again)])
    assert bytes_of(again) == bytes_of(first)
    assert record(again, "config.json") == record(first, "config.json")


def test_a_configuration_of_the_first_format_reproduces_its_run(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # its data set is "pendulum.hdf5"
    main(["train", "--config", str(RUN_FORMAT_1 / "config.json"), "--output", "again"])
    config = record(RUN_FORMAT_1, "config.json")
    before = load_tensors(RUN_FORMAT_1 / "checkpoints" / "step_00000020" / "model.safetensors")
    expected, found = format_1.renamed(before, config), load_checkpoint("again").model
    assert found.keys() <= expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
    assert record(Path("again"), "config.json")["data"]["fingerprint"] == config["data"]["fingerprint"]


def test_runs_that_differ_have_default_names_that_differ(data: str) -> None:
    flags = [
        [],
        ["--preset", "fast"],
        ["--preset", "likely"],
        ["--behavior", "cvae"],
        ["--behavior", "mixture"],
        ["--seed", "1"],
        ["--parallel-seeds", "4"],
    ]
    names = [Training("bcq", parse_options("bcq", {}, ["--dataset", data, *own])).name for own in flags]
    names.append(Training("emaq", parse_options("emaq", {}, ["--dataset", data])).name)
    assert len(set(names)) == len(flags) + 1
    assert all("/" not in name and "pendulum" in name for name in names)


# ------------------------------------------------------------------ evaluations that fail


class Breaking(PendulumEnv):
    """Pendulum, of which every episode breaks in its third step while ``broken`` says how."""

    broken = ""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.count = 0
        return super().reset(seed=seed, options=options)

    def step(self, u: Any) -> Any:
        self.count += 1
        obs, reward, terminated, truncated, info = super().step(u)  # type: ignore[no-untyped-call]
        if self.count == 3 and Breaking.broken == "raise":
            raise RuntimeError("the simulator broke")
        bad = self.count == 3 and Breaking.broken == "nan"
        return obs, np.nan if bad else reward, terminated, truncated, info


gymnasium.register("offline_vi_tests/Breaking-v0", entry_point=Breaking, max_episode_steps=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["raise", "nan"])
@pytest.mark.parametrize("verb", ["train", "finetune"])
def test_an_evaluation_that_fails_is_recorded_and_ends_nothing(
    verb: str, how: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    words = [*arguments("parallel", data)[:-2], "--env", "offline_vi_tests/Breaking-v0"]
    if verb == "finetune":
        main([*words, "--output", str(tmp_path / "start")])
        words = ["finetune", str(tmp_path / "start"), *SCORED, "--steps", "20", "--warmup", "2", "--seed", "3"]
        monkeypatch.setattr(collector, "Simulator", lambda _: Simulator(datasets.environment("Pendulum-v1")))
    monkeypatch.setattr(Breaking, "broken", how)
    with pytest.warns(EvaluationWarning, match="failed"):
        main([*words, "--output", str(path)])
    failures = record(path, "failures.json")
    assert failures.keys() == {"8", "16", "20"} | ({"0"} if verb == "finetune" else set())
    result = record(path, "result.json")
    assert result["failed_evaluations"] == failures and "normalized_score" not in result
    assert status(path) == "done"
    assert load_checkpoint(path).step == 20

    monkeypatch.setattr(Breaking, "broken", "")
    main(["resume", str(path), "-q"])  # scores the final policy again
    result = record(path, "result.json")
    assert set(result["curve"]) == {"20"} and len(result["returns"]) == 1
    assert result["failed_evaluations"].keys() == failures.keys() - {"20"}
    main(["resume", str(path), "--steps", "25", "-q"])
    assert set(record(path, "result.json")["curve"]) == {"24", "25"}


def test_where_only_the_last_evaluation_fails_no_earlier_one_stands_in(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the best one: the final policy has no score."""
    path = tmp_path / "run"
    words = [*arguments("parallel", data)[:-2], "--env", "offline_vi_tests/Breaking-v0", "--output", str(path)]
    main(words)
    complete = record(path, "result.json")
    monkeypatch.setattr(Breaking, "broken", "raise")
    with pytest.warns(EvaluationWarning, match="step 20"):
        main(["resume", str(path), "-q"])
    result = record(path, "result.json")
    assert result["curve"] == {step: complete["curve"][step] for step in ("8", "16")}
    assert "normalized_score" not in result and "note" in result
    monkeypatch.setattr(Breaking, "broken", "")
    main(["resume", str(path), "-q"])
    assert record(path, "result.json") == complete
