"""lambda-returns by their recursion and an ensemble of value networks, in NumPy float64, never importing the library.

Sutton and Barto 2018, chapter 12; LayerNorm after each ReLU (Ball et al. 2023).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Layer = tuple[Array, Array]  # W (K, in, out), b (K, 1, out)
Norm = tuple[Array, Array]  # gain and shift (K, 1, H)


def values(layers: list[Layer], norms: list[Norm], standardized: Array) -> Array:
    """(K, R) of K networks side by side, of observations (R, O)."""
    x = np.broadcast_to(standardized, (len(layers[0][0]), *standardized.shape))
    for (weight, bias), (gain, shift) in zip(layers[:-1], norms, strict=True):
        x = np.maximum(x @ weight + bias, 0.0)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * gain + shift
    weight, bias = layers[-1]
    return np.asarray((x @ weight + bias)[..., 0])


def recursion(reward: Array, after: Array, terminated: Flags, episode_end: Flags, gamma: float, lam: float) -> Array:
    """(R,) of rewards and the values of the next observations; the last row of an episode that was cut bootstraps."""
    found = np.zeros(len(reward))
    for row in reversed(range(len(reward))):
        last = episode_end[row] or row == len(reward) - 1
        beyond = after[row] if last else (1.0 - lam) * after[row] + lam * found[row + 1]
        found[row] = reward[row] + (0.0 if terminated[row] else gamma * beyond)
    return found
