"""Densities against closed forms, quadrature and sums; heads, scale rules and the one reduction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import stats
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from offline_vi.distributions.heads import (
    BernoulliHead,
    ContinuousBernoulliHead,
    DiscretizedLogisticHead,
    FixedScale,
    GaussianHead,
    LearnedScale,
    OptimalScale,
    PredictedScale,
    TanhNormalHead,
)
from offline_vi.distributions.normal import (
    DiagonalNormal,
    FullNormal,
    MirroredNormal,
    detached,
    kl_per_dim,
    soft_clamp,
    soft_clamp_inverse,
)
from offline_vi.distributions.pixels import ContinuousBernoulli, DiscretizedLogistic, dequantize
from offline_vi.distributions.reduction import log_mean_exp
from offline_vi.distributions.squashed import TanhNormal


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


# ------------------------------------------------------------------ log_mean_exp


def test_log_mean_exp_at_its_three_named_temperatures() -> None:
    v = torch.randn(5, 3)
    torch.testing.assert_close(log_mean_exp(v, 0, math.inf), v.mean(0))
    torch.testing.assert_close(log_mean_exp(v, 0, 0.0), v.amax(0))
    torch.testing.assert_close(log_mean_exp(v, 1), v.exp().mean(1).log())
    torch.testing.assert_close(log_mean_exp(v[:1], 0, 0.37), v[0])  # one sample: nothing to reduce


@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e8, 1e30])
@pytest.mark.parametrize(("offset", "dtype", "rel"), [(0.0, "float64", 1e-12), (700.0, "float64", 1e-12)])
def test_log_mean_exp_against_60_digits(temperature: float, offset: float, dtype: str, rel: float) -> None:
    v = 3.0 * torch.randn(7) + offset
    expected = oracles.log_mean_exp(v.numpy(), temperature)
    assert log_mean_exp(v, 0, temperature).item() == pytest.approx(expected, rel=rel, abs=1e-12)


@pytest.mark.parametrize("temperature", [1e-6, 1.0, 1e4, 1e30])
def test_log_mean_exp_keeps_float32_accuracy_at_large_temperatures(temperature: float) -> None:
    v = torch.randn(64, dtype=torch.float32)
    expected = oracles.log_mean_exp(v.numpy().astype(np.float64), temperature)
    assert log_mean_exp(v, 0, temperature).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_log_mean_exp_of_a_long_and_peaked_vector_in_float32() -> None:
    v = torch.zeros(1_000_000, dtype=torch.float32)
    v[0] = 30.0  # log((e^30 + 1e6 - 1) / 1e6)
    assert log_mean_exp(v).item() == pytest.approx(30.0 - math.log(1e6), abs=1e-5)


@given(st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=8))
def test_log_mean_exp_falls_with_the_temperature_from_maximum_to_mean(values: list[float]) -> None:
    v = torch.tensor(values, dtype=torch.float64)
    reduced = [log_mean_exp(v, 0, t).item() for t in (0.0, 1e-3, 0.3, 1.0, 7.0, 1e3, math.inf)]
    assert all(low <= high + 1e-9 for high, low in pairwise(reduced))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0, 1e6])
def test_gradient_of_log_mean_exp_is_the_softmax(temperature: float) -> None:
    v = torch.randn(6, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(log_mean_exp(v, 0, temperature).sum(), v)
    torch.testing.assert_close(gradient, torch.softmax(v / temperature, 0))
    assert torch.autograd.gradcheck(lambda u: log_mean_exp(u, 0, temperature), v)


def test_log_mean_exp_of_impossible_samples() -> None:
    v = torch.tensor([[-math.inf, 0.0], [-math.inf, -math.inf]])
    torch.testing.assert_close(log_mean_exp(v), torch.tensor([-math.inf, -math.log(2.0)]))
    with pytest.raises(ValueError, match="negative"):
        log_mean_exp(v, temperature=-1.0)


def test_log_mean_exp_keeps_the_batch_and_an_axis_of_seeds() -> None:
    v = torch.randn(8, 2, 3)
    for temperature in (0.0, 1.0, math.inf):
        assert log_mean_exp(v, 0, temperature).shape == (2, 3)
        one_by_one = torch.stack([log_mean_exp(v[:, seed], 0, temperature) for seed in range(2)])
        torch.testing.assert_close(log_mean_exp(v, 0, temperature), one_by_one)


# ------------------------------------------------------------------ soft clamp


def test_soft_clamp_has_a_gradient_where_a_hard_clamp_has_none() -> None:
    x = torch.tensor([-4.0, 0.0, 4.0], requires_grad=True)
    y = soft_clamp(x, -5.0, 2.0)
    assert y[1].item() == pytest.approx(-1.5)
    assert ((y > -5.0) & (y < 2.0)).all()
    assert (torch.autograd.grad(y.sum(), x)[0] > 1e-3).all()


@pytest.mark.parametrize(
    ("y", "low", "high"), [(-3.0, -5.0, 2.0), (0.0, -5.0, 2.0), (-2.0, -5.0, 2.0), (1.9, -7.0, 2.0)]
)
def test_soft_clamp_inverse(y: float, low: float, high: float) -> None:
    assert soft_clamp(torch.tensor(soft_clamp_inverse(y, low, high)), low, high).item() == pytest.approx(y)
    with pytest.raises(ValueError, match="strictly"):
        soft_clamp_inverse(high, low, high)


# ------------------------------------------------------------------ Normals


def test_diagonal_normal_equals_torchs() -> None:
    loc, log_scale, x = torch.randn(4, 3), torch.randn(4, 3), torch.randn(5, 4, 3)
    ours, theirs = DiagonalNormal(loc, log_scale), Independent(Normal(loc, log_scale.exp()), 1)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.stddev, theirs.stddev)
    torch.testing.assert_close(ours.variance, theirs.variance)
    assert ours.batch_shape == (4,)
    assert ours.event_shape == (3,)
    assert ours.rsample((7,)).shape == (7, 4, 3)
    assert ours.expand((6, 4)).log_prob(x[0]).shape == (6, 4)
    assert DiagonalNormal(torch.zeros(4, 3), torch.zeros(3)).rsample().shape == (4, 3)


def test_full_normal_equals_torchs_and_expands() -> None:
    tril = torch.randn(4, 3, 3).tril(-1) + torch.diag_embed(torch.rand(4, 3) + 0.5)
    loc, x = torch.randn(4, 3), torch.randn(5, 4, 3)
    ours, theirs = FullNormal(loc, tril), MultivariateNormal(loc, scale_tril=tril)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))  # type: ignore[no-untyped-call]
    assert ours.expand((2, 4)).rsample((5,)).shape == (5, 2, 4, 3)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_kl_of_normals_against_the_closed_form(dim: int) -> None:
    q, p = (DiagonalNormal(torch.randn(3, dim), torch.randn(3, dim)) for _ in range(2))
    full_q, full_p = (FullNormal(n.loc, torch.randn(3, dim, dim).tril(-1) + n.scale_tril) for n in (q, p))
    pairs: list[tuple[Any, Any]] = [(q, p), (full_q, p), (q, full_p), (full_q, full_p)]
    for first, second in pairs:
        expected = [
            oracles.normal_kl(m0, l0 @ l0.T, m1, l1 @ l1.T)
            for m0, l0, m1, l1 in zip(
                *(t.numpy() for t in (first.loc, first.scale_tril, second.loc, second.scale_tril)), strict=True
            )
        ]
        torch.testing.assert_close(kl_divergence(first, second), torch.tensor(expected))
    torch.testing.assert_close(kl_per_dim(q, p), kl_divergence(Normal(q.loc, q.stddev), Normal(p.loc, p.stddev)))


def test_kl_of_tiny_scales_is_finite_in_float32() -> None:
    """torch's own takes the logarithm of a squared ratio: infinite at a scale of 1e-23."""
    q = DiagonalNormal(torch.zeros(1, dtype=torch.float32), torch.full((1,), math.log(1e-23), dtype=torch.float32))
    p = DiagonalNormal(torch.zeros(1, dtype=torch.float32), torch.zeros(1, dtype=torch.float32))
    assert kl_divergence(q, p).item() == pytest.approx(-math.log(1e-23) - 0.5, rel=1e-6)


def test_kl_oracle_against_quadrature() -> None:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, 2, 2)) * 0.4 + np.eye(2)
    (mean0, mean1), (cov0, cov1) = rng.normal(size=(2, 2)) * 0.5, factors @ factors.transpose(0, 2, 1)
    z, cell = oracles.grid(2)
    log_q = oracles.normal_log_pdf(z, mean0, cov0)
    integral = (np.exp(log_q) * (log_q - oracles.normal_log_pdf(z, mean1, cov1))).sum() * cell
    assert oracles.normal_kl(mean0, cov0, mean1, cov1) == pytest.approx(integral, abs=1e-9)


def test_detached_stops_the_parameters_and_nothing_else() -> None:
    loc, log_scale, tril = torch.zeros(2, 3), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3).clone()
    parameters = [t.requires_grad_() for t in (loc, log_scale, tril)]
    x = torch.zeros(2, 3, requires_grad=True)
    nested = Independent(Normal(loc, log_scale.exp()), 1)
    squashed = torch.distributions.TransformedDistribution(nested, [torch.distributions.AffineTransform(loc, 2.0)])
    candidates: list[Distribution] = [DiagonalNormal(loc, log_scale), FullNormal(loc, tril), nested, squashed]
    for q in [*candidates, TanhNormal(loc, log_scale)]:
        before = q.log_prob(x)
        after = detached(q).log_prob(x)
        torch.testing.assert_close(after, before)
        assert torch.autograd.grad(before.sum(), parameters, retain_graph=True, allow_unused=True)[0] is not None
        gradients = torch.autograd.grad(after.sum(), [*parameters, x], allow_unused=True)
        assert all(gradient is None for gradient in gradients[:-1])
        assert gradients[-1] is not None


# ------------------------------------------------------------------ densities integrate to one (C6)


def integrate(log_density: Callable[[Tensor], Tensor], low: float, high: float, points: int = 200_001) -> float:
    x = torch.linspace(low, high, points)
    return float(torch.trapezoid(log_density(x[:, None]).exp(), x))


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (-0.7, 0.05), (0.3, 0.5), (2.0, 0.8)])
def test_gaussian_density_is_normalised(loc: float, scale: float) -> None:
    normal = DiagonalNormal(torch.tensor([loc]), torch.tensor([scale]).log())
    assert integrate(normal.log_prob, loc - 12 * scale, loc + 12 * scale) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (-0.7, 0.05), (0.3, 0.5), (1.5, 0.8), (-3.0, 0.3)])
def test_tanh_normal_density_is_normalised_and_equals_the_oracle(loc: float, scale: float) -> None:
    law = TanhNormal(torch.tensor([loc]), torch.tensor([scale]).log())
    edge = 1.0 - 1e-6
    tails = stats.norm.sf((math.atanh(edge) - loc) / scale) + stats.norm.sf((math.atanh(edge) + loc) / scale)
    u = torch.linspace(-math.atanh(edge), math.atanh(edge), 400_001)  # integrated over u: a is bunched at the border
    a = torch.tanh(u)
    total = float(torch.trapezoid(law.log_prob(a[:, None]).exp() * (1.0 - a.square()), u)) + tails
    assert total == pytest.approx(1.0, abs=1e-4)
    a = torch.linspace(-0.999, 0.999, 41)
    expected = oracles.tanh_normal_pdf(a.numpy(), loc, scale)
    np.testing.assert_allclose(law.log_prob(a[:, None]).exp().numpy(), expected, rtol=1e-8, atol=1e-300)


@pytest.mark.parametrize("logit", [0.0, 1e-4, 0.5, 0.61, -2.0, 6.0, -15.0, 30.0, -200.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_continuous_bernoulli_density_is_normalised(logit: float, dtype: torch.dtype) -> None:
    """torch's own loses a fifth of its mass at a logit of 20 in float32."""
    law = ContinuousBernoulliHead(1)(torch.tensor([logit], dtype=dtype))
    assert integrate(lambda x: law.log_prob(x.to(dtype)).double(), 0.0, 1.0) == pytest.approx(1.0, abs=1e-4)
    x = np.linspace(0.0, 1.0, 11)
    expected = oracles.continuous_bernoulli_pdf(x, logit)
    rel = 1e-10 if dtype == torch.float64 else 1e-4
    found = law.log_prob(torch.tensor(x, dtype=dtype)[:, None]).exp().numpy()
    np.testing.assert_allclose(found, expected, rtol=rel, atol=1e-40)
    fine = np.linspace(0.0, 1.0, 100_001)
    density = oracles.continuous_bernoulli_pdf(fine, logit)
    assert np.trapezoid(density, fine) == pytest.approx(1.0, abs=1e-4)
    mean = np.trapezoid(density * fine, fine)
    assert law.mean.item() == pytest.approx(mean, abs=1e-5)
    samples = law.rsample((20_000,))
    assert samples.mean().item() == pytest.approx(mean, abs=4 * 0.3 / math.sqrt(20_000))
    assert ((samples >= 0) & (samples <= 1)).all()


@pytest.mark.parametrize("logit", [0.0, 1e-3, 0.59, 0.61, -3.0, 40.0])
def test_gradients_of_the_continuous_bernoulli(logit: float) -> None:
    h, x = torch.tensor([[logit]], requires_grad=True), torch.tensor([[0.3]], requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, x: ContinuousBernoulli(h).log_prob(x), (h, x))
    (gradient,) = torch.autograd.grad(ContinuousBernoulli(h).log_prob(x), h)  # an exponential family: x - mean
    torch.testing.assert_close(gradient, x.detach() - ContinuousBernoulli(h).mean.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bins", [2, 16, 256])
@pytest.mark.parametrize(("loc", "scale"), [(0.5, 0.1), (0.0, 0.001), (1.3, 0.05), (0.2, 3.0)])
def test_discretized_logistic_sums_to_one_and_equals_the_oracle(loc: float, scale: float, bins: int) -> None:
    law = DiscretizedLogistic(torch.tensor([loc]), torch.tensor([scale]).log(), bins)
    k = torch.arange(bins, dtype=torch.float64)
    probability = law.log_prob((k[:, None] + 0.5) / bins).exp()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-4)
    expected = oracles.discretized_logistic_pmf(np.arange(bins), loc, scale, bins)
    np.testing.assert_allclose(probability.numpy(), expected, atol=1e-13)
    assert torch.isfinite(law.log_prob((k[:, None] + 0.5) / bins)).all()


def test_discretized_logistic_reads_every_convention_for_pixels() -> None:
    law = DiscretizedLogistic(torch.tensor([0.4]), torch.tensor([-2.0]))
    k = torch.arange(256, dtype=torch.float32)[:, None]
    expected = law.log_prob((k + 0.5) / 256)
    for value in (k / 256, k / 255, dequantize(k)):
        torch.testing.assert_close(law.log_prob(value), expected)


def test_discretized_logistic_samples_follow_its_probabilities() -> None:
    law = DiscretizedLogistic(torch.tensor([0.7]), torch.tensor([0.2]).log(), 8)
    counts = torch.bincount((law.sample((200_000,)) * 8).long().flatten(), minlength=8) / 200_000
    expected = oracles.discretized_logistic_pmf(np.arange(8), 0.7, 0.2, 8)
    assert np.abs(counts.numpy() - expected).max() < 4 * 0.5 / math.sqrt(200_000)


def test_bernoulli_head_sums_to_one() -> None:
    law = BernoulliHead(3)(torch.randn(3))
    outcomes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    assert law.log_prob(outcomes).exp().sum().item() == pytest.approx(1.0)


def test_dequantised_density_is_a_lower_bound_of_the_probability() -> None:
    """E_u log p((k + u) / 256) - log 256 <= log P(k), by Jensen; equal for a density that is constant in the bin."""
    normal = DiagonalNormal(torch.tensor([0.5]), torch.tensor([0.002]).log())
    k = torch.full((100_000, 1), 128.0)
    density = normal.log_prob(dequantize(k)).mean() - math.log(256.0)
    edges = stats.norm.cdf([128 / 256, 129 / 256], 0.5, 0.002)
    assert density < math.log(edges[1] - edges[0])
    assert dequantize(torch.arange(256, dtype=torch.uint8)).max() < 1.0


# ------------------------------------------------------------------ tanh-Normal


@pytest.mark.parametrize(
    ("dtype", "expected", "tolerance"), [(torch.float32, -14.07, 0.01), (torch.float64, -14.109, 1e-3)]
)
def test_tanh_normal_of_saturated_actions(dtype: torch.dtype, expected: float, tolerance: float) -> None:
    loc = torch.zeros(1, dtype=dtype, requires_grad=True)
    log_scale = torch.zeros(1, dtype=dtype, requires_grad=True)
    for border in (-1.0, 1.0):
        log_prob = TanhNormal(loc, log_scale).log_prob(torch.tensor([border], dtype=dtype))
        assert log_prob.item() == pytest.approx(expected, abs=tolerance)
        gradients = torch.autograd.grad(log_prob, [loc, log_scale])
        assert all(torch.isfinite(gradient).all() and gradient.abs().item() > 1.0 for gradient in gradients)


def test_tanh_normal_samples_come_with_their_own_log_density() -> None:
    law = TanhNormal(torch.randn(4, 3), torch.randn(4, 3) * 0.3 - 1.0)
    a, log_prob = law.rsample_and_log_prob((50,))
    assert a.shape == (50, 4, 3)
    inside = a.abs().amax(-1) < 1.0 - 1e-5
    torch.testing.assert_close(log_prob[inside], law.log_prob(a)[inside], rtol=1e-8, atol=1e-8)


def test_tanh_normal_log_density_of_a_sample_is_right_where_the_sample_rounds_to_one() -> None:
    law = TanhNormal(torch.full((1,), 30.0, dtype=torch.float32), torch.zeros(1, dtype=torch.float32))
    a, log_prob = law.rsample_and_log_prob((1000,))
    assert (a == 1.0).all()
    # log N(u; 30, 1) - log(1 - tanh(u)^2), where the second is 2 log 2 - 2 u: mean = -entropy - 2 log 2 + 60
    assert log_prob.mean().item() == pytest.approx(
        -0.5 * math.log(2 * math.pi * math.e) - 2 * math.log(2) + 60, abs=0.3
    )


def test_tanh_normal_mode_and_kl() -> None:
    q, p = (TanhNormal(torch.randn(2, 3), torch.randn(2, 3)) for _ in range(2))
    torch.testing.assert_close(q.mode, torch.tanh(q.base.loc))
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(q.base, p.base))
    assert q.expand((5, 2)).rsample().shape == (5, 2, 3)


# ------------------------------------------------------------------ heads


def heads(dim: int) -> list[Any]:
    return [
        GaussianHead(dim, FixedScale(0.35), torch.tanh),
        GaussianHead(dim, LearnedScale(), torch.tanh),
        GaussianHead(dim, LearnedScale(dim=dim)),
        GaussianHead(dim, OptimalScale()),
        GaussianHead(dim, PredictedScale(), torch.tanh),
        TanhNormalHead(dim),
        BernoulliHead(dim),
        ContinuousBernoulliHead(dim),
        DiscretizedLogisticHead(dim),
    ]


@pytest.mark.parametrize("index", range(9))
@pytest.mark.parametrize("shape", [(1,), (1, 1), (6, 5), (2, 6, 5)])
def test_heads_map_features_to_a_distribution_over_the_last_axis(index: int, shape: tuple[int, ...]) -> None:
    head = heads(3)[index]
    h = torch.randn(*shape, head.features, requires_grad=True)
    law = head(h)
    x = law.sample()
    assert x.shape == (*shape, 3)
    log_prob = law.log_prob(x)
    assert log_prob.shape == shape
    gradients = torch.autograd.grad(log_prob.sum(), [h, *head.parameters()])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("index", [0, 1, 2, 4, 5, 6, 7, 8])  # the optimal scale is that of all dimensions at once
def test_log_probabilities_are_sums_over_the_event(index: int) -> None:
    """Twice the dimensions, twice the nats: no mean touches an event axis."""
    torch.manual_seed(1)
    once, twice = heads(2)[index], heads(4)[index]
    features = once.features // 2
    blocks = torch.randn(5, features, 2)
    h, hh = blocks.flatten(1), torch.cat([blocks, blocks], -1).flatten(1)
    x = once(h).sample()
    torch.testing.assert_close(twice(hh).log_prob(torch.cat([x, x], -1)), 2.0 * once(h).log_prob(x))


def test_initial_scales_are_the_ones_asked_for() -> None:
    raw = torch.zeros(1, 4)
    assert GaussianHead(2, LearnedScale())(raw[:, :2]).stddev.log().unique().tolist() == pytest.approx([-3.0])
    assert GaussianHead(2, LearnedScale(-2.0))(raw[:, :2]).stddev.log().unique().tolist() == pytest.approx([-2.0])
    assert GaussianHead(2, PredictedScale())(raw).stddev.log().unique().tolist() == pytest.approx([-1.0])
    assert TanhNormalHead(2)(raw).base.log_scale.unique().tolist() == pytest.approx([-1.0])
    assert TanhNormalHead(2, -2.5)(raw).base.log_scale.unique().tolist() == pytest.approx([-2.5])
    assert GaussianHead(2, FixedScale(0.25))(raw[:, :2]).stddev.unique().tolist() == pytest.approx([0.25])


def test_predicted_scales_stay_above_the_floor() -> None:
    head = GaussianHead(1, PredictedScale())
    h = torch.tensor([[0.0, -1e3], [0.0, 1e3]])
    assert (head(h).stddev.log() >= -5.0).all()
    assert (head(h).stddev.log() <= 2.0).all()


def test_optimal_scale_is_the_root_mean_squared_error_and_is_remembered() -> None:
    head = GaussianHead(3, OptimalScale())
    h, x = torch.randn(50, 3), torch.randn(50, 3)
    mse = (x - h).square().mean()
    log_prob = head(h).log_prob(x)
    sigma2 = mse + math.exp(-10.0)
    expected = -0.5 * (3 * torch.log(2 * math.pi * sigma2) + (x - h).square().sum(-1) / sigma2)
    torch.testing.assert_close(log_prob, expected)
    for log_scale in (-0.3, 0.3):  # it is the best there is
        moved = DiagonalNormal(h, 0.5 * mse.log() + log_scale)
        assert moved.log_prob(x).mean() < log_prob.mean()
    head.eval()
    torch.testing.assert_close(head(torch.zeros(2, 3)).stddev, sigma2.sqrt().expand(2, 3))
    assert "scale.log_scale" in head.state_dict()


def test_optimal_scale_is_differentiated_through() -> None:
    head, x = GaussianHead(2, OptimalScale()), torch.randn(4, 2)
    h = torch.randn(4, 2, requires_grad=True)
    assert torch.autograd.gradcheck(lambda loc: head(loc).log_prob(x), h)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distributions_keep_their_type(dtype: torch.dtype) -> None:
    for head in heads(2):
        head.to(dtype)
        law = head(torch.randn(3, head.features, dtype=dtype))
        assert law.sample().dtype == dtype
        assert law.log_prob(law.sample()).dtype == dtype


@pytest.mark.parametrize("num", [1, 5, 6])
def test_mirrored_samples_cancel_in_pairs_and_each_has_its_law(num: int) -> None:
    q = MirroredNormal(torch.tensor([[0.3, -2.0]]), torch.tensor([[-0.5, 0.7]]))
    assert q.rsample((num, 3)).shape == (num, 3, 1, 2)
    assert q.rsample().shape == (1, 2)
    pairs = q.rsample((6, 4))
    torch.testing.assert_close(pairs.mean(0), q.loc.expand(4, 1, 2))
    many = MirroredNormal(torch.zeros(1), torch.zeros(1)).rsample((40_000,)).squeeze(-1)
    assert many.var().item() == pytest.approx(1.0, abs=4 * (2 / 20_000) ** 0.5)
    assert many.square().square().mean().item() == pytest.approx(3.0, abs=4 * (96 / 20_000) ** 0.5)
