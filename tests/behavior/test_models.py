"""One contract for every behaviour model in the table, by what its type promises; a new model joins by its row."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from agents import small_model, small_settings
from torch import Tensor
from torch.distributions import Normal

from offline_vi import registry
from offline_vi.behavior import (
    CVAE,
    BehaviorModel,
    CVAEConfig,
    DecoderMeans,
    DensityModel,
    FlowBehavior,
    FlowMatchingBehavior,
    GaussianBehavior,
    LatentModel,
    MixtureBehavior,
)
from offline_vi.behavior.flow_matching import exact_directions, hutchinson_directions, trace
from offline_vi.behavior.inputs import RunningNormalizer
from offline_vi.errors import MissingDependencyError
from offline_vi.study.data import DataOptions
from offline_vi.study.fit_behavior import FitOptions
from offline_vi.study.run import RunOptions
from offline_vi.types import Spec

NEEDS = {"flow": "zuko"}  # optional packages
ONE_DIM = Spec((2,), 1)


def members(capability: Any, but: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """A parametrisation by the names of the table whose class promises the capability."""
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(
                name,
                marks=pytest.mark.skipif(
                    name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None,
                    reason=f"needs the package {NEEDS.get(name)}",
                ),
            )
            for name, row in registry.behavior_models().items()
            if issubclass(row.load(), capability) and name not in but
        ],
    )


# their densities are lower bounds, and their decoders leave out the likelihood's noise
CVAES = tuple(name for name, row in registry.behavior_models().items() if row.load() is CVAE)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
batches = pytest.mark.parametrize("batch", [1, 7])


def small(name: str, spec: Spec) -> Any:
    """The named model with little networks."""
    torch.manual_seed(0)
    return small_model(name, spec, (24, 24))


def fitted(name: str) -> Any:
    """A little float64 model of one-dimensional actions after a few steps, away from the symmetry of its beginning."""
    model = small(name, ONE_DIM).double()
    obs = torch.randn(256, 2, dtype=torch.float64)
    action = torch.tanh(0.4 * torch.randn(256, 1, dtype=torch.float64) + obs[:, :1].sign() * 0.7)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(obs, action)[0].backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def models() -> Iterator[Any]:
    """Name -> `fitted` model, made once."""
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            with torch.random.fork_rng():
                made[name] = fitted(name)
        return made[name]

    yield get


SPEC = Spec((5,), 3)


def inputs(batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 5, dtype=dtype), torch.rand(batch, 3, dtype=dtype) * 2 - 1


# ------------------------------------------------------------------ every behaviour model


@dtypes
@batches
@members(BehaviorModel)
class TestBehaviorModel:
    def test_loss_is_a_scalar_that_reaches_every_parameter(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, SPEC).to(dtype)
        loss, metrics = model.loss(*inputs(batch, dtype))
        assert loss.shape == ()
        assert loss.dtype == dtype
        assert metrics and all(key.startswith("behavior/") for key in metrics)
        assert not any(value.requires_grad or value.shape for value in metrics.values())
        loss.backward()
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name

    @pytest.mark.parametrize("count", [1, 4])
    def test_samples_have_their_shape_and_lie_in_the_box(
        self, name: str, batch: int, dtype: torch.dtype, count: int
    ) -> None:
        model = small(name, SPEC).to(dtype)
        obs, _ = inputs(batch, dtype)
        sample = model.sample(obs, count)
        assert sample.shape == (count, batch, 3)
        assert sample.dtype == dtype
        assert not sample.requires_grad
        assert name in CVAES or sample.abs().max() <= 1.0  # a Normal about tanh(mu) has tails
        assert sample.unique(dim=0).shape[0] == count  # each draw has noise of its own

    def test_actions_on_the_bounds_are_finite(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, SPEC).to(dtype)
        obs, action = inputs(batch, dtype)
        loss, _ = model.loss(obs, action.sign())
        assert loss.isfinite()
        loss.backward()
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())

    def test_saved_and_loaded_it_gives_identical_numbers(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model, twin = small(name, SPEC).to(dtype), small(name, SPEC).to(dtype)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(0.1)
        twin.load_state_dict(model.state_dict())
        obs, action = inputs(batch, dtype)
        numbers = []
        for member in (model, twin):
            torch.manual_seed(2)
            numbers.append([member.sample(obs, 3), member.loss(obs, action)[0]])
        assert torch.equal(numbers[0][0], numbers[1][0])
        assert torch.equal(numbers[0][1], numbers[1][1])


@members(BehaviorModel)
def test_the_loss_is_a_mean_over_the_batch_and_over_nothing_else(name: str) -> None:
    """Twice the same rows: the same loss. Averages over many draws of what noise the loss has."""
    model = small(name, SPEC).double().eval()
    obs, action = inputs(4, torch.float64)
    twice = torch.cat([obs, obs]), torch.cat([action, action])
    count = 3000 if name in CVAES or name == "flow-matching" else 1
    with torch.no_grad():
        big = [rows.repeat(count, 1) for rows in (obs, action)]
        once, again = model.loss(*big)[0], model.loss(*(rows.repeat(count, 1) for rows in twice))[0]
    assert once.item() == pytest.approx(again.item(), rel=0.05 if count > 1 else 1e-12)


@members(BehaviorModel)
def test_rows_of_a_batch_do_not_see_each_other(name: str) -> None:
    model = small(name, SPEC).double().eval()
    obs, _ = inputs(6, torch.float64)
    changed = obs.clone()
    changed[1:] += 1.0
    torch.manual_seed(4)
    first = model.sample(obs, 3)
    torch.manual_seed(4)
    second = model.sample(changed, 3)
    torch.testing.assert_close(first[:, 0], second[:, 0])
    assert not torch.allclose(first[:, 1:], second[:, 1:])


@members(BehaviorModel)
def test_nothing_but_the_loss_in_training_mode_changes_a_model(name: str) -> None:
    model = small(name, SPEC)
    obs, action = inputs(7, torch.float32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.sample(obs, 2)
    model.eval()
    model.loss(obs, action)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@members(BehaviorModel)
def test_its_configuration_shares_no_name_with_the_flags_of_the_command(name: str) -> None:
    """`fit-behavior NAME` takes all of them without a prefix."""
    config = registry.behavior_model(name).config(SPEC)
    assert (config.batch_size, config.lr, config.eps) > (0, 0.0, 0.0)  # what the loop asks for
    flags = {field.name for options in (DataOptions, FitOptions, RunOptions) for field in fields(options)}
    assert not flags & {field.name for field in fields(config)}


# ------------------------------------------------------------------ densities


@dtypes
@batches
@members(DensityModel)
class TestDensityModel:
    @pytest.mark.parametrize("count", [1, 4])
    def test_log_prob_is_one_finite_number_a_row(self, name: str, batch: int, dtype: torch.dtype, count: int) -> None:
        model = small(name, SPEC).to(dtype)
        obs, action = inputs(batch, dtype)
        log_prob = model.log_prob(obs, action, num_samples=count)
        assert log_prob.shape == (batch,)
        assert log_prob.dtype == dtype
        assert log_prob.isfinite().all()

    def test_several_actions_of_a_state_at_once(self, name: str, batch: int, dtype: torch.dtype) -> None:
        """(N, B, A) -> (N, B): each row's own, wherever the density is no estimate."""
        model = small(name, SPEC).to(dtype).eval()
        obs, action = inputs(batch, dtype)
        several = torch.stack([action, 0.5 * action, -action])
        log_prob = model.log_prob(obs, several, num_samples=4)
        assert log_prob.shape == (3, batch)
        apart = torch.stack([model.log_prob(obs, one, num_samples=4) for one in several])
        if torch.equal(model.log_prob(obs, action, num_samples=4), model.log_prob(obs, action, num_samples=4)):
            torch.testing.assert_close(log_prob, apart, rtol=1e-4, atol=1e-4)
        else:
            assert log_prob.isfinite().all()

    def test_it_has_a_gradient_in_the_action(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, SPEC).to(dtype)
        obs, action = inputs(batch, dtype)
        action = (action * 0.9).requires_grad_()
        model.log_prob(obs, action).sum().backward()
        assert action.grad is not None and action.grad.isfinite().all()
        assert (action.grad != 0).all(-1).any()

    def test_it_is_finite_on_the_bounds_with_its_gradients(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, SPEC).to(dtype)
        obs, action = inputs(batch, dtype)
        action = action.sign().requires_grad_()
        log_prob = model.log_prob(obs, action)
        assert log_prob.isfinite().all()
        log_prob.sum().backward()
        assert action.grad is not None and action.grad.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@members(DensityModel)
def test_the_gradient_in_the_action_is_that_of_the_number(name: str) -> None:
    model = small(name, SPEC).double().eval()
    obs, action = inputs(3, torch.float64)
    action = (0.8 * action).requires_grad_()

    def log_prob(x: Tensor) -> Tensor:
        torch.manual_seed(6)  # the noise of the bounds
        return model.log_prob(obs, x, num_samples=2)  # type: ignore[no-any-return]

    (gradient,) = torch.autograd.grad(log_prob(action).sum(), action)
    for dim in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[dim] = 1e-6
        with torch.no_grad():
            slope = (log_prob(action + step) - log_prob(action - step)) / 2e-6
        torch.testing.assert_close(gradient[:, dim], slope, rtol=1e-4, atol=1e-5)


@members(DensityModel)
def test_saved_and_loaded_the_density_is_the_same(name: str) -> None:
    model, twin = small(name, SPEC).eval(), small(name, SPEC).eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    obs, action = inputs(5, torch.float32)
    torch.manual_seed(2)
    first = model.log_prob(obs, action)
    torch.manual_seed(2)
    assert not torch.equal(first, twin.log_prob(obs, action))
    twin.load_state_dict(model.state_dict())
    torch.manual_seed(2)
    assert torch.equal(first, twin.log_prob(obs, action))


@members(DensityModel)
def test_samples_come_from_the_density_that_log_prob_describes(name: str, models: Any) -> None:
    """In one dimension: three quantiles of the samples against quadrature of exp(log_prob)."""
    model = models(name)
    obs = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    samples = model.sample(obs, 40_000)[:, 0, 0]
    low, middle, high = (samples.quantile(q).item() for q in (0.1, 0.4, 0.8))
    for left, right, mass in ((low, middle, 0.3), (middle, high, 0.4)):
        grid = torch.linspace(left, right, 300, dtype=torch.float64)[:, None]
        with torch.no_grad():
            log_prob = model.log_prob(obs.expand(300, 2), grid, num_samples=2_000)
        assert torch.trapezoid(log_prob.exp(), grid[:, 0]).item() == pytest.approx(mass, abs=0.012)


@members(DensityModel, but=CVAES)
def test_an_exact_density_integrates_to_one(name: str, models: Any) -> None:
    """By quadrature over u = atanh(a), where nothing is steep."""
    model = models(name)
    u = torch.linspace(-7.0, 7.0, 2001, dtype=torch.float64)[:, None]
    for obs in ([0.3, -1.0], [-0.7, 0.2]):
        with torch.no_grad():
            log_prob = model.log_prob(torch.tensor([obs], dtype=torch.float64).expand(2001, 2), torch.tanh(u))
            density = log_prob.exp() * (1.0 - torch.tanh(u[:, 0]).square())
        assert torch.trapezoid(density, u[:, 0]).item() == pytest.approx(1.0, abs=1e-3)


@members(DensityModel, but=CVAES)
def test_an_exact_density_needs_no_samples(name: str) -> None:
    model = small(name, SPEC).double().eval()
    obs, action = inputs(3, torch.float64)
    assert torch.equal(model.log_prob(obs, action, 1), model.log_prob(obs, action, 50))


@members(DensityModel, but=(*CVAES, "flow-matching"))
def test_the_loss_of_an_exact_density_is_its_negative_mean(name: str) -> None:
    model = small(name, SPEC).double().eval()
    obs, action = inputs(5, torch.float64)
    torch.testing.assert_close(model.loss(obs, action)[0], -model.log_prob(obs, action).mean())


# ------------------------------------------------------------------ noise in, action out


@dtypes
@batches
@members(LatentModel)
class TestLatentModel:
    def test_decoding_has_its_shape_and_stays_in_the_box(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, SPEC).to(dtype)
        obs, _ = inputs(batch, dtype)
        z = torch.randn(4, batch, model.latent_dim, dtype=dtype)
        decoded = model.decode(obs, z)
        assert decoded.shape == (4, batch, 3)
        assert decoded.dtype == dtype
        assert decoded.abs().max() <= 1.0
        torch.testing.assert_close(model.decode(obs, z[0]), decoded[0])
        assert model.decode(obs, z.unsqueeze(0)).shape == (1, 4, batch, 3)

    def test_it_has_a_gradient_in_the_latent(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, SPEC).to(dtype)
        obs, _ = inputs(batch, dtype)
        z = torch.zeros(batch, model.latent_dim, dtype=dtype, requires_grad=True)
        model.decode(obs, z).sum().backward()
        assert z.grad is not None and z.grad.isfinite().all() and (z.grad != 0).all()

    def test_far_noise_is_decoded_to_a_finite_action(self, name: str, batch: int, dtype: torch.dtype) -> None:
        model = small(name, SPEC).to(dtype)
        obs, _ = inputs(batch, dtype)
        z = torch.linspace(-12.0, 12.0, 49, dtype=dtype).reshape(49, 1, 1).expand(49, batch, model.latent_dim)
        assert model.decode(obs, z).isfinite().all()


@members(LatentModel, but=CVAES)
def test_normal_noise_through_decode_is_distributed_as_sample(name: str, models: Any) -> None:
    """One-dimensional: the two empirical quantile functions."""
    model = models(name)
    obs = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    with torch.no_grad():
        decoded = model.decode(obs, torch.randn(40_000, 1, 1, dtype=torch.float64))[:, 0, 0]
    samples = model.sample(obs, 40_000)[:, 0, 0]
    q = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    torch.testing.assert_close(decoded.quantile(q), samples.quantile(q), rtol=0.0, atol=0.015)


@members(LatentModel, but=CVAES)
def test_a_bijection_of_noise_has_the_density_of_the_change_of_variables(name: str, models: Any) -> None:
    """log p(decode(z)) = log N(z) - log |d decode / dz|, in one dimension."""
    model = models(name)
    z = torch.linspace(-2.5, 2.5, 21, dtype=torch.float64)[:, None].requires_grad_()
    obs = torch.tensor([[0.3, -1.0]], dtype=torch.float64).expand(21, 2)
    action = model.decode(obs, z)
    (slope,) = torch.autograd.grad(action.sum(), z)
    expected = (Normal(0.0, 1.0).log_prob(z) - slope.log())[:, 0]
    tolerance = 2e-3 if name == "flow-matching" else 1e-9  # that of the integrator
    torch.testing.assert_close(model.log_prob(obs, action.detach()), expected.detach(), rtol=0.0, atol=tolerance)


# ------------------------------------------------------------------ learning


def two_modes(count: int) -> tuple[Tensor, Tensor]:
    """Actions +-0.5 with a standard deviation of 0.05, whatever the observation."""
    sign = torch.randint(0, 2, (count, 1)) * 2.0 - 1.0
    return torch.rand(count, 1) * 2 - 1, 0.5 * sign + 0.05 * torch.randn(count, 1)


def off_support(model: BehaviorModel) -> float:
    """The share of samples more than three standard deviations from both modes."""
    sample = model.sample(torch.rand(2000, 1) * 2 - 1, 1)
    return ((sample.abs() - 0.5).abs() > 0.15).float().mean().item()


def learn(model: BehaviorModel, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(*two_modes(256))[0].backward()
        optimizer.step()
        schedule.step()


TRUTH = 0.8836  # E log p of the two modes, by quadrature


@torch.no_grad()
def score(model: DensityModel) -> float:
    return model.log_prob(*two_modes(4000)).mean().item()


def test_a_mixture_keeps_two_modes_apart_and_a_normal_cannot() -> None:
    mixture, normal = (small(name, Spec((1,), 1)) for name in ("mixture", "gaussian"))
    learn(mixture, 400)
    learn(normal, 400)
    assert off_support(mixture) <= 0.03
    assert score(mixture) == pytest.approx(TRUTH, abs=0.05)
    assert off_support(normal) > 0.5
    assert score(normal) < 0.0


@pytest.mark.parametrize("name, steps, off, gap", [("flow", 300, 0.15, 0.15), ("flow-matching", 1200, 0.15, 0.25)])
def test_a_flow_splits_its_noise_into_two_modes(name: str, steps: int, off: float, gap: float) -> None:
    """All but the bridge of mass between them, which a continuous map of noise must leave."""
    pytest.importorskip(NEEDS.get(name, "torch"))
    spec = Spec((1,), 1)
    torch.manual_seed(0)
    model: Any = small_model(name, spec, (64, 64))
    learn(model, steps)
    assert off_support(model) <= off
    assert score(model) >= TRUTH - gap


def test_a_mixture_reports_what_its_components_are_used_for() -> None:
    torch.manual_seed(0)
    model: Any = MixtureBehavior(Spec((2,), 2))
    obs, action = torch.randn(64, 2), torch.rand(64, 2) * 2 - 1
    with torch.no_grad():  # four components in one place
        model.mixture.parameters_of.offset.zero_()
        for parameter in model.mixture.parameters_of.net.parameters():
            parameter.zero_()
    _, metrics = model.loss(obs, action)
    assert metrics["behavior/entropy"].item() == pytest.approx(math.log(4.0), abs=1e-5)
    assert metrics["behavior/active"].item() == 4
    with torch.no_grad():  # the weight of three of them is exp(-30)
        model.mixture.parameters_of.net[-1].bias[:4] = torch.tensor([30.0, 0.0, 0.0, 0.0])
    _, metrics = model.loss(obs, action)
    assert metrics["behavior/entropy"].item() == pytest.approx(0.0, abs=1e-5)
    assert metrics["behavior/active"].item() == 1


# ------------------------------------------------------------------ flows


def test_without_its_package_a_flow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(MissingDependencyError, match="zuko") as caught:
        FlowBehavior(SPEC)
    assert caught.value.hint == "pip install 'offline-vi[flows]'"
    assert (
        registry.behavior_model("flow").config(SPEC).transforms > 0
    )  # its hyper-parameters can be listed all the same


def test_coupling_inverts_in_two_passes_what_log_prob_computes_in_one() -> None:
    pytest.importorskip("zuko")
    spec = Spec((5,), 6)
    model: Any = FlowBehavior(spec, replace(small_settings("flow", spec, (24, 24)), passes=2)).double()
    obs, z = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    action = model.decode(obs, z)
    jacobian = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda x, i=i: model.decode(obs[i : i + 1], x[None])[0], z[i])
            for i in range(4)
        ]
    )
    expected = Normal(0.0, 1.0).log_prob(z).sum(-1) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(model.log_prob(obs, action), expected, rtol=1e-8, atol=1e-8)


def test_both_traces_are_those_of_the_jacobian() -> None:
    matrix = torch.randn(5, 5, dtype=torch.float64)
    u = torch.randn(3, 5, dtype=torch.float64)

    def field(x: Tensor) -> Tensor:
        return torch.tanh(x @ matrix.mT)

    expected = ((1.0 - field(u).square()) * matrix.diagonal()).sum(-1)
    velocity, exact = trace(field, u, exact_directions(u, 1))
    torch.testing.assert_close(velocity, field(u))
    torch.testing.assert_close(exact, expected)
    directions = hutchinson_directions(u, 20_000)
    assert directions.shape == (20_000, 3, 5)
    assert directions.abs().unique().tolist() == [1.0]
    _, estimate = trace(field, u, directions)
    _, one_by_one = trace(field, u, directions[:1])
    spread = matrix.square().sum().sqrt().item() * math.sqrt(2.0 / 20_000)  # at most: the sd of Rademacher probes
    torch.testing.assert_close(estimate, expected, rtol=0.0, atol=5 * spread)
    assert not torch.allclose(one_by_one, expected)


def test_many_dimensions_and_few_samples_take_hutchinsons_estimate() -> None:
    spec = Spec((2,), 12)
    torch.manual_seed(0)
    model = small_model("flow-matching", spec, (24,)).double()
    assert isinstance(model, FlowMatchingBehavior)
    obs, action = torch.randn(1, 2).double().expand(2000, 2), (torch.rand(1, 12).double() - 0.5).expand(2000, 12)
    with torch.no_grad():
        exact = model.log_prob(obs[:1], action[:1], num_samples=12)
        noisy = model.log_prob(obs, action, num_samples=2)
    assert noisy.std() > 1e-3
    assert noisy.mean().item() == pytest.approx(exact.item(), abs=5 * noisy.std().item() / math.sqrt(2000))


def test_the_integration_error_falls_with_the_square_of_the_step(models: Any) -> None:
    model = models("flow-matching")
    obs = torch.tensor([[0.3, -1.0]], dtype=torch.float64).expand(9, 2)
    action = torch.linspace(-0.8, 0.8, 9, dtype=torch.float64)[:, None]

    @torch.no_grad()
    def log_prob(steps: int) -> Tensor:
        twin = FlowMatchingBehavior(ONE_DIM, replace(model.config, ode_steps=steps)).double()
        twin.load_state_dict(model.state_dict())
        return twin.log_prob(obs, action)

    truth = log_prob(320)
    errors = [(log_prob(steps) - truth).abs().max().item() for steps in (10, 20, 40)]
    assert errors[0] / errors[1] == pytest.approx(4.0, abs=1.2)
    assert errors[1] / errors[2] == pytest.approx(4.0, abs=1.2)


# ------------------------------------------------------------------ single models


def test_running_statistics_are_those_of_all_rows_seen_in_training() -> None:
    rows = torch.randn(600, 3, dtype=torch.float64) * torch.tensor([0.01, 1.0, 30.0]) + torch.tensor([5.0, 0.0, -90.0])
    rows[:, 1] += torch.linspace(-4.0, 4.0, 600)  # batches differ
    running = RunningNormalizer(Spec((3,), 1)).double()
    for batch in rows.split([1, 99, 200, 300]):
        running.observe(batch)
    mean, square = rows.sum(0) / 601, (rows.square().sum(0) + 1.0) / 601  # with the row of the beginning
    torch.testing.assert_close(running.mean, mean)
    torch.testing.assert_close(running.std.square(), square - mean.square())
    expected = running(rows)
    running.eval().observe(rows + 100.0)
    assert torch.equal(running(rows), expected)


INPUTS = {"gaussian": "inputs", "mixture": "inputs", "flow": "inputs", "flow-matching": "field.inputs"}


@pytest.mark.parametrize("name", INPUTS)
def test_models_that_normalise_do_not_care_for_the_units_of_observations(name: str) -> None:
    pytest.importorskip(NEEDS.get(name, "torch"))
    obs, action = inputs(50, torch.float64)
    numbers = []
    for scale in (1.0, 100.0):
        model = small(name, SPEC).double()
        for _ in range(4000):
            model.get_submodule(INPUTS[name]).observe(scale * obs + scale)
        numbers.append(model.log_prob(scale * obs + scale, action))
    torch.testing.assert_close(numbers[0], numbers[1], rtol=0.0, atol=1e-3)


def test_the_gaussian_has_the_density_of_torchs_transformed_normal() -> None:
    model = GaussianBehavior(SPEC).double()
    obs, action = inputs(6, torch.float64)
    base = model.distribution(obs).base
    normal = torch.distributions.Independent(Normal(base.loc, base.stddev), 1)
    expected = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    torch.testing.assert_close(model.log_prob(obs, action), expected.log_prob(action))
    torch.testing.assert_close(model.decode(obs, torch.zeros(6, 3, dtype=torch.float64)), torch.tanh(base.loc))


def test_decoded_clips_the_noise_and_draws_from_the_default_generator() -> None:
    model = small("cvae", Spec((2,), 1))
    seen: list[Tensor] = []

    class Spy(CVAE):
        def decode(self, obs: Tensor, z: Tensor) -> Tensor:
            seen.append(z)
            return super().decode(obs, z)

    spy = Spy(Spec((2,), 1), CVAEConfig(hidden=(8,)))
    obs = torch.zeros(50, 2)
    DecoderMeans(spy, 0.5).sample(obs, 40)
    DecoderMeans(spy, math.inf).sample(obs, 40)
    assert seen[0].shape == (40, 50, 2)
    assert seen[0].abs().max() == 0.5
    assert (seen[0].abs() == 0.5).double().mean().item() == pytest.approx(0.617, abs=0.02)  # P(|eps| > .5)
    assert seen[1].abs().max() > 2.5
    torch.manual_seed(5)
    first = DecoderMeans(model, 0.5).sample(obs)
    torch.manual_seed(5)
    assert torch.equal(first, DecoderMeans(model, 0.5).sample(obs))


def test_the_published_model_is_an_honest_density_with_variance_one_eighth() -> None:
    spec = Spec((4,), 3)
    model = CVAE(spec, CVAEConfig.published(spec))
    assert model.latent_dim == 6
    z = torch.zeros(1, 2, 6)
    likelihood = model.model.likelihood(z, torch.zeros(2, 4))
    torch.testing.assert_close(likelihood.stddev.square(), torch.full((1, 2, 3), 0.125))
    assert CVAEConfig.published(spec).eps == pytest.approx(1e-8 * 12)
