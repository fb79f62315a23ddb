"""What people give to `evaluate` that is nearly right."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from offline_vi.environments import task_in
from offline_vi.errors import UsageError
from offline_vi.evaluation import evaluate
from offline_vi.factories import allow
from offline_vi.types import unit_task


class Percent(gymnasium.Env[Any, Any]):
    """The reward is the action, in percent; closing fails."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Box(0.0, 100.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(1), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1), action[0], False, False, {}

    def close(self) -> None:
        raise RuntimeError("the connection is gone")


class Arrays:
    """A policy that answers with NumPy's arrays."""

    def act(self, obs: torch.Tensor) -> Any:
        return np.full((len(obs), 1), 0.5)


def test_a_policy_may_answer_with_arrays_and_closing_may_fail() -> None:
    found = evaluate(Arrays(), Percent, 2, max_episode_steps=3)
    np.testing.assert_allclose(found.returns, 3 * 75.0)
    assert task_in(allow(Percent)).action_high == (100.0,)


@pytest.mark.parametrize("limit", [0, -1])
def test_an_episode_has_at_least_one_step(limit: int) -> None:
    with pytest.raises(UsageError):
        evaluate(Arrays(), Percent, 2, max_episode_steps=limit)


def test_an_environment_itself_makes_none() -> None:
    with pytest.raises(UsageError):
        evaluate(Arrays(), Percent(), 2, max_episode_steps=3)  # type: ignore[arg-type]


def test_a_task_without_an_environment_says_so() -> None:
    with pytest.raises(UsageError, match="no environment"):
        evaluate(Arrays(), unit_task(1), 2, max_episode_steps=3)
