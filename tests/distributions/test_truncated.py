"""The truncated Normal against scipy's, and against quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from offline_vi.distributions.truncated import TruncatedNormal

CASES = [(0.0, 0.3), (0.9, 0.2), (-1.0, 0.05), (1.0, 7.0), (0.3, 0.0068), (-0.6, 1.0)]
cases = pytest.mark.parametrize("loc, scale", CASES)


def law(loc: float, scale: float, dtype: torch.dtype = torch.float64) -> TruncatedNormal:
    return TruncatedNormal(torch.tensor([loc], dtype=dtype), torch.tensor([scale], dtype=dtype).log())


def oracle(loc: float, scale: float) -> stats.rv_continuous:
    return stats.truncnorm((-1.0 - loc) / scale, (1.0 - loc) / scale, loc, scale)


@cases
def test_its_density_is_scipys_and_integrates_to_one_over_the_box(loc: float, scale: float) -> None:
    grid = np.linspace(-1.0, 1.0, 20_001)
    log_prob = law(loc, scale).log_prob(torch.from_numpy(grid)[:, None])
    inside = np.abs(grid - loc) < 30.0 * scale  # beyond, scipy's underflows
    np.testing.assert_allclose(log_prob.numpy()[inside], oracle(loc, scale).logpdf(grid[inside]), rtol=1e-9, atol=1e-9)
    assert np.trapezoid(log_prob.exp().numpy(), grid) == pytest.approx(1.0, abs=1e-4)
    assert grid[int(log_prob.argmax())] == pytest.approx(law(loc, scale).mode.item(), abs=1e-4)


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_samples_follow_it(loc: float, scale: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    samples = law(loc, scale, dtype).rsample((40_000,))[:, 0]
    assert samples.dtype == dtype and samples.abs().max() <= 1.0
    assert stats.kstest(samples.double().numpy(), oracle(loc, scale).cdf).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_corner_has_a_finite_density_and_gradients(dtype: torch.dtype) -> None:
    borders = torch.tensor([-1.0, 0.0, 1.0], dtype=dtype)
    loc, value, log_scale = torch.meshgrid(borders, borders, torch.tensor([-5.0, 2.0], dtype=dtype), indexing="ij")
    parts = [part.reshape(-1, 1).clone().requires_grad_() for part in (loc, value, log_scale)]
    log_prob = TruncatedNormal(parts[0], parts[2]).log_prob(parts[1])
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in parts)
    samples = TruncatedNormal(parts[0], parts[2]).rsample()
    assert torch.autograd.grad(samples.sum(), parts[0])[0].isfinite().all()


def test_dimensions_add_up() -> None:
    loc, scale = np.array([0.5, -0.9, 0.0]), np.array([0.1, 0.4, 2.0])
    action = np.array([[0.6, -1.0, 1.0], [0.2, 0.0, -0.3]])
    found = TruncatedNormal(torch.from_numpy(loc), torch.from_numpy(scale).log()).log_prob(torch.from_numpy(action))
    single = [oracle(*pair).logpdf(action[:, dim]) for dim, pair in enumerate(zip(loc, scale, strict=True))]
    np.testing.assert_allclose(found.numpy(), np.sum(single, 0), rtol=1e-10)
