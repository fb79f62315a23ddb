"""Bayesian networks and their information gain, against full-matrix conjugate regression in NumPy."""

from __future__ import annotations

import math

import numpy as np
import oracles_bayes as oracle
import pytest
import torch
from torch import Tensor, nn

from offline_vi.errors import ConfigError
from offline_vi.inference.bayesian import BayesianLinear, BayesianMLP, RandomFourierFeatures, information_gain

COVARIANCE = np.array([[1.0, 0.3], [0.3, 0.5]])
F = np.array([1.0, -2.0])


def linear(dim: int = 2, outputs: int = 1, noise: float = 0.1) -> BayesianLinear:
    return BayesianLinear(nn.Identity(), dim, outputs, noise)


def spec_case() -> BayesianLinear:
    model = linear()
    model.covariance.copy_(torch.from_numpy(COVARIANCE))
    return model


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


# ------------------------------------------------------------------ E1, E2: the conjugate gain


def test_oracles() -> None:
    """The closed forms of the specification against full matrices, quadrature and finite differences."""
    assert oracle.gain(np.zeros(2), COVARIANCE, F, 0.7, 0.1) == pytest.approx(1.120695943877, abs=1e-11)
    assert oracle.expected_gain_by_quadrature(np.zeros(2), COVARIANCE, F, 0.1) == pytest.approx(
        1.472219489583, abs=1e-11
    )
    sd = math.log1p(math.exp(-0.4))
    assert oracle.second_order_of_one_weight(0.2, sd, 0.8, 1.1, 0.3) == pytest.approx(0.905653785, abs=1e-5)


def test_the_conjugate_gain_is_that_of_full_matrices() -> None:
    model = spec_case()
    x, y = row(*F), row(0.7)
    assert information_gain(model, x).item() == pytest.approx(1.472219489583, abs=1e-10)
    for method in ("realised", "kl_step"):
        assert information_gain(model, x, y, method).item() == pytest.approx(1.120695943877, abs=1e-10)


def test_observing_is_conjugate_regression_however_the_rows_are_grouped() -> None:
    rng = np.random.default_rng(0)
    f, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
    together, apart = linear(4, 2), linear(4, 2)
    together.observe(torch.from_numpy(f), torch.from_numpy(y))
    for one_f, one_y in zip(torch.from_numpy(f).split(7), torch.from_numpy(y).split(7), strict=True):
        apart.observe(one_f, one_y)
    for model in (together, apart):
        for j in range(2):
            mean, covariance = oracle.posterior(np.zeros(4), np.eye(4), f, y[:, j], 0.1)
            np.testing.assert_allclose(model.mean[:, j].numpy(), mean, atol=1e-10)
            np.testing.assert_allclose(model.covariance.numpy(), covariance, atol=1e-10)


def test_the_gain_of_several_outputs_is_their_sum() -> None:
    one, three = linear(2, 1), linear(2, 3)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 2)))
    torch.testing.assert_close(information_gain(three, x), 3.0 * information_gain(one, x))
    y = torch.zeros(5, 3, dtype=torch.float64)
    torch.testing.assert_close(
        information_gain(three, x, y, "realised"), 3.0 * information_gain(one, x, y[:, :1], "realised")
    )


def test_the_expected_gain_is_the_mean_of_the_realised_one() -> None:
    model = spec_case()
    count = 20_000
    x = torch.from_numpy(F).expand(count, 2)
    mean, variance = model.moments(x)
    y = mean + (variance + model.noise).sqrt() * torch.randn(count, 1, dtype=torch.float64)
    realised = information_gain(model, x, y, "realised")
    error = realised.mean() - information_gain(model, x[:1]).item()
    assert abs(error.item()) < 4.0 * realised.std().item() / math.sqrt(count)


# ------------------------------------------------------------------ E3, E4: mean field


def mean_field(mean: np.ndarray, variance: np.ndarray, noise: float, num_samples: int) -> BayesianMLP:
    """A linear network y = w'x whose q(w) is given."""
    model = BayesianMLP(nn.Linear(len(mean), 1, bias=False), noise, num_samples=num_samples).double()
    with torch.no_grad():
        model.posterior.loc.copy_(torch.from_numpy(mean))
        model.posterior.log_scale.copy_(torch.from_numpy(0.5 * np.log(variance)))
    return model


def test_the_converged_mean_field_step_has_the_closed_form() -> None:
    mean, variance = np.array([0.3, -0.2]), np.array([1.0, 0.5])
    model = mean_field(mean, variance, 0.1, num_samples=256)
    before = [parameter.clone() for parameter in model.parameters()]
    x = torch.from_numpy(np.stack([F, np.array([0.5, 1.5]), np.array([0.0, 0.1])]))
    y = torch.tensor([[0.7], [-1.0], [0.4]], dtype=torch.float64)
    found = information_gain(model, x, y, "kl_step")
    for value, f, target in zip(found, x.numpy(), y[:, 0], strict=True):
        assert value.item() == pytest.approx(oracle.mean_field_gain(mean, variance, f, float(target), 0.1), rel=0.02)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))  # undone


def test_the_second_order_gain_of_one_weight() -> None:
    sd = math.log1p(math.exp(-0.4))
    model = mean_field(np.array([0.2]), np.array([sd**2]), 0.3, num_samples=400_000)
    found = information_gain(model, row(0.8), row(1.1), "second_order").item()
    assert found == pytest.approx(0.905653785, rel=0.01)
    conjugate = linear(1, 1, 0.3)
    conjugate.mean.fill_(0.2)
    conjugate.covariance.fill_(sd**2)
    assert information_gain(conjugate, row(0.8), row(1.1), "second_order").item() == pytest.approx(
        oracle.second_order_of_one_weight(0.2, sd, 0.8, 1.1, 0.3), abs=1e-5
    )


def test_the_second_order_gain_is_that_of_small_steps() -> None:
    """For an observation that teaches little the quadratic form is the KL divergence itself."""
    model = linear(1, 1, 100.0)
    exact = information_gain(model, row(1.0), row(3.0), "realised").item()
    assert information_gain(model, row(1.0), row(3.0), "second_order").item() == pytest.approx(exact, rel=0.05)


def test_a_mean_field_network_learns_a_function_and_knows_where_it_has_not_looked() -> None:
    model = BayesianMLP.of_sizes((1, 32, 1), noise=0.01)
    x = torch.rand(256, 1) * 2.0 - 1.0
    y = torch.sin(3.0 * x) + 0.1 * torch.randn_like(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(1500):
        index = torch.randint(256, (64,))
        loss, _ = model.loss(x[index], y[index], total=256)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    grid = torch.linspace(-1.0, 1.0, 21).unsqueeze(-1)
    mean, _ = model.moments(grid)
    assert (mean - torch.sin(3.0 * grid)).abs().mean() < 0.1
    inside, outside = information_gain(model, grid), information_gain(model, torch.tensor([[-4.0], [4.0]]))
    assert outside.min() > 3.0 * inside.mean()


def test_a_minibatch_stands_for_the_data_set() -> None:
    """The loss of all rows is the mean loss of its halves: weights N / B, one KL divergence."""
    model = BayesianMLP(nn.Linear(2, 1), noise=0.1).double()
    x, y = torch.randn(8, 2, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
    values = []
    for rows in (slice(0, 8), slice(0, 4), slice(4, 8)):
        torch.manual_seed(1)
        values.append(model.loss(x[rows], y[rows], total=8)[0])
    torch.testing.assert_close(values[0], 0.5 * (values[1] + values[2]))


# ------------------------------------------------------------------ E5: a noisy television, and counts


def test_pure_noise_stops_teaching() -> None:
    """One-hot arms: the gain after n visits is 1/2 log(1 + 1 / (n + c)), c = s2 / s_p^2; the squared error stays."""
    noise = 1.0
    model = linear(3, 1, noise)
    rng = np.random.default_rng(0)
    arm = row(0.0, 1.0, 0.0)
    expected = {0: 0.3466, 1: 0.2027, 5: 0.0771, 50: 0.0097}
    errors = []
    for n in range(51):
        gain = information_gain(model, arm).item()
        assert gain == pytest.approx(0.5 * math.log1p(1.0 / (n + 1.0)), abs=1e-9)
        if n in expected:
            assert gain == pytest.approx(expected[n], abs=1e-4)
        y = row(rng.normal() * math.sqrt(noise))
        errors.append(float((y - model.moments(arm)[0]).square()))
        model.observe(arm, y)
    assert information_gain(model, arm).item() < 0.012
    later = [float((rng.normal() - model.moments(arm)[0].item()) ** 2) for _ in range(2000)]
    assert np.mean(later) > 0.8 * noise
    assert information_gain(model, row(1.0, 0.0, 0.0)).item() == pytest.approx(0.5 * math.log(2.0))  # never visited


# ------------------------------------------------------------------ E6: a chain of locks


class LockChain:
    """N doors in a row, one of two actions opens each, drawn once; the other one leads back to the first."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.right, self.place = length, np.random.default_rng(seed).integers(2, size=length), 0

    def step(self, action: int) -> bool:
        """Whether the last door is open."""
        self.place = self.place + 1 if action == self.right[self.place] else 0
        return self.place == self.length


def explore_the_chain(length: int, steps: int, seed: int) -> int | None:
    """Steps until the end, exploring by the information gain of one-hot (state, action) -> did the door open;
    a planner maximises the discounted sum of gains in the chain as believed."""
    chain, model = LockChain(length, seed), linear(2 * length, 1, 0.05)
    every = torch.eye(2 * length, dtype=torch.float64)
    rng = np.random.default_rng(1000 + seed)
    for step in range(steps):
        gain = information_gain(model, every).numpy().reshape(length, 2)
        opens = model.moments(every)[0].numpy().reshape(length, 2).clip(0.0, 1.0)
        value = np.zeros(length + 1)
        for _ in range(4 * length):
            q = gain + 0.99 * (opens * value[1:, None] + (1.0 - opens) * value[0])
            value = np.append(q.max(1), 0.0)
        state = chain.place
        best = q[state] + 1e-9 * rng.normal(size=2)
        action = int(best.argmax())
        reached = chain.step(action)
        model.observe(every[2 * state + action].unsqueeze(0), row(float(chain.place == state + 1)))
        if reached:
            return step + 1
    return None


def test_information_gain_opens_a_chain_of_twenty_locks() -> None:
    found = [explore_the_chain(20, 10_000, seed) for seed in range(5)]
    assert all(steps is not None for steps in found), found


def test_memoryless_noise_does_not_open_the_chain() -> None:
    """P(success) <= T 2^-N = .95 %: five seeds of it fail."""
    for seed in range(5):
        chain, rng = LockChain(20, seed), np.random.default_rng(2000 + seed)
        assert not any([chain.step(int(action)) for action in rng.integers(2, size=10_000)])


# ------------------------------------------------------------------ parts


def test_random_fourier_features_have_the_gaussian_kernel() -> None:
    features = RandomFourierFeatures(2, 20_000, frequency=1.5)
    x = torch.tensor([[0.1, 0.2], [0.5, -0.3]])
    kernel = features(x) @ features(x).mT
    distance = (x[0] - x[1]).square().sum()
    torch.testing.assert_close(kernel[0, 1], torch.exp(-0.5 * 1.5**2 * distance), atol=0.03, rtol=0.0)
    torch.testing.assert_close(kernel.diagonal(), torch.ones(2), atol=0.03, rtol=0.0)


def test_errors() -> None:
    model = linear()
    with pytest.raises(ConfigError, match="unknown method 'surprise'"):
        information_gain(model, row(1.0, 2.0), method="surprise")
    with pytest.raises(ConfigError, match="needs the observed y"):
        information_gain(model, row(1.0, 2.0), method="realised")
