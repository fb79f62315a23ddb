"""CQL: soft actor-critic whose critics are pushed down wherever they are high and up on the data's actions.

The push-down term is a soft maximum of Q over all actions, alpha log integral exp(Q(s, a)) da, estimated by importance
sampling: the critics then bound the policy's value from below. It is CQL(H) with the entropy left out of the backup.

A. Kumar, A. Zhou, G. Tucker, S. Levine: Conservative Q-Learning for Offline Reinforcement Learning, NeurIPS 2020.
Reference code: aviralkumar2907/CQL, d4rl/rlkit/torch/sac/cql.py, commit 0787a29fef8875ffc3b85e5a6425608a2746c689;
settings of d4rl/examples/cql_mujoco_new.py, commit 25c99845e1ff948eb375b4c7c82e6a5921ebdc85.

Differences from the reference code
-----------------------------------
- alpha is fixed at 5, as its README advises on locomotion; ``lagrange_threshold`` is the variant of AntMaze. Other
  ``min_q_version``s, a backup with entropy and single critics are left out.
- The soft maximum is a mean over samples, the reference's a sum: smaller by the constant log 30, with equal gradients.
- The entropy temperature's step draws a policy sample of its own.
- Log-densities are exact; the reference has log(1 - a^2 + 1e-6) for log(1 - tanh(u)^2).
- While the data are cloned, the reference clamps the policy's mean to [-9, 9].
- The data are cloned for 40,000 steps; the reference's counter makes that 39,999.
- The policy's gradient runs through the critics as they were when its loss was computed; the reference's backward pass
  runs after their step, so that a part of it sees their new weights (in the versions of torch that allow it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline_vi.nn.initialization import POLICY_LAST, VALUE_LAST, Init, initialized
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
    lagrange_threshold: float | None = None  # tau: where a multiplier holds alpha times the term; None: without one
    num_samples: int = 10  # actions drawn from each of: uniform, policy at s, policy at s'
    num_backup_samples: int = 1  # actions at s' in the target, each critic's best counts (max_q_backup: 10)
    warmup: int = 40_000  # steps in which the policy is cloned from the data
    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target critics
    actor_lr: float = 1e-4  # Adam, of policy and entropy temperature
    critic_lr: float = 3e-4  # Adam
    hidden: tuple[int, ...] = (256, 256, 256)  # units per layer, of actor and critics
    init: Init = "fan-out"  # see `nn.initialization`
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
        actor = TanhNormalPolicy(spec, config.hidden, inputs=self.inputs)
        critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.actor = initialized(actor, config.init, POLICY_LAST)
        self.critic = initialized(critic, config.init, VALUE_LAST)
        self.critic_target = target_of(self.critic)
        self.log_temperature = nn.Parameter(torch.zeros(spec.stack))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.actor_opt = adam(self.actor.parameters(), lr=config.actor_lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.critic_lr)
        self.temperature_opt = adam([self.log_temperature], lr=config.actor_lr)
        if config.lagrange_threshold is not None:
            self.log_multiplier = nn.Parameter(torch.zeros(spec.stack))
            self.multiplier_opt = adam([self.log_multiplier], lr=config.critic_lr)

    def update(self, batch: Batch) -> Metrics:
        temperature_loss, temperature_metrics = self.temperature_loss(batch)
        gradient_step(self.temperature_opt, temperature_loss)

        actor_loss, actor_metrics = self.actor_loss(batch)  # both losses, as in the reference, before either step
        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.actor_opt, actor_loss)
        gradient_step(self.critic_opt, critic_loss)
        if self.config.lagrange_threshold is not None:
            multiplier_loss = self.multiplier_loss(critic_metrics["critic/gap"], self.config.lagrange_threshold)
            gradient_step(self.multiplier_opt, multiplier_loss)

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
        """r + gamma min_j max_i Q'_j(s', a_i), a_i ~ pi(.|s'), (B,): no entropy in the backup."""
        action = self.actor(batch.next_obs).rsample((self.config.num_backup_samples,))
        value = min_q(self.critic_target(batch.next_obs, action).amax(1))  # (E, N, B) -> (E, B) -> (B,)
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
        """sum_j mean_B (Q_j(s, a) - y)^2 + alpha times the conservative term, times the multiplier if there is one."""
        bellman, metrics = td_loss(self.critic(batch.obs, batch.action), self.target(batch))
        gap, gap_metrics = self.conservative_loss(batch)
        weight = self.config.alpha * (1.0 if self.config.lagrange_threshold is None else self.multiplier().detach())
        loss = bellman + weight * gap
        return loss, metrics | gap_metrics | {"critic/loss": loss.detach()}

    def multiplier(self) -> Tensor:
        """alpha' of the Lagrange variant, at most 1e6."""
        return self.log_multiplier.exp().clamp(max=1e6)

    def multiplier_loss(self, gap: Tensor, threshold: float) -> Tensor:
        """-alpha' (alpha gap - tau): ascent in alpha', of the term as a sum over samples (eq. 30, appendix F)."""
        whole = gap + math.log(3 * self.config.num_samples)
        return -self.multiplier() * (self.config.alpha * whole - threshold)

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The policy's mean, tanh(m(s))."""
        action: Tensor = self.actor(obs).mode
        return action
