"""IDQL: implicit critics, and of N samples of the behavior model the one that they value most.

V regresses an upper expectile of Q over the data's own actions, so that no other action is ever valued in training (the
critics of IQL). There is no actor: the policy ranks samples of a behavior model, which the paper shows to be one way to
draw from the policy that is implicit in such a critic.

P. Hansen-Estruch, I. Kostrikov, M. Janner, J. G. Kuba, S. Levine: IDQL: Implicit Q-Learning as an Actor-Critic Method
with Diffusion Policies, 2023. Reference code: philippe-eecs/IDQL, jaxrl5/agents/ddpm_iql/ddpm_iql_learner.py, commit
89bb493b04ef00bd9c75ac8cdb54e0cec93f33d0; settings of launcher/examples/train_ddpm_iql_offline.py, commit 7582571c.

Differences from the reference code
-----------------------------------
- The candidates are an argument: full samples of any model, or any other. The reference's come from a diffusion model
  of its own, fitted with two steps for each of the critics, of which it keeps a moving average.
- The reference averages the critics' losses, here they are summed; Adam's steps differ by its eps alone.
- Rewards are those of the data: the reference scales them as IQL does on locomotion tasks (``--tuned-for hopper``) and
  subtracts 1 on AntMaze (``--tuned-for antmaze``).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from offline_vi.behavior.base import Proposals, require_capability
from offline_vi.nn.initialization import VALUE_LAST, Init, initialized
from offline_vi.nn.networks import Critic, ValueFunction, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, expectile_loss, min_q, td_loss
from offline_vi.rl.policies import CandidatePolicy
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class IDQLConfig:
    """Hyper-parameters; the defaults are those of the reference code for locomotion."""

    expectile: float = 0.7  # tau of the paper; 0.9 on AntMaze
    num_candidates: int = 64  # N, samples ranked when acting; the paper also reports 16 and 256
    discount: float = 0.99  # gamma
    tau: float = 0.005  # rate of the target critics
    lr: float = 3e-4  # Adam, of critics and value
    hidden: tuple[int, ...] = (256, 256)  # units per layer
    init: Init = "xavier"  # of all networks: see `nn.initialization`
    batch_size: int = 512  # transitions per step


class IDQL(Algorithm):
    """Implicit Q-learning that acts by ranking proposals."""

    def __init__(self, spec: Spec, proposals: Proposals, config: IDQLConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or IDQLConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.proposals = require_capability(proposals, Proposals, "IDQL")
        value = ValueFunction(spec, config.hidden, inputs=self.inputs)
        critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.value = initialized(value, config.init, VALUE_LAST)
        self.critic = initialized(critic, config.init, VALUE_LAST)
        self.critic_target = target_of(self.critic)
        self.value_opt = adam(self.value.parameters(), lr=config.lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        value_loss, value_metrics = self.value_loss(batch)
        gradient_step(self.value_opt, value_loss)

        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, critic_loss)

        polyak_(self.critic_target, self.critic, self.config.tau)
        return value_metrics | critic_metrics

    def capture_phase(self) -> Hashable:
        return "every step"

    def value_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """mean_B |tau - 1(u < 0)| u^2 with u = min_j Q'_j(s, a) - V(s): eq. 4."""
        value = self.value(batch.obs)
        loss = expectile_loss(self.minimum(batch.obs, batch.action) - value, self.config.expectile).mean(-1)
        return loss, {"value/loss": loss.detach(), "value/v": value.detach().mean(-1)}

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma V(s'), (B,)."""
        return bellman_target(batch, self.value(batch.next_obs), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2: eq. 3."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    @without_gradient
    def minimum(self, obs: Tensor, action: Tensor) -> Tensor:
        """min_j Q'_j(s, a) of the target critics: (B, O), (..., B, A) -> (..., B)."""
        return min_q(self.critic_target(obs, action))

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    def policy(self) -> CandidatePolicy:
        """The one of N samples with the highest minimum over the target critics."""
        return CandidatePolicy(self.proposals, self.minimum, self.config.num_candidates)

    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        return self.policy().act(obs)
