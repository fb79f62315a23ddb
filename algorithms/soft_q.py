"""Soft Q-learning: back up the log-partition of exp(Q / alpha), act by the posterior of an action that was optimal.

The soft value is estimated by K proposals and their weights, prior over proposal, and the policy resamples the same
proposals by those weights times exp(Q / alpha): there is no actor. Proposals of pi_beta that is also the prior weigh
the same (offline; alpha -> 0 is EMaQ); uniform ones under SAC's prior weigh 2^A each (the published online algorithm);
all A actions of a finite set make the sums exact. `DiscreteSAC` reaches the same fixed point with an actor.

T. Haarnoja, H. Tang, P. Abbeel, S. Levine: Reinforcement Learning with Deep Energy-Based Policies, ICML 2017.
Reference code: haarnoja/softqlearning, softqlearning/algorithms/sql.py, commit
6f51eaca77d15b35c6443363c51a5a53ff4e9854; settings of examples/mujoco_all_sql.py.

Differences from the reference code
-----------------------------------
- The policy resamples proposals (self-normalized importance sampling); the reference trains a network by Stein
  variational gradient descent to sample it.
- Two critics, whose minimum is the value, and moving averages as targets; the reference has one and copies it every
  1,000 steps.
- Proposals are drawn for each next state; the reference draws one set of uniform actions for the whole batch.
- The temperature is alpha; the reference scales the reward by 1 / alpha, which is 30 on Hopper.
- The reference halves the critic's loss; Adam's steps differ by its eps alone.
- The reference's networks have 2 x 128 units, Xavier weights and zero biases at the start; its batches are of 128.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import OneHotCategorical

from offline_vi.behavior.base import Proposals, require_capability
from offline_vi.behavior.reference import EveryAction
from offline_vi.errors import ConfigError
from offline_vi.inference.optimality import LogPrior, flat
from offline_vi.nn.networks import Critic, mlp, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import OnlineAlgorithm
from offline_vi.rl.equations import bellman_target, min_q, soft_value, td_loss
from offline_vi.rl.policies import CandidatePolicy
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class SoftQConfig:
    """Hyper-parameters; gamma, K in the target and Adam's rate are the reference's, the others are our own choices."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # rate of the target critics
    temperature: float = 0.1  # alpha, in units of Q: what a nat of log-density is worth
    num_candidates: int = 16  # K in the target
    num_acting_candidates: int = 100  # K when acting: candidates per state
    lr: float = 3e-4  # Adam
    hidden: tuple[int, ...] = (256, 256)  # units per layer
    batch_size: int = 256  # transitions per step


class SoftQ(OnlineAlgorithm):
    """Soft Q-learning on any proposals of actions.

    ``log_weight`` is log p0(a|s) - log q(a|s), the prior over the proposal, in nats (`optimality.weight`). The default,
    0, makes the proposal the prior.
    """

    def __init__(
        self,
        spec: Spec,
        proposals: Proposals,
        config: SoftQConfig | None = None,
        log_weight: LogPrior = flat,
    ) -> None:
        super().__init__()
        self.config = config = config or SoftQConfig()
        if not 0.0 < config.temperature < float("inf"):
            raise ConfigError(f"the temperature {config.temperature} is not positive", "EMaQ is the limit of 0")
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.proposals = require_capability(proposals, Proposals, "SoftQ")
        self.log_weight = log_weight
        self.critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        loss, metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, loss)
        polyak_(self.critic_target, self.critic, self.config.tau)
        return metrics

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma alpha log mean_k exp(min_j Q'_j(s', a_k) / alpha + log p0(a_k|s') - log q(a_k|s')), a_k ~ q, (B,):
        the paper's eq. 10, from below in the mean."""
        action = self.proposals.at_next_obs(batch, self.config.num_candidates).clamp(-1.0, 1.0)  # (K, B, A)
        q = min_q(self.critic_target(batch.next_obs, action))  # (E, K, B) -> (K, B)
        value = soft_value(q, self.log_weight(batch.next_obs, action), temperature=self.config.temperature)
        return bellman_target(batch, value, self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    def weighted(self, obs: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a) + alpha (log p0 - log q), (B, O), (..., B, A) -> (..., B): alpha times the log of a
        proposal's weight in the posterior pi(a|s) = p0(a|s) exp((Q(s, a) - V(s)) / alpha)."""
        return min_q(self.critic(obs, action)) + self.config.temperature * self.log_weight(obs, action)

    def policy(self) -> CandidatePolicy:
        """Proposals chosen by softmax(weighted / alpha), which resamples the posterior."""
        config = self.config
        return CandidatePolicy(self.proposals, self.weighted, config.num_acting_candidates, config.temperature)

    def explore(self, obs: Tensor) -> Tensor:
        """Act as `act` does: the policy is stochastic."""
        return self.act(obs)

    def act(self, obs: Tensor) -> Tensor:
        """A sample of pi(a|s), (B, O) -> (B, A), exact as K grows."""
        return self.policy().act(obs)


@dataclass(frozen=True)
class DiscreteSACConfig:
    """Hyper-parameters; our own choices."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # rate of the target critics
    temperature: float = 0.1  # alpha, in units of Q
    lr: float = 3e-4  # Adam, of policy and critics
    hidden: tuple[int, ...] = (256, 256)  # units per layer, of policy and critics
    batch_size: int = 256  # transitions per step


class DiscreteSAC(OnlineAlgorithm):
    """Soft actor-critic on A one-hot actions under the flat prior: every expectation over pi is a sum.

    It is not in the registry of algorithms, because the command trains only on actions in a box: use it from Python.
    """

    def __init__(self, spec: Spec, config: DiscreteSACConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiscreteSACConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.actions = EveryAction(spec)
        self.actor = nn.Sequential(self.inputs, mlp([spec.obs_dim, *config.hidden, spec.action_dim], stack=spec.stack))
        self.critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.actor_opt = adam(self.actor.parameters(), lr=config.lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, critic_loss)
        actor_loss, actor_metrics = self.actor_loss(batch)
        gradient_step(self.actor_opt, actor_loss)
        polyak_(self.critic_target, self.critic, self.config.tau)
        return critic_metrics | actor_metrics

    def bound(self, obs: Tensor, critic: Critic) -> Tensor:
        """alpha ELBO = sum_a pi(a|s) [min_j Q_j(s, a) - alpha log pi(a|s)], (B,)."""
        q = min_q(critic(obs, self.actions.sample(obs, self.actions.spec.action_dim)))  # (A, B)
        log_pi = torch.log_softmax(self.actor(obs), -1).movedim(-1, 0)  # (A, B)
        return (log_pi.exp() * (q - self.config.temperature * log_pi)).sum(0)

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma V(s'), V the bound, (B,)."""
        return bellman_target(batch, self.bound(batch.next_obs, self.critic_target), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """-alpha ELBO, mean over the batch: at its minimum pi is softmax(Q / alpha)."""
        loss = -self.bound(batch.obs, self.critic).mean(-1)
        return loss, {"actor/loss": loss.detach()}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def explore(self, obs: Tensor) -> Tensor:
        """A sample of pi(a|s), one-hot."""
        action: Tensor = OneHotCategorical(logits=self.actor(obs)).sample()
        return action

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The likeliest action, one-hot."""
        logits = self.actor(obs)
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
