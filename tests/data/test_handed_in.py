"""Odd but honest ways to hand in data: tensors, masked arrays, lists of dictionaries, names that are numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offline_vi.data import Transitions
from offline_vi.errors import DatasetFormatError, NonFiniteDataError, UsageError

OBS = np.arange(12.0).reshape(6, 2)
ACTION = np.linspace(5.5, 95.5, 6)
LOG: dict[str, Any] = {"obs": OBS, "action": ACTION, "reward": np.arange(6.0), "terminated": None, "episode": [0] * 6}
BOUNDS: dict[str, Any] = {"action_low": 0.0, "action_high": 100.0}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_tensors_are_arrays(dtype: torch.dtype) -> None:
    tensors = {
        "obs": torch.tensor(OBS, dtype=dtype, requires_grad=True),
        "action": torch.tensor(ACTION, dtype=dtype),
        "episode": torch.zeros(6, 1),
    }
    bounds: dict[str, Any] = {name: torch.tensor([value]) for name, value in BOUNDS.items()}
    found = Transitions.from_arrays(**{**LOG, **tensors}, **bounds)
    np.testing.assert_array_equal(found.obs, OBS[:5])
    np.testing.assert_allclose(found.action[:, 0], tensors["action"][:5].double().numpy() / 50.0 - 1.0, atol=1e-6)


@pytest.mark.parametrize("field", ["obs", "action", "reward"])
def test_masked_entries_are_missing(field: str) -> None:
    masked = np.ma.masked_array(LOG[field], np.arange(np.size(LOG[field])).reshape(np.shape(LOG[field])) == 3)
    with pytest.raises(NonFiniteDataError):
        Transitions.from_arrays(**{**LOG, field: masked}, **BOUNDS)
    arrays = {"observations": OBS, "actions": ACTION[:, None] / 100, "rewards": LOG["reward"], "terminals": np.zeros(6)}
    key = {"obs": "observations", "action": "actions", "reward": "rewards"}[field]
    with pytest.raises(NonFiniteDataError):
        Transitions.from_d4rl({**arrays, key: masked.reshape(arrays[key].shape)}, max_episode_steps=6)


def test_a_list_of_dictionaries_is_a_dictionary_of_lists() -> None:
    rows = [{"observation": row, "desired_goal": [7.0]} for row in OBS]
    found = Transitions.from_arrays(**{**LOG, "obs": rows}, **BOUNDS)
    np.testing.assert_array_equal(found.obs, np.concatenate([OBS, np.full((6, 1), 7.0)], 1)[:5])
    with pytest.raises(DatasetFormatError):
        Transitions.from_arrays(**{**LOG, "obs": [*rows[:5], {"observation": OBS[0]}]}, **BOUNDS)


def test_columns_of_a_frame_are_named_by_text() -> None:
    frame = {"x": OBS[:, 0], "u": ACTION, "r": LOG["reward"], "e": np.zeros(6)}
    found = Transitions.from_frame(frame, obs="x", action="u", reward="r", terminated=None, episode="e", **BOUNDS)
    np.testing.assert_array_equal(found.obs[:, 0], OBS[:5, 0])
    numbered: Any = dict(enumerate([np.zeros(6), *frame.values()]))
    names: dict[str, Any] = {"obs": [1], "action": 2, "reward": 3, "terminated": 0, "episode": 4}
    with pytest.raises(UsageError):
        Transitions.from_frame(numbered, **names)
    names = {"obs": "x", "action": "u", "reward": "r", "terminated": 0, "episode": "e"}
    with pytest.raises(UsageError):
        Transitions.from_frame(frame, **names)


def test_times_in_nanoseconds_keep_their_order() -> None:
    time = [str(1_700_000_000_000_000_000 + row) for row in range(6)]
    with pytest.warns(UserWarning):
        found = Transitions.from_arrays(
            **{**LOG, "obs": OBS[::-1], "action": ACTION[::-1], "reward": np.arange(6.0)[::-1]},
            time=time[::-1],
            **BOUNDS,
        )
    np.testing.assert_array_equal(found.obs, OBS[:5])


def test_other_values_of_a_flag_are_shown_with_their_row() -> None:
    with pytest.raises(DatasetFormatError, match=r"nan in row 2"):
        Transitions.from_arrays(**{**LOG, "terminated": [0, 0, np.nan, 0, 0, 0]}, **BOUNDS)


def test_rows_that_are_left_out_are_counted() -> None:
    with pytest.warns(UserWarning, match=r"3 episodes cut .* 1 episode of one row"):
        found = Transitions.from_arrays(**{**LOG, "episode": [0, 0, 1, 2, 2, 2]}, **BOUNDS)
    np.testing.assert_array_equal(found.reward, [0.0, 3.0, 4.0])
    assert found.observed_returns().tolist() == [1.0, 12.0]
