"""One-step RL: value the behavior, never a policy that improves on it, and improve once, at acting.

Q^beta is regressed on the returns of the data's own trajectories (``data.with_returns(fit_returns(data))``, which the
command does), so that no value of an action outside the data ever enters a target. The policy takes, of N samples of
the behavior model, the one that Q^beta values most ("Easy BCQ" of the paper).

D. Brandfonbrener, W. F. Whitney, R. Ranganath, J. Bruna: Offline RL Without Off-Policy Evaluation, NeurIPS 2021.
Reference code: davidbrandfonbrener/onestep-rl, q_learner.py (SarsaLearner) and policy_learner.py (EasyBCQLearner),
commit 99994433b7706e6f2851d70fa25186dea9b6d34f; settings of config/q/sarsa.yaml and config/pi/easy_bcq.yaml.

Differences from the reference code
-----------------------------------
- The command's targets are lambda-returns of the data, time limits bootstrapped (`TrajectoryValues`). The reference
  takes temporal differences with the data's next action (SARSA), and leaves out the last row of an episode that a time
  limit cut. On rows without returns this algorithm takes them too, with an action of the behavior model instead.
- Target networks follow at each step at half the rate; the reference moves them at every second step.
- The regression may be of an expectile of the returns; the reference's is of their mean, 1/2. Losses are half of the
  squared errors, and Adam's steps differ by its eps alone.
- The candidates are an argument: full samples of any model, or any other. The reference's come from a Gaussian of
  2 x 1024 units without a tanh, fitted first, and are clipped to the box; the published preset's Gaussian has the tanh.
- ``ensemble`` critics are ranked by their minimum; one, the default, is the reference's.
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
from offline_vi.rl.equations import bellman_target, expectile_loss, min_q
from offline_vi.rl.policies import CandidatePolicy
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class OneStepConfig:
    """Hyper-parameters; the defaults are those of the reference code."""

    expectile: float = 0.5  # of the returns that Q is: 1/2 is the mean; above it, better ones than the behavior's
    num_candidates: int = 10  # M: samples ranked when acting
    discount: float = 0.99  # gamma
    tau: float = 0.0025  # rate of the target critics, of rows without returns
    ensemble: int = 1  # number of critics; their minimum ranks
    lr: float = 1e-4  # Adam
    hidden: tuple[int, ...] = (1024, 1024)  # units per layer
    batch_size: int = 512  # transitions per step


class OneStep(Algorithm):
    """Critics of the behavior, and one greedy step on any proposals of actions."""

    def __init__(self, spec: Spec, proposals: Proposals, config: OneStepConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or OneStepConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.proposals = require_capability(proposals, Proposals, "OneStep")
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
        """r + gamma (1 - terminated) min_j Q'_j(s', a'), a' ~ beta(.|s'), (B,); on rows with returns the return."""
        action = self.proposals.at_next_obs(batch, 1)[0]
        return bellman_target(batch, min_q(self.critic_target(batch.next_obs, action)), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B |tau - 1(u < 0)| u^2 with u = y - Q_j(s, a), tau the expectile."""
        q, target = self.critic(batch.obs, batch.action), self.target(batch)
        loss = expectile_loss(target - q, self.config.expectile).mean(-1).sum(0)
        return loss, {
            "critic/loss": loss.detach(),
            "critic/q": q.detach().mean((0, -1)),
            "critic/target": target.mean(-1),
        }

    def minimum(self, obs: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a): (B, O), (..., B, A) -> (..., B)."""
        return min_q(self.critic(obs, action))

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    def policy(self) -> CandidatePolicy:
        """The one of N samples with the highest minimum over the critics."""
        return CandidatePolicy(self.proposals, self.minimum, self.config.num_candidates)

    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        return self.policy().act(obs)
