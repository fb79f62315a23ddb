"""DDPG: one critic, one deterministic policy that climbs it. An online algorithm, here the diverging baseline.

The target asks the critic for the value of an action that the critic itself chose, which the data need not contain:
offline nothing corrects an overestimate there, and it feeds back (Fujimoto et al. 2019, the phenomenon behind BCQ).

T. P. Lillicrap et al.: Continuous Control with Deep Reinforcement Learning, ICLR 2016.
Reference code: sfujim/TD3, OurDDPG.py (re-tuned), commit 6a9f76101058d674518018ffbb532f5a652c1d37.

Differences from the reference code
-----------------------------------
- Actions live in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from offline_vi.nn.networks import Critic, DeterministicPolicy, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, td_loss
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class DDPGConfig:
    """Hyper-parameters; the defaults are those of the reference code."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target networks
    lr: float = 3e-4  # Adam, of actor and critic
    hidden: tuple[int, ...] = (256, 256)  # units per layer, of actor and critic
    batch_size: int = 256  # transitions per step


class DDPG(Algorithm):
    """Deep deterministic policy gradient, on a fixed data set."""

    def __init__(self, spec: Spec, config: DDPGConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DDPGConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.actor = DeterministicPolicy(spec, config.hidden, inputs=self.inputs)
        self.actor_target = target_of(self.actor)
        self.critic = Critic(spec, config.hidden, ensemble=1, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.actor_opt = adam(self.actor.parameters(), lr=config.lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)

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
        """r + gamma Q'(s', pi'(s')), (B,)."""
        value = self.critic_target.q1(batch.next_obs, self.actor_target(batch.next_obs))
        return bellman_target(batch, value, self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """mean_B (Q(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """-mean_B Q(s, pi(s)) (deterministic policy gradient)."""
        loss = -self.critic.q1(batch.obs, self.actor(batch.obs)).mean(-1)
        return loss, {"actor/loss": loss.detach()}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        action: Tensor = self.actor(obs)
        return action
