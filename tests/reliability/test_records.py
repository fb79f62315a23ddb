"""Any field of our files, any number of an option, may be odd: the right result, or one sentence and an exit code."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from odd import NUMBERS, VALUES, cases, odd
from small_data import pendulum

from offline_vi import registry
from offline_vi.behavior.pretrained import load_behavior
from offline_vi.errors import OfflineVIError
from offline_vi.ranges import RANGES, check_numbers
from offline_vi.scripts import main
from offline_vi.study import evaluations, fit_behavior, online, run as run_module, search, train, weighing
from offline_vi.study.scoring import ScoringOptions, score_run
from offline_vi.study.suite import suite_from
from offline_vi.types import Spec, from_json

pytestmark = pytest.mark.timeout(3600)  # as many cases as `make reliability` asks for

OPTIONS: list[Any] = [
    run_module.RunOptions(),
    train.TrainOptions(),
    evaluations.EvalOptions(),
    weighing.WeightOptions(),
    fit_behavior.FitOptions(),
    online.CollectOptions(),
    search.SearchOptions(),
]
SETTINGS: list[Any] = [
    *(row.config()() for row in (registry.algorithm(name) for name in registry.trainable())),
    *(registry.behavior_model(name).config(Spec((3,), 1)) for name in registry.behavior_models()),
]
OURS = [one for one in (*OPTIONS, *SETTINGS) if type(one).__module__.startswith("offline_vi.")]
SMALL = "--hidden 8 --behavior.hidden 8 --batch-size 8 --steps 6 --log-every 2 --eval-every 0 --eval-episodes 1 -q"
WITHIN = ScoringOptions(episodes=1, max_episode_steps=3)


def is_numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_number_of_options_and_hyperparameters_has_a_range() -> None:
    for one in OURS:
        for field in fields(one):
            value = getattr(one, field.name)
            first = value[0] if isinstance(value, tuple) and value else value
            assert field.name in RANGES or not is_numeric(first), (type(one).__name__, field.name)
        check_numbers(one)


@cases(150)
@given(one=st.sampled_from(OURS), data=st.data())
def test_a_number_in_a_file_is_in_its_range_or_refused(one: Any, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(fields(one)))
    try:
        made = from_json(one, {field.name: data.draw(VALUES)})
    except OfflineVIError:
        return
    value = getattr(made, field.name)
    if field.name in RANGES and is_numeric(value):
        assert RANGES[field.name].holds(value) and not math.isnan(value)
        assert math.isinf(value) or float(np.float32(value)) < math.inf, "no tensor holds it"


@cases(6)
@given(name=st.sampled_from(sorted(RANGES)), value=st.sampled_from(NUMBERS))
def test_a_number_of_a_flag_is_taken_or_refused(name: str, value: float) -> None:
    flag = {"num_seeds": "parallel-seeds"}.get(name, name.replace("_", "-"))
    words = [f"--{flag}", repr(value) if abs(value) < 10**300 or value != value else "1" + "0" * 400]
    try:
        options = train.parse_options("bcq", {}, words)
    except OfflineVIError as error:
        assert error.exit_code == 78
    except SystemExit as stop:
        assert stop.code == 2  # no such flag, or no such kind of number
    else:
        check_numbers(options)


# ------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model fitted ahead, and its data."""
    folder = tmp_path_factory.mktemp("trained")
    data = pendulum(folder / "pendulum.hdf5")
    words = ["--preset", "fast", "--precision", "float32", "--behavior-steps", "4", "--env", "Pendulum-v1"]
    main(["train", "bcq", "--dataset", data, *words, *SMALL.split(), "--output", str(folder / "run")])
    return folder / "run"


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@contextmanager
def altered(path: Path, data: st.DataObject) -> Iterator[None]:
    """Another value in one place of a JSON file, for a while."""
    before = path.read_bytes()
    path.write_text(json.dumps(data.draw(odd(json.loads(before)))))
    try:
        yield
    finally:
        path.write_bytes(before)


@cases(40)
@given(data=st.data(), name=st.sampled_from(["config.json", "run.json", "result.json"]))
def test_a_run_with_an_odd_field_is_scored_or_refused(copied: Path, data: st.DataObject, name: str) -> None:
    with altered(copied / name, data), suppress(OfflineVIError):
        score_run(copied, WITHIN)


@cases(40)
@given(data=st.data())
def test_a_model_with_an_odd_card_is_loaded_or_refused(copied: Path, data: st.DataObject) -> None:
    home = copied / "behavior" / "model"
    with altered(home / "card.json", data), suppress(OfflineVIError):
        load_behavior(home)


@cases(6)
@given(data=st.data())
def test_a_run_with_an_odd_configuration_goes_on_or_is_refused(copied: Path, data: st.DataObject) -> None:
    with altered(copied / "config.json", data):
        try:
            main(["resume", str(copied), "-q"])
        except SystemExit as stop:
            assert stop.code in (2, 65, 66, 69, 70, 71, 73, 74, 78), stop.code


# ------------------------------------------------------------------ suites

SUITE: dict[str, Any] = {
    "name": "s",
    "description": "d",
    "algorithms": ["bc", "bcq"],
    "datasets": {"one": ["a.hdf5", "b.hdf5"]},
    "seeds": [0, 1],
    "presets": ["fast"],
    "train": {"steps": 10, "eval-every": 5, "obs-keys": ["a"]},
    "algorithm": {"bcq": {"phi": 0.1, "hidden": [8]}},
    "behavior": {"model": "cvae", "steps": 10},
    "machine": {"precision": "float32"},
    "search": {"bcq": {"lr": {"low": 1e-4, "high": 1e-3, "log": True}, "num-candidates": [5, 10]}},
}


@cases(100)
@given(data=st.data())
def test_a_suite_with_an_odd_value_is_read_or_refused(data: st.DataObject) -> None:
    try:
        suite = suite_from(data.draw(odd(SUITE)), "s", Path("/nonexistent"))
    except OfflineVIError:
        return
    assert all(suite.models(cell) is not None and len(cell.name) < 256 for cell in suite.cells())
