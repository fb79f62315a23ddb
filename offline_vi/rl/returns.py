"""Returns along the data's own trajectories: there at once, where temporal differences would have to carry a value
back step by step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline_vi.types import BoolArray, FloatArray

Values = NDArray[np.float64]


def lambda_returns(
    reward: FloatArray | Values,
    next_value: Values,
    terminated: BoolArray,
    episode_end: BoolArray,
    discount: float,
    lam: float,
) -> Values:
    """G_t = r_t + gamma (1 - terminated_t) ((1 - lambda) V(s_{t+1}) + lambda G_{t+1}), (..., R) of rewards (R,), the
    values (..., R) of the next observations, and flags (R,).

    The last row of an episode bootstraps from V(s_{t+1}) alone, so that a time limit is not an end. lambda = 0 is the
    target of TD(0), lambda = 1 the discounted return (Sutton and Barto 2018, chapter 12). Rewards are those of the
    rows, in the order of collection.
    """
    ends = np.flatnonzero(episode_end) + 1
    if len(ends) == 0 or ends[-1] != len(reward):
        ends = np.append(ends, len(reward))
    lengths = np.diff(ends, prepend=0)
    longest_first = np.argsort(-lengths, kind="stable")
    ends, lengths = ends[longest_first], lengths[longest_first]
    keep = discount * ~terminated
    returns = reward + keep * next_value  # right for the last rows; the others are overwritten, from the last back
    for distance in range(1, int(lengths[0])):  # of all episodes that are longer, at once
        row = ends[: np.searchsorted(-lengths, -distance)] - 1 - distance
        after = (1.0 - lam) * next_value[..., row] + lam * returns[..., row + 1]
        returns[..., row] = reward[row] + keep[row] * after
    return returns
