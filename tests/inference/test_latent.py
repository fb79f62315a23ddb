"""The exact models against their closed forms, and the parts that models are composed of."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import oracles
import pytest
import torch
from torch import nn

from offline_vi.distributions.heads import GaussianHead, LearnedScale, TanhNormalHead
from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.inference.bounds import elbo, evidence_gap, iwae
from offline_vi.inference.latent import (
    Conditional,
    ConditionalMixtureParameters,
    ConditionalNormalPrior,
    LatentVariableModel,
    LinearGaussian,
    Mixture,
    MixtureParameters,
    StandardNormalPrior,
)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


# ------------------------------------------------------------------ parts


def test_standard_prior_takes_the_batch_of_its_context_and_the_type_of_its_module() -> None:
    prior = StandardNormalPrior(3)
    assert prior().batch_shape == ()
    assert prior(torch.zeros(5, 2)).batch_shape == (5,)
    assert prior(torch.zeros(4, 5, 2)).rsample((7,)).shape == (7, 4, 5, 3)
    assert prior.float()(torch.zeros(5, 2)).rsample().dtype == torch.float32
    assert not prior.state_dict()


def test_conditional_prior_begins_near_the_standard_one_and_is_bounded() -> None:
    net = nn.Linear(2, 6)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    prior = ConditionalNormalPrior(net)(torch.randn(4, 2))
    torch.testing.assert_close(prior.stddev, torch.ones(4, 3))
    torch.testing.assert_close(prior.loc, torch.zeros(4, 3))


@pytest.mark.parametrize("shape", [(5, 3), (7, 5, 3), (7, 2, 5, 3)])
def test_conditional_broadcasts_the_context_over_samples(shape: tuple[int, ...]) -> None:
    likelihood = Conditional(nn.Linear(2 + 3, 4), TanhNormalHead(2))
    z, context = torch.randn(*shape), torch.randn(5, 2)
    law = likelihood(z, context)
    assert law.batch_shape == shape[:-1]
    by_hand = likelihood.net(torch.cat([context.expand(*shape[:-1], 2), z], -1))
    torch.testing.assert_close(law.base.loc, by_hand[..., :2])


def test_latents_are_standardised_by_the_prior() -> None:
    """N(m, s^2) with a decoder of z is the same model as N(0, 1) with a decoder of m + s z."""

    class Shifted(nn.Module):
        def forward(self, context: torch.Tensor | None = None) -> DiagonalNormal:
            return DiagonalNormal(torch.tensor([0.7]), torch.tensor([0.3]))

    decoder, scale = nn.Linear(1, 2), LearnedScale(-0.5)
    shifted = LatentVariableModel(Shifted(), Conditional(decoder, GaussianHead(2, scale)))
    weight = decoder.weight.detach() * math.exp(0.3)
    bias = decoder.bias.detach() + 0.7 * decoder.weight.detach()[:, 0]
    exact = LinearGaussian(weight, bias, float(scale.log_scale.detach().exp() ** 2))
    x = torch.randn(4, 2)
    standard = exact.posterior(x)
    q = DiagonalNormal(0.7 + math.exp(0.3) * standard.loc, 0.3 + standard.stddev.log())
    for bound in (
        elbo(shifted, lambda x, c: q, x, num_samples=5, estimator="reparam"),
        iwae(shifted, lambda x, c: q, x),
    ):
        torch.testing.assert_close(bound.elbo, exact.log_prob(x))


# ------------------------------------------------------------------ linear-Gaussian


@pytest.mark.parametrize("seed", range(5))
def test_linear_gaussian_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dim_x, dim_z = rng.integers(1, 7), rng.integers(1, 5)
    weight, mu, s2 = rng.normal(size=(dim_x, dim_z)), rng.normal(size=dim_x), float(rng.uniform(0.05, 2.0))
    model = LinearGaussian(torch.tensor(weight), torch.tensor(mu), s2)
    oracle = oracles.LinearGaussianOracle(weight, mu, s2)
    x = rng.normal(size=(8, dim_x))
    batch = torch.tensor(x)
    np.testing.assert_allclose(model.log_prob(batch).detach().numpy(), oracle.log_prob(x), rtol=1e-10)
    posterior = model.posterior(batch)
    np.testing.assert_allclose(posterior.loc.detach().numpy(), oracle.posterior_mean(x), rtol=1e-9, atol=1e-12)
    for covariance in posterior.covariance_matrix.detach().numpy():
        np.testing.assert_allclose(covariance, oracle.covariance, rtol=1e-9, atol=1e-12)
    # with the posterior as q every log-weight is log p(x), so every bound is tight without noise
    for bound in (
        elbo(model, model.posterior, batch, num_samples=2, estimator="reparam"),
        iwae(model, model.posterior, batch, num_samples=3),
        iwae(model, model.posterior, batch, num_samples=3, temperature=0.5),
    ):
        torch.testing.assert_close(bound.elbo, model.log_prob(batch))
        gradients = torch.autograd.grad(bound.objective.mean(), list(model.parameters()), retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert evidence_gap(model, model.posterior, batch, num_samples=4)[2].abs().max() < 1e-9


def test_linear_gaussian_works_in_float32_and_on_one_vector() -> None:
    model = LinearGaussian(torch.randn(3, 2, dtype=torch.float32), torch.zeros(3, dtype=torch.float32), 0.5)
    x = torch.randn(3, dtype=torch.float32)
    assert model.log_prob(x).shape == ()
    assert model.log_prob(x).dtype == torch.float32
    bound = elbo(model, model.posterior, x, num_samples=5, estimator="stl")
    assert bound.elbo.shape == ()


# ------------------------------------------------------------------ mixture


def test_mixture_oracle_against_quadrature() -> None:
    rng = np.random.default_rng(0)
    weights, means, scales = rng.dirichlet(np.ones(3)), rng.normal(size=(3, 2)), rng.uniform(0.2, 1.0, size=(3, 2))
    x, cell = oracles.grid(2, 8.0, 401)
    log_p, responsibilities = oracles.mixture_log_pdf(x, weights, means, scales)
    assert np.exp(log_p).sum() * cell == pytest.approx(1.0, abs=1e-8)
    np.testing.assert_allclose((np.exp(log_p)[:, None] * responsibilities).sum(0) * cell, weights, atol=1e-8)


@pytest.mark.parametrize(("components", "dim"), [(1, 1), (3, 2), (5, 4)])
def test_mixture_is_exact(components: int, dim: int) -> None:
    mixture = Mixture(MixtureParameters(components, dim))
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    logits, loc, log_scale = (t.detach() for t in mixture.parameters_of())
    x = torch.randn(6, dim)
    arrays = (t.numpy() for t in (torch.softmax(logits, -1), loc, log_scale.exp()))
    log_p, responsibilities = oracles.mixture_log_pdf(x.numpy(), *arrays)
    np.testing.assert_allclose(mixture.log_prob(x).detach().numpy(), log_p, rtol=1e-10)
    np.testing.assert_allclose(mixture.responsibilities(x).detach().numpy(), responsibilities, atol=1e-12)
    torch.testing.assert_close(mixture.posterior(x).probs, mixture.responsibilities(x))
    for bound in (
        elbo(mixture, mixture.posterior, x, num_samples=3, estimator="score"),
        iwae(mixture, mixture.posterior, x, num_samples=3, estimator="score"),
    ):
        torch.testing.assert_close(bound.elbo, mixture.log_prob(x))
    gradients = torch.autograd.grad(mixture.log_prob(x).mean(), list(mixture.parameters()))
    assert components == 1 or all(gradient.abs().sum() > 0 for gradient in gradients)
    assert mixture.sample(7).shape == (7, dim)


def test_mixture_of_a_context() -> None:
    features = ConditionalMixtureParameters.features(4, 2)
    mixture = Mixture(ConditionalMixtureParameters(nn.Linear(3, features), 4, 2))
    context, x = torch.randn(5, 3), torch.randn(5, 2)
    log_p = mixture.log_prob(x, context)
    assert log_p.shape == (5,)
    assert mixture.sample(6, context).shape == (6, 5, 2)
    assert mixture.log_prob(torch.randn(6, 5, 2), context).shape == (6, 5)
    for row in range(5):
        logits, loc, log_scale = (t.detach()[row] for t in mixture.parameters_of(context))
        arrays = (t.numpy() for t in (torch.softmax(logits, -1), loc, log_scale.exp()))
        expected, _ = oracles.mixture_log_pdf(x[row : row + 1].numpy(), *arrays)
        assert log_p[row].item() == pytest.approx(expected.item())
    bound = elbo(mixture, mixture.posterior, x, context, num_samples=2, estimator="score")
    torch.testing.assert_close(bound.elbo, log_p)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(log_p.mean(), list(mixture.parameters())))


def test_mixture_samples_follow_its_density() -> None:
    mixture = Mixture(MixtureParameters(3, 1))
    with torch.no_grad():
        mixture.parameters_of.logits.copy_(torch.tensor([0.0, 1.0, -1.0]))  # type: ignore[operator]
    x = mixture.sample(100_000)
    edges = torch.linspace(-3.0, 3.0, 25)
    counts = torch.histogram(x[:, 0], edges).hist / len(x)
    fine = torch.linspace(-3.0, 3.0, 24 * 100 + 1)
    density = mixture.log_prob(fine[:, None]).exp().detach()
    mass = ((density[1:] + density[:-1]) * 0.5 * (fine[1] - fine[0])).reshape(24, 100).sum(1)
    assert ((counts - mass).abs() < 4 * (mass / len(x)).sqrt() + 1e-4).all()
