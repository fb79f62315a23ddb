"""Returns of whole episodes: rows by hand, and fitted Q evaluation against dynamic programming over the time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from offline_vi.data.transitions import Transitions
from offline_vi.evaluation.episodes import WithoutTime, whole_episodes
from offline_vi.evaluation.fitting_q import fitted_q_report
from offline_vi.evaluation.off_policy import FQEConfig

PLACES, STEPS, EPISODES = 5, 8, 400


def moved(place: np.ndarray, action: np.ndarray) -> np.ndarray:
    """A step to the right with a positive action, else to the left, within the places."""
    return np.asarray(np.clip(place + np.where(action > 0.0, 1, -1), 0, PLACES - 1))


def walks() -> Transitions:
    """Random walks, all of them cut after as many steps; a step earns the place where it began. What follows the last
    step is not recorded, so that it is in no row."""
    rng = np.random.default_rng(0)
    place, obs, action = rng.integers(0, PLACES, EPISODES), list[np.ndarray](), list[np.ndarray]()
    for _ in range(STEPS):
        obs.append(place)
        action.append(rng.uniform(-1.0, 1.0, EPISODES))
        place = moved(place, action[-1])
    places, actions = np.stack(obs, 1).reshape(-1), np.stack(action, 1).reshape(-1)
    with pytest.warns(UserWarning, match="cut"):
        return Transitions.from_arrays(
            obs=places[:, None].astype(np.float32),
            action=actions[:, None],
            reward=places.astype(np.float32),
            terminated=None,
            episode=np.repeat(np.arange(EPISODES), STEPS),
        )


class ToTheRight:
    """Goes to the right until the last place but one, and back from there."""

    def act(self, obs: Tensor) -> Tensor:
        assert obs.shape[-1] == 1  # it is not shown the time
        return torch.where(obs < PLACES - 2, 0.5, -0.5)


def test_an_undiscounted_estimate_is_that_of_dynamic_programming() -> None:
    data = walks()
    place = np.arange(PLACES)
    following = moved(place, np.where(place < PLACES - 2, 0.5, -0.5))
    value = np.zeros(PLACES)
    for _ in range(STEPS):
        value = place + value[following]
    first = data.obs[[rows.start for rows in data.episode_slices()], 0].astype(int)
    config = FQEConfig(steps=4_000, discount=1.0, tau=0.05, hidden=(64, 64))
    found = fitted_q_report(WithoutTime(ToTheRight()), whole_episodes(data), config, seeds=(0,))
    assert found.converged
    assert found.value == pytest.approx(value[first].mean(), abs=0.01 * value[first].mean())
    assert abs(found.value - data.observed_returns(1.0).mean()) > 0.1 * found.value  # the data earn something else


def test_rows_by_hand() -> None:
    data = Transitions.from_arrays(
        obs=[[1.0], [2.0], [3.0], [4.0]],
        next_obs=[[2.0], [9.0], [4.0], [8.0]],
        action=[[0.0]] * 4,
        reward=[1.0, 2.0, 3.0, 4.0],
        terminated=[False, False, False, True],
        episode=[0, 0, 1, 1],
    )
    found = whole_episodes(data)
    np.testing.assert_array_equal(found.obs, [[1, 0], [2, 1], [3, 0], [4, 1]])
    np.testing.assert_array_equal(found.next_obs, [[2, 1], [9, 2], [4, 1], [8, 2]])
    np.testing.assert_array_equal(found.terminated, [False, True, False, True])
    np.testing.assert_array_equal(found.reward, data.reward)
    assert found.spec.obs_dim == 2
    assert data.spec.obs_dim == 1


def test_the_reward_of_a_step_in_no_row_counts_once() -> None:
    data = walks()
    whole = whole_episodes(data)
    earned = [whole.reward[rows].sum() for rows in whole.episode_slices()]
    np.testing.assert_allclose(earned, data.observed_returns(1.0))
    np.testing.assert_allclose(whole.observed_returns(1.0), earned)
