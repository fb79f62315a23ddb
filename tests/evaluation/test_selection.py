"""The bandit that selects policies, against plain loops over lists."""

from __future__ import annotations

import math

import numpy as np
import pytest

from offline_vi.errors import UsageError
from offline_vi.evaluation.selection import Bandit, BanditConfig, regret_curve, regrets


def oracle(drawn: list[list[float]], prior: list[float] | None, alpha: float, weight: float) -> list[float]:
    """The regrets of one trial by the equations, everything anew at each step; truth is the mean of what may be
    drawn."""
    arms, budget = len(drawn), len(drawn[0])
    truth = [sum(row) / budget for row in drawn]
    w = weight if prior else 0.0
    z = [0.0] * arms
    if prior:
        mu = sum(prior) / arms
        sd = math.sqrt(sum((p - mu) ** 2 for p in prior) / arms)
        z = [(p - mu) / sd for p in prior]
    seen: list[list[float]] = [[] for _ in drawn]
    found = []

    def posterior() -> tuple[list[float], float]:
        everything = [value for row in seen for value in row]
        c = sum(everything) / len(everything)
        s = math.sqrt(sum((value - c) ** 2 for value in everything) / len(everything))
        m = [(w * (c + s * z[k]) + sum(seen[k])) / (w + len(seen[k])) if w or seen[k] else -1e300 for k in range(arms)]
        return m, s

    def top(values: list[float]) -> int:
        return max(range(arms), key=lambda k: (values[k], z[k], -k))

    for t in range(budget):
        untried = [k for k in range(arms) if not seen[k]]
        if not prior and untried:
            k = untried[0]
        elif t == 0:
            k = top([0.0] * arms)
        else:
            m, s = posterior()
            index = [m[k] + s * math.sqrt(alpha * math.log(t + 1) / (w + len(seen[k]))) for k in range(arms)]
            k = top(index)
        seen[k].append(drawn[k][len(seen[k])])
        m, _ = posterior()
        found.append(max(truth) - truth[top(m)])
    return found


@pytest.mark.parametrize("with_prior", [False, True])
@pytest.mark.parametrize(("alpha", "weight"), [(2.0, 1.0), (0.5, 3.0)])
def test_every_regret_is_that_of_the_equations(with_prior: bool, alpha: float, weight: float) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        drawn = rng.normal(rng.normal(50.0, 20.0, (5, 1)), 15.0, (5, 40))
        prior = drawn.mean(1) / 7.0 + rng.normal(0.0, 1.0, 5) if with_prior else None
        config = BanditConfig(alpha, weight)
        ours = regrets(drawn, drawn.mean(1), prior, config)
        expected = oracle(drawn.tolist(), None if prior is None else prior.tolist(), alpha, weight)
        np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_rollouts_find_the_best_and_a_good_prior_finds_it_sooner() -> None:
    rng = np.random.default_rng(0)
    means = np.array([20.0, 35.0, 50.0, 60.0, 70.0])
    returns = list(rng.normal(means[:, None], 25.0, (5, 100)))
    blind, told, lied = (regret_curve(returns, 60, prior=one, repeats=60) for one in (None, means, -means))
    assert blind.regret[-1] < 5.0 < blind.regret[0]
    assert told.regret[0] < 2.0 < blind.regret[4]
    assert lied.regret[-1] < 8.0 < lied.regret[0]  # rollouts outvote an estimate that is wrong
    assert (blind.low <= blind.regret).all() and (blind.regret <= blind.high).all()
    assert blind.rollouts.tolist() == list(range(1, 61))


def test_a_subset_of_the_policies_is_drawn() -> None:
    returns = [np.full(3, value) for value in (1.0, 2.0, 3.0)]
    assert regret_curve(returns, 3, policies=1, repeats=50).regret.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(UsageError):
        regret_curve(returns, 3, policies=4)
    with pytest.raises(UsageError):
        regret_curve([[1.0], []], 3)


def test_a_prior_alone_has_an_opinion() -> None:
    bandit = Bandit(3, [0.1, 0.3, 0.2])
    assert bandit.best == bandit.choose() == 1
    assert Bandit(2, [5.0, 5.0]).choose() == 0
    with pytest.raises(UsageError):
        Bandit(3, [1.0, 2.0])
    with pytest.raises(UsageError):
        Bandit(2, [1.0, np.nan])
