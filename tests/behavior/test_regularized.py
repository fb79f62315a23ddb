"""LayerNorm and dropout in every behavior model: dropout acts while a loss is computed and at no other time; without
them a model is what it was before it had them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from agents import small_choice, small_settings
from test_models import NEEDS, SPEC, members
from torch import Tensor, nn

from offline_vi import registry
from offline_vi.behavior import BehaviorModel, DensityModel, GaussianBehavior, GaussianBehaviorConfig, LatentModel
from offline_vi.behavior.pretrained import load_behavior
from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError
from offline_vi.nn.networks import StackedLayerNorm
from offline_vi.rl.algorithm import Algorithm, Jointly
from offline_vi.study.agents import build_agent
from offline_vi.training.behavior import fit_behavior
from offline_vi.training.loop import fit
from offline_vi.types import Metrics, Spec

SAVED = Path(__file__).parents[1] / "data" / "behavior-format-2"


def regularized(name: str, spec: Spec = SPEC) -> Any:
    settings = replace(small_settings(name, spec, (24, 24), quick=True), layer_norm=True, dropout=0.5)
    torch.manual_seed(0)
    cls: Any = registry.behavior_model(name).load()
    return cls(spec, settings)


@members(BehaviorModel)
def test_every_model_takes_both_and_a_step_reaches_all_of_it(name: str) -> None:
    model = regularized(name)
    kinds = {type(part) for part in model.modules()}
    assert {StackedLayerNorm, nn.Dropout} <= kinds
    loss, _ = model.loss(torch.randn(7, 5), torch.rand(7, 3) * 2 - 1)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@members(BehaviorModel)
def test_in_evaluation_mode_nothing_is_left_out(name: str) -> None:
    """All that is random then is the noise of the model itself, which dropout would change."""
    model = regularized(name).eval()
    plain = replace(model.config, dropout=0.0)
    twin = type(model)(SPEC, plain).eval()
    twin.load_state_dict(_without_dropout(model, twin))
    obs, action = torch.randn(7, 5), torch.rand(7, 3) * 2 - 1
    numbers = []
    for one in (model, twin, model):
        torch.manual_seed(3)
        numbers.append([one.sample(obs, 4), one.log_prob(obs, action, 4)])
    for again in numbers[1:]:
        assert all(torch.equal(first, other) for first, other in zip(numbers[0], again, strict=True))


def _without_dropout(model: nn.Module, twin: nn.Module) -> dict[str, Tensor]:
    """The weights of a model under the names that they have where no layers of dropout are counted."""
    return dict(zip(twin.state_dict(), model.state_dict().values(), strict=True))


@members(LatentModel)
def test_the_loss_in_training_mode_leaves_units_out(name: str) -> None:
    model = regularized(name)
    obs, action = torch.randn(7, 5), torch.rand(7, 3) * 2 - 1
    z = torch.zeros(7, model.latent_dim)
    assert not torch.equal(model.decode(obs, z), model.decode(obs, z))
    fit_behavior(model, _rows(obs, action), 2, progress=False)
    assert torch.equal(model.decode(obs, z), model.decode(obs, z))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_is_no_share_is_refused(dropout: float) -> None:
    with pytest.raises(ConfigError):
        GaussianBehavior(SPEC, GaussianBehaviorConfig(dropout=dropout))


# ------------------------------------------------------------------ which mode an algorithm finds a model in


class Watched(GaussianBehavior):
    """Keeps the modes in which it was asked for actions and densities, and in which it was fitted."""

    def __init__(self, spec: Spec, config: GaussianBehaviorConfig | None = None) -> None:
        super().__init__(spec, config)
        self.asked: list[bool] = []
        self.fitted: list[bool] = []

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        self.fitted.append(self.training)
        return super().loss(obs, action)

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        self.asked.append(self.training)
        return super().sample(obs, num_samples)

    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        self.asked.append(self.training)
        return super().decode(obs, z)

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        self.asked.append(self.training)
        return super().log_prob(obs, action, num_samples)


def _rows(obs: Tensor, action: Tensor) -> Transitions:
    ends = torch.zeros(len(obs), dtype=torch.bool).numpy()
    numbers = obs.numpy()
    return Transitions(numbers, action.numpy(), numbers[:, 0].copy(), numbers, ends, ends, SPEC)


def _modes_of(agent: Algorithm) -> list[bool]:
    """Of the algorithm's own networks."""
    return [part.training for name, part in agent.named_modules() if "actor" in name or "critic" in name]


@pytest.mark.parametrize("jointly", [False, True], ids=["frozen", "jointly"])
@pytest.mark.parametrize("name", [name for name, row in registry.trainable().items() if row.behavior])
def test_an_algorithm_asks_a_model_in_evaluation_mode(name: str, jointly: bool) -> None:
    torch.manual_seed(0)
    model = Watched(SPEC, GaussianBehaviorConfig(hidden=(8,), dropout=0.5))
    choice = small_choice(name, SPEC, jointly=jointly)
    agent = build_agent(choice, SPEC, model, lambda proposals: proposals)
    assert isinstance(agent, Jointly) is jointly
    data = _rows(torch.randn(40, 5), torch.rand(40, 3) * 2 - 1)
    fit(agent, data, 2, progress=False)
    agent.train()
    agent.act(torch.randn(3, 5))
    assert any(_modes_of(agent))  # the algorithm's own networks are in training mode
    assert model.asked and not any(model.asked)
    assert model.fitted == [True] * (2 if jointly else 0)
    assert not model.training


# ------------------------------------------------------------------ models that were saved before


@pytest.mark.parametrize("name", sorted(path.name for path in SAVED.iterdir() if path.is_dir()))
def test_a_model_saved_before_it_had_them_is_the_same(name: str) -> None:
    pytest.importorskip(NEEDS.get(name, "torch"))
    model = load_behavior(SAVED / name)
    assert isinstance(model, DensityModel)
    expected = json.loads((SAVED / "numbers.json").read_text())[name]
    obs, action = torch.linspace(-1, 1, 6).reshape(2, 3), torch.linspace(-0.9, 0.9, 4).reshape(2, 2)
    torch.manual_seed(0)
    sample, log_prob = model.sample(obs).flatten().tolist(), model.log_prob(obs, action, 4).tolist()
    assert sample == pytest.approx(expected["sample"], abs=1e-6)
    assert log_prob == pytest.approx(expected["log_prob"], abs=1e-5)
