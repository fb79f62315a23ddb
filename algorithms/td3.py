"""TD3: DDPG with the minimum of two critics, smoothed target actions and delayed policy updates. An online algorithm.

Nothing keeps its policy near the data: offline it is a baseline that is expected to fail wherever the critics
extrapolate, and the minimum only hides part of it.

S. Fujimoto, H. van Hoof, D. Meger: Addressing Function Approximation Error in Actor-Critic Methods, ICML 2018.
Reference code: sfujim/TD3, TD3.py, commit 6a9f76101058d674518018ffbb532f5a652c1d37.

Differences from the reference code
-----------------------------------
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
from offline_vi.rl.equations import bellman_target, min_q, smoothed, td_loss
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class TD3Config:
    """Hyper-parameters; the defaults are those of the reference code."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target networks
    policy_noise: float = 0.2  # sigma: of the target policy
    policy_noise_clip: float = 0.5  # c: where that noise is clipped
    policy_delay: int = 2  # d: critic steps per actor step
    lr: float = 3e-4  # Adam, of actor and critics
    hidden: tuple[int, ...] = (256, 256)  # units per layer, of actor and critics
    batch_size: int = 256  # transitions per step


class TD3(Algorithm):
    """Twin delayed deep deterministic policy gradient, on a fixed data set."""

    def __init__(self, spec: Spec, config: TD3Config | None = None) -> None:
        super().__init__()
        self.config = config = config or TD3Config()
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
        """r + gamma min_j Q'_j(s', pi'(s') + clipped noise), (B,): eq. 14 and algorithm 1."""
        action = smoothed(self.actor_target(batch.next_obs), self.config.policy_noise, self.config.policy_noise_clip)
        value = min_q(self.critic_target(batch.next_obs, action))  # (E, B) -> (B,)
        return bellman_target(batch, value, self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """-mean_B Q_1(s, pi(s)) (deterministic policy gradient)."""
        loss = -self.critic.q1(batch.obs, self.actor(batch.obs)).mean(-1)
        return loss, {"actor/loss": loss.detach()}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        action: Tensor = self.actor(obs)
        return action
