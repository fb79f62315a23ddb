"""Every option of the verbs that train is in one of three classes for a run that goes on."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from small_data import pendulum

from offline_vi.errors import ConfigError, ReportWarning
from offline_vi.nn.description import completed
from offline_vi.scripts import main
from offline_vi.study import (
    evaluations,
    finetune,
    fit_behavior,
    online,
    pixels,
    returns,
    run as run_module,
    train,
    weighing,
)
from offline_vi.study.data import DataOptions
from offline_vi.study.resumption import CLASSES, HYPERPARAMETERS, OnResume, class_of, recorded_changes, with_changes

SECTIONS: dict[str, Any] = {
    "run": run_module.RunOptions(),
    "data": DataOptions(),
    "weights": weighing.WeightOptions(),
    "returns": returns.ReturnOptions(),
    "train": train.TrainOptions(),
    "eval": evaluations.EvalOptions(),
    "fit": fit_behavior.FitOptions(),
    "where": online.EnvOptions(),
    "collect": online.CollectOptions(),
    "finetune": finetune.FinetuneOptions(),
    "pixels": pixels.PixelOptions(),
}
OPTIONS = [(section, field.name) for section, default in SECTIONS.items() for field in fields(default)]


def test_the_table_classes_every_option_and_no_other() -> None:
    classed = {(section, name) for section, options in CLASSES.items() for name in options}
    assert classed == set(OPTIONS)
    assert all(class_of(section, "anything") is OnResume.SAME for section in HYPERPARAMETERS)


@pytest.mark.parametrize(("section", "name"), OPTIONS)
def test_another_value_is_what_its_class_says(section: str, name: str) -> None:
    before = {"steps": 10, f"{section}_options": {name: "before"}}
    now = {"steps": 10, f"{section}_options": {name: "now"}}
    kind = class_of(section, name)
    if kind in (OnResume.SAME, OnResume.MORE):
        with pytest.raises(ConfigError, match=f"{section}_options.{name}"):
            recorded_changes("run", before, now, extends=False)
        return
    found = recorded_changes("run", before, now, extends=False)
    assert [change.option for change in found] == [f"{section}_options.{name}"] * (kind is OnResume.RECORDED)
    if found:
        saved = with_changes(before, found, 7)
        assert saved[f"{section}_options"] == {name: "now"}
        assert saved["changes"] == [{"step": 7, "option": found[0].option, "before": "before", "now": "now"}]


@pytest.mark.parametrize("name", ["agent", "data", "task", "seed", "collection", "start", "precision", "graph"])
def test_what_the_options_make_is_the_same(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        recorded_changes("run", {name: {"x": 1}}, {name: {"x": 2}}, extends=False)


def test_more_steps_are_an_extension_alone() -> None:
    before, now = ({"steps": steps, "train_options": {"steps": steps}} for steps in (10, 20))
    assert recorded_changes("run", before, now, extends=True) == []
    for pair, extends in (((before, now), False), ((now, before), True)):
        with pytest.raises(ConfigError, match="steps"):
            recorded_changes("run", *pair, extends=extends)


@pytest.mark.parametrize(("name", "section"), [("precision", "train_options"), ("graph", "run_options")])
def test_what_auto_stood_for_is_kept(name: str, section: str) -> None:
    before, now = ({name: found, section: {name: "auto"}} for found in ("one", "other"))
    assert recorded_changes("run", before, now, extends=False) == []


def test_a_run_of_an_older_version_had_no_graph() -> None:
    assert recorded_changes("run", {}, {"graph": "off", "run_options": {"graph": "off"}}, extends=False) == []
    with pytest.raises(ConfigError, match="graph"):
        recorded_changes("run", {}, {"graph": "compiled"}, extends=False)


def test_a_run_takes_what_may_change_and_says_since_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, path = pendulum(tmp_path / "pendulum.hdf5"), tmp_path / "a$b^_run"
    words = ["train", "bc", "--dataset", data, "--env", "Pendulum-v1", "--hidden", "8", "--batch-size", "8", "-q"]
    words += ["--max-episode-steps", "3", "--eval-every", "0", "--steps", "4", "--output", str(path)]
    main([*words, "--eval-episodes", "1"])
    assert (path / "learning_curve.png").exists()
    assert run([*words, "--eval-episodes", "2", "--resume"], capsys)[0] == 0
    config = json.loads((path / "config.json").read_text())
    assert config["changes"] == [{"step": 4, "option": "eval_options.eval_episodes", "before": 1, "now": 2}]
    assert config["eval_options"]["eval_episodes"] == 2
    assert len(json.loads((path / "result.json").read_text())["returns"]) == 2
    code, _, error = run([*words, "--eval-episodes", "2", "--lr", "0.5", "--resume"], capsys)
    assert (code, "lr" in error) == (78, True)


# ------------------------------------------------------------------ what ends no run, and what does


def test_a_picture_that_fails_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, path = pendulum(tmp_path / "pendulum.hdf5"), tmp_path / "run"

    def fail(*_: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(train, "learning_curve", fail)
    small = ["--hidden", "8", "--batch-size", "8", "--steps", "2", "--unscored", "-q"]
    with pytest.warns(ReportWarning, match="no fonts"):
        main(["train", "bc", "--dataset", data, *small, "--output", str(path)])
    record = json.loads((path / "run.json").read_text())
    assert record["status"] == "done" and record["wall_seconds"] >= 0.0


def test_a_program_that_is_ended_from_inside_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, path = pendulum(tmp_path / "pendulum.hdf5"), tmp_path / "run"

    def leave(*_: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(train, "with_weights", leave)
    small = ["--hidden", "8", "--batch-size", "8", "--steps", "2", "--unscored", "-q"]
    code, _, error = run(["train", "bc", "--dataset", data, *small, "--output", str(path)], capsys)
    assert (code, len(error.splitlines())) == (70, 2)
    assert json.loads((path / "run.json").read_text())["status"] == "failed"


def test_what_an_earlier_version_had_no_name_for_is_as_that_version_had_it() -> None:
    before = {"agent": {"class": "rebrac", "spec": {}, "config": {"beta_actor": 0.1, "hidden": [8]}}}
    config = completed(before)["agent"]["config"]

    def now(order: str) -> dict[str, Any]:
        return {"agent": {"class": "rebrac", "spec": {}, "config": {**config, "order": order}}}

    assert recorded_changes("run", before, now("td3"), extends=False) == []
    with pytest.raises(ConfigError, match="order"):
        recorded_changes("run", before, now("published"), extends=False)
