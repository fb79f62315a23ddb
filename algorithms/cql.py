"""CQL: soft actor-critic whose critics are pushed down wherever they are high and up on the data's actions.

The push-down term is a soft maximum of Q over all actions, alpha log integral exp(Q(s, a)) da, estimated by importance
sampling: the critics then bound the policy's value from below. It is CQL(H) with the entropy left out of the backup.

A. Kumar, A. Zhou, G. Tucker, S. Levine: Conservative Q-Learning for Offline Reinforcement Learning, NeurIPS 2020.
Reference code: aviralkumar2907/CQL, d4rl/rlkit/torch/sac/cql.py, commit 0787a29fef8875ffc3b85e5a6425608a2746c689;
settings of d4rl/examples/cql_mujoco_new.py, commit 25c99845e1ff948eb375b4c7c82e6a5921ebdc85.

Differences from the reference code
-----------------------------------
- alpha is fixed at 5, as its comments advise without the Lagrange variant, which is left out (as are
  ``max_q_backup``, other ``min_q_version`` and single critics).
- The soft maximum is a mean over samples, the reference's a sum: smaller by the constant log 30, with equal gradients.
- The entropy temperature's step draws a policy sample of its own. Initialisation is torch's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline_vi.nn.networks import Critic, TanhNormalPolicy, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, min_q, soft_value, td_loss
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class CQLConfig:
    """Hyper-parameters; the defaults are those of the reference code without Lagrange multiplier."""

    alpha: float = 5.0  # alpha: weight of the conservative term
    num_samples: int = 10  # actions drawn from each of: uniform, policy at s, policy at s'
    warmup: int = 40_000  # steps in which the policy is cloned from the data
    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target critics
    actor_lr: float = 1e-4  # Adam, of policy and entropy temperature
    critic_lr: float = 3e-4  # Adam
    hidden: tuple[int, ...] = (256, 256, 256)  # units per layer, of actor and critics
    batch_size: int = 256  # transitions per step


class CQL(Algorithm):
    """Conservative Q-learning, CQL(H)."""

    updates: Tensor

    def __init__(self, spec: Spec, config: CQLConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CQLConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.target_entropy = -float(spec.action_dim)
        self.log_density = -spec.action_dim * math.log(2.0)  # of the uniform distribution over the box
        self.actor = TanhNormalPolicy(spec, config.hidden, inputs=self.inputs)
        self.critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.log_temperature = nn.Parameter(torch.zeros(spec.stack))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.actor_opt = adam(self.actor.parameters(), lr=config.actor_lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.critic_lr)
        self.temperature_opt = adam([self.log_temperature], lr=config.actor_lr)

    def update(self, batch: Batch) -> Metrics:
        temperature_loss, temperature_metrics = self.temperature_loss(batch)
        gradient_step(self.temperature_opt, temperature_loss)

        actor_loss, actor_metrics = self.actor_loss(batch)  # both losses, as in the reference, before either step
        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.actor_opt, actor_loss)
        gradient_step(self.critic_opt, critic_loss)

        polyak_(self.critic_target, self.critic, self.config.tau)
        self.updates += 1
        return temperature_metrics | actor_metrics | critic_metrics

    def temperature_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """-log(temperature) mean_B (log pi(a|s) + target entropy) (Haarnoja et al. 2018, automatic tuning)."""
        with torch.no_grad():
            _, log_prob = self.actor(batch.obs).rsample_and_log_prob()
        loss = -self.log_temperature * (log_prob + self.target_entropy).mean(-1)
        metrics = {"actor/entropy": -log_prob.mean(-1), "actor/temperature": self.log_temperature.detach().exp()}
        return loss, metrics

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """mean_B [temperature log pi(a|s) - min_j Q_j(s, a)], a ~ pi; log pi of the data's action instead of Q in the
        first ``warmup`` steps."""
        policy = self.actor(batch.obs)
        action, log_prob = policy.rsample_and_log_prob()  # (B, A), (B,)
        q = min_q(self.critic(batch.obs, action))
        objective = torch.where(self.updates < self.config.warmup, policy.log_prob(batch.action), q)
        loss = (self.log_temperature.detach().exp().unsqueeze(-1) * log_prob - objective).mean(-1)
        return loss, {"actor/loss": loss.detach()}

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma min_j Q'_j(s', a'), a' ~ pi(.|s'), (B,): no entropy in the backup."""
        action = self.actor(batch.next_obs).rsample()
        value = min_q(self.critic_target(batch.next_obs, action))
        return bellman_target(batch, value, self.config.discount)

    @torch.no_grad()
    def proposals(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Actions (N, B, A) from the uniform distribution, pi(.|s') and pi(.|s), and their log-densities (N, B)."""
        count = self.config.num_samples
        uniform = torch.rand_like(batch.action.expand(count, *batch.action.shape)) * 2.0 - 1.0
        following, following_log_prob = self.actor(batch.next_obs).rsample_and_log_prob((count,))
        current, current_log_prob = self.actor(batch.obs).rsample_and_log_prob((count,))
        log_prob = [torch.full_like(current_log_prob, self.log_density), following_log_prob, current_log_prob]
        return torch.cat([uniform, following, current]), torch.cat(log_prob)

    def conservative_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B [log mean_i exp(Q_j(s, a_i)) / mu(a_i) - Q_j(s, a)], a_i ~ mu: eq. 4, appendix F."""
        action, log_density = self.proposals(batch)
        q = self.critic(batch.obs, action).transpose(0, 1)  # (N, E, B)
        everywhere = soft_value(q, -log_density.unsqueeze(1), temperature=1.0)  # (E, B)
        gap = (everywhere - self.critic(batch.obs, batch.action)).mean(-1)  # (E,)
        return gap.sum(0), {"critic/gap": gap.detach().mean(0)}

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2 + alpha times the conservative term."""
        bellman, metrics = td_loss(self.critic(batch.obs, batch.action), self.target(batch))
        gap, gap_metrics = self.conservative_loss(batch)
        loss = bellman + self.config.alpha * gap
        return loss, metrics | gap_metrics | {"critic/loss": loss.detach()}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The policy's mean, tanh(m(s))."""
        action: Tensor = self.actor(obs).mode
        return action
