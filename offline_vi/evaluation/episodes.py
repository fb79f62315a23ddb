"""Whole episodes: data whose states know the time, for the return of an episode that ends where the data end it.

Fitted Q evaluation of plain rows lets an episode that was cut by time go on. It therefore estimates a discounted return
that no episode of the data shows. With the step t as a part of the state, the end is a state like any other, and
Q^pi(s, t, a) is the return from step t to the end,

    Q(s_t, t, a_t) = r_t + [t is not the last step] Q(s_{t+1}, t + 1, pi(s_{t+1})),

which needs no discount. Its mean at t = 0 is what `evaluate` measures, if the episodes of the data are as long as those
of the environment. The policy does not see the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.data.transitions import Transitions
from offline_vi.rl.policies import Policy
from offline_vi.types import FloatArray


@dataclass(frozen=True)
class WithoutTime:
    """A policy in the states of `whole_episodes`: it is shown all of them but the time."""

    policy: Policy

    def act(self, obs: Tensor) -> Tensor:
        """(B, O + 1) -> (B, A)."""
        return self.policy.act(obs[..., :-1])


def whole_episodes(data: Transitions) -> Transitions:
    """The rows with the step of their episode as the last number of the observation, each episode ending at its last
    row. The reward of a last step that is in no row (`Transitions.cut_off`) is added to that of the row before it."""
    step = np.concatenate([np.arange(rows.stop - rows.start) for rows in data.episode_slices()])
    reward = data.reward
    if data.cut_off is not None:
        reward = reward + np.nan_to_num(data.cut_off)
    return replace(
        data,
        obs=_with_time(data.obs, step),
        next_obs=_with_time(data.next_obs, step + 1),
        reward=reward,
        cut_off=None,
        terminated=data.episode_end,
        spec=replace(data.spec, obs_shape=(data.spec.obs_dim + 1,)),
    )


def _with_time(obs: FloatArray, step: NDArray[np.int64]) -> FloatArray:
    return np.concatenate([obs, step[:, None]], 1, dtype=np.float32)
