"""Control as inference in NumPy float64: fixed points by iteration, posteriors by enumeration, integrals by quadrature.

Never imports the library or torch.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import mpmath
import numpy as np
from numpy.typing import NDArray
from scipy import integrate

Array = NDArray[np.float64]


class Optimum(NamedTuple):
    """Of a tabular problem with an entropy bonus."""

    q: Array  # (S, A)
    pi: Array  # (S, A)
    v: Array  # (S,)


def soft_value_iteration(transition: Array, reward: Array, discount: float, alpha: float) -> Optimum:
    """V(s) = alpha log sum_a exp(Q(s, a) / alpha), Q = R + gamma P V; P (S, A, S), R (S, A)."""
    value = np.zeros(len(reward))
    for _ in range(20_000):
        q = reward + discount * transition @ value
        top = q.max(1)
        following = top + alpha * np.log(np.exp((q - top[:, None]) / alpha).sum(1))
        if np.abs(following - value).max() < 1e-13:
            break
        value = following
    return Optimum(q, np.exp((q - value[:, None]) / alpha), value)


def kl(p: Array, q: Array) -> float:
    """Largest KL(p || q) over the rows of (S, A) tables."""
    return float((p * np.log(p / q)).sum(1).max())


def trajectory_posterior(following: NDArray[np.int64], reward: Array, alpha: float, horizon: int) -> Array:
    """p(a_t | s_t, O_t..O_T) of a deterministic problem with uniform actions, (T, S, A): every sequence of actions from
    every state is a trajectory whose probability of being optimal is exp(sum of rewards / alpha)."""
    states, actions = reward.shape
    weight = np.zeros((horizon, states, actions))
    for start in range(horizon):
        for state in range(states):
            for sequence in product(range(actions), repeat=horizon - start):
                place, total = state, 0.0
                for action in sequence:
                    total += reward[place, action]
                    place = int(following[place, action])
                weight[start, state, sequence[0]] += np.exp(total / alpha)
    return np.asarray(weight / weight.sum(-1, keepdims=True))


def gamble(win: float, safe: float, alpha: float) -> tuple[float, float, float]:
    """+-win with equal chances, or ``safe``: the posterior probability of having gambled given optimality, alpha log
    E exp(r / alpha) of the gamble, and the probability under the policy that cannot choose its luck."""
    optimal = 0.5 * (np.exp(win / alpha) + np.exp(-win / alpha))
    return (
        float(optimal / (optimal + np.exp(safe / alpha))),
        float(alpha * np.log(optimal)),
        float(1.0 / (1.0 + np.exp(safe / alpha))),
    )


def quadratic(curvature: float, alpha: float) -> tuple[float, float, float]:
    """Q = -c (a - m)^2 / 2 on the line under Lebesgue measure: the posterior's standard deviation, the log-partition in
    nats, and V = alpha times it."""
    log_partition = 0.5 * np.log(2.0 * np.pi * alpha / curvature)
    return float(np.sqrt(alpha / curvature)), float(log_partition), float(alpha * log_partition)


def temperature_at(entropy: float, curvature: float) -> float:
    """The alpha at which that posterior has the entropy: H = log(2 pi e alpha / c) / 2."""
    return float(curvature * np.exp(2.0 * entropy) / (2.0 * np.pi * np.e))


def boxed(curvature: float, centre: float, alpha: float) -> tuple[float, float, float]:
    """Q = -c (a - m)^2 / 2 on [-1, 1]: alpha log of the integral of exp(Q / alpha), and the posterior's mean and
    standard deviation, by quadrature."""

    def moment(power: int) -> float:
        return float(
            integrate.quad(
                lambda a: a**power * np.exp(-0.5 * curvature * (a - centre) ** 2 / alpha), -1.0, 1.0, epsabs=1e-12
            )[0]
        )

    total = moment(0)
    mean = moment(1) / total
    return float(alpha * np.log(total)), mean, float(np.sqrt(moment(2) / total - mean**2))


def tanh_normal_log_prob(u: float, loc: float, scale: float) -> float:
    """log-density of a = tanh(u), u ~ N(loc, scale^2), with 60 digits."""
    with mpmath.workdps(60):
        x = mpmath.mpf(u)
        normal = -(((x - loc) / scale) ** 2) / 2 - mpmath.log(scale) - mpmath.log(2 * mpmath.pi) / 2
        return float(normal - mpmath.log(1 - mpmath.tanh(x) ** 2))


def behavior_soft_value(probability: Array, reward: Array, alpha: float) -> float:
    """alpha log E_{pi_beta} exp(r / alpha)."""
    top = reward.max()
    return float(top + alpha * np.log((probability * np.exp((reward - top) / alpha)).sum()))


def tilted_normal(slope: float, scale: float, divergence: float) -> tuple[float, float]:
    """pi_beta = N(0, s^2), Q = c a: pi ~ pi_beta exp(Q / alpha) is N(c s^2 / alpha, s^2), so KL = (c s / alpha)^2 / 2.
    The alpha at which it is ``divergence``, and pi's mean."""
    alpha = slope * scale / np.sqrt(2.0 * divergence)
    return float(alpha), float(slope * scale**2 / alpha)
