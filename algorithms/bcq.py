"""BCQ: choose, among a behavior model's samples, the action that a pessimistic critic values most.

A small perturbation network moves each candidate by at most Phi; the maximum over candidates is the backup, so that no
action is ever valued that the data do not contain (up to Phi).

S. Fujimoto, D. Meger, D. Precup: Off-Policy Deep Reinforcement Learning without Exploration, ICML 2019.
Reference code: sfujim/BCQ, continuous_BCQ/BCQ.py, commit c43a5b1b5889f7ca41c842a9c32bed96f494e83b.

Differences from the reference code
-----------------------------------
- The candidates are an argument. The published procedure is ``Jointly(cvae, BCQ(spec, DecoderMeans(cvae, 0.5)))``
  with ``cvae = CVAE(spec, CVAEConfig.published(spec))``; a fitted, frozen model proposes
  what it samples.
- Actions live in [-1, 1], so that the reference's ``max_action`` is 1 everywhere.
- The critics are one ensemble of batched matrices; the two losses are added as in the reference.
- Candidates come from any `Proposals`, so also from a `CandidateCache`: those of a frozen model, drawn ahead.
- No gradient is computed for networks that a loss does not train (the reference computes and discards it).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline_vi.behavior.base import Proposals, require_capability
from offline_vi.nn.networks import Critic, join, mlp, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, clipped_double_q, soft_value, td_loss
from offline_vi.rl.policies import CandidatePolicy
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class BCQConfig:
    """Hyper-parameters; the defaults are those of the reference code."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target networks
    ensemble: int = 2  # J: number of critics
    lmbda: float = 0.75  # lambda: weight of the minimum over the critics
    phi: float = 0.05  # Phi: largest perturbation, in units of the action box [-1, 1]
    num_candidates: int = 10  # n in the target: candidates per next state
    num_acting_candidates: int = 100  # n when acting: candidates per state
    lr: float = 1e-3  # Adam, of actor and critics
    hidden: tuple[int, ...] = (400, 300)  # units per layer, of actor and critics
    batch_size: int = 100  # transitions per step


class Perturbation(nn.Module):
    """xi(s, a, Phi): moves an action by at most Phi, in units of the action box, and stays in the box."""

    def __init__(self, spec: Spec, hidden: tuple[int, ...], inputs: nn.Module) -> None:
        super().__init__()
        self.inputs = inputs
        self.net = mlp([spec.obs_dim + spec.action_dim, *hidden, spec.action_dim], stack=spec.stack)

    def forward(self, obs: Tensor, action: Tensor, phi: float) -> Tensor:
        """(B, O), (..., B, A) -> (..., B, A)."""
        return (action + phi * torch.tanh(self.net(join(self.inputs(obs), action)))).clamp(-1.0, 1.0)


class BCQ(Algorithm):
    """Batch-Constrained deep Q-learning on any proposals of actions."""

    def __init__(self, spec: Spec, proposals: Proposals, config: BCQConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BCQConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.proposals = require_capability(proposals, Proposals, "BCQ")
        self.actor = Perturbation(spec, config.hidden, self.inputs)
        self.actor_target = target_of(self.actor)
        self.critic = Critic(spec, config.hidden, config.ensemble, inputs=self.inputs)
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
        """r + gamma max_i [lambda min_j Q'_j(s', a_i) + (1 - lambda) max_j Q'_j(s', a_i)], (B,): eq. 13."""
        candidates = self.proposals.at_next_obs(batch, self.config.num_candidates)  # (N, B, A)
        action = self.actor_target(batch.next_obs, candidates, self.config.phi)
        value = clipped_double_q(self.critic_target(batch.next_obs, action), self.config.lmbda)  # (E, N, B) -> (N, B)
        return bellman_target(batch, soft_value(value, temperature=0.0), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """-mean_B Q_1(s, xi(s, a)), one behavior sample per state: eq. 12 (deterministic policy gradient)."""
        with torch.no_grad():
            sample = self.proposals.at_obs(batch, 1)[0]  # (B, A)
        action = self.actor(batch.obs, sample, self.config.phi)
        loss = -self.critic.q1(batch.obs, action).mean(-1)
        moved = (action.detach() - sample).abs().mean((-2, -1))
        return loss, {"actor/loss": loss.detach(), "actor/perturbation": moved}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    def policy(self) -> CandidatePolicy:
        """The perturbed candidate with the highest Q_1 of the online critic: eq. 14."""
        return CandidatePolicy(
            self.proposals,
            self.critic.q1,
            self.config.num_acting_candidates,
            perturb=self.actor,
            phi=self.config.phi,
        )

    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        return self.policy().act(obs)
