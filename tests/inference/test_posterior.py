"""Amortised and local posteriors: the gaps of variational inference, where they are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import oracles
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import kl_divergence

from offline_vi.distributions.normal import DiagonalNormal, FullNormal
from offline_vi.inference.bounds import elbo
from offline_vi.inference.latent import LinearGaussian
from offline_vi.inference.posterior import AmortizedPosterior, DiagonalLocalPosterior, FullLocalPosterior, fit_local

W = np.array([[1.0, 0.5], [0.3, 1.2], [-0.4, 0.8]])


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def linear_gaussian(
    weight: NDArray[np.float64], mu: NDArray[np.float64], s2: float
) -> tuple[LinearGaussian, oracles.LinearGaussianOracle]:
    model = LinearGaussian(torch.tensor(weight), torch.tensor(mu), s2)
    return model, oracles.LinearGaussianOracle(weight, mu, s2)


def random_model(seed: int) -> tuple[LinearGaussian, oracles.LinearGaussianOracle, Tensor]:
    rng = np.random.default_rng(seed)
    dim_x, dim_z = rng.integers(2, 6), rng.integers(2, 5)
    model, oracle = linear_gaussian(rng.normal(size=(dim_x, dim_z)), rng.normal(size=dim_x), rng.uniform(0.3, 2.0))
    return model, oracle, torch.tensor(rng.normal(size=(5, dim_x)))


def gaps(oracle: oracles.LinearGaussianOracle, q: DiagonalNormal | FullNormal, x: Tensor) -> list[float]:
    """log p(x) - ELBO(q) of every datum, exact."""
    tril = q.scale_tril.detach().numpy()
    parts = zip(x.numpy(), q.loc.detach().numpy(), tril, strict=True)
    return [float(oracle.log_prob(row)) - oracle.elbo(row, mean, root @ root.T) for row, mean, root in parts]


# ------------------------------------------------------------------ B3-B5


@pytest.mark.parametrize("seed", range(3))
def test_bound_is_tight_where_the_posterior_is_in_the_family(seed: int) -> None:  # B3
    rng = np.random.default_rng(seed)
    orthogonal = np.linalg.qr(rng.normal(size=(5, 3)))[0] * rng.uniform(0.3, 2.0, size=3)  # W'W is diagonal
    model, oracle = linear_gaussian(orthogonal, rng.normal(size=5), 0.5)
    x = torch.tensor(rng.normal(size=(6, 5)))
    posterior = fit_local(model, x)
    assert max(gaps(oracle, posterior(), x)) < 1e-3
    assert min(gaps(oracle, posterior(), x)) > -1e-9


def test_gap_of_mean_field() -> None:  # B4
    model, oracle = linear_gaussian(W, np.zeros(3), 0.5)
    assert oracle.mean_field_gap() == pytest.approx(0.030342, abs=1e-6)
    x = torch.tensor([[1.0, -0.5, 0.8], [0.0, 2.0, -1.0]])
    diagonal, full = fit_local(model, x), fit_local(model, x, family=FullLocalPosterior)
    for gap in gaps(oracle, diagonal(), x):
        assert gap == pytest.approx(0.030342, abs=2e-3)
    for gap in gaps(oracle, full(), x):
        assert abs(gap) < 2e-3
    variance = (1.0 / np.diag(oracle.precision)).tolist()
    assert diagonal().variance[0].tolist() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_gap_of_mean_field_in_other_models(seed: int) -> None:  # B4
    model, oracle, x = random_model(seed)
    for gap in gaps(oracle, fit_local(model, x)(), x):
        assert gap == pytest.approx(oracle.mean_field_gap(), abs=2e-3)
    for gap in gaps(oracle, fit_local(model, x, family=FullLocalPosterior)(), x):
        assert abs(gap) < 2e-3


@pytest.mark.parametrize(("dim", "correlation", "sigma2"), [(4, 0.97, 1.0), (5, 0.97, 0.5), (6, 0.0, 0.05)])
def test_gap_of_mean_field_where_it_is_large(dim: int, correlation: float, sigma2: float) -> None:  # B4
    """Posteriors so correlated that mean field loses nats: the noise that it leaves in the gradient is large too."""
    rng = np.random.default_rng(dim)
    columns, common = rng.normal(size=(dim + 2, dim)), rng.normal(size=(dim + 2, 1))
    weight = np.sqrt(1.0 - correlation) * columns + np.sqrt(correlation) * common
    model, oracle = linear_gaussian(weight, np.zeros(dim + 2), sigma2)
    assert oracle.mean_field_gap() > 1.0
    x = torch.tensor(rng.normal(size=(4, dim + 2)))
    for gap in gaps(oracle, fit_local(model, x)(), x):
        assert gap == pytest.approx(oracle.mean_field_gap(), abs=2e-3)


def test_gap_of_amortisation() -> None:  # B5
    model, oracle = linear_gaussian(W, np.zeros(3), 0.5)
    x = torch.tensor([[1.0, -0.5, 0.8]])
    exact = model.posterior(x)
    assert exact.loc[0].tolist() == pytest.approx([0.259242, 0.141346], abs=1e-6)
    assert model.log_prob(x).item() == pytest.approx(-4.856121, abs=1e-6)
    short = FullNormal(0.8 * exact.loc, exact.scale_tril)  # an amortised mean that falls short by a fifth
    (initial,) = gaps(oracle, short, x)
    assert initial == pytest.approx(0.008549, abs=1e-6)
    mean = oracle.posterior_mean(x[0].numpy())
    assert initial == pytest.approx(0.5 * 0.2**2 * mean @ oracle.precision @ mean)
    batch = short.expand((200,))
    bound = elbo(model, lambda x, c: batch, x.expand(200, -1), num_samples=1000, estimator="stl").elbo
    assert model.log_prob(x).item() - bound.mean().item() == pytest.approx(0.008549, abs=1e-3)
    refined = fit_local(model, x, init=short, family=FullLocalPosterior)
    (final,) = gaps(oracle, refined(), x)
    assert final < 2e-3
    assert final <= initial + 1e-3  # the ELBO did not fall


@pytest.mark.parametrize("seed", range(3))
def test_refining_an_amortised_posterior_does_not_lose(seed: int) -> None:  # B5
    model, oracle, x = random_model(seed)
    amortised = AmortizedPosterior(nn.Linear(x.shape[1], 2 * len(oracle.precision)))
    initial = gaps(oracle, amortised(x), x)
    final = gaps(oracle, fit_local(model, x, init=amortised(x), steps=600)(), x)  # it begins up to 160 nats away
    for before, after in zip(initial, final, strict=True):
        assert after <= before + 1e-3
        assert after == pytest.approx(oracle.mean_field_gap(), abs=2e-3)


def test_already_optimal_posteriors_stay() -> None:
    model, oracle = linear_gaussian(W, np.zeros(3), 0.5)
    x = torch.tensor([[1.0, -0.5, 0.8]])
    refined = fit_local(model, x, init=model.posterior(x), family=FullLocalPosterior, steps=50)
    assert abs(gaps(oracle, refined(), x)[0]) < 1e-4  # stl has no noise there: Adam normalises what rounding leaves


# ------------------------------------------------------------------ fit_local


@pytest.mark.parametrize("estimator", ["analytic", "reparam", "dreg", "score"])
def test_other_estimators_fit_too(estimator: str) -> None:
    model, oracle, x = random_model(1)
    for gap in gaps(oracle, fit_local(model, x, estimator=estimator)(), x):
        assert gap == pytest.approx(oracle.mean_field_gap(), abs=0.1)


def test_fitting_leaves_the_model_alone_and_does_not_need_gradients_enabled() -> None:
    model, _, x = random_model(0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        posterior = fit_local(model, x, steps=5)
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is not None
        assert (parameter.grad == 7.0).all()
    assert not torch.equal(posterior.loc, torch.zeros_like(posterior.loc))


def test_data_are_fitted_independently_of_each_other() -> None:
    """A batch twice as large has the same step for each datum: the loss is a sum, and Adam works by coordinate."""
    model, oracle, x = random_model(2)
    alone, together = fit_local(model, x[:1]), fit_local(model, torch.cat([x, 100.0 + x]))
    torch.testing.assert_close(alone.loc[0], together.loc[0], rtol=0.02, atol=0.02)
    assert oracle.mean_field_gap() == pytest.approx(gaps(oracle, alone(), x[:1])[0], abs=2e-3)


def test_posterior_of_one_set_of_weights() -> None:
    """Batch shape (): Bayesian linear regression, whose data set is one x and whose weights are one z."""
    rng = np.random.default_rng(0)
    design, noise = rng.normal(size=(30, 2)), 0.3
    y = design @ np.array([0.7, -1.1]) + noise * rng.normal(size=30)
    model, oracle = linear_gaussian(design, np.zeros(30), noise**2)
    posterior = fit_local(model, torch.tensor(y), family=FullLocalPosterior, steps=600)
    q = posterior()
    assert q.batch_shape == ()
    expected = FullNormal(
        torch.tensor(oracle.posterior_mean(y)), torch.linalg.cholesky(torch.tensor(oracle.covariance))
    )
    assert kl_divergence(q, expected).item() < 2e-3


# ------------------------------------------------------------------ the families


def test_local_posteriors_begin_where_they_are_told_and_have_their_own_parameters() -> None:
    init = DiagonalNormal(torch.randn(4, 3), torch.randn(4, 3))
    for posterior in (DiagonalLocalPosterior(init), FullLocalPosterior(init)):
        q = posterior(torch.zeros(4, 2), None)
        torch.testing.assert_close(q.loc, init.loc)
        torch.testing.assert_close(q.scale_tril, init.scale_tril)
        gradients = torch.autograd.grad(q.log_prob(torch.zeros(4, 3)).sum(), list(posterior.parameters()))
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
        restored = type(posterior)(DiagonalNormal(torch.zeros(4, 3), torch.zeros(4, 3)))
        restored.load_state_dict(posterior.state_dict())
        torch.testing.assert_close(restored().loc, init.loc)
    tril = torch.randn(4, 3, 3).tril(-1) + torch.diag_embed(torch.rand(4, 3) + 0.5)
    torch.testing.assert_close(FullLocalPosterior(FullNormal(init.loc, tril))().scale_tril, tril)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_amortised_posterior(dtype: torch.dtype) -> None:
    net = nn.Linear(3 + 2, 8)
    posterior = AmortizedPosterior(net).to(dtype)
    x, context = torch.randn(5, 2, dtype=dtype), torch.randn(5, 3, dtype=dtype)
    q = posterior(x, context)
    assert q.loc.dtype == dtype
    torch.testing.assert_close(q.loc, net(torch.cat([context, x], -1))[:, :4])
    with torch.no_grad():
        net.weight.zero_()
        net.bias.zero_()
    torch.testing.assert_close(posterior(x, context).stddev, torch.ones(5, 4, dtype=dtype))
    for raw, bound in ((15.0, 2.0), (-15.0, -5.0)):  # far into the clamp: still a gradient
        with torch.no_grad():
            net.bias[4:] = raw
        log_scale = posterior(x, context).log_scale
        assert (log_scale - bound).abs().max() < 0.01
        assert ((log_scale > -5.0) & (log_scale < 2.0)).all()
        assert torch.autograd.grad(log_scale.sum(), net.bias)[0][4:].abs().min() > 0
