"""Data that people have in memory: arrays, episodes, data frames."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, strategies as st

from offline_vi.data.transitions import Provenance, Transitions, concatenate
from offline_vi.errors import (
    ActionRangeError,
    DatasetFormatError,
    DataWarning,
    EmptyDatasetError,
    NonFiniteDataError,
    OfflineVIError,
    UsageError,
)
from offline_vi.types import Task

pandas = pytest.importorskip("pandas")

Log = dict[str, Any]


def log(lengths: tuple[int, ...] = (3, 2, 4), terminal: tuple[bool, ...] = (True, False, False)) -> Log:
    """Episodes one after the other; the reward is the row's number, the state tells episode and step."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    last = np.append(np.diff(episode) != 0, True)
    return {
        "obs": np.stack([episode, step], 1).astype(np.float32),
        "action": np.linspace(-3.0, 5.0, len(episode))[:, None],
        "reward": np.arange(len(episode), dtype=np.float64),
        "terminated": last & np.asarray(terminal)[episode],
        "episode": episode,
        "time": step * 0.5,
        "next_obs": np.stack([episode, step + 1], 1).astype(np.float32),
    }


def without(rows: Log, *keys: str, **changed: Any) -> Log:
    return {key: values for key, values in {**rows, **changed}.items() if key not in keys}


def frame(rows: Log) -> Any:
    columns = {
        "s0": rows["obs"][:, 0],
        "s1": rows["obs"][:, 1],
        "n0": rows["next_obs"][:, 0],
        "n1": rows["next_obs"][:, 1],
    }
    single = {key: rows[key] for key in ("reward", "terminated", "episode", "time")}
    return pandas.DataFrame({**columns, "u": rows["action"][:, 0], **single})


NAMED: Log = {"obs": ["s*"], "action": "u", "reward": "reward", "terminated": "terminated", "episode": "episode"}
BOUNDS: Log = {"action_low": -3.0, "action_high": 5.0}


def same(found: Transitions, expected: Transitions) -> None:
    for name in ("obs", "action", "reward", "next_obs", "terminated", "episode_end"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.spec == expected.spec


# ------------------------------------------------------------------ rows, ends, units


def test_arrays_in_physical_units() -> None:
    rows = log()
    found = Transitions.from_arrays(**rows, **BOUNDS)
    np.testing.assert_array_equal(found.reward, np.arange(9))
    np.testing.assert_array_equal(found.terminated, [0, 0, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(found.episode_end, [0, 0, 1, 0, 1, 0, 0, 0, 1])
    np.testing.assert_allclose(found.action, np.linspace(-1.0, 1.0, 9)[:, None], atol=1e-6)
    np.testing.assert_array_equal(found.next_obs, rows["next_obs"])
    assert found.task is not None and (found.task.env_id, found.task.action_low) == ("", (-3.0,))
    np.testing.assert_allclose(found.task.to_env(found.action), rows["action"], atol=1e-6)


def test_without_next_observations_a_row_that_was_cut_is_dropped() -> None:
    found = Transitions.from_arrays(**without(log(), "next_obs"), **BOUNDS)
    np.testing.assert_array_equal(found.reward, [0, 1, 2, 3, 5, 6, 7])  # not 4 and 8: nobody knows what followed
    np.testing.assert_array_equal(found.next_obs[[0, 1, 3]], [[0, 1], [0, 2], [1, 1]])
    np.testing.assert_array_equal(found.episode_end, [0, 0, 1, 1, 0, 0, 1])
    assert found.observed_returns().tolist() == [0 + 1 + 2, 3 + 4, 5 + 6 + 7 + 8]
    assert found.observed_returns(0.5).tolist() == [0.5 + 0.5, 3 + 2, 5 + 3 + 1.75 + 1]
    assert found.episode_returns().tolist() == [3, 3, 18]


def test_what_stands_in_a_row_that_no_policy_learns_from_is_not_read() -> None:
    rows = without(log(), "next_obs")
    found = Transitions.from_arrays(**rows, **BOUNDS)
    rows["action"], rows["reward"] = np.array(rows["action"], float), np.array(rows["reward"], float)
    rows["action"][[4, 8]], rows["reward"][8] = np.nan, np.nan
    again = Transitions.from_arrays(**rows, **BOUNDS)
    same(found, again)
    assert again.observed_returns().tolist() == [3, 7, 18]


def test_rewards_of_unread_rows_follow_their_episodes() -> None:
    data = Transitions.from_arrays(**without(log(), "next_obs"), **BOUNDS)
    assert data.with_reward(2.0, 1.0).observed_returns().tolist() == [3 + 6, 2 + 14, 4 + 52]
    first, last = data.split_episodes(1 / 3)
    assert first.observed_returns().tolist() == [3, 7] and last.observed_returns().tolist() == [26]
    stored = Transitions.from_arrays(**log(), **BOUNDS)
    assert concatenate([stored, data]).observed_returns().tolist() == [3, 7, 26, 3, 7, 26]


def test_nothing_ended_the_task() -> None:
    found = Transitions.from_arrays(**without(log(), terminated=None), **BOUNDS)
    assert not found.terminated.any() and found.episode_end.sum() == 3
    with pytest.raises(TypeError, match="terminated"):
        Transitions.from_arrays(**without(log(), "terminated"))


def test_ends_by_flags_by_length_or_by_nothing() -> None:
    rows = without(log((4, 4, 4), (False,) * 3), "episode", "time")
    timeout = np.arange(12) % 4 == 3
    same(
        Transitions.from_arrays(**rows, **BOUNDS, timeout=timeout),
        Transitions.from_arrays(**rows, **BOUNDS, max_episode_steps=4),
    )
    with pytest.raises(UsageError, match="where episodes end"):
        Transitions.from_arrays(**rows, **BOUNDS)


def test_one_number_needs_no_axis_and_lists_are_arrays() -> None:
    found = Transitions.from_arrays(
        obs=[0.0, 1.0, 2.0], action=[0.5, -0.5, 0.0], reward=[1, 2, 3], terminated=[0, 0, 1], episode=["a", "a", "a"]
    )
    assert found.spec.obs_shape == (1,) and found.spec.action_dim == 1 and len(found) == 3
    np.testing.assert_array_equal(found.next_obs[:, 0], [1.0, 2.0, 2.0])


@pytest.mark.parametrize("keys, expected", [((), [1.0, 2.0, 9.0]), (("desired_goal", "observation"), [9.0, 1.0, 2.0])])
def test_entries_of_observations_are_joined_in_their_order(keys: Any, expected: list[float]) -> None:
    obs = {
        "achieved_goal": np.zeros((2, 3)),
        "desired_goal": np.full(2, 9.0),
        "observation": np.array([[1.0, 2.0]] * 2),
    }
    found = Transitions.from_arrays(
        obs=obs, action=[0.0, 0.0], reward=[0, 0], terminated=[0, 1], episode=[0, 0], obs_keys=keys
    )
    np.testing.assert_array_equal(found.obs, [expected] * 2)
    with pytest.raises(DatasetFormatError, match="'velocity'"):
        Transitions.from_arrays(obs=obs, action=[0], reward=[0], terminated=[1], episode=[0], obs_keys=("velocity",))


# ------------------------------------------------------------------ order


def test_rows_are_sorted_where_times_are_given_and_only_there() -> None:
    rows = log()
    mixed = np.random.default_rng(0).permutation(9)
    shuffled = {key: values[mixed] for key, values in rows.items()}
    with pytest.warns(DataWarning, match="of 9 rows were moved"):
        found = Transitions.from_arrays(**shuffled, **BOUNDS)
    order = [
        index for number in dict.fromkeys(shuffled["episode"]) for index in np.flatnonzero(rows["episode"] == number)
    ]
    np.testing.assert_array_equal(found.reward, order)
    with pytest.raises(DatasetFormatError, match="interleaved"):
        Transitions.from_arrays(**without(shuffled, "time"), **BOUNDS)
    with pytest.raises(UsageError, match="times"):
        Transitions.from_arrays(**without(shuffled, "episode"), timeout=np.zeros(9), **BOUNDS)


def test_a_number_that_two_episodes_share() -> None:
    rows = log((3, 2, 4), (True, False, False))
    with pytest.raises(DatasetFormatError, match="row 5"):
        Transitions.from_arrays(**without(rows, "time", episode=np.array([0] * 3 + [1] * 2 + [0] * 4)), **BOUNDS)
    with pytest.raises(DatasetFormatError, match="another row of the episode"):
        Transitions.from_arrays(**without(rows, episode=np.array([0] * 3 + [1] * 2 + [0] * 4)), **BOUNDS)


def test_equal_times_in_the_order_of_the_rows_are_kept_and_counted() -> None:
    rows = log((4,), (True,))
    with pytest.warns(DataWarning, match="2 rows with the time"):
        found = Transitions.from_arrays(**without(rows, time=[0, 0, 1, 1]), **BOUNDS)
    np.testing.assert_array_equal(found.reward, np.arange(4))


@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-31T10:00:00", "2024-01-31T09:00:00", "2024-01-31T11:00:00"],
        np.array(["2024-01-31T10:00", "2024-01-31T09:00", "2024-01-31T11:00"], "datetime64[s]"),
        ["10", "9", "11"],  # numbers, not words
        [10, 9, 11],
    ],
)
def test_times_are_numbers_or_dates(times: Any) -> None:
    given: Log = {"obs": [0.0, 1.0, 2.0], "action": [0.0] * 3, "reward": [0.0, 1.0, 2.0], "terminated": [0, 0, 1]}
    with pytest.warns(DataWarning, match="moved"):
        found = Transitions.from_arrays(**given, episode=[7, 7, 7], time=times)
    np.testing.assert_array_equal(found.reward, [1.0, 0.0, 2.0])


@pytest.mark.parametrize(
    "times", [["soon", "9", "11"], [1.0, np.nan, 2.0], [[1], [2], [3]], ["2024-01-01", "2024-01-02T00:00+01:00", "1"]]
)
def test_what_is_no_time(times: Any) -> None:
    given: Log = {"obs": [0.0] * 3, "action": [0.0] * 3, "reward": [0.0] * 3, "terminated": [0, 0, 1]}
    with pytest.raises(DatasetFormatError, match="time"):
        Transitions.from_arrays(**given, episode=[7, 7, 7], time=times)


@st.composite
def logs(draw: st.DrawFn) -> tuple[Log, list[int]]:
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    ends = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    rows = log(tuple(lengths), tuple(ends))
    return rows, draw(st.permutations(range(len(rows["reward"]))))


@given(logs())
def test_every_door_reads_the_same_in_whatever_order_rows_come(drawn: tuple[Log, list[int]]) -> None:
    """Sorted back by hand, row by row: the reward of a row is its number."""
    rows, mixed = drawn
    shuffled = {key: values[mixed] for key, values in rows.items()}
    lines = [(list(dict.fromkeys(shuffled["episode"])).index(rows["episode"][i]), rows["time"][i], i) for i in mixed]
    expected = [line[2] for line in sorted(lines)]
    episodes = [
        {
            "observations": np.concatenate([rows["obs"][i], rows["next_obs"][i][-1:]]),
            "actions": rows["action"][i],
            "rewards": rows["reward"][i],
            "terminations": rows["terminated"][i],
        }
        for number in dict.fromkeys(shuffled["episode"])
        for i in [np.flatnonzero(rows["episode"] == number)]
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        by_rows = Transitions.from_arrays(**shuffled, **BOUNDS)
        by_frame = Transitions.from_frame(frame(shuffled), **NAMED, time="time", next_obs=["n*"], **BOUNDS)
    np.testing.assert_array_equal(by_rows.reward, expected)
    np.testing.assert_array_equal(by_rows.terminated, rows["terminated"][expected])
    last = [i + 1 == len(rows["episode"]) or rows["episode"][i + 1] != rows["episode"][i] for i in expected]
    np.testing.assert_array_equal(by_rows.episode_end, last)
    same(by_frame, by_rows)
    same(Transitions.from_episodes(episodes, **BOUNDS), by_rows)


# ------------------------------------------------------------------ contradictions


@pytest.mark.parametrize("flag", ["terminated", "timeout"])
def test_an_end_within_an_episode_is_refused(flag: str) -> None:
    flags = np.zeros(9)
    flags[6] = 1.0
    with pytest.raises(DatasetFormatError, match=r"first row 6: its last row is 8"):
        Transitions.from_arrays(**without(log(), **{"terminated": np.zeros(9), flag: flags}), **BOUNDS)


@pytest.mark.parametrize(
    "changed, error, named",
    [
        ({"terminated": np.full(9, 2)}, DatasetFormatError, "terminated"),
        ({"terminated": np.full(9, np.nan)}, DatasetFormatError, "terminated"),
        ({"terminated": ["no"] * 9}, DatasetFormatError, "terminated"),
        ({"episode": np.arange(8)}, DatasetFormatError, "episode"),
        ({"episode": [0.0] * 8 + [np.nan]}, DatasetFormatError, "row 8"),
        ({"episode": [None, *"abcdefgh"]}, DatasetFormatError, "row 0"),
        ({"time": np.arange(8)}, DatasetFormatError, "time"),
        ({"reward": np.arange(8.0)}, DatasetFormatError, "reward"),
        ({"obs": [[1.0], [1.0, 2.0]]}, DatasetFormatError, "obs"),
        ({"obs": np.array([["a", "b"]] * 9)}, DatasetFormatError, "observations"),
        ({"obs": np.full((9, 2), np.nan)}, NonFiniteDataError, "observations"),
        ({"action_low": None}, UsageError, "action_low"),
        ({"action_low": [1.0, 2.0]}, UsageError, "action_low"),
        ({"action_low": 9.0}, UsageError, "no intervals"),
        ({"action_high": float("inf")}, UsageError, "no intervals"),
        ({"action_low": -1.0, "action_high": 1.0}, ActionRangeError, "from -3 to 5"),
    ],
)  # fmt: skip
def test_what_is_refused(changed: Log, error: type[OfflineVIError], named: str) -> None:
    with pytest.raises(error, match=named) as caught:
        Transitions.from_arrays(**{**log(), **BOUNDS, **changed}, source=Provenance("plant"))
    assert "plant" in str(caught.value) and caught.value.hint


def test_bounds_go_before_those_of_a_task() -> None:
    task = Task("Pendulum-v1", (-2.0,), (2.0,))
    found = Transitions.from_arrays(**log(), **BOUNDS, task=task)
    assert found.task is not None and (found.task.env_id, found.task.action_high) == ("Pendulum-v1", (5.0,))


# ------------------------------------------------------------------ episodes


@dataclass
class Recorded:
    id: int
    observations: Any
    actions: Any
    rewards: Any
    terminations: Any
    truncations: Any
    infos: Any = None


class Named(NamedTuple):
    obs: Any
    action: Any
    reward: Any
    terminated: Any


@dataclass
class Empty:
    pass


def test_episodes_of_many_makes() -> None:
    obs = np.arange(8.0).reshape(4, 2)
    action, reward = np.zeros((3, 1)), np.arange(3.0)
    flags = np.array([False, False, True])
    expected = Transitions.from_arrays(
        obs=obs[:3], action=action, reward=reward, terminated=flags, next_obs=obs[1:], episode=[0] * 3
    )
    for episode in (
        {"obs": obs, "action": action, "reward": reward, "terminated": True},
        {
            "observations": obs[:3],
            "actions": action,
            "rewards": reward,
            "terminals": flags,
            "next_observations": obs[1:],
        },
        {"observations": {"observation": obs}, "actions": action[:, 0], "rewards": list(reward), "terminations": flags},
        Recorded(0, obs, action, reward, flags, np.zeros(3, bool)),
        Named(obs, action, reward, flags),
    ):
        same(Transitions.from_episodes([episode]), expected)
    cut = Transitions.from_episodes([{"obs": obs[:3], "action": action, "reward": reward, "terminated": False}])
    np.testing.assert_array_equal(cut.reward, [0.0, 1.0])


GOOD: Log = {"obs": np.zeros((3, 2)), "action": np.zeros((2, 1)), "reward": np.zeros(2), "terminated": False}


@pytest.mark.parametrize(
    "episodes, named",
    [
        ([], "no episode"),
        ([GOOD, without(GOOD, "terminated")], "episode 1 has no terminated"),
        ([without(GOOD, "reward")], "no reward"),
        ([{**GOOD, "reward": np.zeros(3)}], "2 rows of action"),
        ([{**GOOD, "reward": 1.0}], "single number"),
        ([{**GOOD, "observations": np.zeros((3, 2))}], "mean the same"),
        ([GOOD, {**GOOD, "obs": np.zeros((2, 2))}], "next_obs"),
        ([GOOD, {**GOOD, "obs": np.zeros((3, 4))}], r"\(4,\) and \(2,\)"),
        ([{**GOOD, "truncated": [True, False]}], "first row 0"),
        ([7], "int"),
        ([Empty()], "no obs"),
    ],
)
def test_episodes_that_are_none(episodes: Any, named: str) -> None:
    with pytest.raises(DatasetFormatError, match=named):
        Transitions.from_episodes(episodes)


def test_an_episode_without_steps_is_left_out_and_counted() -> None:
    empty = {"obs": np.zeros((1, 2)), "action": np.zeros((0, 1)), "reward": [], "terminated": False}
    with pytest.warns(DataWarning, match="1 of 2"):
        assert len(Transitions.from_episodes([empty, GOOD])) == 2
    with pytest.raises(OfflineVIError):
        Transitions.from_episodes([empty])


# ------------------------------------------------------------------ frames


def test_a_frame_with_gaps_and_its_own_types() -> None:
    table = frame(log())
    table["s0"] = table["s0"].astype("Int64")
    table["terminated"] = table["terminated"].astype("boolean")
    table["episode"] = pandas.Series([f"visit {number}" for number in log()["episode"]], dtype="string")
    same(
        Transitions.from_frame(table, **NAMED, next_obs=["n*"], **BOUNDS),
        Transitions.from_arrays(**log(), **BOUNDS),
    )
    table.loc[4, "s0"] = None
    with pytest.raises(NonFiniteDataError, match="row 4"):
        Transitions.from_frame(table, **NAMED, next_obs=["n*"], **BOUNDS)
    with pytest.warns(DataWarning, match=r"dropped 1 of 3 episodes \(2 rows\)"):
        found = Transitions.from_frame(table, **NAMED, next_obs=["n*"], **BOUNDS, on_nonfinite="drop-episode")
    np.testing.assert_array_equal(found.reward, [0, 1, 2, 5, 6, 7, 8])


@pytest.mark.parametrize(
    "changed, error, facts",
    [
        ({"reward": "rewrad"}, DatasetFormatError, ["rewrad", "'reward'"]),
        ({"obs": ["s*", "speed"]}, DatasetFormatError, ["speed"]),
        ({"obs": ["t*_x"]}, DatasetFormatError, ["t*_x"]),
        ({"obs": ["s*", "s1"]}, UsageError, ["s1"]),
        ({"obs": ["s*", "rew*"]}, UsageError, ["observation and reward"]),
        ({"obs": ["s*", "unit"]}, DatasetFormatError, ["unit", "ward"]),
        ({"obs": ["s*", "kind"]}, DatasetFormatError, ["kind"]),
        ({"obs": ["s*", "day"]}, DatasetFormatError, ["day"]),
        ({"obs": ["s*", "double"]}, DatasetFormatError, ["double"]),
        ({"obs": []}, OfflineVIError, ["obs"]),
        ({"next_obs": ["n0"]}, UsageError, ["next_obs"]),
        ({"terminated": "u"}, DatasetFormatError, ["terminated"]),
    ],
)
def test_columns_of_a_frame_that_are_refused_by_name(
    changed: Log, error: type[OfflineVIError], facts: list[str]
) -> None:
    table = frame(log())
    table["unit"] = "ward 3"
    table["kind"] = pandas.Categorical([1, 2, 1] * 3)
    table["day"] = pandas.date_range("2024-01-01", periods=9)
    table.insert(0, "double", 1.0)
    table.insert(0, "double", 2.0, allow_duplicates=True)
    with pytest.raises(error) as caught:
        Transitions.from_frame(table, **{**NAMED, **changed}, **BOUNDS)
    for fact in facts:
        assert fact in f"{caught.value} {caught.value.hint}"


def test_no_rows() -> None:
    one: Log = {"obs": [0.0, 1.0], "action": [0.0, 0.0], "reward": [0, 0]}
    with pytest.raises(EmptyDatasetError):
        Transitions.from_frame(frame(log()).iloc[:0], **NAMED)
    with pytest.raises(EmptyDatasetError, match="no step is followed"):
        Transitions.from_arrays(**one, terminated=None, episode=[0, 1])


def same_rows(one: Transitions, other: Transitions) -> bool:
    columns = ("obs", "action", "reward", "next_obs", "terminated", "episode_end")
    return all(np.array_equal(getattr(one, column), getattr(other, column)) for column in columns)


@pytest.mark.parametrize("kind", ["numbers", "dates", "text"])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_gap_in_time_parts_episodes(kind: str, seed: int) -> None:
    """The same as naming the episode of each row, in whatever order the rows come, and wherever a flag ends one."""
    rng = np.random.default_rng(seed)
    lengths = tuple(rng.integers(2, 6, size=4).tolist())
    rows = log(lengths, terminal=tuple(rng.random(4) < 0.5))
    last = np.append(np.diff(rows["episode"]) != 0, True)
    pause = np.where(
        last, np.where(rows["terminated"], 900.0, 90_000.0), 900.0
    )  # after a failure, work goes on at once
    seconds = np.append(0.0, np.cumsum(pause)[:-1])
    times: Any = seconds
    if kind != "numbers":
        times = np.datetime64("2026-03-01T18:00:00") + seconds.astype("timedelta64[s]")
    if kind == "text":
        times = np.array([str(time).replace("T", " ") for time in times], object)
    units: Any = {"action_low": -3.0, "action_high": 5.0}
    expected = Transitions.from_arrays(**without(rows, "time"), **units)
    shuffled = rng.permutation(len(seconds))
    given_rows = {key: values[shuffled] for key, values in without(rows, "episode", time=times).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        found = Transitions.from_arrays(**given_rows, episode_gap=1000.0, **units)
    assert same_rows(found, expected)


def test_gaps_cut_within_the_episodes_that_are_named() -> None:
    """Two machines share a log."""
    rows = log((3, 3, 2, 2), (False,) * 4)
    machine, night = rows["episode"] % 2, rows["episode"] // 2
    times = 10_000.0 * night + 900.0 * rows["obs"][:, 1]
    units: Any = {"action_low": -3.0, "action_high": 5.0}
    order = np.lexsort((machine, times))
    changed: Any = without(rows, "terminated", episode=machine, time=times)
    with pytest.warns(DataWarning):
        found = Transitions.from_arrays(
            **{key: values[order] for key, values in changed.items()}, terminated=None, episode_gap=900.0, **units
        )
    assert [tuple(found.obs[rows.start]) for rows in found.episode_slices()] == [(0, 0), (2, 0), (1, 0), (3, 0)]
    assert found.episode_end.sum() == 4


@pytest.mark.parametrize("wrong", [{"episode_gap": 0.0}, {"episode_gap": np.nan}, {"episode_gap": 5.0, "time": None}])
def test_a_gap_that_parts_nothing_is_refused(wrong: dict[str, Any]) -> None:
    rows = without(log(), "episode")
    with pytest.raises(UsageError):
        Transitions.from_arrays(**{**rows, **wrong}, action_low=-3.0, action_high=5.0)


@pytest.mark.parametrize("marked", [True, False])
def test_failures_are_told_from_the_other_ends_of_the_task(marked: bool) -> None:
    """A deadline ends every episode, and a failure the second: a penalty is for failures alone."""
    rows, ends = log((3, 2, 4)), np.isin(np.arange(9), (2, 4, 8))
    failed = np.arange(9) == 4
    data = Transitions.from_arrays(
        **{**without(rows, "terminated", "next_obs"), "terminated": True if marked else ends},
        failed=failed,
        action_low=-3.0,
        action_high=5.0,
    )
    assert len(data) == 9  # none is without a next state
    np.testing.assert_array_equal(data.terminated, ends)
    whole = concatenate([data, data])
    for one in (data, whole.select(slice(9, 18)), whole.split_episodes(0.5)[1]):
        np.testing.assert_array_equal(one.failures, failed)
    np.testing.assert_allclose(data.with_reward(end_penalty=7.0).reward, rows["reward"] - 7.0 * failed)
    plain = Transitions.from_arrays(
        **{**without(rows, "terminated"), "terminated": True}, action_low=-3.0, action_high=5.0
    )
    np.testing.assert_array_equal(concatenate([plain, data]).failures, np.append(ends, failed))
    np.testing.assert_allclose(plain.with_reward(end_penalty=7.0).reward, rows["reward"] - 7.0 * ends)


def test_a_failure_that_ends_nothing_is_refused() -> None:
    with pytest.raises(DatasetFormatError):
        Transitions.from_arrays(**log(), failed=np.arange(9) == 1, action_low=-3.0, action_high=5.0)


def test_every_episode_ends_the_task_also_where_rows_are_sorted() -> None:
    rows = log()
    order = np.random.default_rng(0).permutation(9)
    shuffled = {key: values[order] for key, values in without(rows, "terminated").items()}
    with pytest.warns(DataWarning):
        data = Transitions.from_arrays(**shuffled, terminated=True, action_low=-3.0, action_high=5.0)
    np.testing.assert_array_equal(np.flatnonzero(data.terminated) + 1, [rows.stop for rows in data.episode_slices()])
    cut = Transitions.from_arrays(**without(rows, "terminated"), terminated=False, action_low=-3.0, action_high=5.0)
    assert not cut.terminated.any() and cut.failed is None
