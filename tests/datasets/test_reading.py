"""How data are read: one list of options for Python, command and suites, and what each of them does."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import h5py
import numpy as np
import pytest
import tyro
from oracle_data import distinct_columns, true_timeouts

from offline_vi import datasets
from offline_vi.data import columns
from offline_vi.data.transitions import Provenance, Transitions
from offline_vi.datasets import reading as options
from offline_vi.datasets.reading import Reading, ReadingOptions
from offline_vi.datasets.tasks import FAMILIES, family_of, is_d4rl_name
from offline_vi.errors import ConfigError, DatasetFormatError, DataWarning, OfflineVIError, UsageError
from offline_vi.scripts import main
from offline_vi.study.commands import fit_arguments
from offline_vi.study.data import DataOptions, current_names
from offline_vi.study.plan import read_data
from offline_vi.study.suite import suite_from
from offline_vi.types import Task


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OFFLINE_VI_DATA", raising=False)
    return tmp_path / "home"


def write(path: Path, columns: dict[str, np.ndarray] | None = None, *, skip: tuple[str, ...] = ()) -> Path:
    with h5py.File(path, "w") as file:
        for key, column in (columns or distinct_columns(20)).items():
            if key not in skip:
                file[key] = column
    return path


def shaped(rows: int, obs_dim: int, action_dim: int) -> dict[str, np.ndarray]:
    return distinct_columns(rows, obs_dim, action_dim)


# ------------------------------------------------------------------ one list


def test_python_s_keywords_are_the_fields_and_the_core_s_choices() -> None:
    assert set(ReadingOptions.__annotations__) == {field.name for field in fields(Reading)} | {"rows"}
    for name in ("NextObs", "ActionRange", "OnNonfinite", "DiscreteActions"):
        assert get_args(getattr(options, name)) == get_args(getattr(columns, name))


def test_the_command_has_every_field_with_the_same_default() -> None:
    assert {name: value for name, value in asdict(DataOptions()).items() if name != "dataset"} == asdict(Reading())
    changed: dict[str, Any] = {
        "next_obs": "within_episode", "action_range": "clip", "on_nonfinite": "drop-episode",
        "on_bad_episode": "drop", "discrete_actions": "continuous", "env": "Pendulum-v1",
        "action_low": (-2.0, -3.0), "action_high": (2.0, 3.0), "max_episode_steps": 7, "max_dataset_bytes": 1 << 20,
        "columns": "log.toml", "memory_budget": 9,
        "sha256": ("ab", "cd"), "download": True, "unscored": True, "obs_keys": ("a", "b/c"),
        "action_units": "rescaled", "env_kwargs": ("a=1", "b=red"),
    }  # fmt: skip
    assert changed.keys() == asdict(Reading()).keys()
    words = ["--dataset", "a.hdf5", "b.hdf5"]
    for name, value in changed.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, *map(str, value if isinstance(value, tuple) else [value])]
    found = tyro.cli(DataOptions, args=words)
    assert found == DataOptions(dataset=("a.hdf5", "b.hdf5"), **changed)
    assert DataOptions.from_record(json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize("former, now", [("d4rl", "following_row"), ("strict", "within_episode")])
def test_the_former_name_of_next_obs_still_means_it(former: Any, now: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5")
    for flag in ("--rows", "--next-obs"):
        assert tyro.cli(DataOptions, args=[flag, former]).next_obs == now
        assert tyro.cli(DataOptions, args=[flag, now]).next_obs == now
    with pytest.warns(DeprecationWarning, match=now) as caught:
        found = datasets.load(path, rows=former)
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=now) as caught:
        same = Transitions.from_d4rl(distinct_columns(20), rows=former)
    assert caught[0].filename == __file__
    assert found.source.next_obs == same.source.next_obs == now and len(found) == len(same)
    with pytest.warns(DeprecationWarning, match="next_obs"):
        assert found.source.rows == former
    with pytest.warns(DeprecationWarning, match=now):
        assert Provenance("a", (), (), former).next_obs == now
    with pytest.raises(UsageError, match="maybe"):
        datasets.load(path, rows="maybe")  # type: ignore[arg-type]


def test_no_other_value_of_next_obs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(DataOptions, args=["--next-obs", "maybe"])
    assert "following_row" in capsys.readouterr().err


def test_the_option_is_explained_in_the_same_words_on_every_verb(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = []
    for words in (["train", "bc"], ["fit-behavior", "gaussian"], ["data", "check"], ["data", "convert"]):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        text = " ".join(re.sub(r"[│|]", " ", capsys.readouterr().out).split())
        _, _, told = text.partition("Where the next observations")
        found.append(told[: told.index("(default:")].removesuffix("--rows is the former name. "))
    assert found[0] and set(found) == {found[0]}
    assert all(choice in found[0] for choice in get_args(options.NextObs))


def test_records_of_earlier_runs_are_read() -> None:
    kept = Path(__file__).parents[1] / "data" / "run-format-1" / "config.json"
    record = json.loads(kept.read_text())
    assert record["data_options"]["rows"] == "d4rl"
    assert DataOptions.from_record(record["data_options"]) == DataOptions(
        dataset=("pendulum.hdf5",), env="Pendulum-v1", next_obs="following_row"
    )
    assert DataOptions.from_record({"rows": "strict"}).next_obs == "within_episode"
    assert current_names(record["data"])["next_obs"] == "following_row" and "rows" not in current_names(record["data"])
    for odd in (7, ["rows"], {"rows": 7}, {"rows": ["d4rl"]}):
        with pytest.raises(ConfigError):
            DataOptions.from_record(odd)


def test_options_alone_as_a_whole_and_both(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5")
    whole = Reading(next_obs="within_episode", max_dataset_bytes=300)
    with pytest.raises(OfflineVIError, match="300 allowed"):
        datasets.load(path, reading=whole)
    assert len(datasets.load(path, reading=whole, max_dataset_bytes=1 << 20)) == 20
    assert len(datasets.load(path, reading=replace(whole, max_dataset_bytes=1 << 20), next_obs="following_row")) == 19
    assert len(datasets.load(path, env=None, sha256=None, memory_budget=None)) == 19


def test_every_option_of_a_suite_reaches_the_reader(tmp_path: Path, home: Path) -> None:
    write(tmp_path / "data.hdf5")
    record = {
        "algorithms": ["bc"],
        "datasets": [str(tmp_path / "data.hdf5")],
        "train": {"memory-budget": 1, "steps": 5, "rows": "strict", "device": "cpu"},
        "behavior": {"model": "cvae"},
    }
    suite = suite_from(record, "one")
    assert read_data(suite)[1] == {}
    assert len(list((home / "rows").iterdir())) == 1, "the file is mapped: the budget has arrived"
    words = fit_arguments(suite, "data", "cvae", 0)
    for name, value in (("--memory-budget", "1"), ("--rows", "strict"), ("--device", "cpu")):
        assert words[words.index(name) + 1] == value
    assert "--steps" not in words


# ------------------------------------------------------------------ where episodes end


def test_a_file_without_timeouts_is_cut_at_the_environment_s_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "swing.hdf5", distinct_columns(450), skip=("timeouts",))
    with pytest.raises(DatasetFormatError) as caught:
        datasets.load(path)
    named = [name for name in options.NAMES if f"{name}=" in caught.value.hint]
    assert named == ["env", "max_episode_steps"], "the remedies are arguments that exist"
    for given, limit in (({"env": "Pendulum-v1"}, 200), ({"env": "Pendulum-v1", "max_episode_steps": 90}, 90)):
        cuts = np.flatnonzero(true_timeouts(np.zeros(450), limit))
        found = datasets.load(path, **given)
        np.testing.assert_array_equal(found.reward, np.delete(10.0 * np.arange(450), [*cuts, 449]))
    assert len(datasets.load(path, max_episode_steps=90)) == 449 - 4


# ------------------------------------------------------------------ action bounds


@pytest.mark.parametrize("low, high", [(-4.0, 1.0), ([-4.0, -2.0], [1.0, 6.0])])
def test_bounds_in_physical_units(low: Any, high: Any, tmp_path: Path) -> None:
    given = distinct_columns(30, action_dim=2)
    lows, highs = np.broadcast_to(low, 2), np.broadcast_to(high, 2)
    given["actions"] = (lows + np.random.default_rng(0).uniform(size=(30, 2)) * (highs - lows)).astype(np.float32)
    path = write(tmp_path / "plant.hdf5", given)
    found = datasets.load(path, action_low=low, action_high=high, next_obs="within_episode")
    expected = 2.0 * (given["actions"].astype(float) - lows) / (highs - lows) - 1.0
    np.testing.assert_allclose(found.action, expected, atol=1e-6)
    assert found.task is not None and found.task.env_id == ""
    np.testing.assert_allclose(found.task.to_env(found.action), given["actions"], atol=1e-5)
    mapped = datasets.load(path, action_low=low, action_high=high, next_obs="within_episode", memory_budget=1)
    np.testing.assert_array_equal(mapped.action, found.action)


@pytest.mark.parametrize(
    "given",
    [
        {"action_low": -1.0},
        {"action_high": [1.0]},
        {"action_low": 1.0, "action_high": -1.0},
        {"action_low": float("nan"), "action_high": 1.0},
        {"action_low": [-1.0, -1.0], "action_high": 1.0},
        {"action_low": -1.0, "action_high": 1.0, "action_range": "data"},
    ],
)
def test_bounds_that_are_none(given: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="action_low"):
        datasets.load(write(tmp_path / "plant.hdf5"), **given)


def test_bounds_replace_those_of_a_named_environment(tmp_path: Path) -> None:
    found = datasets.load(write(tmp_path / "a.hdf5"), env="Pendulum-v1", action_low=-4.0, action_high=4.0)
    assert found.task is not None and (found.task.env_id, found.task.action_high) == ("Pendulum-v1", (4.0,))
    np.testing.assert_allclose(found.action[:, 0], np.sin(np.arange(19)) / 4.0, rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------ order of rows


def shuffled(rows: int) -> dict[str, np.ndarray]:
    order = np.random.default_rng(0).permutation(rows)
    return {key: column[order] for key, column in distinct_columns(rows).items()}


@pytest.mark.parametrize("budget", [0, 1])
def test_rows_that_are_not_in_the_order_of_time(budget: int, tmp_path: Path) -> None:
    given = shuffled(300)
    path = write(tmp_path / "shuffled.hdf5", given)
    steps = np.diff(given["rewards"]) != 10.0  # the following row is not the next step
    with pytest.raises(DatasetFormatError, match=f"in {steps.sum()} of 299 steps") as caught:
        datasets.load(path, memory_budget=budget)
    assert 'next_obs="within_episode"' in caught.value.hint
    found = datasets.load(path, next_obs="within_episode", memory_budget=budget)
    np.testing.assert_array_equal(found.next_obs, given["next_observations"])
    np.testing.assert_array_equal(found.obs, given["observations"])


def test_a_few_contradictions_are_unmarked_ends_where_episodes_are_cut() -> None:
    given = distinct_columns(401)
    given["next_observations"][[50, 200]] += 3.0  # two of 400 steps, as where D4RL's timeouts are missing
    with pytest.warns(DataWarning, match="in 2 of 400 steps .* first at row 50"):
        found = Transitions.from_d4rl(given)
    kept = np.delete(np.arange(400), [50, 200])  # as rows that a time limit cut
    np.testing.assert_array_equal(found.obs, given["observations"][kept])
    np.testing.assert_array_equal(found.next_obs, given["observations"][kept + 1])
    assert np.flatnonzero(found.episode_end).tolist() == [49, 198, 397]
    given["next_observations"][300:304] += 3.0
    with pytest.raises(DatasetFormatError, match="in 6 of 400 steps"):
        Transitions.from_d4rl(given)
    given["timeouts"][[50, 200, *range(300, 304)]] = True  # where an episode ends they may differ
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Transitions.from_d4rl(given)) == 394


# ------------------------------------------------------------------ a file in use


@pytest.mark.parametrize("locking", [None, True, False, "best-effort"])
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_this_process_has_open_is_read(mode: Any, locking: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5")
    with h5py.File(path, mode, locking=locking):
        assert len(datasets.load(path)) == 19


# ------------------------------------------------------------------ names that tell a task


def test_the_shapes_in_the_table_are_d4rl_s() -> None:
    """Of the data sets' own documentation; those of locomotion are compared with the environments elsewhere."""
    expected = {"pen": (45, 24), "door": (39, 28), "hammer": (46, 26), "relocate": (39, 30), "antmaze-umaze": (29, 8)}
    expected |= {"maze2d-large": (4, 2), "kitchen-mixed": (60, 9), "hopper": (11, 3), "walker2d": (17, 6)}
    expected |= {"halfcheetah": (17, 6), "ant": (111, 8)}
    found = {family.prefix: (family.obs_dim, family.action_dim) for family in FAMILIES}
    assert found.items() >= expected.items()


@pytest.mark.parametrize(
    "stem, whole",
    [
        ("hopper-medium", True),
        ("Hopper_medium-v2", True),
        ("hopper-medium-v2-again", True),
        ("hopper-lab", False),
        ("door-sensors", False),
        ("hopper", False),
        ("hopper-mediums", False),
    ],
)
def test_whole_names_of_d4rl(stem: str, whole: bool) -> None:
    assert is_d4rl_name(stem) is whole


def test_a_name_that_merely_begins_like_a_task_gives_it_where_the_shapes_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "hopper-lab.hdf5", shaped(20, 11, 3))
    for budget in (0, 1):
        with pytest.warns(DataWarning, match="hopper-lab: .*Hopper-v5"):
            found = datasets.load(path, memory_budget=budget)
        assert found.task is not None and (found.task.env_id, found.task.ref_max) == ("Hopper-v5", 3234.3)


@pytest.mark.parametrize("name, obs_dim, action_dim", [("hopper-lab", 5, 3), ("hopper", 11, 2), ("door-sensors", 3, 2)])
def test_other_shapes_belong_to_another_task(name: str, obs_dim: int, action_dim: int, tmp_path: Path) -> None:
    path = write(tmp_path / f"{name}.hdf5", shaped(20, obs_dim, action_dim))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert datasets.load(path).task is None


def test_what_is_said_counts_more_than_such_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "hopper-lab.hdf5", shaped(20, 11, 3))
    family = family_of("hopper")
    assert family is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bounds = datasets.load(path, action_low=-1.5, action_high=1.5)
        pusher = datasets.load(write(tmp_path / "hopper-arm.hdf5", shaped(20, 11, 7)), env="Pusher-v5")
        same = datasets.load(path, env=family.env_id)
    assert bounds.task == Task("", (-1.5,) * 3, (1.5,) * 3, name="hopper-lab")
    assert pusher.task is not None and (pusher.task.env_id, pusher.task.ref_max) == ("Pusher-v5", None)
    assert same.task is not None and same.task.ref_max == 3234.3


def test_types_of_the_fields_can_be_asked_for() -> None:
    assert get_type_hints(Reading).keys() == asdict(Reading()).keys()
