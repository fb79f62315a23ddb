"""Which of several policies to deploy, when only so many episodes may be tried: a bandit, with off-policy estimates as
its prior. NumPy only.

Choosing the best of K trained policies by their scores needs rollouts that an offline setting does not have for free;
their number is a part of the result. The protocol is that of M. T. Jackson, U. Berdica, J. Liesen, S. Whiteson, J.
Foerster: A Clean Slate for Offline Reinforcement Learning, 2025 (github.com/EmptyJackson/unifloral): an
upper-confidence bandit tries one episode of one policy at a time, and after each the true mean of the policy that looks
best is reported. UCB1: P. Auer, N. Cesa-Bianchi, P. Fischer: Finite-time Analysis of the Multiarmed Bandit Problem,
2002.

Differences: returns have any scale, so that the exploration bonus is in units of their standard deviation so far; and
an off-policy estimate may stand for some first rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_vi.errors import UsageError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BanditConfig:
    """How much is explored, and how much an estimate is believed."""

    alpha: float = 2.0  # the bonus is s sqrt(alpha log t / (w + n_k))
    prior_rollouts: float = 1.0  # rollouts that an off-policy estimate is worth


class Bandit:
    """An upper-confidence bandit over K policies.

    ``prior`` (K,) are off-policy estimates in any unit: they say which policies look better than others, not how many
    points they score. Their standard scores z become returns by the mean c and the standard deviation s of all rollouts
    so far, and count as w rollouts of each policy:

        m_k = (w (c + s z_k) + sum of its returns) / (w + n_k)      index_k = m_k + s sqrt(alpha log t / (w + n_k))

    Without a prior w = 0, and every policy is tried once first.
    """

    def __init__(self, arms: int, prior: ArrayLike | None = None, config: BanditConfig | None = None) -> None:
        self.config = config or BanditConfig()
        self.weight = 0.0 if prior is None else self.config.prior_rollouts
        self.scores = np.zeros(arms) if prior is None else standard_scores(prior, arms)
        self.totals, self.counts = np.zeros(arms), np.zeros(arms)
        self.squares = 0.0  # sum of all squared returns

    def means(self) -> Array:
        """(K,) m_k; minus infinity for a policy of which nothing is known."""
        known = self.weight + self.counts
        total = self.weight * (self.center + self.spread * self.scores) + self.totals
        means: Array = np.divide(total, known, out=np.full(len(known), -np.inf), where=known > 0)
        return means

    def choose(self) -> int:
        """The policy to try next."""
        known, pulls = self.weight + self.counts, self.counts.sum()
        if (known == 0).any():
            return int(np.argmin(known))
        bonus = self.spread * np.sqrt(self.config.alpha * np.log(pulls + 1.0) / known)
        return self.highest(self.means() + bonus)

    def observe(self, arm: int, value: float) -> None:
        """An episode of that policy earned ``value``."""
        self.totals[arm] += value
        self.counts[arm] += 1
        self.squares += value**2

    @property
    def best(self) -> int:
        """The policy that looks best so far."""
        return self.highest(self.means())

    def highest(self, values: Array) -> int:
        """Where (K,) values are highest; of equals, the policy that the prior prefers."""
        return int(np.argmax(np.where(values >= values.max(), self.scores, -np.inf)))

    @property
    def center(self) -> float:
        """c: mean of all rollouts so far."""
        return float(self.totals.sum() / max(self.counts.sum(), 1.0))

    @property
    def spread(self) -> float:
        """s: standard deviation of all rollouts so far."""
        return float(np.sqrt(max(self.squares / max(self.counts.sum(), 1.0) - self.center**2, 0.0)))


def standard_scores(prior: ArrayLike, arms: int) -> Array:
    """(K,) estimates -> (K,) with mean 0 and standard deviation 1; zeros where all are alike. Raises UsageError."""
    values = np.asarray(prior, np.float64)
    if values.shape != (arms,) or not np.isfinite(values).all():
        raise UsageError(f"the prior is not one finite estimate for each of {arms} policies", "leave the prior out")
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros(arms)


class RegretCurve(NamedTuple):
    """What is lost by choosing after n rollouts, in units of the returns, mean over trials."""

    rollouts: NDArray[np.int64]  # (N,), 1, 2, ...
    regret: Array  # (N,)
    low: Array  # (N,), 95 % interval of the mean over trials
    high: Array  # (N,)


def regret_curve(
    returns: Sequence[ArrayLike],
    rollouts: int,
    *,
    prior: ArrayLike | None = None,
    config: BanditConfig | None = None,
    policies: int | None = None,
    repeats: int = 500,
    seed: int = 0,
) -> RegretCurve:
    """The mean of the best policy minus that of the one that looks best, after each of ``rollouts`` rollouts.

    ``returns`` are K arrays of episodes that are known of each policy: their means are taken for the truth, a rollout
    draws one of them. Each of ``repeats`` trials is over ``policies`` of the K, drawn without replacement; None: all.
    Raises UsageError where there are no returns, or fewer policies than are to be drawn.
    """
    known = [np.asarray(values, np.float64) for values in returns]
    if not known or any(values.ndim != 1 or not len(values) or not np.isfinite(values).all() for values in known):
        raise UsageError("a regret needs finite returns of each policy", "an array of episode returns per policy")
    count = len(known) if policies is None else policies
    if not 1 <= count <= len(known):
        raise UsageError(f"{count} of {len(known)} policies", "at most as many as there are")
    rng, truth = np.random.default_rng(seed), np.array([values.mean() for values in known])
    trials = np.empty((repeats, rollouts))
    for trial in trials:
        chosen = rng.permutation(len(known))[:count]
        drawn = np.stack([rng.choice(known[k], rollouts) for k in chosen])
        trial[:] = regrets(drawn, truth[chosen], None if prior is None else np.asarray(prior)[chosen], config)
    mean, error = trials.mean(0), trials.std(0) / np.sqrt(repeats)
    return RegretCurve(np.arange(1, rollouts + 1), mean, mean - 1.96 * error, mean + 1.96 * error)


def regrets(drawn: Array, truth: Array, prior: Array | None, config: BanditConfig | None) -> Array:
    """(N,) of one trial; ``drawn`` (K, N) holds what the n-th rollout of each policy earns, ``truth`` (K,) means."""
    bandit, found = Bandit(len(drawn), prior, config), np.empty(drawn.shape[1])
    for pull in range(len(found)):
        arm = bandit.choose()
        bandit.observe(arm, drawn[arm, int(bandit.counts[arm])])
        found[pull] = truth.max() - truth[bandit.best]
    return found
