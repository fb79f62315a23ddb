"""Off-policy evaluation against closed forms, against a loop, and against what checkpoints truly score."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from offline_vi import datasets
from offline_vi.algorithms.iql import IQL, IQLConfig
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.behavior import GaussianBehavior
from offline_vi.data.transitions import Transitions
from offline_vi.distributions.squashed import TanhNormal
from offline_vi.errors import CapabilityError, UsageError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.evaluation.off_policy import FQEConfig, fitted_q, importance_weighted
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.policies import NoisyPolicy
from offline_vi.training.loop import fit
from offline_vi.types import Spec

DISCOUNT = 0.9


class Law:
    """A policy with one law for all states: tanh(N(loc, scale^2))."""

    def __init__(self, loc: float, scale: float = 0.5) -> None:
        self.law = TanhNormal(torch.tensor([loc]), torch.tensor([scale]).log())

    def act(self, obs: Tensor) -> Tensor:
        return self.law.sample((len(obs),))

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.law.log_prob(action)

    @property
    def mean(self) -> float:
        """E[a], by quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        loc, scale = float(self.law.base.loc), float(self.law.base.log_scale.exp())
        return float((weights * np.tanh(loc + scale * nodes)).sum() / np.sqrt(2 * np.pi))


def walk(behavior: Law, episodes: int, length: int, terminates: bool = True) -> Transitions:
    """Episodes of ``length`` steps whose reward is the action and whose observation is the step: the value of a law is
    sum_t gamma^t E[a]."""
    rows = episodes * length
    step = np.tile(np.arange(length, dtype=np.float32), episodes)
    obs = (step[:, None] / length).astype(np.float32)
    action = behavior.act(torch.zeros(rows, 1)).numpy()
    last = step == length - 1
    return Transitions(
        obs=obs,
        action=action,
        reward=action[:, 0],
        next_obs=(obs + 1 / length).astype(np.float32),
        terminated=last & terminates,
        episode_end=last,
        spec=Spec((1,), 1),
        behavior_log_prob=behavior.log_prob(torch.zeros(rows, 1), torch.from_numpy(action)).numpy(),
    )


def test_both_importance_estimates_find_the_value_of_another_policy() -> None:
    ours = Law(0.2)
    data = walk(Law(0.0), 20_000, 4)
    truth = ours.mean * sum(DISCOUNT**t for t in range(4))
    found = importance_weighted(ours, data, discount=DISCOUNT)
    assert abs(found.per_decision.value - truth) < 4 * found.per_decision.standard_error
    assert found.per_decision.standard_error < 0.02
    assert found.self_normalized == pytest.approx(truth, abs=0.06)
    # log w ~ N: E[w]^2 / E[w^2] = exp(-length (shift / scale)^2)
    assert found.effective_sample_size / found.episodes == pytest.approx(np.exp(-4 * (0.2 / 0.5) ** 2), rel=0.2)
    assert "effective episodes" in str(found)
    assert (np.diff(found.effective) < 0).all()


def test_the_estimates_are_those_of_a_loop_also_where_episodes_end_early() -> None:
    rng = np.random.default_rng(0)
    data = walk(Law(0.0), 6, 5)
    ends = data.episode_end.copy()
    ends[[2, 11]] = True  # two episodes of 3 + 2, 2 + 3 rows
    data = replace(data, episode_end=ends, reward=rng.normal(size=30).astype(np.float32))
    ours = Law(0.3)
    found = importance_weighted(ours, data, discount=DISCOUNT)
    ratio = ours.log_prob(torch.zeros(30, 1), torch.from_numpy(data.action)).double().numpy()
    ratio = np.exp(ratio - data.behavior_log_prob)
    histories: list[list[tuple[float, float]]] = [[]]
    for row in range(30):
        before = histories[-1][-1][0] if histories[-1] else 1.0
        histories[-1].append((before * ratio[row], float(data.reward[row])))
        if ends[row]:
            histories.append([])
    histories.pop()
    plain = [sum(DISCOUNT**t * w * r for t, (w, r) in enumerate(history)) for history in histories]
    assert found.episodes == len(histories) == 8
    assert found.per_decision.value == pytest.approx(np.mean(plain), rel=1e-5)
    normalized = 0.0
    for t in range(5):
        weights = [history[min(t, len(history) - 1)][0] for history in histories]
        earned = [history[t][1] if t < len(history) else 0.0 for history in histories]
        normalized += DISCOUNT**t * float(np.dot(weights, earned)) / sum(weights)
    assert found.self_normalized == pytest.approx(normalized, rel=1e-5)


def test_the_behaviour_itself_has_all_episodes_and_the_mean_return() -> None:
    behavior = Law(0.1)
    data = walk(behavior, 50, 4)
    found = importance_weighted(behavior, data, discount=1.0)
    returns = data.reward.reshape(50, 4).sum(1)
    assert found.per_decision.value == pytest.approx(returns.mean(), abs=1e-5)
    assert found.self_normalized == pytest.approx(returns.mean(), abs=1e-5)
    assert found.effective_sample_size == pytest.approx(50.0)


def test_a_fitted_density_serves_where_the_data_hold_none() -> None:
    data = replace(walk(Law(0.0), 50, 4), behavior_log_prob=None)
    with pytest.raises(UsageError, match="density of their actions"):
        importance_weighted(Law(0.1), data)
    model = GaussianBehavior(data.spec)
    assert importance_weighted(Law(0.1), data, model).episodes == 50


def test_a_policy_without_a_density_is_refused_unless_it_is_blurred() -> None:
    data = walk(Law(0.0), 20, 3)
    policy = TD3BC(data.spec, config=TD3BCConfig(hidden=(8,)))
    with pytest.raises(CapabilityError, match="TD3BC has none"):
        importance_weighted(policy, data)
    blurred = NoisyPolicy(policy, 0.5)
    assert importance_weighted(blurred, data).episodes == 20
    obs, action = torch.from_numpy(data.obs), blurred.act(torch.from_numpy(data.obs))
    grid = torch.linspace(-0.9999, 0.9999, 4001)[:, None, None].expand(-1, len(obs), 1)
    density = torch.stack([blurred.log_prob(obs, one) for one in grid]).exp()
    np.testing.assert_allclose(torch.trapezoid(density, grid[:, 0, 0], dim=0), 1.0, atol=2e-3)
    assert action.abs().max() <= 1.0


@pytest.mark.parametrize("terminates", [True, False])
def test_fitted_q_finds_the_value_of_another_policy(terminates: bool) -> None:
    """Where episodes end by time, the last row bootstraps: the walk goes on beyond the data's observations at the same
    mean reward, and its value is that of an endless one only as far as the network extrapolates: not tested there
    beyond its being larger."""
    data = walk(Law(0.0), 400, 4, terminates)
    ours = Law(0.6)
    found = fitted_q(ours, data, FQEConfig(steps=1_500, discount=DISCOUNT, tau=0.05, hidden=(32, 32)))
    truth = ours.mean * sum(DISCOUNT**t for t in range(4))
    if terminates:
        assert found.value == pytest.approx(truth, abs=0.1)
        assert abs(found.value) > 3 * abs(data.reward.mean())
    else:
        assert found.value > truth


def test_fitted_q_leaves_the_policy_and_the_random_state_as_they_were() -> None:
    data = walk(Law(0.0), 20, 3)
    policy = TD3BC(data.spec, config=TD3BCConfig(hidden=(8,)))
    before, state = policy.snapshot(), torch.get_rng_state()
    config = FQEConfig(steps=20, hidden=(8,))
    first, again = fitted_q(policy, data, config), fitted_q(policy, data, config)
    assert first == again
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.snapshot().items())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fitted_q_ranks_checkpoints_as_their_true_scores_do() -> None:
    """Eight checkpoints from worthless to good on the pendulum: Spearman's rank correlation of at least 0.6."""
    data = datasets.load("offline-vi/pendulum/mixed-v0")
    assert data.task is not None
    checkpoints: list[Algorithm] = []
    marks: dict[type[Algorithm], tuple[int, ...]] = {IQL: (50, 2000, 6000), TD3BC: (50, 300, 1000, 3000, 6000)}
    for made, steps in ((IQL(data.spec, config=IQLConfig(hidden=(64, 64))), marks[IQL]),
                        (TD3BC(data.spec, config=TD3BCConfig(hidden=(64, 64))), marks[TD3BC])):  # fmt: skip

        def keep(step: int, algorithm: Algorithm, steps: tuple[int, ...] = steps) -> dict[str, float]:
            if step in steps:
                checkpoints.append(copy.deepcopy(algorithm))
            return {}

        fit(made, data, max(steps), eval_every=50, on_eval=keep, progress=False)
    assert len(checkpoints) == 8
    truth = [evaluate(policy, data.task, 30, seed=100).mean for policy in checkpoints]
    config = FQEConfig(steps=4_000, tau=0.05, hidden=(64, 64))
    believed = [fitted_q(policy, data, config).value for policy in checkpoints]
    assert max(truth) - min(truth) > 50.0
    assert stats.spearmanr(truth, believed).statistic >= 0.6
