"""EMaQ: Q-learning whose maximum runs over N samples of the behaviour model, and nothing else.

No perturbation and no actor: the policy takes, of N samples of the behaviour model, the one that the critics value
most. N interpolates between evaluating the behaviour (N = 1) and Q-learning on its support (N -> infinity).

S. K. S. Ghasemipour, D. Schuurmans, S. S. Gu: EMaQ: Expected-Max Q-Learning Operator for Simple Yet Effective Offline
and Online RL, ICML 2021.

Differences from the reference code
-----------------------------------
- No public code is known. The operator is the paper's; every number below, the networks and the minimum over the
  critics are our own choices (those of BCQ where it has them).
- The behaviour model is an argument (the paper's is autoregressive): full samples, or any other proposals.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor

from offline_vi.behavior.base import BehaviorModel, require_capability
from offline_vi.behavior.proposals import CandidateCache, Fresh, Proposals
from offline_vi.errors import ConfigError
from offline_vi.nn.networks import Critic
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, clipped_double_q, soft_value, td_loss
from offline_vi.rl.policies import AS_CONFIGURED, CandidatePolicy, Way, reclipped
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class EMaQConfig:
    """Hyper-parameters; our own choices."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # rate of the target networks
    ensemble: int = 2  # number of critics; their minimum is the value
    num_candidates: int = 10  # N in the target
    num_acting_candidates: int = 100  # N at acting
    lr: float = 1e-3  # Adam
    hidden: tuple[int, ...] = (400, 300)  # units per layer
    batch_size: int = 100  # transitions per step


class EMaQ(Algorithm):
    """Expected-max Q-learning on any behaviour model that can be sampled."""

    def __init__(
        self,
        spec: Spec,
        behavior: BehaviorModel,
        config: EMaQConfig | None = None,
        bank: CandidateCache | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or EMaQConfig()
        self.batch_size = config.batch_size
        self.behavior = require_capability(behavior, BehaviorModel, "EMaQ")
        self.proposals: Proposals = bank or Fresh(behavior)
        self.critic = Critic(spec.obs_dim, spec.action_dim, config.hidden, config.ensemble, stack=spec.stack)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        loss, metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, loss)
        polyak_(self.critic_target, self.critic, self.config.tau)
        return metrics

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma max_i min_j Q'_j(s', a_i), a_1..a_N ~ mu(.|s'), (B,): a sample of the operator of eq. 4."""
        action = in_the_box(batch.next_obs, self.proposals.at_next_obs(batch, self.config.num_candidates))  # (N, B, A)
        value = clipped_double_q(self.critic_target(batch.next_obs, action), 1.0)  # (E, N, B) -> (N, B)
        return bellman_target(batch, soft_value(value, temperature=0.0), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    def ranking(self, way: Way = AS_CONFIGURED) -> CandidatePolicy:
        """The sample with the highest minimum over the critics; see `Ranking`."""
        if way.phi is not None:
            raise ConfigError("EMaQ perturbs nothing", "leave phi out")
        count = way.num_candidates or self.config.num_acting_candidates
        return CandidatePolicy(
            reclipped(self.behavior, way.noise_clip), in_the_box, self.minimum, count, way.temperature
        )

    def minimum(self, obs: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a): (B, O), (..., B, A) -> (..., B)."""
        return clipped_double_q(self.critic(obs, action), 1.0)

    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        return self.ranking().act(obs)


def in_the_box(obs: Tensor, action: Tensor) -> Tensor:
    """Samples of a Gaussian likelihood may lie outside [-1, 1]."""
    return action.clamp(-1.0, 1.0)
