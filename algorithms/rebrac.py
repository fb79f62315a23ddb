"""ReBRAC: TD3+BC with its penalty in the critic's target as well, a deeper network and layer normalization.

The squared distance between the policy's and the behavior's action is subtracted in the target (weight beta_2) and
added to the policy's loss (weight beta_1).

D. Tarasov, V. Kurenkov, A. Nikulin, S. Kolesnikov: Revisiting the Minimalist Approach to Offline Reinforcement
Learning, NeurIPS 2023.
Reference code: tinkoff-ai/ReBRAC, src/algorithms/rebrac.py, commit 00d1112b65622a26d903523834b1cb350f3551cb, networks
of src/networks.py, commit 304ed3f287ba2e81e554a0ae1712a77efdd38525.

Differences from the reference code
-----------------------------------
- The behavior's action in the next state, in the target, is a sample of a behavior model; the reference takes the
  data's next action. Both estimate the same expectation where the model is right.
- beta_1 = beta_2 = 0.01 (the reference's 1.0 is a placeholder: it tunes both for every data set, 0 to 0.5).
- ``order="td3"`` is TD3's order of updates, the one of earlier versions.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from offline_vi.behavior.base import Proposals, require_capability
from offline_vi.nn.initialization import POLICY_LAST, VALUE_LAST, Init, initialized
from offline_vi.nn.networks import Critic, DeterministicPolicy, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_, steps_taken
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, min_q, normalized_q, smoothed, td_loss
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class ReBRACConfig:
    """Hyper-parameters; the defaults are those of the reference code, but for the two weights."""

    beta_actor: float = 0.01  # beta_1: weight of the distance in the policy's loss; tuned per task
    beta_critic: float = 0.01  # beta_2: weight of the distance in the target; tuned per task
    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target networks
    policy_noise: float = 0.2  # sigma: of the target policy
    policy_noise_clip: float = 0.5  # c: where that noise is clipped
    policy_delay: int = 2  # d: critic steps per actor step
    order: Literal["published", "td3"] = "published"  # of the steps of the actor and its target: see `ReBRAC.update`
    layer_norm: bool = True  # in the critics
    lr: float = 1e-3  # Adam, of the critics, and of the actor where it has none of its own; 5e-5 on AntMaze
    actor_lr: float | None = None  # Adam, of the actor; 3e-4 on AntMaze
    init: Init = "positive-bias"  # see `nn.initialization`
    hidden: tuple[int, ...] = (256, 256, 256)  # units per layer, of actor and critics
    batch_size: int = 1024  # transitions per step; 256 outside locomotion


class ReBRAC(Algorithm):
    """Revisited behavior-regularized actor-critic."""

    def __init__(self, spec: Spec, proposals: Proposals, config: ReBRACConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ReBRACConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.proposals = require_capability(proposals, Proposals, "ReBRAC")
        actor = DeterministicPolicy(spec, config.hidden, inputs=self.inputs)
        self.actor = initialized(actor, config.init, POLICY_LAST)
        self.actor_target = target_of(self.actor)
        critic = Critic(spec, config.hidden, ensemble=2, layer_norm=config.layer_norm, inputs=self.inputs)
        self.critic = initialized(critic, config.init, VALUE_LAST)
        self.critic_target = target_of(self.critic)
        self.actor_opt = adam(self.actor.parameters(), lr=config.actor_lr or config.lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        """published: the actor steps at the first update and every d-th after it; its target follows before that step.
        td3: the actor steps at every d-th update; its target follows after that step.

        The critics' target follows after their step, at the updates of the actor.
        """
        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, critic_loss)
        published = self.config.order == "published"
        if (steps_taken(self.critic_opt) - published) % self.config.policy_delay:
            return critic_metrics

        actor_loss, actor_metrics = self.actor_loss(batch)
        if published:
            polyak_(self.actor_target, self.actor, self.config.tau)
        gradient_step(self.actor_opt, actor_loss)

        polyak_(self.critic_target, self.critic, self.config.tau)
        if not published:
            polyak_(self.actor_target, self.actor, self.config.tau)
        return critic_metrics | actor_metrics

    def capture_phase(self) -> Hashable:
        return steps_taken(self.critic_opt) % self.config.policy_delay

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma [min_j Q'_j(s', a') - beta_2 |a' - a_beta|^2], a' = pi'(s') + clipped noise, (B,): eq. 4."""
        action = smoothed(self.actor_target(batch.next_obs), self.config.policy_noise, self.config.policy_noise_clip)
        distance = (action - self.proposals.at_next_obs(batch, 1)[0]).square().sum(-1)
        value = min_q(self.critic_target(batch.next_obs, action))  # (E, B) -> (B,)
        return bellman_target(batch, value - self.config.beta_critic * distance, self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """mean_B [beta_1 |pi(s) - a|^2 - min_j Q_j(s, pi(s)) / mean|min_j Q_j|]: eq. 5 with Q normalized."""
        action = self.actor(batch.obs)
        q = normalized_q(min_q(self.critic(batch.obs, action)))
        distance = (action - batch.action).square().sum(-1)
        loss = (self.config.beta_actor * distance - q).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/distance": distance.detach().mean(-1)}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        action: Tensor = self.actor(obs)
        return action
