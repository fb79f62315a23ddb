"""Rows of D4RL data sets: which become transitions, and what is refused, repaired or reported."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from oracle_data import distinct_columns, episodes, qlearning_rows, strict_rows, true_timeouts

from offline_vi.data.transitions import Provenance, Transitions, concatenate
from offline_vi.errors import (
    ActionRangeError,
    DatasetFormatError,
    DataWarning,
    EmptyDatasetError,
    NonFiniteDataError,
    OfflineVIError,
    SpaceMismatchError,
    UsageError,
)
from offline_vi.nn.normalizer import Normalizer
from offline_vi.types import Spec, Task

Reached = Callable[[int, str, int], None]
BOX = Task("Box-v0", (-1.0,), (1.0,))


def flags(minimum: int = 1, maximum: int = 12) -> Any:
    """Ends of episodes row by row: 0 none, 1 terminal, 2 timeout, 3 both."""
    return st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=minimum, max_size=maximum)


def dataset(ends: list[int]) -> dict[str, np.ndarray]:
    columns = distinct_columns(len(ends))
    columns["terminals"] = np.array([end in (1, 3) for end in ends])
    columns["timeouts"] = np.array([end in (2, 3) for end in ends])
    return columns


def without(columns: dict[str, np.ndarray], *keys: str) -> dict[str, np.ndarray]:
    return {key: column for key, column in columns.items() if key not in keys}


def quietly(columns: dict[str, np.ndarray], **options: Any) -> Transitions | None:
    """The transitions, None where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            return Transitions.from_d4rl(columns, **options)
        except EmptyDatasetError:
            return None


# ------------------------------------------------------------------ rows


def test_d4rl_rows_are_those_of_a_row_by_row_reading(reached: Reached) -> None:
    ran = []

    @settings(max_examples=2000, deadline=None, derandomize=True)
    @given(flags(), st.one_of(st.none(), st.integers(1, 6)))
    def check(ends: list[int], limit: int | None) -> None:
        ran.append(1)
        d4rl_rows_are_right(ends, limit)

    check()
    reached(19, "data sets in d4rl mode", len(ran))


def d4rl_rows_are_right(ends: list[int], limit: int | None) -> None:
    columns = dataset(ends)
    timeouts = columns["timeouts"] if limit is None else None
    found = quietly(columns if limit is None else without(columns, "timeouts"), max_episode_steps=limit)
    expected = qlearning_rows(columns["terminals"], timeouts, limit)
    if found is None:
        assert expected == []
        return
    rows = [row for row, _, _ in expected]
    assert found.obs.tobytes() == columns["observations"][rows].tobytes()
    assert found.action.tobytes() == columns["actions"][rows].tobytes()
    assert found.reward.tobytes() == columns["rewards"][rows].tobytes()
    assert found.next_obs.tobytes() == columns["observations"][[after for _, after, _ in expected]].tobytes()
    assert found.terminated.tolist() == [done for _, _, done in expected]


def test_strict_rows_never_cross_an_episode(reached: Reached) -> None:
    ran = []

    @settings(max_examples=2000, deadline=None, derandomize=True)
    @given(flags(), st.one_of(st.none(), st.integers(1, 6)), st.booleans())
    def check(ends: list[int], limit: int | None, has_next: bool) -> None:
        ran.append(1)
        strict_rows_are_right(ends, limit, has_next)

    check()
    reached(19, "data sets in strict mode", len(ran))


def strict_rows_are_right(ends: list[int], limit: int | None, has_next: bool) -> None:
    columns = dataset(ends)
    given_columns = without(
        columns, *([] if has_next else ["next_observations"]), *([] if limit is None else ["timeouts"])
    )
    found = quietly(given_columns, next_obs="within_episode", max_episode_steps=limit)
    timeouts = columns["timeouts"] if limit is None else true_timeouts(columns["terminals"], limit)
    expected = strict_rows(columns["terminals"], timeouts, has_next)
    if found is None:
        assert expected == []
        return
    next_obs = [columns["next_observations"][i] if j < 0 else columns["observations"][j] for i, j, _, _ in expected]
    assert found.obs.tobytes() == columns["observations"][[row.row for row in expected]].tobytes()
    assert found.next_obs.tobytes() == np.stack(next_obs).tobytes()
    assert found.terminated.tolist() == [row.terminated for row in expected]
    assert found.episode_end.tolist() == [row.last for row in expected]
    if not has_next:
        number = episodes(columns["terminals"], timeouts)
        assert all(
            number[row] == number[int(after[0])] for (row, *_), after in zip(expected, found.next_obs, strict=True)
        )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(flags(2, 20))
def test_d4rl_episode_ends_follow_the_file(ends: list[int]) -> None:
    columns = dataset(ends)
    found = quietly(columns)
    if found is None:
        return
    number = np.array(episodes(columns["terminals"], columns["timeouts"]))[found.reward.astype(int) // 10]
    changes = np.append(number[1:] != number[:-1], True)
    np.testing.assert_array_equal(found.episode_end, changes)


@pytest.mark.parametrize("limit", [None, 1, 2, 5])
def test_d4rl_itself_agrees(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the package, where it is installed (the extra `d4rl`)."""
    monkeypatch.setenv("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    monkeypatch.setitem(sys.modules, "mujoco_py", None)  # its import fails with more than an ImportError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        d4rl = pytest.importorskip("d4rl")
    rng = np.random.default_rng(limit or 0)
    for _ in range(250):
        columns = dataset(rng.choice(4, p=[0.7, 0.1, 0.1, 0.1], size=rng.integers(2, 30)).tolist())
        if limit is not None:
            columns = without(columns, "timeouts")
        theirs = d4rl.qlearning_dataset(SimpleNamespace(_max_episode_steps=limit), dataset=columns)
        ours = quietly(columns, max_episode_steps=limit)
        if ours is None:
            assert len(theirs["rewards"]) == 0
            continue
        for name, column in (
            ("observations", ours.obs),
            ("actions", ours.action),
            ("rewards", ours.reward),
            ("next_observations", ours.next_obs),
            ("terminals", ours.terminated),
        ):
            assert theirs[name].tobytes() == column.tobytes()


def test_rows_that_are_terminal_and_timeout_are_counted() -> None:
    columns = dataset([0, 3, 0, 0, 3, 1])
    with pytest.warns(DataWarning, match="2 rows are both terminal and timeout: dropped"):
        assert not Transitions.from_d4rl(columns).terminated[:2].any()
    with pytest.warns(DataWarning, match="2 rows are both terminal and timeout: kept as terminal"):
        assert Transitions.from_d4rl(columns, next_obs="within_episode").terminated.tolist() == [
            False,
            True,
            False,
            False,
            True,
            True,
        ]


def test_next_observations_of_the_last_row_are_used_in_strict_mode_only() -> None:
    columns = dataset([0, 0, 2])
    assert len(Transitions.from_d4rl(columns, next_obs="within_episode")) == 3
    assert len(Transitions.from_d4rl(columns)) == 2
    assert len(Transitions.from_d4rl(without(columns, "next_observations"), next_obs="within_episode")) == 2


def test_without_timeouts_the_task_gives_the_length_else_it_is_asked_for() -> None:
    columns = without(dataset([0] * 7), "timeouts")
    with pytest.raises(DatasetFormatError, match="'timeouts' is missing"):
        Transitions.from_d4rl(columns)
    task = Task("Box-v0", (-1.0,), (1.0,), max_episode_steps=3)
    assert Transitions.from_d4rl(columns, task=task).obs[:, 0].tolist() == [0.0, 1.0, 3.0, 4.0]
    assert Transitions.from_d4rl(columns, task=task, max_episode_steps=5).obs[:, 0].tolist() == [0, 1, 2, 3, 5]
    with pytest.raises(UsageError):
        Transitions.from_d4rl(columns, max_episode_steps=0)


@pytest.mark.parametrize("next_obs", ["following_row", "within_episode"])
def test_one_step_episodes_and_empty_data(next_obs: Any) -> None:
    ones = dataset([1, 1, 1, 0])
    assert Transitions.from_d4rl(ones, next_obs=next_obs).terminated[:3].all()
    assert [part.stop - part.start for part in Transitions.from_d4rl(ones, next_obs=next_obs).episode_slices()][:3] == [
        1,
        1,
        1,
    ]
    with pytest.raises(EmptyDatasetError):
        Transitions.from_d4rl({key: column[:0] for key, column in ones.items()}, next_obs=next_obs)
    with pytest.raises(EmptyDatasetError):
        Transitions.from_d4rl(without(dataset([2, 2]), "next_observations"), next_obs=next_obs)


def test_options_have_names() -> None:
    for option in ("next_obs", "rows", "action_range", "on_nonfinite"):
        with pytest.raises(UsageError, match="maybe"):
            Transitions.from_d4rl(dataset([0, 0]), **{option: "maybe"})  # type: ignore[arg-type]


# ------------------------------------------------------------------ formats


def test_only_our_errors_escape_malformed_columns(reached: Reached) -> None:
    ran = []

    @settings(max_examples=1_000, deadline=None, derandomize=True)
    @given(
        st.sampled_from(["observations", "actions", "rewards", "terminals", "timeouts", "infos/action_log_probs"]),
        st.sampled_from(["drop", "short", "flat", "column", "cube", "text", "object", "complex", "scalar"]),
        st.integers(3, 60),
    )
    def check(key: str, damage: str, rows: int) -> None:
        ran.append(1)
        malformed(key, damage, rows)

    check()
    reached(15, "examples", len(ran))


def malformed(key: str, damage: str, rows: int) -> None:
    columns = dataset([0] * (rows - 1) + [2])
    columns["infos/action_log_probs"] = np.zeros(rows, np.float32)
    whole = columns[key]
    columns[key] = {
        "drop": whole,
        "short": whole[:-1],
        "flat": whole.reshape(-1),
        "column": whole.reshape(len(whole), -1)[:, :1],
        "cube": whole.reshape(len(whole), 1, -1),
        "text": whole.astype("U"),
        "object": whole.astype(object),
        "complex": whole.astype(complex),
        "scalar": whole.reshape(-1)[0],
    }[damage]
    if damage == "drop":
        del columns[key]
    try:
        result = Transitions.from_d4rl(columns)
    except OfflineVIError as error:
        assert error.exit_code == 65 and repr(key) in str(error)
    else:
        assert damage in ("column", "flat") or (damage == "drop" and key == "infos/action_log_probs")
        assert len(result) == (rows - 1)


def test_lengths_are_named() -> None:
    columns = distinct_columns(100)
    columns["rewards"] = columns["rewards"][:99]
    with pytest.raises(DatasetFormatError, match="'rewards' has 99 rows, 'observations' 100"):
        Transitions.from_d4rl(columns)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from(["<f8", ">f8", ">f4", "<f2", "u1", "i1", ">i4", "<i8", "?"]),
    st.lists(st.integers(0, 100), min_size=4, max_size=4),
)
def test_every_numeric_type_becomes_float32(dtype: str, values: list[int]) -> None:
    columns = distinct_columns(4)
    for key in ("observations", "rewards"):
        columns[key] = np.resize(np.array(values), columns[key].shape).astype(dtype)
    columns["terminals"] = np.zeros((4, 1), ">f8")
    columns["timeouts"] = np.zeros(4, "u1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Transitions.from_d4rl(columns, next_obs="within_episode")
    assert found.obs.dtype == found.reward.dtype == np.float32 and found.terminated.dtype == np.bool_
    assert found.reward.tolist() == columns["rewards"].astype(float).tolist()


def test_rounding_that_matters_is_reported() -> None:
    columns = distinct_columns(4)
    columns["rewards"] = np.array([0.1, 16_777_217.0, 1e9 + 7.0, 3.0])
    with pytest.warns(
        DataWarning, match=r"2 entries of 'rewards' \(float64\) lose more than 0.0001 as float32, at most 7"
    ):
        Transitions.from_d4rl(columns)
    columns["rewards"] = np.array([0.1, 1e300, 0.0, 0.0])
    with pytest.raises(NonFiniteDataError, match="1 Inf in rewards, first at row 1"):
        Transitions.from_d4rl(columns)


# ------------------------------------------------------------------ values


def test_nonfinite_entries_are_counted_and_located() -> None:
    columns = dataset([0, 2, 0, 1, 0, 0, 2, 0, 0])
    columns["rewards"][[4, 5, 8]] = np.nan
    columns["observations"][5, 1] = np.inf
    with pytest.raises(NonFiniteDataError) as caught:
        Transitions.from_d4rl(columns)
    assert "1 Inf in observations, first at row 5 (episode 2)" in str(caught.value)
    assert "3 NaN in rewards, first at row 4 (episode 2)" in str(caught.value)
    with pytest.warns(DataWarning, match=r"dropped 2 of 4 episodes \(5 rows\)"):
        kept = Transitions.from_d4rl(columns, next_obs="within_episode", on_nonfinite="drop-episode")
    assert kept.reward.tolist() == [0.0, 10.0, 20.0, 30.0]
    columns["rewards"][:] = np.nan
    with pytest.warns(DataWarning), pytest.raises(EmptyDatasetError):
        Transitions.from_d4rl(columns, on_nonfinite="drop-episode")


def test_next_observations_matter_only_where_they_are_read() -> None:
    columns = dataset([0, 0, 2])
    columns["next_observations"][1] = np.nan
    assert len(Transitions.from_d4rl(columns)) == 2
    with pytest.raises(NonFiniteDataError, match="2 NaN in next_observations, first at row 1"):
        Transitions.from_d4rl(columns, next_obs="within_episode")


def test_flags_are_finite() -> None:
    columns = dataset([0, 0, 2])
    columns["terminals"] = np.array([0.0, np.nan, 0.0])
    with pytest.raises(DatasetFormatError, match="'terminals'"):
        Transitions.from_d4rl(columns)


def with_actions(values: list[float]) -> dict[str, np.ndarray]:
    columns = distinct_columns(len(values))
    columns["actions"] = np.array(values, np.float32)[:, None]
    return columns


def test_actions_just_beyond_the_bounds_are_clipped_with_a_count() -> None:
    with pytest.warns(DataWarning, match=r"clipped 2 action entries, at most 0.001 outside") as caught:
        found = Transitions.from_d4rl(with_actions([0.5, 1.001, -1.0005, 1.0]), next_obs="within_episode")
    assert len(caught) == 1
    assert found.action[:, 0].tolist() == [0.5, 1.0, -1.0, 1.0]


def test_actions_on_the_bounds_are_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Transitions.from_d4rl(with_actions([1.0, -1.0, 0.0])).action[:, 0].tolist() == [1.0, -1.0]


def test_actions_far_beyond_are_refused_clipped_or_mapped() -> None:
    columns = with_actions([0.5, 3.0, -2.0, 0.0])
    with pytest.raises(ActionRangeError, match="from -2 to 3, 2 of 4 entries") as caught:
        Transitions.from_d4rl(columns)
    assert "clip" in caught.value.hint and "data" in caught.value.hint
    with pytest.warns(DataWarning, match="clipped 2 action entries, at most 2 outside"):
        clipped = Transitions.from_d4rl(columns, next_obs="within_episode", action_range="clip")
    assert clipped.action[:, 0].tolist() == [0.5, 1.0, -1.0, 0.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapped = Transitions.from_d4rl(columns, next_obs="within_episode", action_range="data", task=BOX)
    assert mapped.task is not None and mapped.task.env_id == "Box-v0"
    np.testing.assert_allclose(mapped.action[:, 0], [0.0, 1.0, -1.0, -0.2], atol=1e-7)
    np.testing.assert_allclose(mapped.task.to_env(mapped.action), columns["actions"], atol=1e-6)


def test_a_constant_action_can_be_mapped() -> None:
    found = Transitions.from_d4rl(with_actions([3.0, 3.0, 3.0]), action_range="data")
    assert found.action[:, 0].tolist() == [0.0, 0.0] and found.task is not None
    assert found.task.to_env(found.action)[:, 0].tolist() == [3.0, 3.0]


def test_log_probabilities_follow_the_units_of_the_actions() -> None:
    """Uniform on [0, 4] has density 1/4; on the library's [-1, 1] it has 1/2."""
    columns = with_actions([0.0, 1.0, 4.0])
    columns["infos/action_log_probs"] = np.full((3, 1), math.log(0.25), np.float32)
    for options in ({"action_range": "data"}, {"task": Task("Box-v0", (0.0,), (4.0,))}):
        found = Transitions.from_d4rl(columns, next_obs="within_episode", **options)
        assert found.behavior_log_prob is not None
        np.testing.assert_allclose(found.behavior_log_prob, math.log(0.5), rtol=1e-6)
        np.testing.assert_allclose(found.action[:, 0], [-1.0, -0.5, 1.0], atol=1e-7)
    with (
        pytest.warns(DataWarning, match="does not describe clipped actions"),
        pytest.warns(DataWarning, match="clipped 1"),
    ):
        assert Transitions.from_d4rl(columns, action_range="clip").behavior_log_prob is None
    columns["infos/action_log_probs"][1] = np.inf
    with pytest.warns(DataWarning, match="1 entries are not finite"):
        assert Transitions.from_d4rl(columns, action_range="data").behavior_log_prob is None


def test_a_task_of_other_dimensions_is_refused() -> None:
    with pytest.raises(SpaceMismatchError, match=r"action \(1,\) vs Hand-v0 \(2,\)"):
        Transitions.from_d4rl(with_actions([0.0, 0.0]), task=Task("Hand-v0", (-1.0, -1.0), (1.0, 1.0)))


# ------------------------------------------------------------------ together


def test_joined_files_stay_apart() -> None:
    first = Transitions.from_d4rl(dataset([0, 0, 0]), source=Provenance("a", ("a.hdf5",), ("1",)))
    second = Transitions.from_d4rl(dataset([0, 1, 0]), source=Provenance("b", ("b.hdf5",), ("2",)))
    joined = concatenate([first, second])
    assert [(part.start, part.stop) for part in joined.episode_slices()] == [(0, 2), (2, 4)]
    assert joined.source == Provenance("a+b", ("a.hdf5", "b.hdf5"), ("1", "2"), "following_row")


def test_constant_features_are_named_and_stay_finite() -> None:
    values = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    values[:, 1] = 7.0
    values[:, 3] *= 5e-4
    with pytest.warns(DataWarning, match=r"features \[1, 3\]"):
        normalizer = Normalizer(Spec((4,), 1)).fit(values)
    assert np.isfinite(normalizer.std.numpy()).all() and float(normalizer.std[1]) == pytest.approx(1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Normalizer(Spec((2,), 1)).fit(values[:, [0, 2]])
