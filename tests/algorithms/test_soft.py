"""Soft optimality: every algorithm that bootstraps from alpha times the bound, against iteration, enumeration and
quadrature."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import oracle_soft as oracle
import pytest
import torch
from torch import Tensor, nn

from offline_vi.algorithms.sac import KLSAC, SAC, KLSACConfig, SACConfig
from offline_vi.algorithms.soft_q import DiscreteSAC, DiscreteSACConfig, SoftQ, SoftQConfig
from offline_vi.behavior import BehaviorModel, DensityModel, EveryAction, UniformBox
from offline_vi.datasets import environment
from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.distributions.squashed import TanhNormal
from offline_vi.errors import ConfigError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.inference.bounds import elbo
from offline_vi.inference.optimality import Optimality, flat, uniform, weight
from offline_vi.nn.optim import adam, gradient_step
from offline_vi.rl.equations import soft_value
from offline_vi.rl.policies import CandidatePolicy
from offline_vi.training.online import fit_online
from offline_vi.types import Batch, Metrics, Spec

Array = oracle.Array

# the problem of two states whose solution is known to six digits
P2 = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.05, 0.95]]])
R2 = np.array([[0.0, 0.5], [1.0, -0.2]])
DISCOUNT, ALPHA = 0.9, 0.5


def test_oracles() -> None:
    found = oracle.soft_value_iteration(P2, R2, DISCOUNT, ALPHA)
    np.testing.assert_allclose(found.q, [[7.539726, 8.235345], [8.595617, 7.577263]], atol=1e-6)
    np.testing.assert_allclose(found.pi, [[0.199210, 0.800790], [0.884598, 0.115402]], atol=1e-6)
    np.testing.assert_allclose(found.v, [8.346423, 8.656928], atol=1e-6)
    np.testing.assert_allclose(oracle.quadratic(2.0, 0.5), [0.5, 0.225791, 0.112896], atol=1e-6)
    assert oracle.temperature_at(-1.0, 2.0) == pytest.approx(0.015848, abs=1e-6)
    np.testing.assert_allclose(oracle.gamble(1.0, 0.3, 1.0), [0.5334, 0.4338, 0.4256], atol=5e-5)
    assert oracle.boxed(4.0, 0.3, 0.5)[0] == pytest.approx(-0.072525, abs=1e-6)


# ------------------------------------------------------------------ tables


class Table(nn.Module):
    """Two critics, a number for every one-hot state and action."""

    def __init__(self, states: int, actions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2, states, actions, dtype=torch.float64))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.einsum("esa,bs,...ba->e...b", self.table, obs, action)


def random_problem(seed: int, states: int = 10, actions: int = 4) -> tuple[Array, Array]:
    """P in multiples of 1 / 20, so that 20 rows stand for it exactly, and R."""
    rng = np.random.default_rng(seed)
    law = rng.dirichlet(np.full(states, 0.3), size=(states, actions))
    return rng.multinomial(20, law) / 20.0, rng.normal(size=(states, actions))


def every_transition(transition: Array, reward: Array) -> Batch:
    """20 rows for each state and action, each next state as often as is likely."""
    states, actions = reward.shape
    counts = np.rint(20.0 * transition).astype(int)
    rows = [
        (s, a, following)
        for s in range(states)
        for a in range(actions)
        for following in np.repeat(np.arange(states), counts[s, a])
    ]
    s, a, following = (torch.tensor(column) for column in zip(*rows, strict=True))
    state, action = torch.eye(states, dtype=torch.float64), torch.eye(actions, dtype=torch.float64)
    never = torch.zeros(len(rows), dtype=torch.float64)
    return Batch(state[s], action[a], torch.from_numpy(reward)[s, a], state[following], never, torch.arange(len(rows)))


def soft_q(spec: Spec, **settings: Any) -> Any:
    """Exact: every action is a candidate and weighs log A, which makes the mean a sum."""
    every = EveryAction(spec)
    config = SoftQConfig(num_candidates=spec.action_dim, num_acting_candidates=spec.action_dim, **settings)
    return SoftQ(spec, every, config, log_weight=weight(flat, every.log_prob)).double()


def discrete_sac(spec: Spec, **settings: Any) -> Any:
    return DiscreteSAC(spec, DiscreteSACConfig(**settings)).double()


def solve(algorithm: Any, batch: Batch, rates: list[float], steps: int) -> None:
    for rate in rates:
        for optimizer in (value for name, value in vars(algorithm).items() if name.endswith("_opt")):
            for group in optimizer.param_groups:
                group["lr"] = rate
        for _ in range(steps):
            algorithm.update(batch)


def greedy(algorithm: SoftQ) -> CandidatePolicy:
    """The best proposal, where the algorithm itself resamples them."""
    return replace(algorithm.policy(), temperature=0.0)


def check_solution(algorithm: Any, states: int, actions: int, expected: oracle.Optimum) -> None:
    """The values of all actions, and the policy: softmax(Q / alpha)."""
    obs = torch.eye(states, dtype=torch.float64)
    q = algorithm.critic(obs, EveryAction(Spec((states,), actions)).sample(obs, actions)).amin(0).detach().numpy().T
    assert np.abs(q - expected.q).max() < 0.02
    alpha = algorithm.config.temperature
    softmax = np.exp((q - q.max(1, keepdims=True)) / alpha)
    softmax /= softmax.sum(1, keepdims=True)
    if isinstance(algorithm, DiscreteSAC):
        pi = torch.softmax(algorithm.actor(obs), -1).detach().numpy()
        assert np.abs(pi - softmax).max() < 1e-4
    else:
        draws = 40_000
        drawn = torch.stack([algorithm.explore(one.expand(draws, -1)).mean(0) for one in obs])
        pi = drawn.numpy()
        assert (np.abs(pi - softmax) <= 4.5 * np.sqrt(softmax * (1 - softmax) / draws) + 1e-12).all()
        pi = softmax
    assert oracle.kl(expected.pi, pi) < 1e-3
    best = algorithm.act(obs) if isinstance(algorithm, DiscreteSAC) else greedy(algorithm).act(obs)
    np.testing.assert_array_equal(best.argmax(-1).numpy(), q.argmax(1))


PROBLEMS = [(P2, R2), *(random_problem(seed) for seed in range(3))]


@pytest.mark.parametrize("make", [soft_q, discrete_sac])
@pytest.mark.parametrize("problem", range(len(PROBLEMS)))
def test_on_a_table_they_are_soft_value_iteration(make: Any, problem: int) -> None:
    transition, reward = PROBLEMS[problem]
    states, actions = reward.shape
    spec = Spec((states,), actions)
    algorithm = make(spec, discount=DISCOUNT, temperature=ALPHA, tau=0.2, hidden=())
    algorithm.critic, algorithm.critic_target = Table(states, actions), Table(states, actions).requires_grad_(False)
    algorithm.critic_opt = adam(algorithm.critic.parameters(), lr=0.1)
    solve(algorithm, every_transition(transition, reward), [0.1, 0.03, 0.01], 800)
    check_solution(algorithm, states, actions, oracle.soft_value_iteration(transition, reward, DISCOUNT, ALPHA))


@pytest.mark.parametrize("make", [soft_q, discrete_sac])
def test_with_networks_they_find_it_too(make: Any) -> None:
    algorithm = make(Spec((2,), 2), discount=DISCOUNT, temperature=ALPHA, tau=0.05, hidden=(32, 32))
    solve(algorithm, every_transition(P2, R2), [3e-3, 3e-4, 3e-5], 1_000)
    check_solution(algorithm, 2, 2, oracle.soft_value_iteration(P2, R2, DISCOUNT, ALPHA))


def test_the_policy_is_the_posterior_over_trajectories() -> None:
    """Where the dynamics are deterministic, inference over whole trajectories and the backup agree."""
    rng = np.random.default_rng(1)
    states, actions, horizon, alpha = 4, 3, 5, 0.7
    following, reward = rng.integers(states, size=(states, actions)), rng.normal(size=(states, actions))
    expected = oracle.trajectory_posterior(following, reward, alpha, horizon)
    value = torch.zeros(states, dtype=torch.float64)
    for step in reversed(range(horizon)):
        q = (torch.from_numpy(reward) + value[torch.from_numpy(following)]).T  # (A, S)
        value = soft_value(q, temperature=alpha)  # actions are uniform a priori
        pi = torch.exp((q - value) / alpha) / actions
        np.testing.assert_allclose(pi.T.numpy(), expected[step], atol=1e-8)


# ------------------------------------------------------------------ why the dynamics stay as they are


def test_exact_inference_is_optimistic_and_the_fixed_dynamics_are_not() -> None:
    """Given that all went well, a gamble was probably won: the exact posterior changes the odds as well as the policy.
    A posterior that may only change the policy values the gamble at its mean."""
    chosen, value, sober = oracle.gamble(1.0, 0.3, 1.0)
    outcomes = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    safe = torch.tensor([0.3], dtype=torch.float64)
    lucky = soft_value(outcomes, temperature=1.0)
    assert lucky.item() == pytest.approx(value, abs=1e-3)
    assert torch.softmax(torch.cat([lucky, safe]), 0)[0].item() == pytest.approx(chosen, abs=1e-3)
    mean = soft_value(outcomes, temperature=math.inf)
    assert torch.softmax(torch.cat([mean, safe]), 0)[0].item() == pytest.approx(sober, abs=1e-3)


@pytest.mark.parametrize("make", [soft_q, discrete_sac])
def test_what_is_learned_from_outcomes_does_not_choose_its_luck(make: Any) -> None:
    one_hot = torch.eye(2, dtype=torch.float64)
    obs, always = torch.ones(4, 1, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    reward = torch.tensor([1.0, -1.0, 0.3, 0.3], dtype=torch.float64)
    batch = Batch(obs, one_hot[[0, 0, 1, 1]], reward, obs, always, torch.arange(4))
    algorithm = make(Spec((1,), 2), temperature=1.0, hidden=())
    algorithm.critic = algorithm.critic_target = Table(1, 2)
    algorithm.critic_opt = adam(algorithm.critic.parameters(), lr=0.1)
    solve(algorithm, batch, [0.1, 0.01], 300)
    every = EveryAction(Spec((1,), 2)).sample(obs[:1], 2)
    q = algorithm.critic(obs[:1], every).amin(0)[:, 0]
    pi = torch.softmax(algorithm.actor(obs[:1])[0] if make is discrete_sac else q, 0)
    assert pi[0].item() == pytest.approx(oracle.gamble(1.0, 0.3, 1.0)[2], abs=1e-3)


# ------------------------------------------------------------------ the bound of a bandit


def test_the_bound_of_a_quadratic_reaches_its_log_partition() -> None:
    """Q = -c (u - m)^2 / 2 of an action u that is not squashed: the prior 1 / (1 - a^2) is flat in u."""
    curvature, centre = 2.0, 0.3
    alpha = torch.tensor(0.5, dtype=torch.float64)
    model = Optimality(
        lambda _, a: -0.5 * curvature * (torch.atanh(a[..., 0]) - centre).square(),
        alpha,
        lambda _, a: -torch.log1p(-a[..., 0].square()),
    )
    loc, log_scale = (torch.zeros(1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([loc, log_scale], lr=0.02)

    def bound(samples: int) -> Any:
        one = torch.ones(1, dtype=torch.float64)
        posterior = lambda *_: DiagonalNormal(loc, log_scale)  # noqa: E731
        return elbo(model, posterior, one, one[:, None], num_samples=samples, estimator="stl")

    for _ in range(600):
        optimizer.zero_grad()
        (-alpha * bound(16).objective).sum().backward()
        optimizer.step()
    deviation, log_partition, value = oracle.quadratic(curvature, 0.5)
    assert loc.item() == pytest.approx(centre, abs=0.02 * deviation)
    assert log_scale.exp().item() == pytest.approx(deviation, rel=0.02)
    found = bound(10_000).elbo.item()
    assert found == pytest.approx(log_partition, abs=1e-3)
    assert 0.5 * found == pytest.approx(value, abs=1e-3)


class Fixed(nn.Module):
    """Two critics that agree: a given function of the action."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        value: Tensor = self.function(action[..., 0])
        return value.expand(2, *value.shape)


def nothing_happens(rows: int) -> Batch:
    """r = 0 and the next state is s = 1: the target is gamma V(s')."""
    obs, zero = torch.ones(rows, 1, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)
    return Batch(obs, obs, zero, obs, zero, torch.arange(rows))


def test_the_temperature_goes_where_the_policy_has_the_entropy_asked_for() -> None:
    """Under Q = -c (a - m)^2 / 2 the policy's entropy is log(2 pi e alpha / c) / 2; the box is far away."""
    config = SACConfig(temperature=0.2, target_entropy=-1.0, hidden=(16,), lr=1e-2)
    algorithm: Any = SAC(Spec((1,), 1), config).double()
    algorithm.critic = Fixed(lambda a: -(a - 0.3).square())  # c = 2
    batch = nothing_happens(256)
    alphas = []
    for step in range(2_500):
        if step == 1_500:
            for optimizer in (algorithm.actor_opt, algorithm.alpha_opt):
                optimizer.param_groups[0]["lr"] = 1e-3
        loss, metrics = algorithm.actor_loss(batch)
        alpha_loss, _ = algorithm.alpha_loss(metrics["actor/entropy"])
        gradient_step(algorithm.actor_opt, loss)
        gradient_step(algorithm.alpha_opt, alpha_loss)
        alphas.append(algorithm.alpha.item())
    expected = oracle.temperature_at(-1.0, 2.0)
    assert np.mean(alphas[-500:]) == pytest.approx(expected, rel=0.05)
    action = algorithm.actor.sample(batch.obs, 400)
    assert action.std().item() == pytest.approx(oracle.quadratic(2.0, expected)[0], rel=0.05)
    assert action.mean().item() == pytest.approx(0.3, abs=0.01)


# ------------------------------------------------------------------ K samples


def boxed_soft_q(count: int, **settings: Any) -> Any:
    spec = Spec((1,), 1)
    box = UniformBox(spec)
    config = SoftQConfig(discount=1.0, temperature=0.5, num_candidates=count, hidden=(4,), **settings)
    algorithm: Any = SoftQ(spec, box, config, log_weight=weight(flat, box.log_prob)).double()
    algorithm.critic = algorithm.critic_target = Fixed(lambda a: -2.0 * (a - 0.3).square())
    return algorithm


def test_the_soft_value_of_k_samples_rises_to_the_integral() -> None:
    limit = oracle.boxed(4.0, 0.3, 0.5)[0]
    means, errors = [], []
    for count, expected in ((1, -0.5001), (2, -0.2307), (8, -0.0961), (64, -0.0752)):
        values = torch.cat([boxed_soft_q(count).target(nothing_happens(25_000)) for _ in range(4)])
        error = values.std().item() / len(values) ** 0.5
        assert values.mean().item() == pytest.approx(expected, abs=4.0 * error + 5e-5)
        means.append(values.mean().item())
        errors.append(error)
    for lower, higher, error in zip(means, [*means[1:], limit], errors, strict=True):
        assert lower < higher + 4.0 * error
    assert means[-1] == pytest.approx(limit, abs=0.005)


def test_resampled_proposals_have_the_law_of_the_posterior() -> None:
    algorithm = boxed_soft_q(1, num_acting_candidates=200)
    drawn = torch.cat([algorithm.explore(torch.ones(5_000, 1, dtype=torch.float64)) for _ in range(2)])
    _, mean, deviation = oracle.boxed(4.0, 0.3, 0.5)
    assert drawn.mean().item() == pytest.approx(mean, abs=4.0 * deviation / 100.0)
    assert drawn.std().item() == pytest.approx(deviation, abs=4.0 * deviation / 100.0)
    best = greedy(algorithm).act(torch.ones(500, 1, dtype=torch.float64))
    assert (best - 0.3).abs().max() < 0.1


def test_the_reference_measure_is_a_bonus_for_every_step() -> None:
    """Lebesgue's measure instead of the normalised uniform prior adds alpha A log 2 to every value."""
    spec = Spec((1,), 3)
    box, batch = UniformBox(spec), nothing_happens(50)
    targets = []
    for prior in (flat, uniform):
        config = SoftQConfig(discount=0.9, temperature=0.5, hidden=(4,))
        algorithm: Any = SoftQ(spec, box, config, log_weight=weight(prior, box.log_prob)).double()
        algorithm.critic_target = Fixed(torch.square)
        torch.manual_seed(3)
        targets.append(algorithm.target(batch))
    torch.testing.assert_close(targets[0] - targets[1], torch.full_like(targets[0], 0.9 * 0.5 * 3 * math.log(2.0)))


def test_what_cannot_be_a_temperature_or_a_candidate_is_told() -> None:
    spec = Spec((2,), 3)
    for alpha in (0.0, -1.0, math.inf):
        with pytest.raises(ConfigError, match="not positive"):
            SoftQ(spec, UniformBox(spec), SoftQConfig(temperature=alpha))
    with pytest.raises(ConfigError, match="4 candidates of 3 actions"):
        EveryAction(spec).sample(torch.zeros(5, 2), 4)


# ------------------------------------------------------------------ the squash


def test_the_squashed_density_is_right_and_pushes_back_from_u_minus_20_to_20(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32; log(1 - a^2 + 1e-6) instead would be off by 1.2 at u = 8 and have no gradient from 10 on."""
    loc, scale = 1.0, 2.0
    u = torch.linspace(-20.0, 20.0, 401).requires_grad_()
    q = TanhNormal(torch.full((401, 1), loc), torch.full((401, 1), math.log(scale)))
    monkeypatch.setattr(q.base, "rsample", lambda _: u.reshape(1, 401, 1))
    _, log_prob = q.rsample_and_log_prob((1,))
    expected = [oracle.tanh_normal_log_prob(float(x), loc, scale) for x in u.detach()]
    np.testing.assert_allclose(log_prob[0].detach().numpy(), expected, atol=1e-4)
    (gradient,) = torch.autograd.grad(log_prob.sum(), u)
    exact = -(u.detach().double().numpy() - loc) / scale**2 + 2.0 * np.tanh(u.detach().double().numpy())
    np.testing.assert_allclose(gradient.numpy(), exact, atol=1e-4)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 0.1), (0.5, 1.0), (-2.0, 0.5), (0.0, 1.5)])
def test_the_density_of_data_integrates_to_one(loc: float, scale: float) -> None:
    edge = math.atanh(1.0 - 1e-6)
    u = torch.linspace(-edge, edge, 200_001, dtype=torch.float64)
    q = TanhNormal(torch.tensor([loc]).double(), torch.tensor([math.log(scale)]).double())
    density = q.log_prob(torch.tanh(u)[:, None]).exp() * (1.0 - torch.tanh(u).square())
    assert torch.trapezoid(density, u).item() == pytest.approx(1.0, abs=1e-4)


# ------------------------------------------------------------------ the behaviour as the prior


class Arms(BehaviorModel):
    """Ten proposals in every state: -1 five times, 0 three times, 1 twice, so p = (.5, .3, .2)."""

    spec = Spec((1,), 1)

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        raise NotImplementedError

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        arms = torch.tensor([-1.0] * 5 + [0.0] * 3 + [1.0] * 2, dtype=obs.dtype)
        return arms.reshape(10, 1, 1).expand(10, *obs.shape)


@pytest.mark.parametrize(
    ("alpha", "table"), [(1e-3, 0.9984), (0.1, 0.8401), (1.0, 0.4307), (10.0, 0.3577), (1e3, 0.3501)]
)
def test_the_behaviour_prior_runs_from_the_best_arm_to_the_behaviours_value(alpha: float, table: float) -> None:
    reward = np.array([0.0, 0.5, 1.0])
    expected = oracle.behavior_soft_value(np.array([0.5, 0.3, 0.2]), reward, alpha)
    assert expected == pytest.approx(table, abs=5e-5)
    config = SoftQConfig(discount=1.0, temperature=alpha, num_candidates=10, hidden=(4,))
    algorithm: Any = SoftQ(Spec((1,), 1), Arms(), config).double()
    algorithm.critic_target = Fixed(lambda a: 0.5 * (a + 1.0))  # the rewards
    found = algorithm.target(nothing_happens(3))
    assert found.shape == (3,)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


class Narrow(DensityModel):
    """pi_beta(u) = N(0, .1^2) before the tanh."""

    spec = Spec((1,), 1)

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        raise NotImplementedError

    def law(self, obs: Tensor) -> TanhNormal:
        return TanhNormal(torch.zeros_like(obs), torch.full_like(obs, math.log(0.1)))

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return self.law(obs).rsample((num_samples,))

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        return self.law(obs).log_prob(action)


def test_the_multiplier_goes_where_the_policy_is_as_far_from_the_behaviour_as_allowed() -> None:
    """Q = atanh(a), linear before the tanh: the posterior is the behaviour's Normal moved by c s^2 / alpha."""
    config = KLSACConfig(target_entropy=-0.5, temperature=0.5, hidden=(16,), lr=1e-2)
    algorithm: Any = KLSAC(Spec((1,), 1), Narrow(), config).double()
    algorithm.critic = Fixed(torch.atanh)
    batch = nothing_happens(256)
    found = []
    for step in range(2_500):
        if step == 1_500:
            for optimizer in (algorithm.actor_opt, algorithm.alpha_opt):
                optimizer.param_groups[0]["lr"] = 1e-3
        loss, metrics = algorithm.actor_loss(batch)
        alpha_loss, _ = algorithm.alpha_loss(metrics["actor/entropy"])
        gradient_step(algorithm.actor_opt, loss)
        gradient_step(algorithm.alpha_opt, alpha_loss)
        found.append((algorithm.alpha.item(), -metrics["actor/entropy"].item()))
    alpha, mean = oracle.tilted_normal(1.0, 0.1, 0.5)
    np.testing.assert_allclose(np.mean(found[-500:], axis=0), [alpha, 0.5], rtol=0.05)
    assert torch.atanh(algorithm.act(batch.obs)).mean().item() == pytest.approx(mean, rel=0.05)


# ------------------------------------------------------------------ learning


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sac_swings_the_pendulum_up() -> None:
    """A random policy earns about -1,200 an episode."""
    pendulum, spec = environment("Pendulum-v1"), Spec((3,), 1)
    algorithm = SAC(spec, SACConfig(hidden=(64, 64), lr=1e-3))
    before = evaluate(algorithm, pendulum, 10).mean_return
    fit_online(algorithm, pendulum, spec, 10_000, progress=False)
    assert before < -700.0
    assert evaluate(algorithm, pendulum, 10).mean_return > -400.0
