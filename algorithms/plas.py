"""PLAS: a deterministic policy in the latent space of a behavior model, whose decoder turns latents into actions.

Latents stay in the box [-2, 2], where a standard normal prior has its mass, so that decoded actions stay near the data;
an optional perturbation (PLAS+P, phi > 0) lets the policy leave the decoder's range by phi.

W. Zhou, S. Bajracharya, D. Held: PLAS: Latent Action Space for Offline Reinforcement Learning, CoRL 2020.
Reference code: Wenxuan-Zhou/PLAS, algos.py, commit da348520174e022da987a4d2c6d8ea2b80b13e2e.

Differences from the reference code
-----------------------------------
- The behavior model is an argument, fitted and frozen beforehand; latents are in noise coordinates. The published one
  is the CVAE of BCQ, fitted for 500,000 steps at a constant rate of 1e-4 on batches of 100.
- Actions live in [-1, 1], so that the reference's ``max_action`` is 1 and phi is in units of the box.
- One class for the reference's two: phi = 0 leaves the perturbation out. Learning rates are those of its command line.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from offline_vi.behavior.base import LatentModel, require_capability
from offline_vi.nn.networks import Critic, DeterministicPolicy, Unchanged, join, mlp, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, clipped_double_q, td_loss
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class PLASConfig:
    """Hyper-parameters; the defaults are those of the reference code."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target networks
    lmbda: float = 0.75  # lambda: weight of the minimum over the critics
    max_latent: float = 2.0  # sigma: largest latent, in standard deviations of the prior
    phi: float = 0.0  # epsilon: largest perturbation, in units of the action box [-1, 1]; 0: none
    actor_lr: float = 1e-4  # Adam
    critic_lr: float = 1e-3  # Adam
    hidden: tuple[int, ...] = (400, 300)  # units per layer, of policy, perturbation and critics
    batch_size: int = 100  # transitions per step


class Perturbation(nn.Module):
    """Moves an action action-dependently by at most phi and stays in the box."""

    def __init__(self, spec: Spec, hidden: tuple[int, ...], phi: float, inputs: nn.Module) -> None:
        super().__init__()
        self.inputs = inputs
        self.net = mlp([spec.obs_dim + spec.action_dim, *hidden, spec.action_dim], stack=spec.stack)
        self.phi = phi

    def forward(self, action: Tensor, obs: Tensor) -> Tensor:
        return (action + self.phi * torch.tanh(self.net(join(self.inputs(obs), action)))).clamp(-1.0, 1.0)


class LatentPolicy(nn.Module):
    """z = max_latent tanh(net(s)), a = decoder(s, z), moved by the perturbation. The decoder is not part of it."""

    def __init__(self, spec: Spec, latent_dim: int, config: PLASConfig, inputs: nn.Module) -> None:
        super().__init__()
        self.policy = DeterministicPolicy(replace(spec, action_dim=latent_dim), config.hidden, inputs=inputs)
        self.perturbation = Perturbation(spec, config.hidden, config.phi, inputs) if config.phi > 0.0 else Unchanged()
        self.max_latent = config.max_latent

    def forward(self, obs: Tensor, decoder: LatentModel) -> tuple[Tensor, Tensor]:
        """(B, O) -> actions (B, A), latents (B, Z)."""
        z = self.max_latent * self.policy(obs)
        return self.perturbation(decoder.decode(obs, z), obs), z


class PLAS(Algorithm):
    """Policy in the latent action space of any behavior model that can decode."""

    def __init__(self, spec: Spec, behavior: LatentModel, config: PLASConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PLASConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.behavior = require_capability(behavior, LatentModel, "PLAS")
        self.actor = LatentPolicy(spec, behavior.latent_dim, config, self.inputs)
        self.actor_target = target_of(self.actor)
        self.critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.actor_opt = adam(self.actor.parameters(), lr=config.actor_lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.critic_lr)

    def update(self, batch: Batch) -> Metrics:
        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, critic_loss)

        actor_loss, actor_metrics = self.actor_loss(batch)
        gradient_step(self.actor_opt, actor_loss)

        polyak_(self.critic_target, self.critic, self.config.tau)
        polyak_(self.actor_target, self.actor, self.config.tau)
        return critic_metrics | actor_metrics

    def capture_phase(self) -> Hashable:
        return "every step"

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma [lambda min_j Q'_j(s', a') + (1 - lambda) max_j Q'_j(s', a')], a' decoded from pi'(s'), (B,)."""
        action, _ = self.actor_target(batch.next_obs, self.behavior)
        value = clipped_double_q(self.critic_target(batch.next_obs, action), self.config.lmbda)  # (E, B) -> (B,)
        return bellman_target(batch, value, self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """-mean_B Q_1(s, decoder(s, pi(s))): the gradient runs through the decoder to the latent."""
        action, z = self.actor(batch.obs, self.behavior)
        loss = -self.critic.q1(batch.obs, action).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/latent": z.detach().abs().mean((-2, -1))}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The decoded action of the latent policy, (B, O) -> (B, A)."""
        action: Tensor = self.actor(obs, self.behavior)[0]
        return action
