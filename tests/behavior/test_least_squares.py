"""The central action of every model, and the model that fits it by least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_models import SPEC, inputs, members, small
from torch import Tensor

from offline_vi.behavior import (
    BehaviorModel,
    CentralActions,
    LatentModel,
    LeastSquaresBehavior,
    LeastSquaresBehaviorConfig,
)
from offline_vi.behavior.reference import UniformBox
from offline_vi.errors import CapabilityError
from offline_vi.types import Spec


@members(BehaviorModel)
def test_every_model_has_one_central_action(name: str) -> None:
    model = small(name, SPEC).double().eval()
    obs, _ = inputs(6, torch.float64)
    center = model.center(obs)
    assert center.shape == (6, 3) and center.dtype == torch.float64 and center.abs().max() <= 1.0
    torch.testing.assert_close(center[2:3], model.center(obs[2:3]))
    candidates = CentralActions(model).sample(obs, 4)
    assert candidates.shape == (4, 6, 3) and (candidates == center).all()


@members(LatentModel)
def test_the_center_of_a_latent_model_is_what_no_noise_is_decoded_to(name: str) -> None:
    model = small(name, SPEC).double().eval()
    obs, _ = inputs(6, torch.float64)
    assert torch.equal(model.center(obs), model.decode(obs, torch.zeros(6, model.latent_dim, dtype=torch.float64)))


def test_the_center_of_a_mixture_is_its_heaviest_component() -> None:
    model = small("mixture", SPEC).double().eval()
    with torch.no_grad():
        for parameter in model.mixture.parameters_of.net.parameters():
            parameter.zero_()
        model.mixture.parameters_of.net[-1].bias[2] = 1.0
    center = model.center(inputs(6, torch.float64)[0])
    assert (center == torch.tanh(model.mixture.parameters_of.offset[2])).all()


def test_what_has_no_center_is_refused() -> None:
    odd: Any = UniformBox(SPEC)
    with pytest.raises(CapabilityError):
        CentralActions(odd)


def test_the_mean_has_the_gradient_of_least_squares_and_the_scale_that_of_the_likelihood() -> None:
    model = small("least-squares", SPEC).double().eval()
    obs, action = inputs(9, torch.float64)
    model.loss(obs, action)[0].backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    (0.5 * (model.center(obs) - action).square().sum(-1).mean() - model.log_prob(obs, action).mean()).backward()
    for name, parameter in model.scale.named_parameters():
        torch.testing.assert_close(found[f"scale.{name}"], parameter.grad)
    model.zero_grad()
    (0.5 * (model.center(obs) - action).square().sum(-1).mean()).backward()
    for name, parameter in model.mean.named_parameters():
        torch.testing.assert_close(found[f"mean.{name}"], parameter.grad)


def test_its_center_is_the_mode_of_its_density_and_its_samples_lie_about_it() -> None:
    model = small("least-squares", SPEC).double().eval()
    obs, _ = inputs(4, torch.float64)
    center, samples = model.center(obs), model.sample(obs, 500)
    assert (model.log_prob(obs, samples) < model.log_prob(obs, center)).all()


def uneven(count: int) -> tuple[Tensor, Tensor]:
    """States s in [-1, 1]; the mean action is s / 2, the spread .02 for s < 0 and .4 above."""
    rng = np.random.default_rng(0)
    s = rng.uniform(-1.0, 1.0, count)
    scale = np.where(s < 0.0, 0.02, 0.4)
    action = np.full(count, 2.0)
    while (out := np.abs(action) > 1.0).any():
        action[out] = (0.5 * s + scale * rng.normal(size=count))[out]
    return torch.from_numpy(s[:, None]).float(), torch.from_numpy(action[:, None]).float()


def test_it_learns_a_mean_where_the_data_are_noisy_and_how_noisy_they_are() -> None:
    torch.manual_seed(0)
    model = LeastSquaresBehavior(Spec((1,), 1), LeastSquaresBehaviorConfig(hidden=(64, 64), dropout=0.0))
    obs, action = uneven(4096)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for step in range(400):
        rows = slice(256 * (step % 16), 256 * (step % 16 + 1))
        optimizer.zero_grad()
        model.loss(obs[rows], action[rows])[0].backward()
        optimizer.step()
        schedule.step()
    model.eval()
    states = torch.tensor([[-0.8], [-0.4], [0.4], [0.8]])
    center, spread = model.center(states)[:, 0], model.around(model.center(states), states).base.stddev[:, 0]
    torch.testing.assert_close(center, 0.5 * states[:, 0], rtol=0.0, atol=0.08)
    assert spread[:2].max().item() < 0.08 and spread[2:].min().item() > 0.25
