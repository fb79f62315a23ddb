"""What wraps an algorithm loses none of its capabilities, and trains a model as the model's configuration says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.algorithms.sac import SAC, SACConfig
from offline_vi.algorithms.soft_q import SoftQ, SoftQConfig
from offline_vi.algorithms.vime import VIME, VIMEConfig
from offline_vi.behavior import CVAE, BehaviorModel, CVAEConfig, DecoderMeans, GaussianBehavior, GaussianBehaviorConfig
from offline_vi.behavior.base import FitSettings, fit_settings
from offline_vi.data.transitions import Transitions
from offline_vi.datasets import environment
from offline_vi.errors import CapabilityError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.rl.algorithm import Algorithm, Jointly, OnlineAlgorithm, find_capability, normalizer_of
from offline_vi.rl.policies import Ranks, StatefulPolicy, q_value
from offline_vi.training.behavior import fit_behavior
from offline_vi.training.online import fit_online
from offline_vi.types import Batch, Metrics, Spec

SPEC = Spec((3,), 1)


def small() -> GaussianBehavior:
    return GaussianBehavior(SPEC, GaussianBehaviorConfig(hidden=(8,)))


def soft_q(model: BehaviorModel) -> SoftQ:
    return SoftQ(SPEC, model, SoftQConfig(hidden=(8,), batch_size=8))


# ------------------------------------------------------------------ what the inner algorithm can do


def test_a_model_trained_jointly_with_an_algorithm_that_explores_explores() -> None:
    model = small()
    agent = Jointly(model, soft_q(model))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, collected = fit_online(agent, environment("Pendulum-v1"), SPEC, 5, warmup=6, progress=False)
    assert len(collected) == 11
    assert not torch.equal(before["net.0.weight"], model.state_dict()["net.0.weight"])


@pytest.mark.parametrize("wrap", ["jointly", "vime", "both"])
def test_every_capability_is_found_within_the_wrappers(wrap: str) -> None:
    model = small()
    inner = soft_q(model)
    agent: Algorithm = inner if wrap == "vime" else Jointly(model, inner)
    agent = agent if wrap == "jointly" else VIME(agent, SPEC, VIMEConfig(capacity=10, features=4))
    obs, action = torch.randn(4, 3), torch.rand(5, 4, 1)
    for kind in (SoftQ, OnlineAlgorithm, Ranks):
        assert find_capability(agent, kind) is inner
    assert torch.equal(q_value(agent, obs, action), inner.q_value(obs, action))
    assert normalizer_of(agent) is inner.inputs
    torch.manual_seed(0)
    acted = agent.act(obs)
    torch.manual_seed(0)
    assert torch.equal(acted, inner.act(obs))


def test_what_nobody_has_is_none() -> None:
    assert find_capability(SAC(SPEC, SACConfig(hidden=(8,))), Ranks) is None
    assert find_capability(object(), Algorithm) is None
    assert torch.isnan(q_value(_Forgetful(), torch.zeros(2, 3), torch.zeros(2, 1))).all()
    with pytest.raises(CapabilityError, match="does not explore"):
        model = small()
        agent = Jointly(model, BCQ(SPEC, DecoderMeans(model), BCQConfig(hidden=(8,), batch_size=8)))
        fit_online(agent, environment("Pendulum-v1"), SPEC, 5)


class _Forgetful(Algorithm):
    """Counts how often it was told to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size, self.resets = 4, 0

    def update(self, batch: Batch) -> Metrics:
        return {}

    def act(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), 1)

    def reset(self, first: Tensor) -> None:
        self.resets += int(first.all())


def test_a_policy_with_memory_forgets_within_a_wrapper_too() -> None:
    inner = _Forgetful()
    assert isinstance(inner, StatefulPolicy)
    evaluate(Jointly(small(), inner), environment("Pendulum-v1"), episodes=1)
    assert inner.resets == 1


# ------------------------------------------------------------------ how a model is trained


def group_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return optimizer.param_groups[0]


def test_jointly_takes_rate_and_eps_from_the_models_own_configuration() -> None:
    model = CVAE(SPEC, replace(CVAEConfig.published(SPEC), lr=3e-4))
    group = group_of(Jointly(model, BCQ(SPEC, DecoderMeans(model))).behavior_opt)
    assert (group["lr"], group["eps"]) == (3e-4, pytest.approx(4e-8))  # 4 A times 1e-8: the published step


class Seen(BehaviorModel):
    """Remembers the sizes of its batches."""

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.spec, self.net, self.sizes = SPEC, nn.Linear(3, 1), set[int]()
        if config is not None:
            self.config = config

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        self.sizes.add(len(obs))
        loss = (self.net(obs) - action).square().mean()
        return loss, {"behavior/loss": loss.detach()}

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return torch.zeros(num_samples, len(obs), 1)


@dataclass(frozen=True)
class Partly:
    """Without an eps."""

    batch_size: int = 7
    lr: float = 0.5


def rows() -> Transitions:
    obs = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    ends = np.zeros(40, np.bool_)
    return Transitions(obs, obs[:, :1].clip(-1, 1), obs[:, 0].copy(), obs, ends, ends, SPEC)


def test_a_model_is_fitted_as_its_configuration_says_unless_the_caller_says_otherwise() -> None:
    assert fit_settings(Seen()) == FitSettings(256, 1e-3, 1e-8)
    assert fit_settings(Seen(Partly())) == FitSettings(7, 0.5, 1e-8)
    assert fit_settings(CVAE(SPEC, CVAEConfig.published(SPEC))).batch_size == 100
    model = Seen(Partly())
    before = model.net.weight.detach().clone()
    fit_behavior(model, rows(), 1, progress=False)
    assert model.sizes == {7}
    moved = (model.net.weight.detach() - before).abs()
    assert moved.max() == pytest.approx(0.5, rel=1e-3)  # Adam's first step is its rate
    other = Seen(Partly())
    before = other.net.weight.detach().clone()
    fit_behavior(other, rows(), 1, batch_size=9, lr=0.01, eps=1e9, progress=False)
    assert other.sizes == {9}
    assert (other.net.weight.detach() - before).abs().max() < 1e-9


def test_a_models_eps_is_that_of_its_optimizer() -> None:
    model = CVAE(SPEC, CVAEConfig(hidden=(4,), eps=1e9))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    fit_behavior(model, rows(), 1, progress=False)
    moved = [(a.detach() - b).abs().max() for a, b in zip(model.parameters(), before, strict=True)]
    assert max(moved) < 1e-9
