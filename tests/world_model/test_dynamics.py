"""Latent dynamics against linear-Gaussian chains, where every number is known, and against the shift of one step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles_sequence as oracle
import pytest
import torch
from torch import Tensor, nn

from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.types import Batch, Spec
from offline_vi.world_model.dynamics import (
    DynamicsConfig,
    LatentDynamicsModel,
    Outcome,
    disagreement,
    drawn,
    latent_dynamics,
    sequence_elbo,
)

A, Q, R = 0.9, 0.3, 0.5


def batch_of(obs: Tensor, action: Tensor, reward: Tensor) -> Batch:
    """From T observations (T, B, O), T - 1 actions and rewards."""
    zero = torch.zeros_like(reward)
    return Batch(obs[:-1], action, reward, obs[1:], zero, torch.zeros_like(reward, dtype=torch.long))


# ------------------------------------------------------------------ a chain whose numbers are known


class LinearChain(nn.Module):
    """z' = M z + N(0, diag(q)), whatever the action."""

    def __init__(self, matrix: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.matrix, self.log_scale = matrix, 0.5 * variance.log()

    def first_state(self, z: Tensor) -> Tensor:
        return z

    def context(self, state: Tensor, action: Tensor) -> Tensor:
        return state

    def prior(self, context: Tensor) -> DiagonalNormal:
        return DiagonalNormal((context @ self.matrix.mT).unsqueeze(0), self.log_scale)  # one member

    def state(self, context: Tensor, z: Tensor) -> Tensor:
        return z


class OptimalStep(nn.Module):
    """q(z_t|z_{t-1}, y_t) = p(z_t|z_{t-1}, y_t), and q(z_1|y_1) exact."""

    def forward(self, y: Tensor, context: Tensor | None = None) -> DiagonalNormal:
        predicted, variance = (A * context, Q) if context is not None else (torch.zeros_like(y), 1.0)
        gain = variance / (variance + R)
        scale = math.sqrt(variance * R / (variance + R))
        return DiagonalNormal(predicted + gain * (y - predicted), torch.full_like(y, math.log(scale)))


class Observed(nn.Module):
    def forward(self, z: Tensor) -> DiagonalNormal:
        return DiagonalNormal(z, torch.full_like(z, 0.5 * math.log(R)))


class Nothing(nn.Module):
    """A reward of 0 with density 1 and an end that never comes, with probability 1: they add nothing."""

    def forward(self, state: Tensor) -> tuple[DiagonalNormal, Tensor]:
        zero = torch.zeros_like(state[..., :1])
        return DiagonalNormal(zero, zero - 0.5 * math.log(2.0 * math.pi)), torch.full_like(zero[..., 0], -200.0)


def linear_model() -> LatentDynamicsModel:
    chain = LinearChain(torch.tensor([[A]], dtype=torch.float64), torch.tensor([Q], dtype=torch.float64))
    step: Any = OptimalStep()
    return LatentDynamicsModel(nn.Identity(), step, step, chain, Observed(), Nothing(), 1).double()


def test_oracles() -> None:
    y = np.sin(np.arange(1, 21, dtype=np.float64))
    assert oracle.kalman_log_likelihood(y, A, Q, R) == pytest.approx(-24.432837, abs=1e-6)
    assert oracle.kalman_log_likelihood(y, A, Q, R) == pytest.approx(oracle.joint_log_likelihood(y, A, Q, R), abs=1e-9)
    assert oracle.filter_elbo(y, A, Q, R) == pytest.approx(-26.462039, abs=1e-6)


def test_the_elbo_of_a_filter_is_that_of_the_recursion_and_below_kalman() -> None:
    y = np.sin(np.arange(1, 21, dtype=np.float64))
    count = 20_000
    obs = torch.from_numpy(y).reshape(20, 1, 1).expand(20, count, 1)
    batch = batch_of(obs, torch.zeros(19, count, 1).double(), torch.zeros(19, count).double())
    bound, _ = sequence_elbo(linear_model(), batch)
    error = bound.elbo.mean().item() - oracle.filter_elbo(y, A, Q, R)
    assert abs(error) < 4.0 * bound.elbo.std().item() / math.sqrt(count)
    assert bound.elbo.mean().item() < oracle.kalman_log_likelihood(y, A, Q, R)
    torch.testing.assert_close(bound.elbo, bound.log_likelihood - bound.kl)
    assert bound.kl_per_dim is not None
    torch.testing.assert_close(bound.kl, bound.kl_per_dim.sum(-1))


def test_imagined_states_have_the_moments_of_the_chain() -> None:
    matrix = np.array([[0.9, 0.3], [-0.2, 0.8]])
    variance, z = np.array([0.2, 0.05]), np.array([1.0, -0.5])
    chain = LinearChain(torch.from_numpy(matrix), torch.from_numpy(variance))
    step: Any = OptimalStep()
    model = LatentDynamicsModel(nn.Identity(), step, step, chain, Observed(), Nothing(), 2).double()
    count = 20_000
    state = model.imagine(torch.from_numpy(z).reshape(1, 2), torch.zeros(20, count, 1, 1).double(), drawn).state
    means, covariances = oracle.open_loop_moments(matrix, np.diag(variance), z, 20)
    for k in range(20):
        sample = state[k, :, 0].numpy()
        error = sample.mean(0) - means[k]
        assert (np.abs(error) < 4.0 * np.sqrt(np.diag(covariances[k]) / count)).all()
        products = (sample - means[k])[:, :, None] * (sample - means[k])[:, None, :]
        error_of_covariance = products.mean(0) - covariances[k]
        assert (np.abs(error_of_covariance) < 4.0 * products.std(0) / math.sqrt(count)).all()


# ------------------------------------------------------------------ D3: alignment


def cards(steps: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """o_{t+1} is the one-hot of a_t, r_t its number: T + 1 observations, T actions and rewards."""
    index = torch.randint(4, (steps, batch))
    action = torch.nn.functional.one_hot(index, 4).float()
    first = torch.nn.functional.one_hot(torch.randint(4, (1, batch)), 4).float()
    return torch.cat([first, action]), action, index.float()


def fitted_to_cards(shift: int, steps: int = 600) -> LatentDynamicsModel:
    """Trained on sequences whose actions are ``shift`` steps late."""
    torch.manual_seed(0)
    model = latent_dynamics(Spec((4,), 4), DynamicsConfig(4, (32, 32), 32, encoder="mlp", ensemble=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        obs, action, reward = cards(8, 64)
        if shift:
            action = torch.cat([torch.zeros_like(action[:1]), action[:-1]])
        bound, _ = sequence_elbo(model, batch_of(obs, action, reward))
        optimizer.zero_grad()
        (-bound.objective.mean()).backward()
        optimizer.step()
    return model


def reward_error(model: LatentDynamicsModel, shift: int) -> float:
    """Mean absolute error of imagined rewards over 5 steps, the actions given ``shift`` steps late."""
    obs, action, reward = cards(6, 256)
    state = model.observe_first(obs[1])
    given = action[1 - shift : 6 - shift].unsqueeze(1)
    return float((model.imagine(state, given).reward[:, 0] - reward[1:6]).abs().mean())


def test_rewards_belong_to_the_action_that_is_taken_at_the_observation() -> None:
    model = fitted_to_cards(0)
    assert reward_error(model, 0) < 0.05
    assert reward_error(model, 1) > 0.5
    assert reward_error(fitted_to_cards(1), 0) > 0.5  # trained on actions one step late


# ------------------------------------------------------------------ objective and bound


VARIANTS = [
    DynamicsConfig(4, (16,), 16, (8,), ensemble=2),
    DynamicsConfig(4, (16,), 16, (8,), ensemble=2, posterior="filter"),
    DynamicsConfig(4, (16,), 16, (8,), ensemble=2, posterior="filter", dynamics="recurrent", belief=12),
    DynamicsConfig(4, (16,), 16, encoder="mlp", ensemble=1),
]


def pixels(length: int = 5, batch: int = 3) -> Batch:
    frames = torch.randint(256, (length + 1, batch, 1, 8, 8), dtype=torch.uint8)
    return batch_of(frames, torch.rand(length, batch, 2) * 2 - 1, torch.randn(length, batch))


@pytest.mark.parametrize("config", VARIANTS)
def test_shapes_and_gradients_of_every_variant(config: DynamicsConfig) -> None:
    model = latent_dynamics(Spec((1, 8, 8), 2, "uint8"), config)
    batch = pixels()
    bound, inferred = sequence_elbo(model, batch)
    assert bound.elbo.shape == (3,) and bound.kl_per_dim is not None and bound.kl_per_dim.shape == (3, 4)
    assert inferred.state.shape[:2] == (6, 3)
    (-bound.objective.mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    state = model.observe(model.observe_first(batch.obs[0]), batch.action[0], batch.next_obs[0])
    imagined = model.imagine(state, torch.zeros(7, 2, 3, 2))
    assert imagined.state.shape[:3] == (7, 2, 3)
    assert imagined.reward.shape == imagined.terminal.shape == imagined.gain.shape == (7, 2, 3)
    assert (imagined.gain >= 0.0).all()


def test_balance_and_free_nats_change_the_objective_only() -> None:
    model = latent_dynamics(Spec((1, 8, 8), 2, "uint8"), VARIANTS[1])
    batch = pixels()
    torch.manual_seed(1)
    plain, _ = sequence_elbo(model, batch)
    torch.manual_seed(1)
    balanced, _ = sequence_elbo(model, batch, kl_balance=0.8)
    torch.manual_seed(1)
    free, _ = sequence_elbo(model, batch, free_bits=5.0, beta=2.0)
    torch.testing.assert_close(plain.elbo, balanced.elbo)
    torch.testing.assert_close(plain.elbo, free.elbo)
    torch.testing.assert_close(plain.objective, balanced.objective)  # a balance keeps the number, too
    assert not torch.allclose(plain.objective, free.objective)
    parameter = model.dynamics.net.layers[0].weight
    (one,) = torch.autograd.grad(plain.objective.sum(), parameter)
    (other,) = torch.autograd.grad(balanced.objective.sum(), parameter)
    assert not torch.allclose(one, other)


def test_steps_after_the_end_of_a_sequence_count_nothing() -> None:
    model = latent_dynamics(Spec((1, 8, 8), 2, "uint8"), VARIANTS[0])
    batch = pixels()
    ended = batch._replace(index=batch.index.clone())
    ended.index[3:] = -1
    torch.manual_seed(1)
    bound, _ = sequence_elbo(model, ended)
    other = ended._replace(reward=ended.reward.clone(), terminated=ended.terminated.clone())
    other.reward[3:] = 1e3
    other.terminated[3:] = 1.0
    torch.manual_seed(1)
    again, _ = sequence_elbo(model, other)
    torch.testing.assert_close(bound.elbo, again.elbo)
    other.reward[2] = 1e3
    assert not torch.allclose(sequence_elbo(model, other)[0].elbo, bound.elbo)


def test_the_reward_is_a_density_in_the_data_s_units() -> None:
    outcome = Outcome(2, (8,))
    outcome.reward_units.mean.fill_(-8.0)
    outcome.reward_units.std.fill_(4.0)
    normal, _ = outcome(torch.zeros(1, 2))
    grid = torch.linspace(-60.0, 60.0, 20_001).reshape(-1, 1, 1)
    assert torch.trapezoid(normal.log_prob(grid).exp()[:, 0], grid[:, 0, 0]).item() == pytest.approx(1.0, abs=1e-3)


def test_disagreement_does_not_depend_on_the_scale_of_the_latent() -> None:
    loc, log_scale = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    scaled = DiagonalNormal(10.0 * loc, log_scale + math.log(10.0))
    torch.testing.assert_close(disagreement(scaled), disagreement(DiagonalNormal(loc, log_scale)))
    one = DiagonalNormal(loc[:1], log_scale[:1])
    torch.testing.assert_close(disagreement(one), torch.zeros(5))
