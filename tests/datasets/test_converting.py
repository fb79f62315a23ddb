"""Any data set as Minari's or as a file in D4RL's layout, and back."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from oracle_data import distinct_columns

from offline_vi import datasets
from offline_vi.data.transitions import Transitions
from offline_vi.datasets import recipes
from offline_vi.datasets.converting import convert
from offline_vi.datasets.reading import Reading
from offline_vi.errors import DatasetFormatError, DataWarning, EmptyDatasetError, NonFiniteDataError, UsageError
from offline_vi.registry import register_dataset
from offline_vi.scripts import data as command

TARGETS = ("out.hdf5", "converted/out-v0")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OFFLINE_VI_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(found: Transitions, expected: Transitions) -> None:
    """Bit for bit, with the same action map."""
    for name in ("obs", "action", "reward", "next_obs", "terminated", "episode_end", "behavior_log_prob"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype and one.tobytes() == other.tobytes(), name
    bounds = [(data.task.action_low, data.task.action_high) if data.task else None for data in (found, expected)]
    unit = ((-1.0,) * found.spec.action_dim, (1.0,) * found.spec.action_dim)
    assert (bounds[0] or unit) == (bounds[1] or unit)


def log(path: str = "log.hdf5", rows: int = 40, scale: float = 1.0, **changed: Any) -> str:
    """Episodes of seven steps, every second one terminal, with log-probabilities and next observations."""
    columns = distinct_columns(rows, 3, 2)
    ends, number = np.arange(1, rows + 1) % 7 == 0, np.arange(rows) // 7
    columns |= {"terminals": ends & (number % 2 == 0), "timeouts": ends & (number % 2 == 1)}
    columns["actions"] = (columns["actions"] * np.float32(scale)).astype(np.float32)
    columns["infos/action_log_probs"] = -np.arange(rows, dtype=np.float32) / 3
    with h5py.File(path, "w") as file:
        for key, values in (columns | changed).items():
            if values is not None:
                file[key] = values
    return path


READINGS = {
    "following row": Reading(),
    "within episodes": Reading(next_obs="within_episode"),
    "bounds": Reading(next_obs="within_episode", action_low=(-1.7,), action_high=(1.1, 1.3)),
    "range of the data": Reading(action_range="data"),
    "an environment": Reading(env="MountainCarContinuous-v0"),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", [name for name in READINGS if name != "an environment"])
def test_converted_data_are_the_same(case: str, target: str) -> None:
    source = log(next_observations=None)
    expected = datasets.load(source, reading=READINGS[case])
    assert expected.behavior_log_prob is not None
    convert(source, target, READINGS[case])
    same(datasets.load(target, next_obs="within_episode"), expected)
    if target.endswith(".hdf5"):
        same(datasets.load(target, next_obs="within_episode", memory_budget=1), expected)


@pytest.mark.parametrize("target", TARGETS)
def test_clipped_and_dropped(target: str) -> None:
    rewards = np.arange(40.0)
    rewards[9] = np.nan
    source = log(next_observations=None, scale=1.5, rewards=rewards)
    with pytest.raises(NonFiniteDataError):
        convert(source, target, Reading())
    reading = Reading(action_range="clip", on_nonfinite="drop-episode")
    with pytest.warns(DataWarning, match="dropped 1 of 6"), pytest.warns(DataWarning, match="clipped"):
        convert(source, target, reading)
    with pytest.warns(DataWarning, match="clipped"):
        expected = datasets.load(source, reading=reading)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "clipped")
        same(datasets.load(target, next_obs="within_episode"), expected)  # it says no --action-range


def test_there_and_back_again() -> None:
    recipes.collect("offline-vi/pendulum/mixed-v0", 3)
    expected = datasets.load("offline-vi/pendulum/mixed-v0")
    assert expected.behavior_log_prob is not None and expected.task is not None
    convert("offline-vi/pendulum/mixed-v0", "there.hdf5", Reading())
    same(datasets.load("there.hdf5", next_obs="within_episode"), expected)
    convert("there.hdf5", "back/again-v3", Reading(next_obs="within_episode", env="Pendulum-v1"))
    found = datasets.load("back/again-v3")
    same(found, expected)
    assert found.task is not None and found.task.env_id == "Pendulum-v1"


def test_a_table_becomes_both(place: Path) -> None:
    rows = [(f"e{i // 5}", i % 5, np.sin(i), 3.25 + i % 4, i / 7, int(i % 10 == 9)) for i in range(20)]
    (place / "log.csv").write_text("e,t,x,u,r,d\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    roles = {"episode": "e", "time": "t", "obs": "x", "action": "u", "reward": "r", "terminated": "d"}
    lines = [*(f'{role} = "{column}"' for role, column in roles.items()), "action_low = 2.5", "action_high = 7"]
    (place / "c.toml").write_text("\n".join(lines))
    reading = Reading(columns="c.toml")
    for target in TARGETS:
        convert("log.csv", target, reading)
        same(datasets.load(target, next_obs="within_episode"), datasets.load("log.csv", reading=reading))
    with h5py.File("out.hdf5") as file:
        np.testing.assert_array_equal(np.unique(file["actions"][:]), [3.25, 4.25, 5.25, 6.25])  # physical units
        assert file.attrs["action_low"] == [2.5] and file.attrs["action_high"] == [7.0]


def test_next_observations_that_minari_cannot_hold() -> None:
    order = np.random.default_rng(0).permutation(40)
    columns = distinct_columns(40, 3, 2)
    shuffled: dict[str, Any] = {key: columns[key][order] for key in ("observations", "next_observations", "actions")}
    source = log(**shuffled)
    reading = Reading(next_obs="within_episode")
    with pytest.raises(DatasetFormatError, match="Minari"):
        convert(source, "converted/out-v0", reading)
    convert(source, "out.hdf5", reading)
    same(datasets.load("out.hdf5", reading=reading), datasets.load(source, reading=reading))


def test_plug_ins_that_return_transitions() -> None:
    data = Transitions.from_arrays(
        obs=np.arange(9.0),
        action=np.linspace(0.3, 1.7, 9),
        reward=np.ones(9),
        terminated=None,
        episode=np.zeros(9),
        action_low=0.1,
        action_high=1.9,
    )
    register_dataset("mine/rounded-v0")(lambda: data)
    convert("mine/rounded-v0", "out.hdf5", Reading())
    np.testing.assert_allclose(datasets.load("out.hdf5", next_obs="within_episode").action, data.action, atol=1e-6)


@pytest.mark.parametrize("target", [*TARGETS, "out.csv", "out", "../out-v0"])
def test_targets_that_exist_or_are_none(target: str, place: Path) -> None:
    source = log(next_observations=None)
    if target in TARGETS:
        convert(source, target, Reading())
    before = sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*"))
    with pytest.raises(UsageError):
        convert(source, target, Reading())
    assert sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda attrs: attrs.create("action_low", [1.0]),
        lambda attrs: attrs.create("action_low", ["a", "b"]),
        lambda attrs: attrs.create("action_low", [9.0, 9.0]),
        lambda attrs: attrs.create("action_high", [np.nan, 1.0]),
    ],
)
def test_bounds_in_a_file_that_are_none(change: Callable[[Any], Any]) -> None:
    convert(log(next_observations=None), "out.hdf5", Reading())
    with h5py.File("out.hdf5", "r+") as file:
        change(file.attrs)
    for budget in (0, 1):
        with pytest.raises(DatasetFormatError):
            datasets.load("out.hdf5", memory_budget=budget)
    assert len(datasets.load("out.hdf5", action_low=-1.0, action_high=1.0)) > 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 30), st.sampled_from(TARGETS), st.sampled_from(["following_row", "within_episode"]), st.randoms())
def test_whatever_the_episodes(place: Path, rows: int, target: str, next_obs: Any, random: Any) -> None:
    ends = np.array([random.random() < 0.3 for _ in range(rows)])
    terminal = ends & np.array([random.random() < 0.5 for _ in range(rows)])
    source = log("any.hdf5", rows, terminals=terminal, timeouts=ends & ~terminal, next_observations=None)
    reading = Reading(next_obs=next_obs, action_low=(-1.5, -2.25), action_high=(1.1, 4.0))
    try:
        expected = datasets.load(source, reading=reading)
    except EmptyDatasetError:
        return
    name = target.replace("out", f"out-{uuid.uuid4().hex}")
    convert(source, name, reading)
    same(datasets.load(name, next_obs="within_episode"), expected)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["convert", log(next_observations=None), "out.hdf5", "--next-obs", "following_row"])
    assert "--dataset out.hdf5 --next-obs within_episode" in capsys.readouterr().out
    same(datasets.load("out.hdf5", next_obs="within_episode"), datasets.load("log.hdf5"))
