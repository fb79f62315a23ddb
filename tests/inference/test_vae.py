"""The plain VAE: linear ones against probabilistic PCA, where the optimum is known, and the parts for images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline_vi.distributions.heads import (
    BernoulliHead,
    ContinuousBernoulliHead,
    DiscretizedLogisticHead,
    FixedScale,
    GaussianHead,
    LearnedScale,
    OptimalScale,
    PredictedScale,
)
from offline_vi.errors import ConfigError
from offline_vi.inference.bounds import active_units, elbo
from offline_vi.inference.vae import VAE
from offline_vi.nn.conv import ConvDecoder, ConvEncoder

# ------------------------------------------------------------------ C1-C4: the linear VAE is probabilistic PCA


def linear_vae(dim: int, latent_dim: int, scale: nn.Module, beta: float = 1.0) -> VAE:
    return VAE(
        latent_dim, nn.Linear(dim, 2 * latent_dim), nn.Linear(latent_dim, dim), GaussianHead(dim, scale), beta=beta
    )


def fit(vae: VAE, x: Tensor, steps: int = 1500, lr: float = 0.02) -> None:
    optimizer = torch.optim.Adam(vae.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss, _ = vae.loss(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def exact_elbo(vae: VAE, x: Tensor, sigma2: float) -> float:
    """Mean ELBO of a linear VAE, in closed form."""
    decoder = vae.model.likelihood.net
    assert isinstance(decoder, nn.Linear)
    weight, bias = (t.detach().double().numpy() for t in (decoder.weight, decoder.bias))
    oracle = oracles.LinearGaussianOracle(weight, bias, sigma2)
    q = vae.posterior(x)
    parts = zip(*(t.detach().double().numpy() for t in (x, q.loc, q.variance)), strict=True)
    return float(np.mean([oracle.elbo(row, mean, np.diag(variance)) for row, mean, variance in parts]))


EIGENVALUES = np.array([4.0, 2.0, 1.0, 0.2, 0.2, 0.2])


def whitened(eigenvalues: NDArray[np.float64], num: int = 256) -> Tensor:
    return torch.tensor(oracles.data_with_eigenvalues(eigenvalues, num, np.random.default_rng(0)), dtype=torch.float32)


def test_oracle_of_probabilistic_pca_against_the_gaussian_density() -> None:
    sigma2, log_likelihood, rates = oracles.probabilistic_pca(EIGENVALUES, 3)
    assert sigma2 == pytest.approx(0.2)
    assert log_likelihood == pytest.approx(-7.139195, abs=1e-6)
    assert rates == pytest.approx([1.497866, 1.151293, 0.804719], abs=1e-6)
    x = oracles.data_with_eigenvalues(EIGENVALUES, 64, np.random.default_rng(1))
    values, vectors = np.linalg.eigh(x.T @ x / 64)
    np.testing.assert_allclose(values[::-1], EIGENVALUES, atol=1e-12)
    weight = vectors[:, -3:] * np.sqrt(values[-3:] - sigma2)
    oracle = oracles.LinearGaussianOracle(weight, np.zeros(6), sigma2)
    assert oracle.log_prob(x).mean() == pytest.approx(log_likelihood, abs=1e-12)
    # W'W is diagonal there, so the posterior is too, and the mean of its KL is the sum of the rates
    means = oracle.posterior_mean(x)
    kl = np.mean(
        [oracles.normal_kl(mean, oracle.covariance, np.zeros(3), np.eye(3, dtype=np.float64)) for mean in means]
    )
    assert kl == pytest.approx(rates.sum(), abs=1e-12)


def test_linear_vae_finds_probabilistic_pca() -> None:  # C1, C2, C4
    torch.manual_seed(0)
    x = whitened(EIGENVALUES)
    scale = LearnedScale(-1.0)
    vae = linear_vae(6, 3, scale)
    fit(vae, x, steps=3000, lr=0.05)
    sigma2 = float(scale.log_scale.detach().exp() ** 2)
    expected_sigma2, log_likelihood, rates = oracles.probabilistic_pca(EIGENVALUES, 3)
    found = exact_elbo(vae, x, sigma2)
    assert log_likelihood - 0.03 < found <= log_likelihood + 1e-4
    assert sigma2 == pytest.approx(expected_sigma2, rel=0.05)
    bound = elbo(vae.model, vae.posterior, x, num_samples=100)
    assert bound.kl_per_dim is not None
    assert sorted(bound.kl_per_dim.mean(0).tolist(), reverse=True) == pytest.approx(rates.tolist(), rel=0.05)
    z = vae.posterior(x).rsample((100,))
    mse = (vae.model.likelihood(z).loc - x).square().mean().item()
    assert sigma2 == pytest.approx(mse, rel=0.05)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_beta_moves_the_rates_as_predicted(beta: float) -> None:  # C2
    torch.manual_seed(0)
    x = whitened(EIGENVALUES)
    vae = linear_vae(6, 3, FixedScale(math.sqrt(0.2)), beta)
    fit(vae, x, steps=3000, lr=0.05)
    bound = elbo(vae.model, vae.posterior, x)
    assert bound.kl_per_dim is not None
    expected = 0.5 * np.log(EIGENVALUES[:3] / (beta * 0.2))
    assert sorted(bound.kl_per_dim.mean(0).tolist(), reverse=True) == pytest.approx(expected.tolist(), rel=0.05)


@pytest.mark.parametrize(
    ("eigenvalues", "sigma2"),
    [
        ((2.0, 0.9, 0.3, 0.25, 0.2), 0.5),
        ((2.0, 0.9, 0.3, 0.25, 0.2), 0.125),
        ((1.5, 1.1, 0.7, 0.35, 0.1), 0.5),
    ],
)
def test_latents_above_the_noise_are_active_and_no_others(eigenvalues: tuple[float, ...], sigma2: float) -> None:  # C3
    torch.manual_seed(0)
    x = whitened(np.array(eigenvalues))
    vae = linear_vae(5, 5, FixedScale(math.sqrt(sigma2)))
    fit(vae, x)
    assert active_units(vae.encode(x)).item() == sum(value > sigma2 for value in eigenvalues)


# ------------------------------------------------------------------ parts

SHAPE = (2, 8, 12)
SIZE = math.prod(SHAPE)
HEADS: list[Callable[[], Any]] = [
    lambda: GaussianHead(SIZE, LearnedScale(-2.0)),
    lambda: GaussianHead(SIZE, OptimalScale()),
    lambda: GaussianHead(SIZE, PredictedScale()),
    lambda: BernoulliHead(SIZE),
    lambda: ContinuousBernoulliHead(SIZE),
    lambda: DiscretizedLogisticHead(SIZE),
]


@pytest.mark.parametrize("index", range(len(HEADS)))
def test_convolutional_vae(index: int) -> None:
    head: Any = HEADS[index]()
    vae = VAE(3, ConvEncoder(SHAPE, 6, (4, 8)), ConvDecoder(3, SHAPE, head.features, (8, 4)), head, SHAPE)
    x = torch.rand(5, *SHAPE).round()
    loss, metrics = vae.loss(x)
    assert loss.shape == ()
    assert set(metrics) == {"vae/elbo", "vae/rate", "vae/distortion"}
    assert loss.item() == pytest.approx(-metrics["vae/elbo"].item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vae.parameters())
    assert vae.sample(7).shape == (7, *SHAPE)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.decode(torch.zeros(4, 2, 3)).shape == (4, 2, *SHAPE)
    assert vae.encode(x).shape == (5, 3)
    assert vae.log_prob(x, num_samples=4).shape == (5,)
    again = VAE(3, ConvEncoder(SHAPE, 6, (4, 8)), ConvDecoder(3, SHAPE, head.features, (8, 4)), HEADS[index](), SHAPE)
    again.load_state_dict(vae.state_dict())
    torch.testing.assert_close(again.eval().reconstruct(x), vae.eval().reconstruct(x))


def test_vector_vae_and_a_batch_of_one() -> None:
    vae = linear_vae(4, 2, LearnedScale(-1.0))
    assert vae.loss(torch.randn(1, 4))[0].shape == ()
    assert vae.sample(3).shape == (3, 4)
    assert vae.reconstruct(torch.randn(1, 4)).shape == (1, 4)
    assert vae.log_prob(torch.randn(1, 4), num_samples=1).shape == (1,)


def test_images_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ConfigError, match="halved"):
        ConvEncoder((1, 10, 12), 4, (4, 8))
    with pytest.raises(ConfigError, match="multiple"):
        ConvDecoder(3, (2, 8, 8), 2 * 64 + 1)
    with pytest.raises(ConfigError, match="multiple"):
        ConvDecoder(3, (2, 8, 8), 3 * 64)


def test_convolutional_vae_learns_bars() -> None:
    """An 8 x 8 image of one bar, in one of 16 places: its latent is worth up to log 16 = 2.77 nats. Independent pixels
    know only their rate, 1/8."""
    torch.manual_seed(0)
    bars = torch.cat([torch.eye(8)[:, :, None].expand(8, 8, 8), torch.eye(8)[:, None, :].expand(8, 8, 8)])[:, None]
    x = bars.repeat(4, 1, 1, 1)
    independent = 64 * (math.log(1 / 8) / 8 + math.log(7 / 8) * 7 / 8)
    vae = VAE(4, ConvEncoder((1, 8, 8), 8, (16,)), ConvDecoder(4, (1, 8, 8), 64, (16,)), BernoulliHead(64), (1, 8, 8))
    fit(vae, x, steps=600, lr=5e-3)
    assert independent == pytest.approx(-24.11, abs=0.01)
    assert vae.log_prob(bars).mean().item() > -12.0  # the best possible is -2.77
    assert (vae.reconstruct(bars).round() == bars).float().mean() > 0.98
