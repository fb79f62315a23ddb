"""TD3+BC: TD3 with a squared distance to the data's action in the policy's loss, and Q normalized to its own size.

S. Fujimoto, S. S. Gu: A Minimalist Approach to Offline Reinforcement Learning, NeurIPS 2021.
Reference code: sfujim/TD3_BC, TD3_BC.py, commit 76cdd14843a0a38a7482f2abe44a0b70f5d52a39.

Differences from the reference code
-----------------------------------
- Observations are normalized once `TD3BC.inputs` is fitted (the command does, as the published results do), by a
  standard deviation of at least 1e-3; the reference adds 1e-3.
- Actions live in [-1, 1]; the critics are one ensemble of batched matrices.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from offline_vi.nn.networks import Critic, DeterministicPolicy, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_, steps_taken
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, min_q, normalized_q, smoothed, td_loss
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class TD3BCConfig:
    """Hyper-parameters; the defaults are those of the reference code."""

    alpha: float = 2.5  # alpha: weight of the normalized Q against the squared distance to the data
    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target networks
    policy_noise: float = 0.2  # sigma: of the target policy
    policy_noise_clip: float = 0.5  # c: where that noise is clipped
    policy_delay: int = 2  # d: critic steps per actor step
    lr: float = 3e-4  # Adam, of actor and critics
    hidden: tuple[int, ...] = (256, 256)  # units per layer, of actor and critics
    batch_size: int = 256  # transitions per step


class TD3BC(Algorithm):
    """TD3 plus behavior cloning."""

    def __init__(self, spec: Spec, config: TD3BCConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TD3BCConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.actor = DeterministicPolicy(spec, config.hidden, inputs=self.inputs)
        self.actor_target = target_of(self.actor)
        self.critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.actor_opt = adam(self.actor.parameters(), lr=config.lr)
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
        return steps_taken(self.critic_opt) % self.config.policy_delay

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma min_j Q'_j(s', pi'(s') + clipped noise), (B,)."""
        action = smoothed(self.actor_target(batch.next_obs), self.config.policy_noise, self.config.policy_noise_clip)
        value = min_q(self.critic_target(batch.next_obs, action))  # (E, B) -> (B,)
        return bellman_target(batch, value, self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """mean_B [-alpha Q_1(s, pi(s)) / mean|Q_1| + mean_A (pi(s) - a)^2]: eq. 3 and 5."""
        action = self.actor(batch.obs)
        q = normalized_q(self.critic.q1(batch.obs, action))
        distance = (action - batch.action).square().mean(-1)  # over A, as published
        loss = (-self.config.alpha * q + distance).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/distance": distance.detach().mean(-1)}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        action: Tensor = self.actor(obs)
        return action
