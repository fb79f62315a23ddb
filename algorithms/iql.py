"""IQL: an expectile of Q over the data's own actions stands for the maximum, so that no other action is ever valued.

V regresses the upper expectile of Q(s, a) over the data, Q bootstraps from V, and the policy is cloned from the data's
actions with weights exp(beta (Q - V)).

I. Kostrikov, A. Nair, S. Levine: Offline Reinforcement Learning with Implicit Q-Learning, ICLR 2022.
Reference code: ikostrikov/implicit_q_learning, learner.py, commit 5a8b031437e66e3698cc8649d00ef47671e675ec; settings of
configs/mujoco_config.py, commit e3d4e613c7e526abc9af2d893ac6de3376ea82e2.

Differences from the reference code
-----------------------------------
- Rewards are those of the data: the reference's unit on locomotion tasks, 1000 / (largest - smallest return), is that
  of `Transitions.with_reward` (``--tuned-for hopper``), and so is the 1 that it subtracts on AntMaze (``--tuned-for
  antmaze``).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.nn.initialization import POLICY_LAST, VALUE_LAST, Init, initialized
from offline_vi.nn.networks import Critic, DeterministicPolicy, ValueFunction, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, cosine_, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import advantage_weight, bellman_target, expectile_loss, min_q, td_loss
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class IQLConfig:
    """Hyper-parameters; the defaults are those of the reference code for locomotion."""

    expectile: float = 0.7  # tau of the paper: which expectile V is; 0.9 on AntMaze
    beta: float = 3.0  # beta: inverse temperature of the policy's weights; 10 on AntMaze
    max_weight: float = 100.0  # where the weights are cut off
    discount: float = 0.99  # gamma
    tau: float = 0.005  # alpha of the paper: rate of the target critics
    lr: float = 3e-4  # Adam, of all networks; the policy's falls to 0 along half a cosine
    decay_steps: int = 1_000_000  # length of that cosine
    dropout: float = 0.0  # of the policy; 0.1 on Adroit and Kitchen
    hidden: tuple[int, ...] = (256, 256)  # units per layer, of all networks
    init: Init = "orthogonal"  # of all networks: see `nn.initialization`
    batch_size: int = 256  # transitions per step


class GaussianPolicy(nn.Module):
    """N(tanh(net(s)), diag(s)^2): a spread that is the same in every state."""

    def __init__(self, spec: Spec, hidden: tuple[int, ...], dropout: float, inputs: nn.Module) -> None:
        super().__init__()
        self.mean = DeterministicPolicy(spec, hidden, dropout, inputs=inputs)
        self.log_scale = nn.Parameter(torch.zeros(spec.row(spec.action_dim)))

    def forward(self, obs: Tensor) -> DiagonalNormal:
        return DiagonalNormal(self.mean(obs), self.log_scale.clamp(-5.0, 2.0))


class IQL(Algorithm):
    """Implicit Q-learning."""

    def __init__(self, spec: Spec, config: IQLConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or IQLConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        actor = GaussianPolicy(spec, config.hidden, config.dropout, self.inputs)
        value = ValueFunction(spec, config.hidden, inputs=self.inputs)
        critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.actor = initialized(actor, config.init, POLICY_LAST)
        self.value = initialized(value, config.init, VALUE_LAST)
        self.critic = initialized(critic, config.init, VALUE_LAST)
        self.critic_target = target_of(self.critic)
        self.actor_opt = adam(self.actor.parameters(), lr=config.lr)
        self.value_opt = adam(self.value.parameters(), lr=config.lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        q = self.q(batch)
        value_loss, value_metrics = self.value_loss(batch, q)
        gradient_step(self.value_opt, value_loss)

        actor_loss, actor_metrics = self.actor_loss(batch, q)
        cosine_(self.actor_opt, self.config.lr, self.config.decay_steps)
        gradient_step(self.actor_opt, actor_loss)

        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, critic_loss)

        polyak_(self.critic_target, self.critic, self.config.tau)
        return value_metrics | actor_metrics | critic_metrics

    def capture_phase(self) -> Hashable:
        return "every step"

    @torch.no_grad()
    def q(self, batch: Batch) -> Tensor:
        """min_j Q'_j(s, a) of the data's actions, (B,)."""
        return min_q(self.critic_target(batch.obs, batch.action))

    def value_loss(self, batch: Batch, q: Tensor) -> tuple[Tensor, Metrics]:
        """mean_B |tau - 1(u < 0)| u^2 with u = Q'(s, a) - V(s), q (B,) the former: eq. 5."""
        value = self.value(batch.obs)
        loss = expectile_loss(q - value, self.config.expectile).mean(-1)
        return loss, {"value/loss": loss.detach(), "value/v": value.detach().mean(-1)}

    def actor_loss(self, batch: Batch, q: Tensor) -> tuple[Tensor, Metrics]:
        """-mean_B exp(beta (q - V(s))) log pi(a|s), weights cut off: eq. 7 (advantage-weighted regression)."""
        with torch.no_grad():
            advantage = q - self.value(batch.obs)
            weight = advantage_weight(advantage, self.config.beta, self.config.max_weight)
        loss = -(weight * self.actor(batch.obs).log_prob(batch.action)).mean(-1)
        means = {"actor/advantage": advantage.mean(-1), "actor/weight": weight.mean(-1)}
        return loss, {"actor/loss": loss.detach(), **means}

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma V(s'), (B,)."""
        return bellman_target(batch, self.value(batch.next_obs), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2: eq. 6."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The policy's mean."""
        action: Tensor = self.actor(obs).mean
        return action
