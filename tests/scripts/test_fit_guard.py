"""`offline-vi fit-guard`: it fits what `offline-vi evaluate --guard-states` asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from small_data import pendulum

from offline_vi.runs.ownership import strangers
from offline_vi.scripts import main

SCORE = ["--guard-states", "0.05", "--episodes", "2", "--max-episode-steps", "20", "-q", "--json"]


def twenty_episodes(columns: dict[str, Any]) -> None:
    columns["timeouts"] = np.arange(1, len(columns["timeouts"]) + 1) % 20 == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("guard")
    data = pendulum(folder / "toy.hdf5", twenty_episodes)
    words = ["train", "bc", "--dataset", data, "--env", "Pendulum-v1", "--hidden", "8"]
    words += ["--steps", "2", "--eval-episodes", "1", "-q"]
    main([*words, "--output", str(folder / "run")])
    return str(folder / "run")


def test_the_fitted_density_guards_the_policy_in_evaluate(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(["evaluate", trained, *SCORE], capsys)
    assert code != 0
    assert "offline-vi fit-guard" in error
    code, out, _ = run(["fit-guard", trained, "--steps", "5", "--seed", "1"], capsys)
    assert code == 0
    assert "fitted to 266 states" in out and "76 others" in out
    levels = [line.split("--guard-states ")[1].split()[0] for line in out.splitlines() if "--guard-states" in line]
    assert levels == ["0.001", "0.01", "0.05", "0.5"]
    assert {path.name for path in (Path(trained) / "states").iterdir()} >= {"card.json", "model.safetensors"}
    assert strangers(Path(trained)) == []
    code, out, _ = run(["evaluate", trained, *SCORE], capsys)
    assert code == 0
    guard = json.loads(out)["guard_states"]
    assert guard["level"] == 0.05
    assert 0.0 <= guard["share"] <= 1.0
    code, out, _ = run(["evaluate", trained, *SCORE[:-1]], capsys)
    assert "unknown states" in out


def test_a_file_returns_the_safe_action_in_an_unknown_state(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In the environment's units: the pendulum's torque is from -2 to 2."""
    assert run(["fit-guard", trained, "--steps", "5"], capsys)[0] == 0
    file = Path(trained) / "safe.ts"
    words = ["export", trained, "--to", "torchscript", "--output", str(file), "--guard-states", "0.05"]
    code, _, error = run([*words, "--safe-action", "-1.5"], capsys)
    assert code == 0, error
    action, outside = torch.jit.load(str(file))(torch.full((1, 3), 1e4))
    assert outside[0, 0]
    assert action[0].tolist() == pytest.approx([-1.5])
    card = json.loads(file.with_name("safe.ts.json").read_text())
    assert card["guard"]["safe_action"] == pytest.approx([-1.5])
    assert (card["outside"]["shape"], card["outside"]["dtype"]) == (["batch", 2], "bool")
    for wrong, why in ((["-2.5"], "-2 to 2"), (["1", "1"], "one for each")):
        code, _, error = run([*words, "--overwrite", "--safe-action", *wrong], capsys)
        assert code == 2 and why in error
    code, _, error = run(["export", trained, "--output", str(file.with_name("b.pt2")), "--safe-action", "0"], capsys)
    assert code == 2 and "--guard-states" in error


def test_a_density_of_actions_is_kept_after_training(
    trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_path, density = str(tmp_path / "run"), str(tmp_path / "density")
    shutil.copytree(trained, run_path, ignore=shutil.ignore_patterns("states", "safe.ts*"))
    data = json.loads((Path(run_path) / "config.json").read_text())["data_options"]["dataset"]
    score = ["evaluate", run_path, "--guard", "0.5", *SCORE[2:]]
    code, _, error = run(score, capsys)
    assert code != 0
    assert f"offline-vi fit-guard {run_path} --support-from DIR" in error
    words = ["fit-behavior", "gaussian", "--dataset", *data, "--steps", "5", "-q"]
    main([*words, "--output", density])
    capsys.readouterr()
    code, out, _ = run(["fit-guard", run_path, "--steps", "5", "--support-from", density], capsys)
    assert code == 0
    shutil.rmtree(density)  # the run holds all that it needs
    assert strangers(Path(run_path)) == []
    code, scored, _ = run(score, capsys)
    assert code == 0
    guard = json.loads(scored)["guard"]
    (line,) = [line for line in out.splitlines() if "--guard 0.5" in line]
    assert float(line.split()[0]) == pytest.approx(guard["threshold"], abs=0.005)
    assert guard["share"] > 0.0
    file = str(tmp_path / "guarded.ts")
    assert run(["export", run_path, "--to", "torchscript", "--output", file, "--guard", "0.5"], capsys)[0] == 0
    card = Path(run_path) / "actions" / "card.json"
    for support in ({}, {"half": 1.0}, {"0.5": "low"}, 7):
        card.write_text(json.dumps({**json.loads(card.read_text()), "support": support}))
        code, _, error = run(score, capsys)
        assert code == 78 and error.startswith("error: ")


def test_a_density_of_other_actions_is_refused(
    trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def two_actions(columns: dict[str, Any]) -> None:
        columns["actions"] = np.concatenate([columns["actions"]] * 2, -1)

    data, density = pendulum(tmp_path / "two.hdf5", two_actions), str(tmp_path / "density")
    words = ["fit-behavior", "gaussian", "--dataset", data, "--steps", "2", "-q"]
    main([*words, "--output", density])
    code, _, error = run(["fit-guard", trained, "--steps", "2", "--support-from", density], capsys)
    assert code != 0 and "2 actions" in error
    assert not (Path(trained) / "actions").exists()


def test_the_command_that_a_refusal_names_loads_the_plug_ins_of_the_run(
    trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the whole command, so it works as it is copied."""
    path, plugin = tmp_path / "run", tmp_path / "mine.py"
    shutil.copytree(trained, path, ignore=shutil.ignore_patterns("states"))
    plugin.write_text("NOTHING = 0\n")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "plugins": [{"name": str(plugin), "sha256": "0"}]}))
    _, _, error = run(["evaluate", str(path), *SCORE], capsys)
    assert f"`offline-vi fit-guard {path} --plugin {plugin}`" in error


def test_its_help_names_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["fit-guard", "--help"], capsys)
    assert code == 0
    assert all(word in out for word in ("RUN/states", "--guard-states", "--steps", "--seed"))


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(["fit-guard", str(tmp_path)], capsys)
    assert (code != 0, out) == (True, "")
    assert error.startswith("error: ")
