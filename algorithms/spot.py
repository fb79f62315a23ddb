"""SPOT: maximize Q under an explicit constraint on the behavior's log-density, log pi_beta(pi(s)|s) >= epsilon.

A deterministic TD3 policy is penalized by -log pi_beta in nats, which a density model supplies: the constraint is on
the support itself, not on a distance between policies.

J. Wu, H. Wu, Z. Qiu, J. Wang, M. Long: Supported Policy Optimization for Offline Reinforcement Learning, NeurIPS 2022.
Reference code: thuml/SPOT, SPOT.py, commit 26a7de7b906fa54c46eeab064d5f1491dcc6bafb.

Differences from the reference code
-----------------------------------
- The behavior model is an argument, fitted and frozen beforehand; any density does. The published one is the CVAE of
  BCQ, fitted for 100,000 steps at a constant rate of 1e-3 on batches of 256 (train_vae.py).
- The penalty is in nats. The reference's is the CVAE's training loss (means over dimensions), 1 / (4 A) of the nats of
  its model up to a constant: a published lambda weighs nats by lambda / (4 A), which ``published_scale`` applies.
- With a latent-variable model log pi_beta is a bound: with one sample, as published, the ELBO with its KL divergence in
  closed form, with more the importance-weighted one.
- Observations are normalized once `SPOT.inputs` is fitted (the command does, off AntMaze, as the reference does). The
  behavior model sees them as they are; the reference's sees them normalized.
- The reference stops a run whose mean Q exceeds 10,000.
- Actions live in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from offline_vi.behavior.base import DensityModel, require_capability
from offline_vi.nn.initialization import POLICY_LAST, VALUE_LAST, Init, initialized
from offline_vi.nn.networks import Critic, DeterministicPolicy, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_, steps_taken
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, min_q, normalized_q, smoothed, td_loss
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class SPOTConfig:
    """Hyper-parameters; the defaults are those of the reference code, lambda for hopper and in its scale."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target networks
    lmbda: float = 0.1  # lambda: weight of -log pi_beta; tuned per task, 0.025 to 1
    published_scale: bool = True  # whether lambda weighs nats / (4 A), as in the reference, or nats
    num_samples: int = 1  # L: latent samples of the bound on log pi_beta
    policy_noise: float = 0.2  # sigma: of the target policy
    policy_noise_clip: float = 0.5  # c: where that noise is clipped
    policy_delay: int = 2  # d: critic steps per actor step
    dropout: float = 0.1  # of the actor; 0 on AntMaze
    lr: float = 3e-4  # Adam, of the critics, and of the actor where it has none of its own
    actor_lr: float | None = None  # Adam, of the actor; 1e-4 on AntMaze
    cooldown: int = 0  # fine-tuning: lambda falls linearly over so many steps (published: 1,000,000); 0: it stays
    cooldown_floor: float = 0.2  # down to this share of it
    init: Init = "torch"  # "small-last" on AntMaze: see `nn.initialization`
    hidden: tuple[int, ...] = (256, 256)  # units per layer, of actor and critics
    batch_size: int = 256  # transitions per step


class SPOT(Algorithm):
    """Supported policy optimization on any behavior model with a log-density."""

    def __init__(self, spec: Spec, behavior: DensityModel, config: SPOTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SPOTConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.behavior = require_capability(behavior, DensityModel, "SPOT")
        self.weight = config.lmbda / (4.0 * spec.action_dim) if config.published_scale else config.lmbda
        actor = DeterministicPolicy(spec, config.hidden, config.dropout, inputs=self.inputs)
        self.actor = initialized(actor, config.init, POLICY_LAST)
        self.actor_target = target_of(self.actor)
        critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.critic = initialized(critic, config.init, VALUE_LAST)
        self.critic_target = target_of(self.critic)
        self.actor_opt = adam(self.actor.parameters(), lr=config.actor_lr or config.lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, critic_loss)
        if steps_taken(self.critic_opt) % self.config.policy_delay:
            return critic_metrics

        actor_loss, actor_metrics = self.actor_loss(batch)
        gradient_step(self.actor_opt, actor_loss)

        polyak_(self.critic_target, self.critic, self.config.tau)
        polyak_(self.actor_target, self.actor, self.config.tau)
        return critic_metrics | actor_metrics

    def capture_phase(self) -> Hashable:
        return None if self.config.cooldown else steps_taken(self.critic_opt) % self.config.policy_delay

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma min_j Q'_j(s', pi'(s') + clipped noise), (B,)."""
        action = smoothed(self.actor_target(batch.next_obs), self.config.policy_noise, self.config.policy_noise_clip)
        value = min_q(self.critic_target(batch.next_obs, action))  # (E, B) -> (B,)
        return bellman_target(batch, value, self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def cooled(self) -> float:
        """The share of lambda that is left at this step."""
        if self.config.cooldown == 0:
            return 1.0
        return max(self.config.cooldown_floor, 1.0 - steps_taken(self.critic_opt) / self.config.cooldown)

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """mean_B [-Q_1(s, pi(s)) / mean|Q_1| - lambda log pi_beta(pi(s)|s)]: eq. 12 with Q normalized."""
        action = self.actor(batch.obs)
        q = normalized_q(self.critic.q1(batch.obs, action))
        log_prob = self.behavior.log_prob(batch.obs, action, self.config.num_samples)  # (B,) nats
        loss = (-q - self.weight * self.cooled() * log_prob).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/behavior_log_prob": log_prob.detach().mean(-1)}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        action: Tensor = self.actor(obs)
        return action
