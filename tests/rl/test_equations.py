"""The shared equations against tables worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from offline_vi.errors import ConfigError
from offline_vi.rl.equations import (
    Kernel,
    advantage_weight,
    bellman_target,
    clipped_double_q,
    expectile_loss,
    gaussian_kernel,
    laplacian_kernel,
    mmd_squared,
    normalized_q,
    return_scale,
    smoothed,
    soft_value,
    td_loss,
)
from offline_vi.types import Batch

INF = math.inf


@pytest.mark.parametrize(
    ("temperature", "expected"),
    # pi_beta = (.5, .3, .2) as 10 equally likely samples, r = (0, .5, 1): alpha log E exp(r / alpha)
    [(1e-3, 0.9984), (0.1, 0.8401), (1.0, 0.4307), (10.0, 0.3577), (1e3, 0.3501), (INF, 0.35), (0.0, 1.0)],
)
def test_soft_value_runs_from_the_mean_to_the_maximum_over_the_support(temperature: float, expected: float) -> None:
    q = torch.tensor([0.0] * 5 + [0.5] * 3 + [1.0] * 2, dtype=torch.float64)[:, None]
    value = soft_value(q, temperature=temperature)
    assert value.shape == (1,)
    assert value.item() == pytest.approx(expected, abs=1e-4)


def test_soft_value_with_one_sample_is_sacs_target() -> None:
    q, log_pi = torch.randn(1, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    torch.testing.assert_close(soft_value(q, -log_pi, temperature=0.2), (q - 0.2 * log_pi)[0])


def test_a_weight_changes_the_reference_measure_by_a_constant() -> None:
    q = torch.randn(7, 3, dtype=torch.float64)
    shifted = soft_value(q, torch.full_like(q, math.log(2.0)), temperature=0.5)
    torch.testing.assert_close(shifted, soft_value(q, temperature=0.5) + 0.5 * math.log(2.0))


@pytest.mark.parametrize("temperature", [0.0, INF])
def test_a_weight_has_no_meaning_at_the_ends(temperature: float) -> None:
    with pytest.raises(ValueError, match="no meaning"):
        soft_value(torch.zeros(2, 1), torch.zeros(2, 1), temperature=temperature)


@pytest.mark.parametrize(("lmbda", "expected"), [(1.0, [1.0, -2.0]), (0.0, [5.0, 4.0]), (0.75, [2.0, -0.5])])
def test_clipped_double_q_mixes_minimum_and_maximum(lmbda: float, expected: list[float]) -> None:
    q = torch.tensor([[1.0, 4.0], [5.0, -2.0], [3.0, 0.0]])  # three members, two values
    torch.testing.assert_close(clipped_double_q(q, lmbda), torch.tensor(expected))


def test_only_termination_cuts_the_bootstrap() -> None:
    zeros = torch.zeros(3, 1)
    batch = Batch(zeros, zeros, torch.tensor([1.0, 2.0, 3.0]), zeros, torch.tensor([0.0, 1.0, 0.0]), torch.arange(3))
    target = bellman_target(batch, torch.tensor([10.0, 100.0, -10.0]), 0.9)
    torch.testing.assert_close(target, torch.tensor([10.0, 2.0, -6.0]))


def test_every_critic_regresses_the_same_target() -> None:
    q = torch.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)  # two critics, two rows
    loss, metrics = td_loss(q, torch.tensor([2.0, 2.0]))
    assert loss.item() == (1.0 + 0.0) / 2 + (1.0 + 9.0) / 2
    assert {name: value.item() for name, value in metrics.items()} == {
        "critic/loss": 5.5,
        "critic/q": 2.75,
        "critic/target": 2.0,
    }
    loss.backward()
    torch.testing.assert_close(q.grad, torch.tensor([[-1.0, 0.0], [1.0, 3.0]]))  # 2 error / B


def test_several_seeds_keep_an_axis_of_their_own() -> None:
    loss, _ = td_loss(torch.zeros(2, 3, 5), torch.arange(3.0)[:, None].expand(3, 5))  # (E, S, B), (S, B)
    torch.testing.assert_close(loss, torch.tensor([0.0, 2.0, 8.0]))
    torch.testing.assert_close(normalized_q(torch.tensor([[1.0, -3.0], [10.0, 30.0]])).abs().mean(-1), torch.ones(2))


def test_smoothing_noise_is_clipped_and_stays_in_the_box() -> None:
    action = torch.tensor([0.0, 0.9]).double().expand(20_000, 2)
    moved = smoothed(action, 0.2, 0.5) - action
    assert moved[:, 0].std().item() == pytest.approx(0.2, abs=0.01)  # 2.5 sigma are left
    assert moved[:, 0].abs().max().item() == 0.5
    assert (smoothed(action, 0.2, 0.5)).max().item() == 1.0
    assert smoothed(action, 5.0, 0.05).sub(action).abs().max().item() <= 0.05 + 1e-12


def test_a_normalised_q_has_size_one_and_its_divisor_no_gradient() -> None:
    q = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    out = normalized_q(q)
    torch.testing.assert_close(out, torch.tensor([0.5, -1.0, 1.5]))
    out.sum().backward()
    torch.testing.assert_close(q.grad, torch.full((3,), 0.5))  # with the divisor's gradient the rows would differ


@pytest.mark.parametrize(("expectile", "expected"), [(0.5, 1.0), (0.7, 1.4), (0.9, 1.8)])
def test_expectile_loss_weighs_the_two_sides(expectile: float, expected: float) -> None:
    loss = expectile_loss(torch.tensor([2.0, -2.0, 0.0], dtype=torch.float64), expectile)
    expected_loss = torch.tensor([2.0 * expected, 4.0 - 2.0 * expected, 0.0], dtype=torch.float64)
    torch.testing.assert_close(loss, expected_loss)


@pytest.mark.parametrize(("expectile", "expected"), [(0.5, 0.2), (0.8, 0.5), (0.999, 0.99602)])
def test_its_minimum_is_the_expectile(expectile: float, expected: float) -> None:
    """Of 0 (weight .8) and 1 (weight .2): m = .2 tau / (.2 tau + .8 (1 - tau)), from the mean to the maximum."""
    grid = torch.linspace(0.0, 1.0, 100_001, dtype=torch.float64)
    risk = 0.8 * expectile_loss(0.0 - grid, expectile) + 0.2 * expectile_loss(1.0 - grid, expectile)
    assert grid[risk.argmin()].item() == pytest.approx(expected, abs=2e-5)


def test_advantage_weights_are_cut_off() -> None:
    weight = advantage_weight(torch.tensor([-1.0, 0.0, 1.0, 50.0]), 3.0, 100.0)
    torch.testing.assert_close(weight, torch.tensor([math.exp(-3.0), 1.0, math.exp(3.0), 100.0]))


def test_the_scale_of_returns_is_a_thousand_over_their_range() -> None:
    assert return_scale(np.array([-20.0, 5.0, 480.0])) == 2.0
    for returns in (np.array([3.0]), np.full(4, 7.0)):
        with pytest.raises(ConfigError, match="the same"):
            return_scale(returns)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [(laplacian_kernel(2.0), math.exp(-7.0 / 4.0)), (gaussian_kernel(2.0), math.exp(-25.0 / 4.0))],
)
def test_kernels(kernel: Kernel, expected: float) -> None:
    x, y = torch.tensor([0.0, 1.0]), torch.tensor([3.0, -3.0])  # |x - y|_1 = 7, |x - y|_2 = 5
    assert kernel(x, y).item() == pytest.approx(expected)
    assert kernel(x, x).item() == 1.0


@pytest.mark.parametrize("biased", [True, False])
def test_mmd_pair_by_pair(biased: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3, 2)), rng.normal(size=(5, 3, 2))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-np.square(a - b).sum() / 1.4))

    expected = []
    for row in range(3):
        p, q = x[:, row], y[:, row]
        within = [
            np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if biased or i != j]) for s in (p, q)
        ]
        expected.append(sum(within) - 2.0 * np.mean([k(a, b) for a in p for b in q]))
    found = mmd_squared(torch.from_numpy(x), torch.from_numpy(y), gaussian_kernel(0.7), biased=biased)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_a_biased_mmd_of_a_sample_with_itself_is_zero_and_the_unbiased_one_is_below() -> None:
    x = torch.randn(6, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(mmd_squared(x, x, laplacian_kernel(1.0), biased=True), torch.zeros(4).double())
    assert (mmd_squared(x, x, laplacian_kernel(1.0), biased=False) < 0.0).all()
