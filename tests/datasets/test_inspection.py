"""`data check` and `data info`: they count what training gets, and need no environment."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from oracle_data import distinct_columns

from offline_vi import datasets, environments
from offline_vi.data.report import DataReport, Features
from offline_vi.data.transitions import Transitions
from offline_vi.errors import DataError, OfflineVIError
from offline_vi.scripts import data as verb

Rows = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.delenv("OFFLINE_VI_DATA", raising=False)
    return tmp_path / "home"


def write(path: Path, columns: Rows) -> Path:
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            file[key] = column
    return path


def quietly(call: Any, *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*arguments, **options)


@st.composite
def files(draw: Any) -> Rows:
    """Up to 300 rows with any ends, some NaN, and a few contradictions."""
    rows = draw(st.sampled_from([2, 5, 9, 300]))
    columns = distinct_columns(rows)
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    ends = rng.choice(4, p=[0.8, 0.08, 0.08, 0.04], size=rows)
    columns["terminals"], columns["timeouts"] = ends % 2 == 1, ends >= 2
    for key in draw(st.lists(st.sampled_from(["observations", "actions", "rewards"]), max_size=2)):
        columns[key][rng.integers(rows)] = np.nan
    if draw(st.booleans()):
        columns["next_observations"][rng.integers(rows)] += 5.0
    for key in draw(st.sets(st.sampled_from(["next_observations", "timeouts"]))):
        del columns[key]
    if draw(st.integers(0, 5)) == 0:
        columns["actions"] = np.arange(rows)[:, None] % 2
    return columns


CHOICES: dict[str, Any] = {
    "next_obs": ["following_row", "within_episode"],
    "on_nonfinite": ["error", "drop-episode", "split", "hold"],
    "discrete_actions": ["error", "continuous"],
    "max_episode_steps": [0, 3],
    "memory_budget": [0, 1],
}


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    columns=files(), options=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()})
)
def test_check_and_train_agree_on_every_count(columns: Rows, options: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "log.hdf5", columns)
    options["max_episode_steps"] = options["max_episode_steps"] or None
    try:
        data: Transitions = quietly(datasets.load, path, **options)
    except OfflineVIError as error:
        with pytest.raises(type(error)):
            quietly(datasets.inspect, path, **options)
        return
    report: DataReport = quietly(datasets.inspect, path, **options)
    assert (report.transitions, report.training_episodes) == (len(data), len(data.episode_returns()))
    assert report.rows == len(columns["rewards"]) == len(data) + sum(report.dropped.values())
    if "timeouts" in columns and report.ends.unmarked == 0:
        ends = columns["terminals"] | columns["timeouts"]
        episode = np.append(0, np.cumsum(ends)[:-1])
        assert report.episodes == episode[-1] + 1
        sums = [columns["rewards"][episode == number].sum() for number in range(report.episodes)]
        known = [value for value in sums if np.isfinite(value)] or [np.nan]
        held = options["on_nonfinite"] == "hold"
        assert held or report.returns.max == pytest.approx(max(known), nan_ok=True)
        used = {int(reward) // 10 for reward in data.reward}
        alive = {int(episode[row]) for row in used}
        assert held or report.dropped_episodes == report.episodes - len(alive)
    assert report.ends.terminal == columns["terminals"].sum()


def by_hand() -> Rows:
    """Seven rows: an episode of three that ends, one of two that is cut, one that stops."""
    return {
        "observations": np.array([[0, 5, 0], [1, 5, 1], [2, 5, 2], [3, 5, 3], [4, 5, 4], [5, 5, 5], [6, 5, 6]], float),
        "actions": np.array([[-3.0], [3.0], [1.5], [0.0], [0.5], [3.0], [0.1]]),
        "rewards": np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, np.nan]),
        "terminals": np.array([0, 0, 1, 0, 0, 0, 0], bool),
        "timeouts": np.array([0, 0, 0, 0, 1, 0, 0], bool),
    }


def test_known_defects_of_each_of_several_files_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(write(tmp_path / f"{name}.hdf5", by_hand())) for name in ("log", "kitchen-log", "more", "rest")]
    verb.main(["check", *files, "--json", "--action-low", "-3", "--action-high", "3", "--on-nonfinite", "split"])
    record = json.loads(capsys.readouterr().out)
    assert record["name"] == "log+kitchen-log+more+rest" and len(record["file"]) == 4
    (defect,) = record["known defects"]
    assert defect.startswith("kitchen-log: ")


def test_the_facts_are_those_counted_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "log.hdf5", by_hand())
    options = ["--action-low", "-3", "--action-high", "3", "--on-nonfinite", "split"]
    verb.main(["check", str(path), "--json", *options])
    record = json.loads(capsys.readouterr().out)
    assert (record["rows"], record["episodes"], record["terminations"], record["timeouts"]) == (7, 3, 1, 1)
    # row 6 is not finite, 4 is cut, and what followed 5 is not known
    assert (record["transitions"], record["training episodes"], record["dropped episodes"]) == (4, 2, 1)
    assert record["dropped rows"] == {"NaN or infinities": 1, "next state unknown": 2}
    assert record["returns"]["min"] == 6.0 and record["returns"]["max"] == 9.0
    assert record["lengths"]["max"] == 3.0 and record["lengths"]["min"] == 2.0
    assert record["constant observations"] == [1] and record["equal observations"] == [[0, 2]]
    assert record["observation range"] == {"min": [0.0, 5.0, 0.0], "max": [3.0, 5.0, 3.0]}
    assert record["action range"] == {"min": [-3.0], "max": [3.0]}
    assert (record["-1 stands for"], record["+1 stands for"], record["action kind"]) == ([-3.0], [3.0], "amounts")
    assert record["on the bounds"].startswith("50.00%")
    assert "least-squares" in record["on the bounds"]
    assert any("1 NaN in rewards" in message for message in record["warnings"])


def test_info_says_what_training_would_refuse_and_the_rest_nonetheless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "log.hdf5", by_hand())
    with pytest.raises(DataError):
        verb.main(["check", str(path)])
    verb.main(["info", str(path), "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["rows"] == 7 and "1 NaN in rewards" in record["training refuses"]
    labels = by_hand() | {"actions": np.arange(7)[:, None] % 2, "rewards": np.ones(7)}
    verb.main(["info", str(write(path, labels)), "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["action kind"] == "0 and 1 alone" and "labels" in record["training refuses"]
    disorder = distinct_columns(9)
    disorder["observations"] = disorder["observations"][::-1]
    verb.main(["info", str(write(path, disorder)), "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["next_obs"] == "within_episode" and "next_observations" in record["training refuses"]


@pytest.mark.parametrize("name", ["hopper-lab", "door-sensors", "hopper-medium-v2", "kitchen-mixed-v0", "pen"])
def test_info_needs_no_environment_and_believes_no_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("an environment is made")

    monkeypatch.setattr(environments, "make_env", none)
    for timeouts in (True, False):
        columns = distinct_columns(30)
        if not timeouts:
            del columns["timeouts"]
        verb.main(["info", str(write(tmp_path / f"{name}.hdf5", columns)), "--json"])
        record = json.loads(capsys.readouterr().out)
        assert record["rows"] == 30 and record["observations"] == [2]


def test_joined_data_are_counted_together(tmp_path: Path) -> None:
    columns = distinct_columns(20)
    columns["timeouts"][9] = True
    own = quietly(Transitions.from_d4rl, columns)
    first, second = (write(tmp_path / f"{name}.hdf5", columns) for name in ("a", "b"))
    report = quietly(datasets.inspect, first, second)
    assert (report.rows, report.transitions, report.episodes) == (40, 2 * len(own), 4)
    assert report.ends.timeout == 2 and report.ends.open == 2


def test_features_are_found_across_blocks() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1000, 5)).astype(np.float32)
    values[:, 1], values[:, 4] = 2.0, values[:, 0]
    values[:, 3] = values[:, 2]
    values[999, 3] += 1.0
    found = Features.of(lambda: iter(np.array_split(values, 7)))
    assert (found.constant, found.duplicated) == ((1,), ((0, 4),))
    np.testing.assert_array_equal(found.low, values.min(0))


def test_local_sets_of_minari_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("lab/reach-v0", "alone-v3", "mujoco/hopper/medium-v0", "no name"):
        folder = tmp_path / "minari" / name / "data"
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text("{}")
    verb.main(["list", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows if row["local"]} == {"lab/reach-v0", "alone-v3", "mujoco/hopper/medium-v0"}
    assert [row["name"] for row in rows] == datasets.names()
