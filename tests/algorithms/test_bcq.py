"""BCQ against an independent restatement of the reference code, and against small cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracle_bcq import Layers, ReferenceBCQ
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.behavior import CVAE, CVAEConfig, DecoderMeans, Proposals
from offline_vi.errors import CapabilityError
from offline_vi.nn.networks import EnsembleLinear
from offline_vi.rl.algorithm import Jointly
from offline_vi.types import Batch, Spec


class NormalDraws(TorchDispatchMode):
    """Record every standard normal draw, whatever function made it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws: list[np.ndarray[Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(part in func.name() for part in ("randn", "normal")):
            self.draws.append(out.detach().double().numpy().copy())
        return out


def linear_layers(module: nn.Module) -> Layers:
    return [
        (layer.weight.detach().double().numpy().T.copy(), layer.bias.detach().double().numpy().copy())
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
    ]


def ensemble_layers(module: nn.Module, member: int) -> Layers:
    return [
        (layer.weight[member].detach().double().numpy().copy(), layer.bias[member, 0].detach().double().numpy().copy())
        for layer in module.modules()
        if isinstance(layer, EnsembleLinear)
    ]


def restate(algorithm: BCQ, model: CVAE) -> ReferenceBCQ:
    return ReferenceBCQ(
        encoder=linear_layers(model.posterior),
        decoder=linear_layers(model.model.likelihood),
        actor=linear_layers(algorithm.actor),
        actor_target=linear_layers(algorithm.actor_target),
        critics=[ensemble_layers(algorithm.critic, member) for member in (0, 1)],
        critic_targets=[ensemble_layers(algorithm.critic_target, member) for member in (0, 1)],
    )


def all_layers(reference: ReferenceBCQ) -> list[np.ndarray[Any, Any]]:
    networks = [reference.encoder, reference.decoder, reference.actor, reference.actor_target]
    networks += [*reference.critics, *reference.critic_targets]
    return [array for layers in networks for layer in layers for array in layer]


def random_batch(spec: Spec, size: int, dtype: torch.dtype) -> Batch:
    obs, next_obs = torch.randn(2, size, spec.obs_dim, dtype=dtype)
    action = torch.rand(size, spec.action_dim, dtype=dtype) * 2 - 1
    terminated = (torch.rand(size) < 0.3).to(dtype)
    return Batch(obs, action, torch.randn(size, dtype=dtype), next_obs, terminated, torch.arange(size))


@pytest.mark.parametrize(
    ("dtype", "share", "hidden"),
    [(torch.float64, 1.0, (400, 300)), (torch.float32, 0.9999, (400, 300)), (torch.float64, 1.0, (13, 7, 5))],
)
def test_three_published_steps_equal_the_reference(dtype: torch.dtype, share: float, hidden: tuple[int, ...]) -> None:
    spec = Spec(obs_shape=(11,), action_dim=3)
    config = CVAEConfig.published(spec)
    model = CVAE(spec, config)
    if dtype == torch.float64:  # some log-scales below the clamp at -4; in float32 rounding would cross its edge
        with torch.no_grad():
            linears = [layer for layer in model.posterior.modules() if isinstance(layer, nn.Linear)]
            linears[-1].bias[spec.action_dim * 2 :].sub_(torch.linspace(0.0, 6.0, spec.action_dim * 2))
    algorithm = BCQ(spec, DecoderMeans(model, 0.5), BCQConfig(hidden=hidden))
    jointly = Jointly(model, algorithm).to(dtype)
    reference = restate(algorithm, model)
    before = [array.copy() for array in all_layers(reference)]
    for _ in range(3):
        batch = random_batch(spec, 100, dtype)
        with NormalDraws() as noise:
            metrics = jointly.update(batch)
        encoder, target, actor = (draw.reshape(-1, 100, 6) for draw in noise.draws)
        losses = reference.train(
            {
                "state": batch.obs.double().numpy(),
                "action": batch.action.double().numpy(),
                "reward": batch.reward.double().numpy(),
                "next_state": batch.next_obs.double().numpy(),
                "not_done": 1.0 - batch.terminated.double().numpy(),
            },
            {"encoder": encoder[0], "target": target, "actor": actor[0]},
        )
        assert metrics["critic/loss"].item() == pytest.approx(losses["critic"], rel=1e-5)
        assert metrics["actor/loss"].item() == pytest.approx(losses["actor"], rel=1e-4, abs=1e-6)
    expected, found = all_layers(reference), all_layers(restate(algorithm, model))
    assert all(not np.array_equal(old, new) for old, new in zip(before, expected, strict=True))  # every tensor moved
    error = np.concatenate([np.abs(a - b).ravel() for a, b in zip(expected, found, strict=True)])
    assert (error <= 1e-6).mean() >= share
    assert error.max() <= (1e-6 if dtype == torch.float64 else 1e-5)


class FixedCandidates(Proposals):
    """Proposes the same N actions everywhere."""

    def __init__(self, spec: Spec, actions: list[float]) -> None:
        super().__init__()
        self.spec, self.actions = spec, torch.tensor(actions)

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return self.actions[:num_samples, None, None].expand(-1, obs.shape[0], 1)


class TableCritic(nn.Module):
    """Q_1 = a, Q_2 = 1 - a: the mix of minimum and maximum before the maximum over candidates is worked out by hand."""

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.stack([action[..., 0], 1.0 - action[..., 0]])

    def q1(self, obs: Tensor, action: Tensor) -> Tensor:
        return action[..., 0]


def test_target_mixes_over_the_ensemble_before_the_maximum_over_candidates() -> None:
    spec = Spec((2,), 1)
    algorithm = BCQ(spec, FixedCandidates(spec, [0.0, 0.5, 0.8]), BCQConfig(phi=0.0, num_candidates=3, lmbda=0.75))
    algorithm.critic_target = TableCritic()  # type: ignore[assignment]
    batch = Batch(
        torch.zeros(2, 2),
        torch.zeros(2, 1),
        torch.tensor([1.0, 2.0]),
        torch.zeros(2, 2),
        torch.tensor([0.0, 1.0]),
        torch.arange(2),
    )
    # lambda min + (1 - lambda) max: a=0: .25; a=.5: .5; a=.8: .75*.2+.25*.8=.35 -> max .5 (the other order gives .85)
    torch.testing.assert_close(algorithm.target(batch), torch.tensor([1.0 + 0.99 * 0.5, 2.0]))


def test_acting_takes_the_candidate_with_the_highest_first_critic_in_each_row() -> None:
    spec = Spec((2,), 1)
    algorithm = BCQ(spec, FixedCandidates(spec, [-0.3, 0.7, 0.2]), BCQConfig(phi=0.0, num_acting_candidates=3))
    algorithm.critic = TableCritic()  # type: ignore[assignment]
    torch.testing.assert_close(algorithm.act(torch.zeros(4, 2)), torch.full((4, 1), 0.7))


def test_perturbation_stays_within_phi_and_within_the_box() -> None:
    spec = Spec((3,), 2)
    algorithm = BCQ(spec, FixedCandidates(spec, [0.0]), BCQConfig(phi=0.05, hidden=(8,)))
    with torch.no_grad():
        for parameter in algorithm.actor.parameters():
            parameter.mul_(50.0)
    action = torch.rand(6, 40, 2) * 2 - 1
    moved = algorithm.actor(torch.randn(40, 3), action, 0.05)
    assert (moved - action).abs().max() <= 0.05 + 1e-6
    assert (moved - action).abs().max() > 0.04
    assert moved.abs().max() <= 1.0


def test_a_way_to_act_changes_what_it_names_and_nothing_else() -> None:
    spec = Spec((3,), 2)
    algorithm = BCQ(spec, DecoderMeans(CVAE(spec), 0.5), BCQConfig(hidden=(8,)))
    obs, action = torch.randn(4, 3), torch.rand(5, 4, 2) - 0.5
    plain = algorithm.policy()
    clipped = DecoderMeans(plain.proposals.model, 0.1)  # type: ignore[arg-type]
    other = replace(plain, num_candidates=7, temperature=3.0, phi=0.2, proposals=clipped)
    assert (plain.num_candidates, plain.temperature, plain.phi) == (100, 0.0, 0.05)
    assert plain.proposals is algorithm.proposals and other.proposals is clipped
    assert (plain.perturb, other.perturb) == (algorithm.actor, algorithm.actor)
    moved = algorithm.actor(obs, action, 0.05) - action
    torch.testing.assert_close(algorithm.actor(obs, action, 0.2) - action, 4.0 * moved)
    torch.manual_seed(0)
    drawn = clipped.sample(obs, 7)
    torch.manual_seed(0)
    torch.testing.assert_close(other.candidates(obs), algorithm.actor(obs, drawn, 0.2))
    assert torch.equal(algorithm.q_value(obs, action), algorithm.critic(obs, action)[0])
    assert torch.equal(other.value(obs, action), algorithm.critic(obs, action)[0])


def test_an_actor_learns_from_the_first_critic_at_one_sample_of_each_state() -> None:
    spec = Spec((2,), 1)
    algorithm = BCQ(spec, FixedCandidates(spec, [0.4, -0.9]), BCQConfig(hidden=(8,)))
    batch = random_batch(spec, 6, torch.float32)
    loss, metrics = algorithm.actor_loss(batch)
    start = torch.full((6, 1), 0.4)
    moved = algorithm.actor(batch.obs, start, 0.05)
    torch.testing.assert_close(loss, -algorithm.critic(batch.obs, moved)[0].mean())
    torch.testing.assert_close(metrics["actor/loss"], loss.detach())
    torch.testing.assert_close(metrics["actor/perturbation"], (moved - start).abs().mean().detach())
    assert not metrics["actor/loss"].requires_grad and not metrics["actor/perturbation"].requires_grad


def test_targets_are_not_trained_and_the_ensemble_is_as_large_as_asked() -> None:
    spec = Spec((2,), 1)
    algorithm = BCQ(spec, FixedCandidates(spec, [0.4]), BCQConfig(hidden=(8,), ensemble=3))
    assert algorithm.critic(torch.zeros(4, 2), torch.zeros(4, 1)).shape == (3, 4)
    targets = [*algorithm.critic_target.parameters(), *algorithm.actor_target.parameters()]
    assert targets and not any(parameter.requires_grad for parameter in targets)
    with pytest.raises(CapabilityError, match="BCQ"):
        BCQ(spec, nn.Linear(2, 2))  # type: ignore[arg-type]
