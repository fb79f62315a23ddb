"""NaN, order and labels: what is repaired has the right values, what would be read wrongly is refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from oracle_data import distinct_columns

from offline_vi.data.transitions import Transitions
from offline_vi.errors import ActionRangeError, DatasetFormatError, DataWarning, EmptyDatasetError, NonFiniteDataError
from offline_vi.types import Task

NAN = float("nan")
Rows = dict[str, np.ndarray]


def quietly(columns: Rows, **options: Any) -> Transitions:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Transitions.from_d4rl(columns, **options)


def same(found: Transitions, expected: Transitions) -> None:
    for name in ("obs", "action", "reward", "next_obs", "terminated", "episode_end"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


# ------------------------------------------------------------------ NaN


@st.composite
def damaged(draw: Any) -> Rows:
    """Up to 14 rows in episodes, with NaN in some entries of some columns."""
    rows = draw(st.integers(2, 14))
    columns = distinct_columns(rows)
    ends = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=rows, max_size=rows))
    columns["terminals"], columns["timeouts"] = np.array(ends) == 1, np.array(ends) == 2
    for key in ("observations", "actions", "rewards", "next_observations"):
        for row in draw(st.lists(st.integers(0, rows - 1), max_size=2)):
            columns[key][row if columns[key].ndim == 1 else (row, 0)] = draw(st.sampled_from([NAN, np.inf]))
    return columns


def bad_rows(columns: Rows, keys: tuple[str, ...]) -> list[bool]:
    rows = len(columns["rewards"])
    return [any(not np.isfinite(columns[key][row]).all() for key in keys) for row in range(rows)]


def split_by_hand(columns: Rows, keys: tuple[str, ...]) -> Rows:
    """Row by row: a bad row is left out, and the row before it ends without a terminal."""
    bad, kept, timeouts = bad_rows(columns, keys), [], list(columns["timeouts"])
    for row in range(len(bad)):
        if bad[row]:
            before = row - 1
            if before >= 0 and not bad[before] and not columns["terminals"][before]:
                timeouts[before] = True
        else:
            kept.append(row)
    return {key: column[kept] for key, column in columns.items()} | {"timeouts": np.array(timeouts, bool)[kept]}


def hold_by_hand(columns: Rows, keys: tuple[str, ...]) -> Rows:
    """Row by row: the last good entry of the same feature since the episode began, which of a next observation is that
    of the observation."""
    held = {key: column.copy() for key, column in columns.items()}
    for key in keys:
        if key == "next_observations":
            bad = ~np.isfinite(held[key])
            held[key][bad] = held["observations"][bad]
            continue
        entries = held[key].reshape(len(held[key]), -1)
        last: list[float | None] = [None] * entries.shape[1]
        for row in range(len(entries)):
            for feature in range(entries.shape[1]):
                if np.isfinite(entries[row, feature]):
                    last[feature] = float(entries[row, feature])
                elif last[feature] is not None:
                    entries[row, feature] = last[feature]
            if columns["terminals"][row] or columns["timeouts"][row]:
                last = [None] * entries.shape[1]
        held[key] = entries.reshape(held[key].shape)
    return split_by_hand(held, keys)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(damaged(), st.booleans(), st.sampled_from(["split", "hold"]))
def test_repairs_are_those_done_by_hand(columns: Rows, stored: bool, repair: str) -> None:
    keys: tuple[str, ...] = ("observations", "actions", "rewards")
    options: Any = {"next_obs": "following_row"}
    if stored:
        options, keys = {"next_obs": "within_episode"}, (*keys, "next_observations")
        ends = columns["terminals"]  # nothing may read the next observation of these
        columns["next_observations"][ends] = columns["observations"][ends]
    else:
        del columns["next_observations"]
    expected = (split_by_hand if repair == "split" else hold_by_hand)(columns, keys)
    try:
        want = quietly(expected, **options)
    except EmptyDatasetError:
        with pytest.raises(EmptyDatasetError):
            quietly(columns, on_nonfinite=repair, **options)
        return
    found = quietly(columns, on_nonfinite=repair, **options)
    same(found, want)
    assert np.isfinite(found.obs).all() and np.isfinite(found.next_obs).all() and np.isfinite(found.reward).all()


def test_each_repair_is_counted() -> None:
    columns = distinct_columns(9)
    del columns["next_observations"]
    columns["timeouts"][4] = True
    columns["observations"][[0, 2, 6], 1] = NAN
    columns["rewards"][7] = NAN
    with pytest.raises(NonFiniteDataError) as caught:
        Transitions.from_d4rl(columns)
    for remedy in ("drop-episode", "split", "hold"):
        assert f'on_nonfinite="{remedy}"' in caught.value.hint
    with pytest.warns(DataWarning, match="3 NaN in observations.*1 NaN in rewards.*left out 4 rows and cut 2 episodes"):
        split = Transitions.from_d4rl(columns, on_nonfinite="split")
    assert split.reward.tolist() == [30.0]  # 1 and 5 are cut, 4 by its own timeout, 8 is the last
    with pytest.warns(DataWarning, match="held the last good value of 3 numbers, .*; left out 1 row$"):
        held = Transitions.from_d4rl(columns, on_nonfinite="hold")
    assert held.reward.tolist() == [10.0, 20.0, 30.0, 50.0, 60.0, 60.0]
    np.testing.assert_array_equal(held.obs[1], [2.0, 1.5])  # the other feature is the row's own


def test_log_probabilities_follow_their_rows() -> None:
    columns = distinct_columns(5) | {"infos/action_log_probs": np.arange(5.0, dtype=np.float32)}
    columns["actions"][2] = NAN
    found = quietly(columns, on_nonfinite="split", next_obs="within_episode")
    assert found.behavior_log_prob is not None and found.behavior_log_prob.tolist() == [0.0, 1.0, 3.0, 4.0]


def test_the_next_observation_of_a_terminal_row_may_be_unknown() -> None:
    columns = distinct_columns(4)
    columns["terminals"][[1, 3]] = True
    columns["next_observations"][[1, 3]] = NAN
    found = Transitions.from_d4rl(columns, next_obs="within_episode")
    np.testing.assert_array_equal(found.next_obs[[1, 3]], found.obs[[1, 3]])


# ------------------------------------------------------------------ order


def walk(rows: int, scale: float = 1.0, offset: float = 0.0, seed: int = 0) -> Rows:
    """A smooth path in one episode, and what follows each of its states."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.normal(size=(rows + 1, 3)), 0) * scale + offset
    return {
        "observations": path[:-1].astype(np.float32),
        "next_observations": path[1:].astype(np.float32),
        "actions": rng.uniform(-1.0, 1.0, (rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
    }


SCALES = [(1.0, 0.0), (1e-6, 0.0), (1e6, 0.0), (1e-2, 1e3), (1e-30, 0.0)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(SCALES), st.integers(3, 60), st.integers(0, 99), st.sampled_from(["shuffled", "late", "noisy"]))
def test_rows_in_no_order_are_refused_at_every_scale(units: Any, rows: int, seed: int, kind: str) -> None:
    columns = walk(rows, units[0], units[1], seed)
    Transitions.from_d4rl(columns)  # in order
    rng = np.random.default_rng(seed)
    if kind == "shuffled":
        columns = {key: column[np.roll(np.arange(rows)[::-1], seed)] for key, column in columns.items()}
    elif kind == "late":  # the state itself stands for the next one
        columns["next_observations"] = columns["observations"].copy()
    else:  # every state is seen twice, through noise as large as a step
        columns["next_observations"] += (rng.normal(size=(rows, 3)) * units[0]).astype(np.float32)
    with pytest.raises(DatasetFormatError) as caught:
        Transitions.from_d4rl(columns)
    assert 'next_obs="within_episode"' in caught.value.hint
    found = Transitions.from_d4rl(columns, next_obs="within_episode")
    np.testing.assert_array_equal(found.next_obs, columns["next_observations"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(SCALES[:4]), st.integers(0, 99), st.sampled_from([np.float16, np.float32, np.float64]))
def test_a_rounding_is_no_contradiction(units: Any, seed: int, kind: Any) -> None:
    scale, offset = units if kind is not np.float16 else (1.0, 0.0)
    columns = walk(50, scale, offset, seed)
    columns["next_observations"] = columns["next_observations"].astype(kind)
    assert len(Transitions.from_d4rl(columns)) == 49


def test_an_entry_that_is_not_known_hides_no_contradiction() -> None:
    columns = walk(30)
    columns = {key: column[::-1].copy() for key, column in columns.items()}
    columns["next_observations"][:, 0] = NAN
    with pytest.raises(DatasetFormatError):
        Transitions.from_d4rl(columns)


# ------------------------------------------------------------------ labels


def acting(actions: Any) -> Rows:
    rows = len(actions)
    return distinct_columns(rows) | {"actions": np.asarray(actions)}


LABELS: dict[str, Any] = {
    "treatments": np.arange(20)[:, None] % 2 * 1.0,
    "boolean": np.arange(20)[:, None] % 2 == 1,
    "one-hot": np.eye(4)[np.arange(20) % 4],
    "several treatments": np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5, np.float32),
    "numbers": np.arange(20)[:, None] % 5,
    "numbers as floats": np.arange(50)[:, None] % 25 * 1.0,
    "signed integers": (np.arange(20)[:, None] % 3 - 1).astype(np.int8),
    "with NaN": np.where(np.arange(20) == 3, NAN, np.arange(20) % 2)[:, None],
}
AMOUNTS: dict[str, Any] = {
    "saturated": np.concatenate([np.sign(np.sin(np.arange(1.0, 19.0))), [0.3, 0.7]])[:, None],
    "bang-bang": np.sign(np.sin(np.arange(1.0, 21.0)))[:, None],
    "bang-off-bang": (np.arange(20.0) % 3 - 1)[:, None],
    "one treatment among amounts": np.stack([np.arange(20) % 2, np.sin(np.arange(20))], 1),
    "constant": np.zeros((20, 2), np.int64),
    "throttle": np.concatenate([np.zeros(9), np.ones(9), [0.5, 0.25]])[:, None],
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_are_refused_and_read_where_they_are_said_to_be_amounts(case: str) -> None:
    columns = acting(LABELS[case])
    with pytest.raises(ActionRangeError) as caught:
        Transitions.from_d4rl(columns, on_nonfinite="split")
    assert 'discrete_actions="continuous"' in caught.value.hint and "DiscreteSAC" in caught.value.hint
    found = quietly(columns, discrete_actions="continuous", action_range="clip", on_nonfinite="split")
    assert len(found) >= 17


@pytest.mark.parametrize("case", AMOUNTS)
def test_amounts_are_never_taken_for_labels(case: str) -> None:
    assert len(quietly(acting(AMOUNTS[case]))) == 19


def test_integers_of_many_kinds_are_amounts() -> None:
    steps = np.arange(-100, 100, dtype=np.int16)[:, None]
    found = Transitions.from_d4rl(acting(steps), task=Task("", (-100.0,), (100.0,)))
    np.testing.assert_allclose(found.action[:, 0], np.arange(-100, 99) / 100.0, rtol=1e-6)
