"""Bounds against the linear-Gaussian model, where everything is known, and against quadrature where it is not.

Monte Carlo estimates are compared within 4 standard errors at fixed seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from offline_vi.distributions.heads import BernoulliHead, FixedScale, GaussianHead, LearnedScale, TanhNormalHead
from offline_vi.distributions.normal import DiagonalNormal, FullNormal
from offline_vi.distributions.squashed import TanhNormal
from offline_vi.errors import ConfigError
from offline_vi.inference.bounds import (
    ELBO_ESTIMATORS,
    IWAE_ESTIMATORS,
    Bound,
    KLWarmup,
    active_units,
    bound_metrics,
    distortion,
    elbo,
    evidence_gap,
    iwae,
    rate,
)
from offline_vi.inference.latent import (
    Conditional,
    ConditionalNormalPrior,
    LatentVariableModel,
    LinearGaussian,
    Mixture,
    MixtureParameters,
    StandardNormalPrior,
)
from offline_vi.inference.posterior import AmortizedPosterior, fit_local

Array = NDArray[np.float64]
Case = tuple[LinearGaussian, oracles.LinearGaussianOracle, Array, Array, Array]

W = np.array([[1.0, 0.5], [0.3, 1.2], [-0.4, 0.8]])
X = np.array([1.0, -0.5, 0.8])


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def linear_gaussian(weight: Array, mu: Array, s2: float) -> tuple[LinearGaussian, oracles.LinearGaussianOracle]:
    model = LinearGaussian(torch.tensor(weight), torch.tensor(mu), s2)
    return model, oracles.LinearGaussianOracle(weight, mu, s2)


def random_case(seed: int) -> Case:
    """A model of random size with a datum, and mean and scales of a q that is not the posterior."""
    rng = np.random.default_rng(seed)
    dim_x, dim_z = rng.integers(1, 6), rng.integers(1, 4)
    model, oracle = linear_gaussian(rng.normal(size=(dim_x, dim_z)), rng.normal(size=dim_x), rng.uniform(0.1, 2.0))
    return model, oracle, rng.normal(size=dim_x), rng.normal(size=dim_z), rng.uniform(0.1, 1.5, size=dim_z)


def spec_case() -> Case:
    return (*linear_gaussian(W, np.zeros(3), 0.5), X, np.array([0.3, -0.2]), np.array([0.6, 0.4]))


CASES = [spec_case, *(lambda seed=seed: random_case(seed) for seed in range(4))]


def fixed(mean: Array, scale: Array, batch: int = 1) -> Callable[[Tensor, Tensor | None], DiagonalNormal]:
    q = DiagonalNormal(torch.tensor(mean).expand(batch, -1), torch.tensor(scale).log())
    return lambda x, context: q


def constant(q: Distribution) -> Callable[[Tensor, Tensor | None], Distribution]:
    return lambda x, context: q


def assert_within(estimates: Tensor, expected: float, errors: float = 4.0) -> None:
    """The mean of independent estimates (N,) lies within so many standard errors."""
    standard_error = (estimates.std() / math.sqrt(len(estimates))).item()
    assert abs(estimates.mean().item() - expected) <= errors * standard_error + 1e-9


# ------------------------------------------------------------------ the oracles against themselves


@pytest.mark.parametrize("case", CASES)
def test_oracle_of_the_linear_gaussian_against_quadrature(case: Callable[[], Case]) -> None:
    _, oracle, x, mean, scale = case()
    if oracle.dim_z > 2:
        mean, scale = mean[:2], scale[:2]
        oracle = oracles.LinearGaussianOracle(oracle.weight[:, :2], oracle.mu, oracle.s2)
    covariance = np.diag(scale**2)
    log_p, bound, kl = oracles.latent_quadrature(lambda z: oracle.log_likelihood(x, z), mean, covariance, points=1201)
    assert oracle.log_prob(x) == pytest.approx(log_p, abs=1e-8)
    assert oracle.elbo(x, mean, covariance) == pytest.approx(bound, abs=1e-8)
    assert oracle.gap(x, mean, covariance) == pytest.approx(kl, abs=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_oracle_gradients_against_finite_differences(case: Callable[[], Case]) -> None:
    _, oracle, x, mean, scale = case()
    gradients = np.concatenate(oracle.elbo_gradient(x, mean, scale))
    point, dim = np.concatenate([mean, np.log(scale)]), len(mean)

    def bound(point: Array) -> float:
        return oracle.elbo(x, point[:dim], np.diag(np.exp(2.0 * point[dim:])))

    steps = 1e-5 * np.eye(2 * dim)
    differences = [(bound(point + step) - bound(point - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(gradients, differences, rtol=1e-6, atol=1e-7)


def test_oracle_of_the_mean_field_gap_is_the_smallest_divergence_of_a_diagonal_q() -> None:
    _, oracle, x, _, _ = spec_case()
    assert oracle.mean_field_gap() == pytest.approx(0.030342, abs=1e-6)
    best = 1.0 / np.diag(oracle.precision)
    mean = oracle.posterior_mean(x)
    assert oracle.gap(x, mean, np.diag(best)) == pytest.approx(oracle.mean_field_gap(), abs=1e-12)
    for factor in (0.99, 1.01):
        assert oracle.gap(x, mean, np.diag(best * factor)) > oracle.mean_field_gap()
        assert oracle.gap(x, mean * factor, np.diag(best)) > oracle.mean_field_gap()


@pytest.mark.parametrize("delta", [0.3, 0.5, 1.0])
def test_oracle_of_importance_weights_by_three_routes(delta: float) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    log_weight = -delta * nodes - 0.5 * delta**2
    pair = np.logaddexp(log_weight[:, None], log_weight[None, :]) - np.log(2.0)
    assert oracles.iwae_of_a_shifted_posterior(delta, 1) == pytest.approx(-0.5 * delta**2, abs=1e-8)
    assert oracles.iwae_of_a_shifted_posterior(delta, 2) == pytest.approx(weights @ pair @ weights, abs=1e-8)
    assert oracles.iwae_of_a_shifted_posterior(delta, 2) == pytest.approx(oracles.iwae_of_two_samples(delta), abs=1e-8)
    asymptote = oracles.iwae_of_a_shifted_posterior_asymptote(delta, 4096)
    assert oracles.iwae_of_a_shifted_posterior(delta, 4096) == pytest.approx(asymptote, rel=2e-3)


def test_numbers_of_importance_weights() -> None:  # B6
    for (delta, num_samples), expected in {
        (0.5, 2): -0.065884,
        (1.0, 2): -0.290485,
        (0.5, 8): -0.017358,
        (0.5, 64): -0.002212,
    }.items():
        assert oracles.iwae_of_a_shifted_posterior(delta, num_samples) == pytest.approx(expected, abs=1e-5)


# ------------------------------------------------------------------ B1, B2: log p = ELBO + KL(q, p(z|x))


@pytest.mark.parametrize("case", CASES)
def test_identity_of_the_linear_gaussian(case: Callable[[], Case]) -> None:  # B1
    model, oracle, x, mean, scale = case()
    covariance = np.diag(scale**2)
    expected = oracle.elbo(x, mean, covariance)
    assert float(oracle.log_prob(x)) - expected == pytest.approx(oracle.gap(x, mean, covariance), abs=1e-10)
    data, q = torch.tensor(x)[None], fixed(mean, scale)
    for estimator in ELBO_ESTIMATORS:
        batch = data.expand(200, -1)
        bound = elbo(model, fixed(mean, scale, 200), batch, num_samples=1000, estimator=estimator)  # 2e5 samples
        assert_within(bound.elbo, expected)
        torch.testing.assert_close(bound.objective, bound.elbo)
    # the exact likelihood: its expectation over q is linear in the second moments, which antithetic nodes reproduce
    bound = elbo(model, lambda x, context: Quadrature(q(x, context)), data, num_samples=2 * len(mean))
    assert bound.elbo.item() == pytest.approx(expected, abs=1e-5)
    assert bound.log_likelihood.item() == pytest.approx(oracle.expected_log_likelihood(x, mean, covariance), abs=1e-5)
    zero, one = np.zeros(len(mean)), np.eye(len(mean))
    assert bound.kl.item() == pytest.approx(oracles.normal_kl(mean, covariance, zero, one), abs=1e-10)
    torch.testing.assert_close(bound.elbo, bound.log_likelihood - bound.kl)
    assert bound.kl_per_dim is not None
    torch.testing.assert_close(bound.kl_per_dim.sum(-1), bound.kl)


class Quadrature(DiagonalNormal):
    """A Normal whose "samples" are 2 D points with its mean and its covariance."""

    def __init__(self, normal: DiagonalNormal) -> None:
        super().__init__(normal.loc, normal.log_scale)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        dim = self.loc.shape[-1]
        step = math.sqrt(dim) * torch.cat([torch.eye(dim), -torch.eye(dim)])
        return self.loc + self.stddev * step[:, None]


def random_network(rng: np.random.Generator, sizes: list[int]) -> list[tuple[Array, Array]]:
    return [(1.2 * rng.normal(size=(n, m)) / math.sqrt(m), 0.5 * rng.normal(size=n)) for m, n in pairwise(sizes)]


def as_module(layers: list[tuple[Array, Array]]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(weight))
            linear.bias.copy_(torch.tensor(bias))
        modules += [linear, nn.Tanh()]
    return nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_identity_of_a_nonlinear_model(dim: int, seed: int) -> None:  # B2
    rng = np.random.default_rng(seed)
    layers, sigma = random_network(rng, [dim, 16, 3]), 0.4
    x, mean, scale = rng.normal(size=3), 0.5 * rng.normal(size=dim), rng.uniform(0.3, 0.9, size=dim)

    def log_likelihood(z: Array) -> Array:
        return oracles.normal_log_pdf(x, oracles.tanh_network(layers, z), sigma**2 * np.eye(3))

    log_p, bound, kl = oracles.latent_quadrature(log_likelihood, mean, np.diag(scale**2))
    finer = oracles.latent_quadrature(log_likelihood, mean, np.diag(scale**2), points=601)
    np.testing.assert_allclose((log_p, bound, kl), finer, atol=1e-8)
    assert abs(log_p - kl - bound) < 1e-6
    model = LatentVariableModel(
        StandardNormalPrior(dim), Conditional(as_module(layers), GaussianHead(3, FixedScale(sigma)))
    ).double()
    batch, q = torch.tensor(x).expand(200, -1), fixed(mean, scale, 200)
    for estimator in ELBO_ESTIMATORS:
        assert_within(elbo(model, q, batch, num_samples=500, estimator=estimator).elbo, bound)
    # with the prior as q the weights are bounded, and the mean of exp(IWAE_K) is p(x) at any K
    estimate, lower, gap = evidence_gap(model, lambda x, context: model.prior(x), batch, num_samples=2000)
    assert_within((estimate - log_p).exp(), 1.0)
    prior_bound = oracles.latent_quadrature(log_likelihood, np.zeros(dim), np.eye(dim))[1]
    assert_within(lower, prior_bound)
    torch.testing.assert_close(gap, estimate - lower)
    assert (gap >= 0).all()


# ------------------------------------------------------------------ B6: importance weights


@pytest.mark.parametrize("delta", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_iwae_of_a_shifted_posterior(delta: float, seed: int) -> None:  # B6
    rng = np.random.default_rng(seed)
    weight = np.array([[1.3], [-0.4]]) if seed == 0 else rng.normal(size=(4, 1))
    model, oracle = linear_gaussian(weight, rng.normal(size=len(weight)), 0.7)
    x = rng.normal(size=len(weight))
    scale = np.sqrt(np.diag(oracle.covariance))
    mean = oracle.posterior_mean(x) + delta * scale
    log_p, total, means = float(oracle.log_prob(x)), 400_000, []
    for num_samples in (1, 2, 8, 64):
        batch = total // num_samples
        bound = iwae(model, fixed(mean, scale, batch), torch.tensor(x).expand(batch, -1), num_samples=num_samples)
        means.append(bound.elbo.mean().item() - log_p)
        assert_within(bound.elbo - log_p, oracles.iwae_of_a_shifted_posterior(delta, num_samples))
    assert all(low < high for low, high in pairwise(means))
    assert means[-1] < 0.0


def test_temperature_runs_from_the_elbo_over_iwae_to_the_largest_weight() -> None:
    model, _, x, mean, scale = spec_case()
    values = []
    for temperature in (math.inf, 5.0, 1.0, 0.2, 1e-3):
        torch.manual_seed(3)
        bound = iwae(model, fixed(mean, scale), torch.tensor(x)[None], num_samples=32, temperature=temperature)
        values.append(bound.elbo.item())
    assert all(low < high for low, high in pairwise(values))
    torch.manual_seed(3)
    reference = elbo(model, fixed(mean, scale), torch.tensor(x)[None], num_samples=32, estimator="reparam")
    assert values[0] == pytest.approx(reference.elbo.item())


# ------------------------------------------------------------------ B7-B10: gradients


def replicate_gradients(
    bound_of: Callable[..., Bound],
    mean: Array,
    scale: Array,
    x: Array,
    replicates: int,
) -> Tensor:
    """(N, 2 Z): the gradient of each of N independent estimates with respect to the mean and the log-scale of q."""
    loc = torch.tensor(mean).expand(replicates, -1).clone().requires_grad_()
    log_scale = torch.tensor(scale).log().expand(replicates, -1).clone().requires_grad_()
    bound = bound_of(lambda x, context: DiagonalNormal(loc, log_scale), torch.tensor(x).expand(replicates, -1))
    return torch.cat(torch.autograd.grad(bound.objective.sum(), [loc, log_scale]), -1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("estimator", "num_samples"), [*((e, 1) for e in ELBO_ESTIMATORS), ("score", 4), ("stl", 3)])
def test_every_estimator_has_the_gradient_of_the_elbo(
    case: Callable[[], Case], estimator: str, num_samples: int
) -> None:
    model, oracle, x, mean, scale = case()  # B7
    gradients = replicate_gradients(
        partial(elbo, model, estimator=estimator, num_samples=num_samples), mean, scale, x, 20_000
    )
    expected = np.concatenate(oracle.elbo_gradient(x, mean, scale))
    for column, value in zip(gradients.T, expected, strict=True):
        assert_within(column, value)


def test_numbers_of_the_specified_case() -> None:  # B7
    _, oracle, x, mean, scale = spec_case()
    covariance = np.diag(scale**2)
    assert oracle.elbo(x, mean, covariance) == pytest.approx(-5.220911, abs=1e-6)
    assert oracle.gap(x, mean, covariance) == pytest.approx(0.364790, abs=1e-6)
    np.testing.assert_allclose(np.concatenate(oracle.elbo_gradient(x, mean, scale)), [0.226, 1.888, -0.26, 0.0944])


@pytest.mark.parametrize(
    ("estimator", "num_samples", "expected", "rel"),
    [
        ("analytic", 1, 9.75, 0.03),
        ("reparam", 1, 15.68, 0.03),
        ("stl", 1, 1.725, 0.03),
        ("dreg", 1, 1.725, 0.03),
        ("score", 1, 385.0, 0.05),
        ("score", 4, 25.5 / 4, 0.05),
    ],
)
def test_total_variance_of_the_gradient(estimator: str, num_samples: int, expected: float, rel: float) -> None:  # B7
    model, _, x, mean, scale = spec_case()
    gradients = replicate_gradients(
        partial(elbo, model, estimator=estimator, num_samples=num_samples), mean, scale, x, 100_000
    )
    assert gradients.var(0).sum().item() == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_sticking_the_landing_has_no_noise_at_the_posterior(
    dtype: torch.dtype, tolerance: float, estimator: str
) -> None:
    model, _, x, _, _ = spec_case()  # B8
    model.to(dtype)
    batch = torch.tensor(x, dtype=dtype).expand(1000, -1)
    exact = model.posterior(batch)
    loc, tril = (t.detach().clone().requires_grad_() for t in (exact.loc, exact.scale_tril))
    bound = elbo(model, lambda x, context: FullNormal(loc, tril), batch, estimator=estimator)
    gradients = torch.autograd.grad(bound.objective.sum(), [loc, tril])
    assert max(gradient.abs().max().item() for gradient in gradients) < tolerance
    bound = iwae(model, lambda x, context: FullNormal(loc, tril), batch, num_samples=8)
    gradients = torch.autograd.grad(bound.objective.sum(), [loc, tril])
    assert max(gradient.abs().max().item() for gradient in gradients) < tolerance


def test_signal_to_noise_of_importance_weighted_gradients() -> None:  # B9
    """Posterior N(0, 1): the likelihood does not look at z. q = N(0.5, 1.2^2), gradient with respect to its mean."""
    model, _ = linear_gaussian(np.zeros((1, 1)), np.zeros(1), 1.0)
    ratios: dict[str, list[float]] = {"reparam": [], "dreg": []}
    for num_samples in (1, 8, 64, 256):
        gradients = {}
        for estimator, found in ratios.items():
            parts = [
                replicate_gradients(
                    partial(iwae, model, num_samples=num_samples, estimator=estimator),
                    np.array([0.5]),
                    np.array([1.2]),
                    np.zeros(1),
                    5_000,
                )[:, 0]
                for _ in range(4)
            ]
            gradients[estimator] = torch.cat(parts)
            found.append((gradients[estimator].mean().abs() / gradients[estimator].std()).item())
        difference = gradients["reparam"].mean() - gradients["dreg"].mean()
        error = torch.stack([g.var() / len(g) for g in gradients.values()]).sum().sqrt()
        assert abs(difference / error) < 4.0
    assert ratios["reparam"][-1] < 0.5 * ratios["reparam"][0]
    assert ratios["dreg"][-1] > 4.0 * ratios["dreg"][0]
    # a ratio r found with N replicates has a standard error of about sqrt((1 + r^2 / 2) / N)
    for ratio, expected in zip(ratios["reparam"], (0.415, 0.120, 0.045, 0.022), strict=True):
        assert ratio == pytest.approx(expected, abs=4 * math.sqrt(1 / 20_000))
    for ratio, expected in zip(ratios["dreg"], (1.363, 2.47, 7.07, 14.1), strict=True):
        assert ratio == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("estimator", ["dreg", "score"])
@pytest.mark.parametrize("temperature", [1.0, 0.4, 3.0, math.inf])
@pytest.mark.parametrize("num_samples", [2, 5])
def test_importance_weighted_estimators_agree_at_every_temperature(
    estimator: str, temperature: float, num_samples: int
) -> None:
    model, _, x, mean, scale = random_case(2)
    reference, other = (
        replicate_gradients(
            partial(iwae, model, num_samples=num_samples, estimator=e, temperature=temperature),
            mean,
            scale,
            x,
            40_000,
        )
        for e in ("reparam", estimator)
    )
    error = ((reference.var(0) + other.var(0)) / len(other)).sqrt()
    assert ((reference.mean(0) - other.mean(0)).abs() < 4.0 * error).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0, math.inf])
@pytest.mark.parametrize("num_samples", [1, 7])
def test_dreg_gives_the_model_the_plain_gradient(
    case: Callable[[], Case], temperature: float, num_samples: int
) -> None:
    model, _, x, mean, scale = case()  # B10
    batch, found = torch.tensor(x).expand(11, -1), []
    for estimator in ("reparam", "dreg"):
        torch.manual_seed(5)
        q = DiagonalNormal(torch.tensor(mean).expand(11, -1).requires_grad_(), torch.tensor(scale).log())
        bound = iwae(
            model,
            constant(q),
            batch,
            num_samples=num_samples,
            estimator=estimator,
            temperature=temperature,
        )
        found.append(torch.autograd.grad(bound.objective.sum(), list(model.parameters())))
    for plain, doubly in zip(*found, strict=True):
        torch.testing.assert_close(plain, doubly, rtol=1e-5, atol=1e-10)


def test_dreg_gives_a_learned_prior_the_plain_gradient_too() -> None:
    model = LatentVariableModel(
        ConditionalNormalPrior(nn.Linear(2, 4)), Conditional(nn.Linear(4, 3), GaussianHead(3, LearnedScale(-1.0)))
    )
    x, context = torch.randn(6, 3), torch.randn(6, 2)
    found = []
    for estimator in ("reparam", "dreg"):
        torch.manual_seed(5)
        loc = torch.zeros(6, 2, requires_grad=True)
        bound = iwae(model, constant(DiagonalNormal(loc, loc)), x, context, num_samples=9, estimator=estimator)
        found.append(torch.autograd.grad(bound.objective.sum(), list(model.parameters())))
    for plain, doubly in zip(*found, strict=True):
        torch.testing.assert_close(plain, doubly, rtol=1e-5, atol=1e-10)


# ------------------------------------------------------------------ B11: no mean over an event or a latent axis


@pytest.mark.parametrize("case", CASES)
def test_two_independent_copies_have_twice_the_nats(case: Callable[[], Case]) -> None:  # B11
    model, oracle, x, mean, scale = case()
    zero = np.zeros_like(oracle.weight)
    double, _ = linear_gaussian(
        np.block([[oracle.weight, zero], [zero, oracle.weight]]), np.concatenate([oracle.mu] * 2), oracle.s2
    )
    data = torch.tensor(x)[None]
    once, twice = Quadrature(fixed(mean, scale)(data, None)), Copies(fixed(mean, scale)(data, None))
    for estimator in ("analytic", "reparam", "stl"):
        k = 2 * len(mean)
        single = elbo(model, lambda x, c: once, data, num_samples=k, estimator=estimator)
        pair = elbo(double, lambda x, c: twice, data.repeat(1, 2), num_samples=k, estimator=estimator)
        for field in ("elbo", "log_likelihood", "kl", "objective"):
            torch.testing.assert_close(getattr(pair, field), 2.0 * getattr(single, field), rtol=1e-5, atol=1e-9)
    one = evidence_gap(model, lambda x, c: model.posterior(x), data)[0]
    two = evidence_gap(double, lambda x, c: double.posterior(x), data.repeat(1, 2))[0]
    torch.testing.assert_close(two, 2.0 * one, rtol=1e-5, atol=1e-9)


class Copies(DiagonalNormal):
    """Two copies of a Normal that share their "samples"."""

    def __init__(self, normal: DiagonalNormal) -> None:
        super().__init__(normal.loc.repeat(1, 2), normal.log_scale.repeat(1, 2))
        self.single = Quadrature(normal)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.single.rsample(sample_shape).repeat(1, 1, 2)


# ------------------------------------------------------------------ C5: a distribution over binary data


def test_probabilities_of_all_binary_vectors_sum_to_one() -> None:  # C5
    rng = np.random.default_rng(0)
    layers = random_network(rng, [1, 8, 4])
    model = LatentVariableModel(StandardNormalPrior(1), Conditional(as_module(layers), BernoulliHead(4))).double()
    outcomes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)  # (16, 4)
    z, cell = oracles.grid(1, 10.0, 2001)
    with torch.no_grad():
        nodes = torch.tensor(z)[:, None].expand(-1, 16, -1)
        log_joint = model.likelihood(nodes, None).log_prob(outcomes) + model.prior(None).log_prob(nodes)
        exact = log_joint.logsumexp(0) + math.log(cell)
    assert exact.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    logits = oracles.tanh_network(layers, z)  # (2001, 4)
    probability = 1.0 / (1.0 + np.exp(-logits))
    x = outcomes.numpy()[:, None]
    likelihood = (probability**x * (1.0 - probability) ** (1.0 - x)).prod(-1)
    expected = np.log((likelihood * np.exp(oracles.normal_log_pdf(z, np.zeros(1), np.eye(1)))).sum(-1) * cell)
    np.testing.assert_allclose(exact.numpy(), expected, atol=1e-10)
    posterior = fit_local(model, outcomes)  # far from Normal: one IWAE_5000 has a standard deviation of up to 0.02
    bounds = torch.stack([iwae(model, posterior, outcomes, num_samples=5000).elbo for _ in range(20)])
    assert (bounds.mean(0) - exact).abs().max() < 0.01


# ------------------------------------------------------------------ C7: the published loss


@pytest.mark.parametrize(("obs_dim", "action_dim", "batch"), [(3, 2, 5), (11, 3, 100), (4, 1, 1)])
def test_published_loss_of_bcq_is_the_elbo(obs_dim: int, action_dim: int, batch: int) -> None:  # C7
    """mse_loss + 0.5 * KL.mean() with Z = 2A is the negative ELBO at sigma^2 = 1/8, times 2 sigma^2 / A."""
    latent_dim, sigma2 = 2 * action_dim, 1.0 / 8.0
    encoder = nn.Sequential(nn.Linear(obs_dim + action_dim, 20), nn.ReLU(), nn.Linear(20, 2 * latent_dim))
    decoder = nn.Sequential(nn.Linear(obs_dim + latent_dim, 20), nn.ReLU(), nn.Linear(20, action_dim))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    state, action = torch.randn(batch, obs_dim), torch.rand(batch, action_dim) * 2 - 1

    torch.manual_seed(7)
    mean, log_std = encoder(torch.cat([state, action], 1)).chunk(2, dim=1)
    std = log_std.clamp(-4, 15).exp()
    z = mean + std * torch.randn(1, *mean.shape)[0]
    reconstruction = torch.tanh(decoder(torch.cat([state, z], 1)))
    kl = -0.5 * (1 + torch.log(std.pow(2)) - mean.pow(2) - std.pow(2))
    published = nn.functional.mse_loss(reconstruction, action) + 0.5 * kl.mean()
    expected = torch.autograd.grad(published, parameters)

    torch.manual_seed(7)
    model = LatentVariableModel(
        StandardNormalPrior(latent_dim),
        Conditional(decoder, GaussianHead(action_dim, FixedScale(math.sqrt(sigma2)), torch.tanh)),
    ).double()

    def posterior(x: Tensor, context: Tensor | None) -> DiagonalNormal:
        assert context is not None
        loc, log_scale = encoder(torch.cat([context, x], 1)).chunk(2, dim=1)
        return DiagonalNormal(loc, log_scale.clamp(-4, 15))

    loss = -elbo(model, posterior, action, state).objective.mean()
    factor = 2.0 * sigma2 / action_dim
    found = torch.autograd.grad(factor * loss, parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    constant = 0.5 * action_dim * math.log(2.0 * math.pi * sigma2)
    torch.testing.assert_close(factor * (loss - constant), published, rtol=1e-6, atol=1e-7)


# ------------------------------------------------------------------ C8: what changes the objective, and what never does


def small_cvae(dtype: torch.dtype = torch.float64) -> tuple[LatentVariableModel, AmortizedPosterior]:
    model = LatentVariableModel(
        ConditionalNormalPrior(nn.Linear(3, 8)), Conditional(nn.Linear(3 + 4, 4), TanhNormalHead(2, -1.0))
    )
    return model.to(dtype), AmortizedPosterior(nn.Linear(3 + 2, 8)).to(dtype)


def test_beta_and_free_bits_change_the_objective_only() -> None:  # C8
    model, posterior = small_cvae()
    x, context = torch.rand(6, 2) * 2 - 1, torch.randn(6, 3)
    bounds = {}
    for name, options in {
        "plain": {},
        "beta": {"beta": 0.3},
        "warm-up": {"beta": torch.tensor(0.0)},
        "free bits": {"free_bits": 0.7},
        "balance": {"kl_balance": 0.8},
    }.items():
        torch.manual_seed(2)
        bounds[name] = elbo(model, posterior, x, context, **options)  # type: ignore[arg-type]
    for bound in bounds.values():
        for field in ("elbo", "log_likelihood", "kl", "kl_per_dim"):
            assert torch.equal(getattr(bound, field), getattr(bounds["plain"], field))
    plain = bounds["plain"]
    torch.testing.assert_close(plain.objective, plain.elbo)
    torch.testing.assert_close(bounds["beta"].objective, plain.log_likelihood - 0.3 * plain.kl)
    torch.testing.assert_close(bounds["warm-up"].objective, plain.log_likelihood)
    torch.testing.assert_close(bounds["balance"].objective, plain.elbo)
    assert plain.kl_per_dim is not None
    floor = torch.clamp(plain.kl_per_dim.mean(0), min=0.7).sum()
    torch.testing.assert_close(bounds["free bits"].objective.mean(), plain.log_likelihood.mean() - floor)


def test_warm_up_counts_training_calls_only() -> None:
    warmup = KLWarmup(4)
    assert [warmup().item() for _ in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    fresh = KLWarmup(4)
    fresh.eval()
    assert [fresh().item() for _ in range(3)] == [1.0, 1.0, 1.0]
    fresh.train()
    assert fresh().item() == 0.25
    assert KLWarmup(0)().item() == 1.0


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_free_bits_leave_no_gradient_below_the_threshold(beta: float) -> None:  # C8
    loc = torch.tensor([[2.0, 0.1], [1.5, -0.1]], requires_grad=True)
    model, _ = linear_gaussian(np.zeros((1, 2)), np.zeros(1), 1.0)  # the likelihood does not look at z
    bound = elbo(model, lambda x, c: DiagonalNormal(loc, torch.zeros(2)), torch.zeros(2, 1), free_bits=0.5, beta=beta)
    (gradient,) = torch.autograd.grad(bound.objective.sum(), loc)
    assert torch.equal(gradient[:, 1], torch.zeros(2))
    torch.testing.assert_close(gradient[:, 0], -beta * loc.detach()[:, 0])


@pytest.mark.parametrize("balance", [0.0, 0.3, 1.0])
def test_balance_shares_the_divergence_out_between_prior_and_posterior(balance: float) -> None:
    """By hand, for unit scales: d KL / d m_q = m_q - m_p = -d KL / d m_p."""
    q_loc, p_loc = (torch.tensor(values, requires_grad=True) for values in ([[2.0, 0.1]], [[0.5, -0.4]]))

    class Shifted(nn.Module):
        def forward(self, context: Tensor | None = None) -> DiagonalNormal:
            return DiagonalNormal(p_loc, torch.zeros(2))

    blind, _ = linear_gaussian(np.zeros((1, 2)), np.zeros(1), 1.0)
    model = LatentVariableModel(Shifted(), blind.likelihood)
    bound = elbo(model, lambda x, c: DiagonalNormal(q_loc, torch.zeros(2)), torch.zeros(1, 1), kl_balance=balance)
    to_q, to_p = torch.autograd.grad(-bound.objective.sum(), [q_loc, p_loc])
    error = (q_loc - p_loc).detach()
    torch.testing.assert_close(to_q, (1.0 - balance) * error)
    torch.testing.assert_close(to_p, -balance * error)


def test_free_bits_need_a_divergence_per_dimension() -> None:
    model, posterior = small_cvae()
    x, context = torch.rand(6, 2) * 2 - 1, torch.randn(6, 3)
    with pytest.raises(ConfigError, match="balance"):
        elbo(model, posterior, x, context, kl_balance=0.5, estimator="reparam")
    with pytest.raises(ConfigError, match="free bits"):
        elbo(model, posterior, x, context, free_bits=0.5, estimator="stl")
    with pytest.raises(ConfigError, match="unknown estimator 'magic'"):
        elbo(model, posterior, x, context, estimator="magic")
    with pytest.raises(ConfigError, match="unknown estimator 'stl'"):
        iwae(model, posterior, x, context, estimator="stl")


@pytest.mark.parametrize("estimator", ELBO_ESTIMATORS)
def test_beta_and_likelihood_weight_reach_the_gradient_of_every_estimator(estimator: str) -> None:
    """The gradient of weight * E_q log p(x|z) - beta * KL, known from two ELBOs: that of the model and that of a model
    whose likelihood does not look at z."""
    model, oracle, x, mean, scale = spec_case()
    gradients = replicate_gradients(
        partial(elbo, model, estimator=estimator, num_samples=4, beta=0.4, likelihood_weight=3.0),
        mean,
        scale,
        x,
        20_000,
    )
    kl_gradient = np.concatenate([mean, scale**2 - 1.0])
    expected = 3.0 * (np.concatenate(oracle.elbo_gradient(x, mean, scale)) + kl_gradient) - 0.4 * kl_gradient
    for column, value in zip(gradients.T, expected, strict=True):
        assert_within(column, value)


def test_likelihood_weight_belongs_to_the_bound() -> None:
    model, posterior = small_cvae()
    bound = elbo(model, posterior, torch.zeros(5, 2), torch.randn(5, 3), likelihood_weight=10.0)
    torch.testing.assert_close(bound.elbo, 10.0 * bound.log_likelihood - bound.kl)


# ------------------------------------------------------------------ shapes, types, gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_shapes_and_types(dtype: torch.dtype, batch: int, num_samples: int) -> None:
    model, posterior = small_cvae(dtype)
    x, context = torch.rand(batch, 2, dtype=dtype) * 2 - 1, torch.randn(batch, 3, dtype=dtype)
    parameters = [*model.parameters(), *posterior.parameters()]
    bounds = [elbo(model, posterior, x, context, num_samples=num_samples, estimator=e) for e in ELBO_ESTIMATORS]
    bounds += [iwae(model, posterior, x, context, num_samples=num_samples, estimator=e) for e in IWAE_ESTIMATORS]
    for bound in bounds:
        for value in bound[:4]:
            assert value is not None
            assert value.shape == (batch,)
            assert value.dtype == dtype
            assert torch.isfinite(value).all()
        gradients = torch.autograd.grad(bound.objective.mean(), parameters, allow_unused=True)
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)
        assert all(g is not None and g.abs().sum() > 0 for g in gradients)
    assert bounds[0].kl_per_dim is not None
    assert bounds[0].kl_per_dim.shape == (batch, 4)
    with torch.no_grad():
        for value in evidence_gap(model, posterior, x, context, num_samples=num_samples):
            assert value.shape == (batch,)
        assert iwae(model, posterior, x, context).elbo.shape == (batch,)


def test_a_bound_keeps_an_axis_of_seeds() -> None:
    """(S, B, .): nothing but dim 0, the samples, and the event is reduced."""
    model, posterior = small_cvae()
    x, context = torch.rand(2, 5, 2) * 2 - 1, torch.randn(2, 5, 3)
    for bound in (elbo(model, posterior, x, context, num_samples=3, free_bits=0.1), iwae(model, posterior, x, context)):
        assert bound.elbo.shape == bound.objective.shape == (2, 5)


@pytest.mark.parametrize("estimator", IWAE_ESTIMATORS)
def test_images_without_flattening(estimator: str) -> None:
    class Decoder(nn.Module):
        def forward(self, z: Tensor, context: Tensor | None = None) -> Distribution:
            loc = z.sum(-1)[..., None, None, None].expand(*z.shape[:-1], 1, 4, 4)
            return Independent(Normal(loc, 1.0), 3)

    model = LatentVariableModel(StandardNormalPrior(2), Decoder())
    bound = iwae(model, fixed(np.zeros(2), np.ones(2), 5), torch.randn(5, 1, 4, 4), num_samples=3, estimator=estimator)
    assert bound.elbo.shape == (5,)


def test_same_seed_same_numbers_and_float32_agrees_with_float64() -> None:
    model, posterior = small_cvae()
    x, context = torch.rand(64, 2) * 2 - 1, torch.randn(64, 3)
    noise = torch.randn(8, 64, 4)

    class Noise(DiagonalNormal):
        def rsample(self, sample_shape: Any = ()) -> Tensor:
            return self.loc + self.stddev * noise.to(self.loc.dtype)

    def bound(dtype: torch.dtype) -> Tensor:
        model.to(dtype)
        posterior.to(dtype)

        def q(x: Tensor, context: Tensor | None) -> DiagonalNormal:
            normal = posterior(x, context)
            return Noise(normal.loc, normal.log_scale)

        return iwae(model, q, x.to(dtype), context.to(dtype), num_samples=8).elbo.double()

    torch.testing.assert_close(bound(torch.float32), bound(torch.float64), rtol=1e-4, atol=1e-4)
    values = []
    for _ in range(2):
        torch.manual_seed(11)
        values.append(elbo(model, posterior, x, context).objective)
    assert torch.equal(*values)


def test_discrete_latents_by_the_score_estimator() -> None:
    """The gradient of the ELBO of a mixture, whose q has free logits, against the sum over its components."""
    mixture = Mixture(MixtureParameters(3, 2)).double()
    x, logits = torch.randn(1, 2), torch.tensor([0.3, -0.5, 0.9], requires_grad=True)
    responsibilities = torch.softmax(logits, 0)
    exact = (responsibilities * (mixture.log_joint(x)[0].detach() - responsibilities.log())).sum()
    (expected,) = torch.autograd.grad(exact, logits)
    batch = 40_000
    free = logits.detach().expand(batch, -1).clone().requires_grad_()
    bound = elbo(
        mixture,
        lambda x, c: torch.distributions.OneHotCategorical(logits=free),
        x.expand(batch, -1),
        num_samples=3,
        estimator="score",
    )
    (gradients,) = torch.autograd.grad(bound.objective.sum(), free)
    for column, value in zip(gradients.T, expected, strict=True):
        assert_within(column, value.item())
    assert_within(bound.elbo.detach(), exact.item())


def test_squashed_posteriors_work_with_the_sampling_estimators() -> None:
    prior = nn.Module()
    prior.forward = lambda context=None: TanhNormal(torch.zeros(2), torch.zeros(2))
    model = LatentVariableModel(prior, Conditional(nn.Linear(2, 3), GaussianHead(3, FixedScale(0.5)))).double()
    loc = torch.randn(500, 2, requires_grad=True)
    x = torch.randn(500, 3)

    def q(x: Tensor, context: Tensor | None) -> TanhNormal:
        return TanhNormal(loc, torch.full((2,), -0.5))

    values = [elbo(model, q, x, num_samples=200, estimator=e) for e in ("analytic", "reparam", "stl")]
    for bound in values:
        assert torch.autograd.grad(bound.objective.sum(), loc)[0].abs().sum() > 0
        difference = bound.elbo.detach() - values[0].elbo.detach()
        assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(500) + 1e-12


# ------------------------------------------------------------------ metrics


def test_metrics() -> None:
    first, second, third, fourth = (torch.tensor([float(i), i + 1.0], requires_grad=True) for i in range(4))
    bound = Bound(first, second, third, fourth, None)
    assert rate(bound).item() == 2.5
    assert distortion(bound).item() == -1.5
    metrics = bound_metrics(bound, "vae")
    assert {name: value.item() for name, value in metrics.items()} == {
        "vae/elbo": 0.5,
        "vae/rate": 2.5,
        "vae/distortion": -1.5,
    }
    assert not any(value.requires_grad for value in metrics.values())
    loc = torch.tensor([[0.0, 1.0, 0.05], [1.0, 1.0, -0.05], [2.0, 1.0, 0.0]])
    assert active_units(loc).item() == 1
