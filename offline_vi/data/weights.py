"""Which episodes count, and how much.

Most of a data set may not be worth imitating. A rule gives every row a weight, and `Transitions.with_weights` keeps the
weights with the rows: whatever draws batches from these rows then draws each in proportion to its weight. No algorithm
and no model knows of it.

- `Best`: the best episodes by return, until they hold a share of the rows ("%BC": Chen et al. 2021, Decision
  Transformer, section 5.1).
- `Returns` and `Advantages`: every row in proportion to exp(x / alpha) of its episode, x its return, or its return
  above a linear prediction from its first observation, scaled to [0, 1] over the data ("RW" and "AW" of Hong et al.
  2023, Harnessing Mixed Offline RL Datasets via Trajectory Weighting; Improbable-AI/harness-offline-rl,
  d3rlpy_impls/weighted.py, commit f88e2107, which leaves returns as they are and shifts the weights of RW so that the
  worst episode has none).

`agreeing_share` says how many of the best episodes are of one kind.

Rewards of all rules are those of the rows, summed without a discount. Weights have the mean 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError

Weights = NDArray[np.float64]
Rule = Callable[[Transitions], Weights]
"""(R,) weights of the rows; anything that computes them."""


@dataclass(frozen=True)
class Best:
    """The best episodes by return, alike; the others not at all."""

    share: float = 0.25  # of the rows: episodes are taken until they hold at least so many

    def __call__(self, data: Transitions) -> Weights:
        """(R,) 0 or 1 / share. Raises ConfigError where the share is not in (0, 1]."""
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(f"the best {self.share} of the rows", "a share above 0, at most 1")
        returns, lengths = data.episode_returns(), _lengths(data)
        order = np.argsort(-returns, kind="stable")
        rows = np.cumsum(lengths[order])
        count = int(np.searchsorted(rows, self.share * len(data))) + 1
        chosen = np.zeros(len(lengths))
        chosen[order[:count]] = 1.0
        return _of_rows(chosen, lengths)


@dataclass(frozen=True)
class Returns:
    """exp(G / alpha), G the episode's return scaled to [0, 1]."""

    alpha: float = 0.1  # alpha of the paper: the smaller, the more the best episodes count

    def __call__(self, data: Transitions) -> Weights:
        """(R,). Raises ConfigError where alpha is not positive."""
        return _softmax(data.episode_returns(), self.alpha, _lengths(data))


@dataclass(frozen=True)
class Advantages:
    """exp(A / alpha), A = G - (w . s_0 + b) scaled to [0, 1], w and b by least squares over the episodes."""

    alpha: float = 0.1  # alpha of the paper

    def __call__(self, data: Transitions) -> Weights:
        """(R,). Raises ConfigError where alpha is not positive."""
        returns = data.episode_returns()
        first = data.obs[[rows.start for rows in data.episode_slices()]].reshape(len(returns), -1).astype(np.float64)
        inputs = np.column_stack([first - first.mean(0), np.ones(len(returns))])
        prediction = inputs @ np.linalg.lstsq(inputs, returns, rcond=None)[0]
        return _softmax(returns - prediction, self.alpha, _lengths(data))


def agreeing_share(data: Transitions, tolerance: float = 0.04, least: float = 0.1) -> float:
    """The largest share of the rows, ``least`` or more, whose best episodes agree: the standard deviation of their
    returns is at most ``tolerance`` times their mean's magnitude, and below a quarter of the rows less in proportion.
    0 where none do. One episode agrees only where there are no others.

    Episodes that agree are the work of one policy that does what it can; there is little to choose among their steps.
    The best few of any returns are close to each other. If returns are spread evenly between 0 and the largest, the
    best share s has a standard deviation of about 0.29 s times the largest: more than 0.16 s, the default's limit.
    """
    returns, lengths = data.episode_returns(), _lengths(data)
    order = np.argsort(-returns, kind="stable")
    share = np.cumsum(lengths[order]) / len(data)
    share[-1] = 1.0
    best, count = returns[order] - returns.max(), np.arange(1, len(returns) + 1)  # shifted: sums of squares stay exact
    mean = np.cumsum(best) / count
    spread = np.sqrt(np.maximum(np.cumsum(best**2) / count - mean**2, 0.0))
    close = spread <= tolerance * np.minimum(share / 0.25, 1.0) * np.abs(mean + returns.max())
    agree = (share >= least) & (count >= min(2, len(returns))) & close
    return float(share[agree].max()) if agree.any() else 0.0


def weighted(data: Transitions, rule: Rule) -> Transitions:
    """The same rows, each drawn in proportion to the weight that a rule gives it; the rule is kept in ``source``.

    Raises what the rule raises, and ConfigError where its weights are negative, not finite, all 0 or too few.
    """
    settings: Any = rule
    record = asdict(settings) if is_dataclass(type(rule)) else {}
    name = rule.__name__ if isinstance(rule, FunctionType) else type(rule).__name__.lower()
    return data.with_weights(rule(data), {"rule": name, **record})


def effective_rows(weights: Weights) -> float:
    """(sum w)^2 / sum w^2: as many rows of equal weight are worth as much."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def _lengths(data: Transitions) -> NDArray[np.int64]:
    return np.array([rows.stop - rows.start for rows in data.episode_slices()])


def _of_rows(of_episodes: Weights, lengths: NDArray[np.int64]) -> Weights:
    rows = np.repeat(of_episodes, lengths)
    return np.asarray(rows / rows.mean())


def _softmax(of_episodes: Weights, alpha: float, lengths: NDArray[np.int64]) -> Weights:
    if not alpha > 0.0:
        raise ConfigError(f"alpha is {alpha}", "a positive temperature")
    span = np.ptp(of_episodes)
    scaled = (of_episodes - of_episodes.min()) / span if span > 0.0 else np.zeros(len(of_episodes))
    return _of_rows(np.exp((scaled - scaled.max()) / alpha), lengths)
