"""Scores, units of actions and shapes, by hand and in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from offline_vi.types import Spec, Task

TASK = Task("Box-v0", (-2.0, 0.1), (2.0, 0.3), {"a": 1}, "box", ref_min=0.1, ref_max=0.7)


def test_scores_are_computed_in_float64() -> None:
    returns = np.array([1 / 3, 0.1, 0.7], np.float32)
    found = TASK.normalized(returns)  # type: ignore[arg-type]
    assert found.dtype == np.float64
    assert found.tolist() == [100.0 * (float(value) - 0.1) / (0.7 - 0.1) for value in returns]
    assert TASK.normalized(np.array([1, 2])).tolist() == [100.0 * (n - 0.1) / (0.7 - 0.1) for n in (1, 2)]


@pytest.mark.parametrize("known", [{"ref_min": None}, {"ref_max": None}, {"ref_min": None, "ref_max": None}])
def test_without_both_references_a_score_is_not_a_number(known: dict[str, None]) -> None:
    found = replace(TASK, **known).normalized(np.array([1, 2]))  # type: ignore[arg-type]
    assert found.dtype == np.float64 and np.isnan(found).all() and found.shape == (2,)


def test_units_of_actions_go_through_float64_and_back() -> None:
    low, high = np.array([-2.0, 0.1]), np.array([2.0, 0.3])
    ours = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    theirs = TASK.to_env(ours)
    assert theirs.dtype == np.float32
    np.testing.assert_array_equal(theirs, (low + (ours.astype(np.float64) + 1.0) * 0.5 * (high - low)).astype("f4"))
    back = TASK.from_env(theirs)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, ((theirs.astype(np.float64) - low) / (high - low) * 2.0 - 1.0).astype("f4"))
    assert math.isclose(TASK.log_jacobian, math.log(2.0 / 4.0) + math.log(2.0 / 0.2), rel_tol=1e-12)


@pytest.mark.parametrize(("low", "high", "expected"), [(-1.0, 1.0, 0.3), (-1.0, 3.0, -0.35), (-3.0, 1.0, 0.65)])
def test_only_where_both_bounds_agree_an_action_stays_as_it_is(low: float, high: float, expected: float) -> None:
    task = Task("Box-v0", (low,), (high,))
    assert task.from_env(np.array([[0.3]], np.float32))[0, 0] == pytest.approx(expected, abs=1e-7)


def test_actions_in_the_librarys_own_units_are_not_touched() -> None:
    """Not even by the rounding of a map that is the identity; only their type is the library's."""
    task = Task("E-v0", (-1.0, -1.0), (1.0, 1.0))
    action = np.array([[1e-12, -0.3], [1.0, -1.0]], np.float32)
    np.testing.assert_array_equal(task.from_env(action), action)
    assert task.from_env(action.astype(np.float64)).dtype == np.float32


def test_records_survive_json() -> None:
    assert Task.from_json({**TASK.to_json(), "action_low": [-2.0, 0.1], "action_high": [2.0, 0.3]}) == TASK
    spec = Spec((3,), 2, "uint8", True, (4,))
    assert Spec.from_json({**spec.to_json(), "obs_shape": [3], "stack": [4]}) == spec
    record = Spec((3,), 2).to_json()
    del record["stack"]
    assert Spec.from_json(record) == Spec((3,), 2)


def test_shapes_of_several_seeds() -> None:
    spec = Spec((3,), 2).stacked(5)
    assert spec == Spec((3,), 2, stack=(5,))
    assert spec.row(7) == (5, 1, 7) and Spec((3,), 2).row(7) == (7,)
    assert spec.obs_dim == 3
    with pytest.raises(ValueError, match="no single dimension"):
        _ = Spec((3, 64, 64), 2).obs_dim
