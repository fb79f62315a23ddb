"""BCQ: choose, among a behaviour model's samples, the action that a pessimistic critic values most.

A small perturbation network moves each candidate by at most Phi; the maximum over candidates is the backup, so that no
action is ever valued that the data do not contain (up to Phi).

S. Fujimoto, D. Meger, D. Precup: Off-Policy Deep Reinforcement Learning without Exploration, ICML 2019.
Reference code: sfujim/BCQ, continuous_BCQ/BCQ.py, commit c43a5b1b5889f7ca41c842a9c32bed96f494e83b.

Differences from the reference code
-----------------------------------
- The behaviour model is an argument. The published procedure is ``Jointly(cvae, BCQ(spec, DecoderMeans(cvae, 0.5)))``
  with ``cvae = CVAE(spec, CVAEConfig.published(spec))``; a fitted, frozen model is used as it is.
- Actions live in [-1, 1], so that the reference's ``max_action`` is 1 everywhere.
- The critics are one ensemble of batched matrices; the two losses are added as in the reference.
- A `CandidateCache` may supply the candidates of a frozen model, drawn ahead.
- No gradient is computed for networks that a loss does not train (the reference computes and discards it).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline_vi.behavior.base import BehaviorModel, require_capability
from offline_vi.behavior.proposals import CandidateCache, Fresh, Proposals
from offline_vi.nn.networks import Critic, join, mlp
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, clipped_double_q, soft_value, td_loss
from offline_vi.rl.policies import AS_CONFIGURED, CandidatePolicy, Way, reclipped
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
    num_acting_candidates: int = 100  # n at acting: candidates per state
    lr: float = 1e-3  # Adam, of actor and critics
    hidden: tuple[int, ...] = (400, 300)  # units per layer, of actor and critics
    batch_size: int = 100  # transitions per step


class Perturbation(nn.Module):
    """xi_phi(s, a, Phi): moves an action by at most Phi and stays in the box."""

    def __init__(self, spec: Spec, hidden: tuple[int, ...], phi: float) -> None:
        super().__init__()
        self.net = mlp([spec.obs_dim + spec.action_dim, *hidden, spec.action_dim], stack=spec.stack)
        self.phi = phi

    def with_phi(self, phi: float) -> Perturbation:
        """The same network with another largest perturbation."""
        other = copy.copy(self)
        other.phi = phi
        return other

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """(B, O), (..., B, A) -> (..., B, A)."""
        return (action + self.phi * torch.tanh(self.net(join(obs, action)))).clamp(-1.0, 1.0)


class BCQ(Algorithm):
    """Batch-Constrained deep Q-learning on any behaviour model that can be sampled."""

    def __init__(
        self,
        spec: Spec,
        behavior: BehaviorModel,
        config: BCQConfig | None = None,
        bank: CandidateCache | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or BCQConfig()
        self.batch_size = config.batch_size
        self.behavior = require_capability(behavior, BehaviorModel, "BCQ")
        self.proposals: Proposals = bank or Fresh(behavior)
        self.actor = Perturbation(spec, config.hidden, config.phi)
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic = Critic(spec.obs_dim, spec.action_dim, config.hidden, config.ensemble, stack=spec.stack)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
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

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma max_i [lambda min_j Q'_j(s', a_i) + (1 - lambda) max_j Q'_j(s', a_i)], (B,): eq. 13."""
        candidates = self.proposals.at_next_obs(batch, self.config.num_candidates)  # (N, B, A)
        action = self.actor_target(batch.next_obs, candidates)
        value = clipped_double_q(self.critic_target(batch.next_obs, action), self.config.lmbda)  # (E, N, B) -> (N, B)
        return bellman_target(batch, soft_value(value, temperature=0.0), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """-mean_B Q_1(s, xi(s, a)), one behaviour sample per state: eq. 12 (deterministic policy gradient)."""
        with torch.no_grad():
            sample = self.proposals.at_obs(batch, 1)[0]  # (B, A)
        action = self.actor(batch.obs, sample)
        loss = -self.critic.q1(batch.obs, action).mean(-1)
        moved = (action.detach() - sample).abs().mean((-2, -1))
        return loss, {"actor/loss": loss.detach(), "actor/perturbation": moved}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    def ranking(self, way: Way = AS_CONFIGURED) -> CandidatePolicy:
        """The perturbed candidate with the highest Q_1 of the online critic: eq. 14; see `Ranking`."""
        actor = self.actor if way.phi is None else self.actor.with_phi(way.phi)
        count = way.num_candidates or self.config.num_acting_candidates
        return CandidatePolicy(reclipped(self.behavior, way.noise_clip), actor, self.critic.q1, count, way.temperature)

    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        return self.ranking().act(obs)
