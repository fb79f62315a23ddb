"""EMaQ: Q-learning whose maximum runs over N samples of the behavior model, and nothing else.

No perturbation and no actor: the policy takes, of N samples of the behavior model, the one that the critics value
most. N interpolates between evaluating the behavior (N = 1) and Q-learning on its support (N -> infinity).

S. K. S. Ghasemipour, D. Schuurmans, S. S. Gu: EMaQ: Expected-Max Q-Learning Operator for Simple Yet Effective Offline
and Online RL, ICML 2021.

Differences from the reference code
-----------------------------------
- No public code is known. The operator is the paper's; every number below, the networks and the minimum over the
  critics are our own choices (those of BCQ where it has them).
- The candidates are an argument (the paper's are those of an autoregressive model): full samples, or any other.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from offline_vi.behavior.base import Proposals, require_capability
from offline_vi.nn.networks import Critic, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, min_q, soft_value, td_loss
from offline_vi.rl.policies import CandidatePolicy
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class EMaQConfig:
    """Hyper-parameters; our own choices."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # rate of the target networks
    ensemble: int = 2  # number of critics; their minimum is the value
    num_candidates: int = 10  # N in the target
    num_acting_candidates: int = 100  # N when acting: candidates per state
    lr: float = 1e-3  # Adam
    hidden: tuple[int, ...] = (400, 300)  # units per layer
    batch_size: int = 100  # transitions per step


class EMaQ(Algorithm):
    """Expected-max Q-learning on any proposals of actions."""

    def __init__(self, spec: Spec, proposals: Proposals, config: EMaQConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EMaQConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.proposals = require_capability(proposals, Proposals, "EMaQ")
        self.critic = Critic(spec, config.hidden, config.ensemble, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        loss, metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, loss)
        polyak_(self.critic_target, self.critic, self.config.tau)
        return metrics

    def capture_phase(self) -> Hashable:
        return "every step"

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma max_i min_j Q'_j(s', a_i), a_1..a_N ~ mu(.|s'), (B,): a sample of the operator of eq. 4."""
        action = self.proposals.at_next_obs(batch, self.config.num_candidates).clamp(-1.0, 1.0)  # (N, B, A)
        value = min_q(self.critic_target(batch.next_obs, action))  # (E, N, B) -> (N, B)
        return bellman_target(batch, soft_value(value, temperature=0.0), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    def policy(self) -> CandidatePolicy:
        """The sample with the highest minimum over the critics."""
        return CandidatePolicy(self.proposals, self.minimum, self.config.num_acting_candidates)

    def minimum(self, obs: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a): (B, O), (..., B, A) -> (..., B)."""
        return min_q(self.critic(obs, action))

    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        return self.policy().act(obs)
