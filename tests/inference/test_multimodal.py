"""Two modes that a regression cannot represent: what each behaviour model makes of them, against closed forms.

Actions +-d with noise of sd 0.05, the state enters but says nothing; the support is within 3 sd of a mode. The ring is
its two-dimensional sister.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor, nn

from offline_vi.behavior.base import BehaviorModel
from offline_vi.behavior.cvae import CVAE, CVAEConfig
from offline_vi.behavior.mixture import MixtureBehavior, MixtureBehaviorConfig
from offline_vi.behavior.proposals import DecoderMeans
from offline_vi.distributions.heads import GaussianHead, LearnedScale
from offline_vi.types import Spec

SD = 0.05
LINE, PLANE = Spec((1,), 1), Spec((1,), 2)
RADIUS, RING_SD = 0.7, 0.03
Draw = Callable[[int], Tensor]
M = TypeVar("M", bound=BehaviorModel)


def two_modes(d: float) -> Draw:
    return lambda num: d * torch.sign(torch.randn(num, 1)) + SD * torch.randn(num, 1)


def ring(num: int) -> Tensor:
    angle = 2.0 * math.pi * torch.rand(num)
    return RADIUS * torch.stack([angle.cos(), angle.sin()], -1) + RING_SD * torch.randn(num, 2)


def states(num: int) -> Tensor:
    return torch.rand(num, 1) * 2.0 - 1.0


def minimise(module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], draw: Draw, steps: int, lr: float) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(states(256), draw(256)).backward()
        optimizer.step()


def fit(model: M, draw: Draw, steps: int = 3000, lr: float = 1e-3) -> M:
    torch.manual_seed(0)
    minimise(model, lambda obs, action: model.loss(obs, action)[0], draw, steps, lr)
    return model.eval()


def off_modes(action: Tensor, d: float) -> float:
    """Share further than 3 sd from both modes."""
    return ((action.abs() - d).abs() > 3.0 * SD).float().mean().item()


def off_ring(action: Tensor) -> float:
    return float(((action.norm(dim=-1) - RADIUS).abs() > 3.0 * RING_SD).float().mean())


def rate(model: CVAE, draw: Draw) -> float:
    return model.loss(states(4000), draw(4000))[1]["behavior/rate"].item()


def small(config: CVAEConfig) -> CVAEConfig:
    return replace(config, hidden=(64, 64), latent_dim=2)


def fitted(config: CVAEConfig, d: float, seed: int) -> CVAE:
    torch.manual_seed(seed)
    return fit(CVAE(LINE, small(config)), two_modes(d))


@pytest.fixture(scope="module")
def sigma_vae() -> CVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fit(CVAE(LINE, small(CVAEConfig.gaussian(LINE))), two_modes(0.5))


# ------------------------------------------------------------------ the oracles against themselves


def test_closed_forms_of_two_modes_and_of_a_ring() -> None:  # A2, A3, A8
    assert oracles.two_modes_expected_log_prob(0.5, SD) == pytest.approx(0.8836, abs=1e-4)
    off, log_p = oracles.single_normal_on_two_modes(0.5, SD)
    assert (off, log_p) == pytest.approx((0.7097, -0.7308), abs=1e-4)
    assert oracles.ring_expected_log_prob(RADIUS, RING_SD) == pytest.approx(0.6069, abs=1e-4)
    off_circle, log_p_circle = oracles.single_normal_on_a_ring(RADIUS, RING_SD)
    assert (off_circle, log_p_circle) == pytest.approx((0.8119, -1.4350), abs=1e-4)
    # by sampling
    rng = np.random.default_rng(0)
    num = 400_000
    line = rng.choice([-0.5, 0.5], num) + SD * rng.normal(size=num)
    truth = oracles.two_modes_log_pdf(line, 0.5, SD)
    assert truth.mean() == pytest.approx(0.8836, abs=4 * truth.std() / math.sqrt(num))
    normal = line.std() * rng.normal(size=num)
    assert (np.abs(np.abs(normal) - 0.5) > 3 * SD).mean() == pytest.approx(off, abs=4 * 0.5 / math.sqrt(num))
    plane = ring(num).double().numpy()
    radius = np.linalg.norm(plane, axis=-1)
    assert oracles.ring_log_pdf(radius, RADIUS, RING_SD).mean() == pytest.approx(0.6069, abs=0.01)
    far = np.linalg.norm(plane.std() * rng.normal(size=(num, 2)), axis=-1)
    assert (np.abs(far - RADIUS) > 3 * RING_SD).mean() == pytest.approx(off_circle, abs=4 * 0.5 / math.sqrt(num))
    fine = np.linspace(0.0, 1.2, 20_001)
    mass = np.trapezoid(2.0 * np.pi * fine * np.exp(oracles.ring_log_pdf(fine, RADIUS, RING_SD)), fine)
    assert mass == pytest.approx(1.0, abs=1e-6)


def test_truth_is_three_sigma_wide() -> None:  # A3
    assert off_modes(two_modes(0.5)(200_000), 0.5) == pytest.approx(0.0027, abs=0.0005)


# ------------------------------------------------------------------ A1, A2: what fails


def test_regression_answers_between_the_modes() -> None:  # A1
    net = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 1))
    minimise(net, lambda obs, action: (net(obs) - action).square().mean(), two_modes(0.5), 500, 1e-3)
    assert off_modes(net(states(2000)), 0.5) == 1.0


def test_one_normal_covers_the_gap() -> None:  # A2
    head = GaussianHead(1, LearnedScale(-1.0))
    model = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 1), head)
    minimise(model, lambda obs, action: -model(obs).log_prob(action).mean(), two_modes(0.5), 800, 3e-3)
    obs, action = states(20_000), two_modes(0.5)(20_000)
    off, log_p = oracles.single_normal_on_two_modes(0.5, SD)
    found = off_modes(model(obs).sample(), 0.5)
    assert 0.65 <= found <= 0.77
    assert found == pytest.approx(off, abs=0.03)
    assert model(obs).log_prob(action).mean().item() == pytest.approx(log_p, abs=0.03)


# ------------------------------------------------------------------ A4-A7: latents


def test_sigma_vae_keeps_the_modes_apart(sigma_vae: CVAE) -> None:  # A4
    draw = two_modes(0.5)
    obs, action = states(4000), draw(4000)
    assert off_modes(sigma_vae.sample(obs, 5), 0.5) <= 0.20
    assert rate(sigma_vae, draw) >= math.log(2.0)
    with torch.no_grad():
        log_p = sigma_vae.log_prob(obs, action).mean().item()
    assert log_p >= oracles.two_modes_expected_log_prob(0.5, SD) - 0.35


@pytest.mark.parametrize("seed", [0, 1])
def test_sigma_vae_keeps_closer_modes_apart_too(seed: int) -> None:  # A4
    draw = two_modes(0.3)
    model = fitted(CVAEConfig.gaussian(LINE), 0.3, seed)
    obs, action = states(4000), draw(4000)
    assert off_modes(model.sample(obs, 5), 0.3) <= 0.20
    assert off_modes(DecoderMeans(model, math.inf).sample(obs, 5), 0.3) <= 0.20
    assert rate(model, draw) >= math.log(2.0)
    with torch.no_grad():
        log_p = model.log_prob(obs, action).mean().item()
    assert log_p >= oracles.two_modes_expected_log_prob(0.3, SD) - 0.35


@pytest.mark.parametrize(("d", "seed"), [(0.3, 0), (0.5, 3)])
def test_predicted_scale_keeps_the_modes_apart(d: float, seed: int) -> None:
    """Without a warm-up of the KL divergence the latent never wakes in one initialisation out of three."""
    draw = two_modes(d)
    model = fitted(CVAEConfig.default(LINE), d, seed)
    assert off_modes(model.sample(states(4000), 5), d) <= 0.20
    assert rate(model, draw) >= math.log(2.0)


def test_published_scale_collapses_below_its_threshold() -> None:  # A5
    """sigma = 0.3536 > d = 0.3: the best decoder of all is the constant 0."""
    draw = two_modes(0.3)
    model = fit(CVAE(LINE, small(CVAEConfig.published(LINE))), draw)
    assert rate(model, draw) < 0.01
    assert off_modes(DecoderMeans(model, math.inf).sample(states(2000), 5), 0.3) == 1.0
    assert off_modes(DecoderMeans(model, 0.5).sample(states(2000), 5), 0.3) == 1.0


def test_published_scale_does_not_collapse_above_it_but_blurs(sigma_vae: CVAE) -> None:  # A6
    draw, obs = two_modes(0.5), states(4000)
    model = fit(CVAE(LINE, small(CVAEConfig.published(LINE))), draw)
    assert rate(model, draw) > 0.3
    published = off_modes(DecoderMeans(model, math.inf).sample(obs, 5), 0.5)
    assert published > off_modes(DecoderMeans(sigma_vae, math.inf).sample(obs, 5), 0.5)
    assert published < 1.0


def test_mixture_reaches_the_truth() -> None:  # A7
    draw = two_modes(0.5)
    model = fit(MixtureBehavior(LINE, MixtureBehaviorConfig(hidden=(64, 64), num_components=4)), draw)
    obs, action = states(20_000), draw(20_000)
    assert off_modes(model.sample(obs), 0.5) <= 0.03
    with torch.no_grad():
        log_p = model.log_prob(obs, action).mean().item()
    assert log_p == pytest.approx(oracles.two_modes_expected_log_prob(0.5, SD), abs=0.05)


# ------------------------------------------------------------------ A8: a ring


def test_ring() -> None:  # A8
    num = 20_000
    normal = ring(num).std() * torch.randn(num, 2)
    assert off_ring(normal) >= 0.75
    # with two latents or a constant rate, one initialisation in three ends in a knot that crosses the disc (.46);
    # with these, three of three: .22 to .25
    model = CVAE(PLANE, replace(small(CVAEConfig.gaussian(PLANE)), latent_dim=3))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000)
    for _ in range(3000):
        optimizer.zero_grad()
        model.loss(states(256), ring(256))[0].backward()
        optimizer.step()
        schedule.step()
    assert off_ring(model.sample(states(num))) <= 0.30


def test_ring_with_a_predicted_scale() -> None:
    model = fit(CVAE(PLANE, small(CVAEConfig.default(PLANE))), ring)
    assert off_ring(model.sample(states(20_000))) <= 0.30
