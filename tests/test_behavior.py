"""One contract for every behaviour model in the table; a new model joins by its row there."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from offline_vi.algorithms.build import behavior_config, build_behavior
from offline_vi.behavior import BEHAVIOR_MODELS, CVAE, CVAEConfig, Decoded
from offline_vi.types import Spec


def small(name: str, spec: Spec) -> Any:
    """The named model with little networks."""
    from dataclasses import replace

    torch.manual_seed(0)
    return build_behavior(name, spec, replace(behavior_config(name, spec), hidden=(24, 24)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", BEHAVIOR_MODELS)
class TestContract:
    spec = Spec((5,), 3)

    def inputs(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        return torch.randn(batch, 5, dtype=dtype), torch.rand(batch, 3, dtype=dtype) * 2 - 1

    def test_loss_is_a_scalar_that_reaches_every_parameter(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, self.spec).to(dtype)
        loss, metrics = model.loss(*self.inputs(batch, dtype))
        assert loss.shape == ()
        assert loss.dtype == dtype
        assert not any(value.requires_grad or value.shape for value in metrics.values())
        loss.backward()
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name

    @pytest.mark.parametrize("count", [1, 4])
    def test_samples_decodings_and_densities_have_their_shapes(
        self, name: str, batch: int, dtype: torch.dtype, count: int
    ) -> None:
        model = small(name, self.spec).to(dtype)
        obs, action = self.inputs(batch, dtype)
        sample = model.sample(obs, count)
        assert sample.shape == (count, batch, 3)
        assert sample.dtype == dtype
        assert not sample.requires_grad
        z = torch.randn(count, batch, model.latent_dim, dtype=dtype)
        decoded = model.decode(obs, z)
        assert decoded.shape == (count, batch, 3)
        assert decoded.abs().max() <= 1.0
        torch.testing.assert_close(model.decode(obs, z[0]), decoded[0])
        log_prob = model.log_prob(obs, action, num_samples=count)
        assert log_prob.shape == (batch,)
        assert log_prob.isfinite().all()

    def test_the_density_has_a_gradient_in_the_action(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, self.spec).to(dtype)
        obs, action = self.inputs(batch, dtype)
        action = (action * 0.9).requires_grad_()
        model.log_prob(obs, action).sum().backward()
        assert action.grad is not None and action.grad.isfinite().all() and (action.grad != 0).any()

    def test_actions_on_the_bounds_are_finite(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, self.spec).to(dtype)
        obs, action = self.inputs(batch, dtype)
        loss, _ = model.loss(obs, action.sign())
        assert loss.isfinite()
        loss.backward()
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())

    def test_decoding_has_a_gradient_in_the_latent(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, self.spec).to(dtype)
        obs, _ = self.inputs(batch, dtype)
        z = torch.zeros(batch, model.latent_dim, dtype=dtype, requires_grad=True)
        model.decode(obs, z).sum().backward()
        assert z.grad is not None and z.grad.abs().sum() > 0

    def test_saved_and_loaded_it_gives_identical_numbers(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model, twin = small(name, self.spec).to(dtype), small(name, self.spec).to(dtype)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(0.1)
        twin.load_state_dict(model.state_dict())
        obs, action = self.inputs(batch, dtype)
        for call in (lambda m: m.sample(obs, 3), lambda m: m.log_prob(obs, action), lambda m: m.loss(obs, action)[0]):
            torch.manual_seed(2)
            first = call(model)
            torch.manual_seed(2)
            assert torch.equal(first, call(twin))


@pytest.mark.parametrize("name", BEHAVIOR_MODELS)
def test_samples_come_from_the_density_that_log_prob_describes(name: str) -> None:
    """In one dimension: the histogram of samples against quadrature of exp(log_prob)."""
    model = small(name, Spec((2,), 1)).double()
    obs = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    samples = model.sample(obs, 40_000)[:, 0, 0]
    low, high = samples.quantile(0.1).item(), samples.quantile(0.6).item()
    grid = torch.linspace(low, high, 400, dtype=torch.float64)[:, None]
    torch.manual_seed(3)
    log_prob = model.log_prob(obs.expand(400, 2), grid, num_samples=4_000)
    assert torch.trapezoid(log_prob.exp(), grid[:, 0]).item() == pytest.approx(0.5, abs=0.015)


def test_decoded_clips_the_noise_and_draws_from_the_default_generator() -> None:
    model = small("cvae", Spec((2,), 1))
    seen: list[Tensor] = []

    class Spy(CVAE):
        def decode(self, obs: Tensor, z: Tensor) -> Tensor:
            seen.append(z)
            return super().decode(obs, z)

    spy = Spy(Spec((2,), 1), CVAEConfig(hidden=(8,)))
    obs = torch.zeros(50, 2)
    Decoded(spy, 0.5).sample(obs, 40)
    Decoded(spy, math.inf).sample(obs, 40)
    assert seen[0].shape == (40, 50, 2)
    assert seen[0].abs().max() == 0.5
    assert (seen[0].abs() == 0.5).double().mean().item() == pytest.approx(0.617, abs=0.02)  # P(|eps| > .5)
    assert seen[1].abs().max() > 2.5
    torch.manual_seed(5)
    first = Decoded(model, 0.5).sample(obs)
    torch.manual_seed(5)
    assert torch.equal(first, Decoded(model, 0.5).sample(obs))


def test_the_published_model_is_an_honest_density_with_variance_one_eighth() -> None:
    spec = Spec((4,), 3)
    model = CVAE(spec, CVAEConfig.published(spec))
    assert model.latent_dim == 6
    z = torch.zeros(1, 2, 6)
    likelihood = model.model.likelihood(z, torch.zeros(2, 4))
    torch.testing.assert_close(likelihood.stddev.square(), torch.full((1, 2, 3), 0.125))
    assert CVAEConfig.published(spec).eps == pytest.approx(1e-8 * 12)
