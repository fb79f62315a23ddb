"""Returns along trajectories against the recursion, row by row."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from offline_vi.rl.returns import lambda_returns

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]


def by_hand(reward: Array, value: Array, terminated: Flags, episode_end: Flags, gamma: float, lam: float) -> Array:
    found = np.zeros(len(reward))
    for row in reversed(range(len(reward))):
        last = episode_end[row] or row == len(reward) - 1
        after = value[row] if last else (1 - lam) * value[row] + lam * found[row + 1]
        found[row] = reward[row] + (0.0 if terminated[row] else gamma * after)
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.floats(0, 1), st.floats(0.5, 1), st.integers(0, 2**32 - 1))
def test_every_row_follows_the_recursion(rows: int, lam: float, gamma: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=rows).astype(np.float32)
    value = rng.normal(size=(2, rows))
    terminated = rng.random(rows) < 0.15
    episode_end = terminated | (rng.random(rows) < 0.15)
    found = lambda_returns(reward, value, terminated, episode_end, gamma, lam)
    for mine, of_network in zip(found, value, strict=True):
        np.testing.assert_allclose(
            mine, by_hand(reward, of_network, terminated, episode_end, gamma, lam), rtol=1e-10, atol=1e-12
        )


def test_a_time_limit_is_bootstrapped_and_an_end_is_not() -> None:
    reward = np.array([1.0, 2.0, 3.0], np.float32)
    value = np.array([10.0, 20.0, 30.0])
    ended = lambda_returns(reward, value, np.array([0, 0, 1], bool), np.array([0, 0, 1], bool), 0.5, 1.0)
    np.testing.assert_allclose(ended, [2.75, 3.5, 3.0])  # 3; 2 + 3 / 2; 1 + 3.5 / 2
    cut = lambda_returns(reward, value, np.zeros(3, bool), np.array([0, 0, 1], bool), 0.5, 1.0)
    np.testing.assert_allclose(cut, [6.5, 11.0, 18.0])  # 3 + 30 / 2; 2 + 18 / 2; 1 + 11 / 2
