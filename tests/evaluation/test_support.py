"""Where a policy leaves the data, against cases worked out by hand; and a guard that does not let it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from offline_vi.behavior.base import DensityModel
from offline_vi.errors import ConfigError
from offline_vi.evaluation.evaluate import Evaluation
from offline_vi.evaluation.support import Support, log_probs, measure_support, overestimation_report, support_report
from offline_vi.rl.policies import GuardedPolicy
from offline_vi.types import Metrics, Spec

SPEC = Spec((1,), 1)


class Normal(DensityModel):
    """a ~ N(s, 0.1^2), whatever the box."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SPEC

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        raise NotImplementedError

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return obs + 0.1 * torch.randn(num_samples, *obs.shape)

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        error = (action - obs)[..., 0] / 0.1
        return -0.5 * error.square() - float(np.log(0.1 * np.sqrt(2.0 * np.pi)))


class Shift:
    """a = s + shift where s > 0, else s."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def act(self, obs: Tensor) -> Tensor:
        return obs + self.shift * (obs > 0.0)

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return action[..., 0]


def rows(count: int = 4_000) -> tuple[Tensor, Tensor]:
    obs = torch.rand(count, 1) * 2.0 - 1.0
    return obs, Normal().sample(obs)[0]


def test_quantiles_are_those_of_a_chi_square() -> None:
    """-2 (log p - log p_max) is chi-square with one degree of freedom: its .99 quantile is 6.635, its median 0.455."""
    support = measure_support(Normal(), *rows(40_000))
    top = -np.log(0.1 * np.sqrt(2.0 * np.pi))
    assert support.threshold(0.01) == pytest.approx(top - 0.5 * 6.635, abs=0.1)
    assert support.threshold(0.5) == pytest.approx(top - 0.5 * 0.455, abs=0.01)
    assert Support.from_json(support.to_json()) == support
    with pytest.raises(ConfigError, match=r"0\.3"):
        support.threshold(0.3)


def test_report_counts_what_is_outside() -> None:
    obs, action = rows()
    report = support_report(Shift(0.5), Normal(), obs, action)  # half of the states, five standard deviations off
    assert report["support/outside"] == pytest.approx((obs > 0.0).float().mean().item())
    inside = support_report(Shift(0.0), Normal(), obs, action)
    assert inside["support/outside"] == 0.0
    assert inside["support/log_prob"] == pytest.approx(-np.log(0.1 * np.sqrt(2.0 * np.pi)), abs=1e-5)
    assert inside["support/data_log_prob"] == pytest.approx(inside["support/log_prob"] - 0.5, abs=0.05)


def test_measuring_leaves_the_random_state_alone() -> None:
    obs, action = rows(600)
    before = torch.get_rng_state()
    support_report(Shift(0.5), Normal(), obs, action)
    log_probs(Normal(), obs, action)
    assert torch.equal(torch.get_rng_state(), before)


def evaluation(discounted: list[float], actions: list[float], returns: list[float]) -> Evaluation:
    count = len(returns)
    return Evaluation(
        returns=np.array(returns),
        lengths=np.ones(count, np.int64),
        terminated=np.ones(count, bool),
        seeds=np.arange(count),
        normalized=np.array(returns),
        env_id="none",
        discounted=np.array(discounted),
        first_obs=np.zeros((count, 1), np.float32),
        first_action=np.array(actions, np.float32)[:, None],
    )


def test_overestimation_is_belief_minus_what_happened() -> None:
    report = overestimation_report(Shift(0.0), evaluation([1.0, 2.0, 9.0], [5.0, 6.0, 99.0], [1.0, 2.0, np.nan]))
    assert report == {"q/start": 5.5, "q/return": 1.5, "q/overestimation": 4.0}  # the failed episode is left out

    class NoCritic:
        def act(self, obs: Tensor) -> Tensor:
            return obs

    assert np.isnan(overestimation_report(NoCritic(), evaluation([1.0], [1.0], [1.0]))["q/start"])


def test_guard_replaces_what_is_outside_by_the_best_candidate_inside() -> None:
    obs, _ = rows(500)
    model, policy = Normal(), Shift(0.5)
    threshold = measure_support(model, *rows()).threshold(0.01)
    guarded = GuardedPolicy(policy, model, threshold, value=policy.q_value)
    action = guarded.act(obs)
    outside = (obs > 0.0)[:, 0]
    assert torch.equal(action[~outside], obs[~outside])
    assert (model.log_prob(obs, action) >= threshold).all()
    assert (action - obs)[outside].mean() > 0.15  # of 32 candidates in the support, the one of the highest value
    likeliest = GuardedPolicy(policy, model, threshold).act(obs)
    assert (likeliest - obs)[outside].abs().max() < 0.05
    assert (guarded.states, guarded.fallbacks) == (500, int(outside.sum()))
    assert guarded.share == pytest.approx(outside.float().mean().item())


def test_guard_with_no_candidate_inside_takes_the_likeliest() -> None:
    obs = torch.zeros(20, 1)
    guarded = GuardedPolicy(Shift(0.0), Normal(), 1e9, value=lambda s, a: a[..., 0])
    assert guarded.act(obs).abs().max() < 0.05
    assert guarded.fallbacks == 20


def test_guard_lets_everything_pass_at_minus_infinity() -> None:
    obs, _ = rows(100)
    guarded = GuardedPolicy(Shift(0.5), Normal(), -float("inf"))
    assert torch.equal(guarded.act(obs), Shift(0.5).act(obs))
    assert guarded.share == 0.0
