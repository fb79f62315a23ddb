"""The command as a user meets it: the main job in small, and one line with the right exit code for every bad input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agents import built
from command_line import TINY, run
from small_data import pendulum

from offline_vi import datasets, registry
from offline_vi.behavior.proposals import CandidateCache, Proposals
from offline_vi.errors import UsageError
from offline_vi.nn.description import describe
from offline_vi.rl.algorithm import normalizer_of
from offline_vi.scripts import VERBS, main
from offline_vi.study.kept import load_agent
from offline_vi.study.presets import choice
from offline_vi.study.train import parse_options
from offline_vi.study.tuned import tables, tuned
from offline_vi.types import Spec

TINY_BCQ = [*TINY, "--hidden", "8", "--behavior.hidden", "8", "--batch-size", "16"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return pendulum(tmp_path / "pendulum.hdf5")


def test_bcq_end_to_end_and_its_run_can_be_scored_repeated_and_resumed(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first"
    train = ["train", "bcq", "--dataset", data, "--env", "Pendulum-v1", "--seed", "3", *TINY_BCQ]
    assert run([*train, "--output", str(first)], capsys)[0] == 0
    result = json.loads((first / "result.json").read_text())
    assert len(result["returns"]) == 2
    assert set(result["curve"]) == {"15", "30"}
    assert json.loads((first / "run.json").read_text())["status"] == "done"
    assert (first / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
    assert len((first / "metrics.csv").read_text().splitlines()) == 4

    code, out, _ = run(["evaluate", str(first), "--episodes", "3", "--json", "-q"], capsys)
    assert code == 0
    assert len(json.loads(out)["returns"]) == 3

    again = tmp_path / "again"
    assert run(["train", "--config", str(first / "config.json"), "--output", str(again)], capsys)[0] == 0
    assert (again / "metrics.csv").read_bytes() == (first / "metrics.csv").read_bytes()
    assert (again / "result.json").read_bytes() == (first / "result.json").read_bytes()

    code, _, error = run([*train, "--output", str(first)], capsys)
    assert (code, "--resume" in error) == (73, True)
    code, _, error = run([*train, "--phi", "0.2", "--output", str(first), "--resume"], capsys)
    assert (code, "config.phi = 0.05" in error, "not 0.2" in error) == (78, True, True)
    assert run([*train, "--output", str(first), "--resume"], capsys)[0] == 0
    assert (again / "metrics.csv").read_bytes() == (first / "metrics.csv").read_bytes()


def test_bc_and_a_frozen_model(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--dataset", data, "--env", "Pendulum-v1"]
    flags = ["--hidden", "8", "--batch-size", "16"]
    assert run(["train", "bc", *common, *TINY, *flags, "--output", str(tmp_path / "bc")], capsys)[0] == 0
    frozen = ["--behavior", "cvae", "--behavior-steps", "20", "--output", str(tmp_path / "frozen")]
    assert run(["train", "bcq", *common, *TINY_BCQ, *frozen], capsys)[0] == 0
    assert config_of(tmp_path / "frozen")["agent"]["class"] == "bcq"  # and not a joint training
    code, out, _ = run(["evaluate", str(tmp_path / "bc"), "--episodes", "1", "-q"], capsys)
    assert code == 0
    assert "Pendulum-v1" in out


def test_fit_behavior_reports_the_density(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--dataset", data, "--steps", "40", "--log-every", "10", "--hidden", "8", "-q", "--json"]
    code, out, _ = run(["fit-behavior", "cvae", *flags, "--output", str(tmp_path / "model")], capsys)
    assert code == 0
    report = json.loads(out)
    assert report["held_out"]["iwae_64"] >= report["held_out"]["elbo"] - 0.05
    assert (tmp_path / "model" / "learning_curve.png").exists()
    code, _, error = run(["evaluate", str(tmp_path / "model")], capsys)
    assert (code, "behavior model" in error) == (2, True)


def test_one_fitted_model_serves_several_algorithms(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--dataset", data, "--env", "Pendulum-v1"]
    fitted = str(tmp_path / "fitted")
    flags = ["--steps", "40", "--log-every", "10", "--hidden", "8", "-q"]
    assert run(["fit-behavior", "cvae", *common, *flags, "--output", fitted], capsys)[0] == 0
    card = json.loads((tmp_path / "fitted" / "model" / "card.json").read_text())
    assert card["data"]["sha256"]
    assert {"elbo", "iwae_64"} <= card["held_out"].keys()
    weights = (tmp_path / "fitted" / "model" / "model.safetensors").read_bytes()
    shared = [*common, *TINY, "--hidden", "8", "--batch-size", "16", "--behavior-from", fitted]
    for name in ("bcq", "plas", "spot", "emaq"):
        output = tmp_path / name
        bank = ["--bank-period", "100", "--precision", "bfloat16"] if name in ("bcq", "emaq") else []
        assert run(["train", name, *shared, *bank, "--output", str(output)], capsys)[0] == 0
        config = config_of(output)
        assert config["behavior_options"]["hidden"] == [8]
        assert config["agent"]["class"] == name  # and not a joint training
        assert run(["evaluate", str(output), "--episodes", "1", "-q"], capsys)[0] == 0
    assert (tmp_path / "fitted" / "model" / "model.safetensors").read_bytes() == weights

    again = ["train", "--config", str(tmp_path / "bcq" / "config.json"), "--output", str(tmp_path / "again")]
    assert run(again, capsys)[0] == 0
    assert (tmp_path / "again" / "metrics.csv").read_bytes() == (tmp_path / "bcq" / "metrics.csv").read_bytes()

    code, out, error = run(["train", "bc", *shared, "--output", str(tmp_path / "bc")], capsys)
    check_one_line(code, 78, out, error, "--behavior-from")
    other = pendulum(tmp_path / "other.hdf5", spoil("observations", lambda column: column[:, :2]))
    code, out, error = run(["train", "bcq", "--dataset", other, *shared[2:], "--output", str(tmp_path / "x")], capsys)
    check_one_line(code, 65, out, error, "(2,)")


def test_support_is_measured_on_the_way_and_guarded_afterwards(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--dataset", data, "--env", "Pendulum-v1"]
    flags = ["--steps", "20", "--log-every", "10", "--hidden", "8", "-q", "--output", str(tmp_path / "model")]
    assert run(["fit-behavior", "gaussian", *common, *flags], capsys)[0] == 0
    train = ["train", "td3", *common, *TINY, "--hidden", "8", "--batch-size", "16"]
    output = ["--support-from", str(tmp_path / "model"), "--output", str(tmp_path / "td3")]
    assert run([*train, *output], capsys)[0] == 0
    lines = (tmp_path / "td3" / "support.csv").read_text().splitlines()
    assert len(lines) == 3
    assert set(lines[0].split(",")) >= {"step", "support/outside", "support/log_prob", "q/start", "q/return"}
    result = json.loads((tmp_path / "td3" / "result.json").read_text())
    assert set(result["support"]) == {"0.001", "0.01", "0.05", "0.5"}
    guarded = ["evaluate", str(tmp_path / "td3"), "--episodes", "1", "--json", "-q", "--guard", "0.5"]
    code, out, _ = run(guarded, capsys)
    assert code == 0
    guard = json.loads(out)["guard"]
    assert guard["threshold"] == result["support"]["0.5"]
    assert 0.0 <= guard["share"] <= 1.0
    code, out, error = run([*guarded[:-1], "0.4"], capsys)
    check_one_line(code, 78, out, error, "0.05")
    assert run([*train, "--output", str(tmp_path / "blind")], capsys)[0] == 0
    code, out, error = run(["evaluate", str(tmp_path / "blind"), "--guard", "0.01"], capsys)
    check_one_line(code, 78, out, error, "--support-from")


def test_a_sweep_over_ways_to_act_ends_at_cloning_and_at_the_greedy_policy(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    train = ["--dataset", data, "--env", "Pendulum-v1", *TINY_BCQ, "--behavior-steps", "20", "--output", str(output)]
    assert run(["train", "bcq", *train], capsys)[0] == 0
    axes = ["--candidates", "1", "3", "--phi", "0", "--noise-clip", "inf", "--temperature", "0", "inf", "-q"]
    code, out, _ = run(["sweep-inference", str(output), "--episodes", "2", "--json", *axes], capsys)
    assert code == 0
    rows = {row["axis"]: row for row in json.loads(out)["rows"]}
    assert rows["cloning"]["scores"] == rows["direct cloning"]["scores"]
    assert rows["greedy"]["scores"] == rows["direct greedy"]["scores"]
    assert {"candidates", "phi", "noise_clip", "temperature"} <= rows.keys()
    assert (output / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((output / "sweep.json").read_text())["rows"] == json.loads(out)["rows"]
    head, *lines = run(["sweep-inference", str(output), "--episodes", "2", *axes], capsys)[1].splitlines()
    assert head.startswith("return") and "2 episodes" in head and "+-" in head and "+-" in lines[0]
    assert run(["train", "bc", *train[:4], *TINY, "--hidden", "8", "--output", str(tmp_path / "bc")], capsys)[0] == 0
    code, out, error = run(["sweep-inference", str(tmp_path / "bc")], capsys)
    check_one_line(code, 2, out, error, "BC")


def test_proposals_can_be_chosen(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--dataset", data, "--env", "Pendulum-v1", *TINY_BCQ, "--behavior-steps", "20"]
    for proposals in ("samples", "decoder-means", "most-likely", "decoded", "likely"):
        output = tmp_path / proposals
        flags = ["--behavior", "cvae", "--proposals", proposals, "--output", str(output)]
        assert run(["train", "bcq", *common, *flags], capsys)[0] == 0
        assert run(["evaluate", str(output), "--episodes", "1", "-q"], capsys)[0] == 0
    mixture = ["--behavior", "mixture", "--proposals", "decoder-means", "--output", str(tmp_path / "mixture")]
    code, out, error = run(["train", "bcq", *common, *mixture], capsys)
    check_one_line(code, 78, out, error, "MixtureBehavior")


def test_tuned_settings_are_hyper_parameters_of_their_algorithm() -> None:
    assert {"spot", "rebrac", "iql", "plas", "bear"} <= tables().keys()
    for name in tables():
        for task in json.loads(tables()[name].read_text())["tasks"]:
            made = parse_options(name, {}, ["--dataset", "x", "--tuned-for", f"{task}-v2"])
            for key, value in tuned(name, task).items():
                assert getattr(made.train if key in vars(made.train) else made.algorithm, key) == value
    assert tuned("iql", "antmaze-large-play-v0") == {
        "expectile": 0.9,
        "beta": 10.0,
        "reward_shift": -1.0,
    }  # of the domain
    assert tuned("spot", "hopper-medium-expert-v2") == {"lmbda": 0.2}
    flags = ["--dataset", "x", "--tuned-for", "hopper-medium", "--lmbda", "7"]
    assert parse_options("spot", {}, flags).algorithm.lmbda == 7.0  # a flag wins


def test_the_fast_preset_fits_first_and_draws_ahead(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", data, "--env", "Pendulum-v1", "--preset", "fast", *TINY_BCQ, "--behavior-steps", "20"]
    assert run(["train", "bcq", *flags, "--output", str(tmp_path / "fast")], capsys)[0] == 0
    config = config_of(tmp_path / "fast")
    cache = config["agent"]["proposals"]
    assert (config["agent"]["class"], cache["class"]) == ("bcq", "CandidateCache")
    likely = cache["proposals"]
    assert (likely["class"], likely["keep"], likely["model"]["class"]) == ("MostLikelySamples", 0.1, "gaussian")
    assert config["train_options"]["bank_period"] > 0
    assert json.loads((tmp_path / "fast" / "run.json").read_text())["precision"] in ("float32", "bfloat16")
    flags = ["--dataset", data, "--env", "Pendulum-v1", "--preset", "fast", *TINY, "--hidden", "8"]
    assert run(["train", "iql", *flags, "--output", str(tmp_path / "iql")], capsys)[0] == 0


@pytest.mark.parametrize("name", ["vime", "latent-planning", "nothing"])
def test_train_names_the_verb_of_an_algorithm_that_it_does_not_train(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(["train", name, "--dataset", "offline-vi/pendulum/mixed-v0"], capsys)
    assert code == UsageError.exit_code
    hint = error.splitlines()[-1]
    verbs = {"vime": "train-online", "latent-planning": "train-pixels"}
    assert verbs[name] in hint if name in verbs else not any(other in hint for other in verbs)


@pytest.mark.parametrize(
    ("flags", "model", "proposals", "acting"),
    [
        (["bcq"], "gaussian", "most-likely", 10),
        (["bcq", "--behavior", "cvae"], "cvae", "", 100),  # what belongs to a model goes with it
        (["bcq", "--proposals", "decoder-means", "--num-acting-candidates", "7"], "gaussian", "decoder-means", 7),
        (["emaq"], "cvae", "", 100),
    ],
)
def test_the_fast_preset_has_a_model_for_each_algorithm(
    flags: list[str], model: str, proposals: str, acting: int
) -> None:
    options = parse_options(flags[0], {}, ["--dataset", "x", "--preset", "fast", *flags[1:]])
    assert (options.train.behavior_model, options.train.proposals) == (model, proposals)
    assert options.algorithm.num_acting_candidates == acting
    assert options.train.behavior_steps == 10_000


@pytest.mark.parametrize("flags", [[], ["--behavior", "cvae"]])
def test_the_fast_preset_fits_no_model_for_an_algorithm_that_uses_none(flags: list[str]) -> None:
    assert parse_options("iql", {}, ["--dataset", "x", "--preset", "fast", *flags]).train.behavior_steps == 0


@pytest.mark.parametrize(
    ("name", "algorithm"), [("published", "bcq"), ("fast", "bcq"), ("fast", "plas"), ("fast", "iql")]
)
def test_a_presets_choice_is_what_the_command_builds(
    name: str, algorithm: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", data, "--env", "Pendulum-v1", "--preset", name, "--steps", "1", "--eval-episodes", "1"]
    flags += ["--behavior-steps", "1"] if name == "fast" and registry.algorithm(algorithm).behavior else []
    assert run(["train", algorithm, *flags, "--output", str(tmp_path / "run")], capsys)[0] == 0

    def cache(proposals: Proposals) -> Proposals:
        return CandidateCache(proposals) if name == "fast" else proposals

    spec = Spec((3,), 1)
    expected = describe(built(choice(name, algorithm, spec), spec, None, cache))
    assert config_of(tmp_path / "run")["agent"] == json.loads(json.dumps(expected))


@pytest.mark.parametrize(("flag", "normalizes"), [([], True), (["--no-normalize"], False)])
def test_what_is_published_on_normalised_observations_normalises_them(
    flag: list[str], normalizes: bool, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TD3+BC's tables are; a policy that is loaded again does it itself."""
    flags = ["--dataset", data, "--env", "Pendulum-v1", *TINY, "--hidden", "8", *flag]
    assert run(["train", "td3-bc", *flags, "--output", str(tmp_path / "run")], capsys)[0] == 0
    policy = load_agent(tmp_path / "run")
    rows = datasets.load(data, env="Pendulum-v1").obs
    expected = rows.std(0) if normalizes else np.ones(3)
    np.testing.assert_allclose(normalizer_of(policy).std, expected, rtol=1e-5)
    assert not parse_options("bcq", {}, ["--dataset", data]).train.normalize


def test_rewards_are_scaled_for_the_algorithm_alone(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", data, "--env", "Pendulum-v1", *TINY, "--hidden", "8"]
    runs = {"tuned": ["--tuned-for", "hopper-medium-v2"], "plain": [], "ten": ["--reward-scale", "10"]}
    for path, own in runs.items():
        assert run(["train", "iql", *flags, *own, "--output", str(tmp_path / path)], capsys)[0] == 0
    returns = datasets.load(data, env="Pendulum-v1").episode_returns()
    scale = config_of(tmp_path / "tuned")["data"]["reward_scale"]
    assert scale == pytest.approx(1000.0 / (returns.max() - returns.min()))
    for wrong in ("-1", "0", "much", "nan"):
        given = [f"--reward-scale={wrong}", "--output", str(tmp_path / "wrong")]
        code, out, error = run(["train", "iql", *flags, *given], capsys)
        check_one_line(code, 78, out, error, wrong)
        assert "--reward-scale" in error
    assert not (tmp_path / "wrong").exists()


def test_the_likely_preset_filters_the_samples_of_a_mixture(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", data, "--env", "Pendulum-v1", "--preset", "likely", *TINY, "--behavior-steps", "20"]
    small = [*flags, "--hidden", "8", "--behavior.hidden", "8", "--num-acting-candidates", "3"]
    assert run(["train", "emaq", *small, "--output", str(tmp_path / "likely")], capsys)[0] == 0
    likely = config_of(tmp_path / "likely")["agent"]["proposals"]["proposals"]
    assert (likely["class"], likely["model"]["class"], likely["keep"]) == ("MostLikelySamples", "mixture", 0.1)
    code, out, error = run(["train", "spot", *flags, "--output", str(tmp_path / "spot")], capsys)
    check_one_line(code, 78, out, error, "SPOT")


def test_a_data_set_without_an_environment_trains_and_says_that_nothing_was_scored(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = Path(data).rename(tmp_path / "mystery.hdf5")
    code, out, _ = run(["train", "bc", "--dataset", str(unknown), *TINY, "--output", str(tmp_path / "run")], capsys)
    assert code == 0
    assert "nothing was scored" in (tmp_path / "run" / "result.json").read_text()
    assert "nothing was scored" in out  # also with -q


def test_a_run_of_many_files_has_a_folder_with_a_name_that_fits(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(Path(data).with_name(f"{number:->40}.hdf5")) for number in range(9)]
    for file in files:
        shutil.copy(data, file)
    monkeypatch.chdir(tmp_path)
    few = ["--steps", "2", "--hidden", "8", "--unscored", "-q"]
    assert run(["train", "bc", "--dataset", *files, *few], capsys)[0] == 0
    (path,) = (tmp_path / "runs").iterdir()
    assert "7-more" in path.name
    assert json.loads((path / "config.json").read_text())["data"]["name"].count("+") == 8  # the record has all names


def test_quiet_leaves_the_result_on_stdout_and_nothing_else(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "bc", "--dataset", data, "--env", "Pendulum-v1", *TINY, "--hidden", "8"]
    words += ["--episode-weights", "best", "--max-episode-steps", "20"]
    code, out, err = run([*words, "--output", str(tmp_path / "quiet")], capsys)
    assert (code, err) == (0, "")
    mean = json.loads((tmp_path / "quiet" / "result.json").read_text())["return_mean"]
    assert f"{mean:.2f}" in out and str(tmp_path / "quiet") in out and len(out.splitlines()) == 2
    loud = [word for word in words if word != "-q"]
    code, out, err = run([*loud, "--json", "--output", str(tmp_path / "loud")], capsys)
    assert code == 0 and "rows" in err
    assert json.loads(out)["return_mean"] == mean  # stdout is the result alone: status lines are on stderr

    fit = ["fit-behavior", "gaussian", "--dataset", data, "--steps", "4", "--hidden", "8", "-q"]
    code, out, err = run([*fit, "--output", str(tmp_path / "model")], capsys)
    assert (code, err) == (0, "") and "nats" in out and str(tmp_path / "model") in out


def spoil(key: str, value: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def change(columns: dict[str, Any]) -> None:
        columns[key] = value(columns[key])

    return change


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda columns: columns.pop(key)


def set_at(row: int, value: float) -> Callable[[Any], Any]:
    def change(column: Any) -> Any:
        column[row] = value
        return column

    return change


BAD_FILES: dict[str, tuple[Callable[[dict[str, Any]], None], int, str]] = {
    "missing key": (drop("rewards"), 65, "rewards"),
    "missing observations": (drop("observations"), 65, "observations"),
    "NaN rewards": (spoil("rewards", set_at(150, np.nan)), 65, "rewards"),
    "infinite observations": (spoil("observations", set_at(7, np.inf)), 65, "observations"),
    "actions out of range": (spoil("actions", set_at(3, 2.7)), 65, "--action-range"),
    "lengths differ": (spoil("rewards", lambda column: column[:-1]), 65, "399"),
    "wrong number of dimensions": (spoil("observations", lambda column: column[:, :, None]), 65, "observations"),
    "no rows": (
        lambda columns: columns.update({key: column[:0] for key, column in columns.items()}),
        65,
        "",
    ),
    "text instead of numbers": (spoil("actions", lambda column: np.full(len(column), b"left")), 65, "actions"),
    "another environment's observations": (spoil("observations", lambda column: column[:, :2]), 65, "(2,)"),
    "another environment's actions": (spoil("actions", lambda column: np.repeat(column, 2, 1)), 65, "action"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_data_is_one_line_before_the_first_step(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected, word = BAD_FILES[case]
    file = pendulum(tmp_path / "pendulum.hdf5", change)
    output = tmp_path / "run"
    code, out, error = run(
        ["train", "bcq", "--dataset", file, "--env", "Pendulum-v1", *TINY_BCQ, "--output", str(output)], capsys
    )
    check_one_line(code, expected, out, error, word)
    assert not output.exists()


def config_of(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((path / "config.json").read_text())
    return record


def check_one_line(code: int, expected: int, out: str, error: str, word: str) -> None:
    assert code == expected, error
    lines = error.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert word in error
    assert "Traceback" not in error + out


BAD_CALLS: dict[str, tuple[list[str], int, str]] = {
    "unknown verb": (["trian"], 2, "train"),
    "unknown algorithm": (["train", "bcqq", "--dataset", "DATA"], 2, "bcq"),
    "unknown behaviour model": (["fit-behavior", "cave", "--dataset", "DATA"], 2, "cvae"),
    "unknown model for an algorithm": (["train", "bcq", "--behavior", "cvea", "--dataset", "DATA"], 2, "cvae"),
    "unknown data set": (["train", "bcq", "--dataset", "hoper-medium-v2"], 2, "hopper-medium-v2"),
    "no data set": (["train", "bcq"], 2, "--dataset"),
    "missing file": (["train", "bcq", "--dataset", "/nowhere/file.hdf5"], 66, "/nowhere/file.hdf5"),
    "missing run": (["evaluate", "/nowhere/run"], 66, "/nowhere/run"),
    "missing configuration": (["train", "--config", "/nowhere/config.json"], 66, "/nowhere/config.json"),
    "resume what is not there": (["train", "bc", "--dataset", "DATA", "--output", "TMP/none", "--resume"], 66, "none"),
    "unknown environment": (["train", "bc", "--dataset", "DATA", "--env", "Pendlum-v1"], 2, "Pend"),
    "mismatching environment": (["train", "bc", "--dataset", "DATA", "--env", "MountainCarContinuous-v0"], 65, "(3,)"),
    "not tuned for it": (["train", "spot", "--dataset", "DATA", "--tuned-for", "hoper-medium"], 2, "hopper-medium"),
    "not tuned at all": (["train", "bcq", "--dataset", "DATA", "--tuned-for", "hopper-medium"], 2, "bcq"),
    "unknown preset": (["train", "bcq", "--dataset", "DATA", "--preset", "fats"], 2, "fast"),
    "no model to share": (["train", "bcq", "--dataset", "DATA", "--behavior-from", "TMP/none"], 66, "none"),
    "no such device": (
        ["train", "bc", "--dataset", "DATA", "--env", "Pendulum-v1", "--device", "cuda:9"],
        78,
        "cuda:9",
    ),
    "output under a file": (["train", "bc", "--dataset", "DATA", "--output", "DATA/run", *TINY], 73, "run"),
    "truncated file": (["train", "bc", "--dataset", "TMP/cut.hdf5"], 65, "cut.hdf5"),
    "not an HDF5 file": (["train", "bc", "--dataset", "TMP/text.hdf5"], 65, "text.hdf5"),
    "broken configuration": (["train", "--config", "TMP/broken.json"], 78, "broken.json"),
    "foreign configuration": (["train", "--config", "TMP/foreign.json"], 78, "foreign.json"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_call_is_one_line_with_its_exit_code(
    case: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.hdf5").write_bytes(Path(data).read_bytes()[:-2000])
    (tmp_path / "text.hdf5").write_text("observations,actions\n1,2\n")
    (tmp_path / "broken.json").write_text('{"schema": 1,')
    (tmp_path / "foreign.json").write_text('{"name": "something else"}')
    arguments, expected, word = BAD_CALLS[case]
    filled = [argument.replace("DATA", data).replace("TMP", str(tmp_path)) for argument in arguments]
    if case != "output under a file" and filled[0] in ("train", "fit-behavior") and "--output" not in filled:
        filled += ["--output", str(tmp_path / "run")]
    code, out, error = run(filled, capsys)
    check_one_line(code, expected, out, error, word)


def test_a_bad_flag_names_it(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(["train", "bcq", "--dataset", data, "--ph", "0.1"], capsys)
    assert code == 2
    assert "--phi" in out + error


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], ["info", "--help"], ["train", "--help"]])
def test_help_is_fast_where_torch_is_not_needed(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "offline_vi", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "usage" in done.stdout.lower()
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run([verb, "--help"], capsys)
    assert code == 0
    assert f"offline-vi {verb}" in out


def test_help_of_an_algorithm_names_units_symbols_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    code, out, _ = run(["train", "bcq", "--help"], capsys)
    assert code == 0
    for word in ("--phi", "0.05", "--behavior.latent-dim", "--steps", "Gradient steps", "--lmbda", "--noise-clip"):
        assert word in out
    assert time.monotonic() - started < 60


def test_a_bug_leaves_its_traceback_in_the_run(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("offline_vi.study.experiment.fit", broken)
    output = tmp_path / "run"
    with pytest.raises(RuntimeError, match="a bug of ours"):
        main(["train", "bc", "--dataset", data, "--env", "Pendulum-v1", *TINY, "--output", str(output)])
    assert "a bug of ours" in (output / "crash.txt").read_text()
    assert json.loads((output / "run.json").read_text())["status"] == "failed"


def test_a_run_of_an_older_version_resumes_where_its_configuration_lacks_what_is_not_used(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["train", "bc", "--dataset", data, "--env", "Pendulum-v1", *TINY, "--output", str(tmp_path / "run")]
    assert run(flags, capsys)[0] == 0
    path, config = tmp_path / "run" / "config.json", config_of(tmp_path / "run")
    del config["agent"]["spec"]["stack"]
    path.write_text(json.dumps(config))
    assert run([*flags, "--resume"], capsys)[0] == 0
    config["agent"]["spec"]["stack"] = [2]
    path.write_text(json.dumps(config))
    assert run([*flags, "--resume"], capsys)[0] == 78
