"""What a policy would earn, estimated from the data alone: for choosing a checkpoint where there is no environment.

Two families. Fitted Q evaluation regresses Q^pi on the data; it takes any policy, has little variance, and the bias of
its network. Importance weighting re-weights the data's own episodes by pi / pi_beta; it has no bias where the density
of the behavior is right, and so much variance that its effective number of episodes has to be looked at first.

Both estimate the discounted return from the data's first states. An episode that the data cut by time is taken to go on
by the first (its last row bootstraps) and to end by the second.

Fitted Q evaluation: H. Le, C. Voloshin, Y. Yue: Batch Policy Learning under Constraints, ICML 2019.
Importance weighting: D. Precup, R. Sutton, S. Singh: Eligibility Traces for Off-Policy Policy Evaluation, ICML 2000;
P. Thomas, E. Brunskill: Data-Efficient Off-Policy Policy Evaluation for Reinforcement Learning, ICML 2016.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.behavior.base import DensityModel
from offline_vi.data.transitions import Transitions
from offline_vi.errors import CapabilityError, UsageError
from offline_vi.nn.networks import Critic, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, cosine_, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, td_loss
from offline_vi.rl.policies import Policy, StochasticPolicy
from offline_vi.training.loop import fit
from offline_vi.types import Batch, Metrics

CHUNK = 1_000  # rows that a policy is asked for at once


@dataclass(frozen=True)
class FQEConfig:
    """Hyper-parameters."""

    steps: int = 10_000  # gradient steps
    discount: float = 0.99  # gamma
    tau: float = 0.05  # tau: rate of the target critics; 1 / tau steps are about one backup
    ensemble: int = 2  # E; their mean is the estimate
    lr: float = 1e-3  # Adam, falling to 0 as half a cosine
    hidden: tuple[int, ...] = (256, 256)  # units per layer
    batch_size: int = 256  # transitions per step


class Estimate(NamedTuple):
    """A discounted return."""

    value: float  # the mean
    standard_error: float  # over first states or episodes alone: the error of the method is not in it


class FittedQ(Algorithm):
    """Q^pi of a fixed policy by regression on r + gamma Q'(s', pi(s')).

    pi(s') is drawn once for every row: for a policy that is not deterministic a sample of the expectation. Rewards are
    divided by their standard deviation, so that one learning rate serves all tasks.
    """

    def __init__(self, policy: Policy, data: Transitions, config: FQEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FQEConfig()
        self.batch_size = config.batch_size
        self.policy = policy
        self.inputs = Normalizer(data.spec).fit(data.obs)
        self.critic = Critic(data.spec, config.hidden, config.ensemble, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)
        self.scale = max(float(data.reward.std(dtype=np.float64)), 1e-6)
        self.next_action = actions_of(policy, data.next_obs)  # (R, A)

    def update(self, batch: Batch) -> Metrics:
        cosine_(self.critic_opt, self.config.lr, self.config.steps)
        loss, metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, loss)
        polyak_(self.critic_target, self.critic, self.config.tau)
        return metrics

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r / std(r) + gamma (1 - terminated) Q'_e(s', pi(s')), mean over the ensemble, (B,)."""
        value = self.critic_target(batch.next_obs, self.next_action[batch.index]).mean(0)
        return bellman_target(batch._replace(reward=batch.reward / self.scale), value, self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_e mean_B (Q_e(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    @torch.no_grad()
    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q^pi(s, a) in units of the reward, (B, O), (..., B, A) -> (..., B)."""
        values: Tensor = self.critic(obs, action).mean(0)
        return self.scale * values

    def act(self, obs: Tensor) -> Tensor:
        return self.policy.act(obs)


def fitted_q(policy: Policy, data: Transitions, config: FQEConfig | None = None, *, seed: int = 0) -> Estimate:
    """E_{s_0}[Q^pi(s_0, pi(s_0))] over the first states of the data's episodes, by fitted Q evaluation."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        evaluated = FittedQ(policy, data, config)
        fit(evaluated, data, evaluated.config.steps, seed=seed, progress=False)
        first = data.obs[[rows.start for rows in data.episode_slices()]]
        values = evaluated.q_value(torch.from_numpy(first), actions_of(policy, first)).double()
    return estimate(values.numpy())


@torch.no_grad()
def actions_of(policy: Policy, obs: NDArray[np.float32]) -> Tensor:
    """The policy's actions at many states, (R, O) -> (R, A)."""
    return torch.cat([policy.act(part) for part in torch.from_numpy(obs).split(CHUNK)])


@dataclass(frozen=True)
class ImportanceEstimate:
    """Discounted returns of a policy by weights of whole histories, and how many episodes they stand on."""

    per_decision: Estimate  # unbiased, any variance
    self_normalized: float  # weights of a step sum to one: biased for few episodes, far less variance
    episodes: int  # of the data
    effective: NDArray[np.float64] = field(repr=False)  # (T,) effective sample size at each step, of the episodes

    @property
    def effective_sample_size(self) -> float:
        """(sum w)^2 / sum w^2 of the weights of whole episodes: of 1, one episode decides everything."""
        return float(self.effective[-1])

    def __str__(self) -> str:
        return (
            f"per decision {self.per_decision.value:.2f} +- {self.per_decision.standard_error:.2f}, self-normalized "
            f"{self.self_normalized:.2f}, effective episodes {self.effective_sample_size:.1f} of {self.episodes}"
        )


def importance_weighted(
    policy: Policy, data: Transitions, behavior: DensityModel | None = None, *, discount: float = 0.99
) -> ImportanceEstimate:
    """Per-decision and self-normalized estimates. The density of the behavior is ``behavior``'s, or without it the
    true one that the data hold.

    Raises CapabilityError for a policy without a density, UsageError where nobody knows the behavior's.
    """
    if not isinstance(policy, StochasticPolicy):
        raise CapabilityError(
            f"importance weighting needs a policy with log_prob(obs, action), {type(policy).__name__} has none",
            "`NoisyPolicy` gives a deterministic one noise and a density, or use `fitted_q`",
        )
    ratio = _log_density(policy, data) - _log_behavior(behavior, data)  # (R,)
    episodes = data.episode_slices()
    longest = max(rows.stop - rows.start for rows in episodes)
    weights, rewards = np.zeros((len(episodes), longest)), np.zeros((len(episodes), longest))
    for number, rows in enumerate(episodes):
        length = rows.stop - rows.start
        weights[number, :length] = np.cumsum(ratio[rows])
        weights[number, length:] = weights[number, length - 1]  # an episode that has ended keeps its weight, earns 0
        rewards[number, :length] = data.reward[rows] * discount ** np.arange(length)
    return _weighted(weights, rewards)


def _weighted(log_weights: NDArray[np.float64], rewards: NDArray[np.float64]) -> ImportanceEstimate:
    """The weighted estimate from log rho_{0:t} and gamma^t r_t, both (episodes, T)."""
    highest = log_weights.max(0)
    weights = np.exp(log_weights - highest)  # (episodes, T), the largest of each step is 1
    share = weights / weights.sum(0)
    with np.errstate(over="ignore"):  # an unbiased estimate may be infinite: it says so
        plain = (np.exp(log_weights) * rewards).sum(1)
    return ImportanceEstimate(
        estimate(plain),
        float((share * rewards).sum()),
        len(rewards),
        weights.sum(0) ** 2 / np.square(weights).sum(0),
    )


@torch.no_grad()
def _log_density(policy: StochasticPolicy, data: Transitions) -> NDArray[np.float64]:
    parts = zip(*(torch.from_numpy(rows).split(CHUNK) for rows in (data.obs, data.action)), strict=True)
    return torch.cat([policy.log_prob(obs, action) for obs, action in parts]).double().numpy()


@torch.no_grad()
def _log_behavior(behavior: DensityModel | None, data: Transitions) -> NDArray[np.float64]:
    if behavior is not None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return _log_density(behavior, data)  # type: ignore[arg-type]  # a density is all that is asked for
    if data.behavior_log_prob is None:
        raise UsageError("the data do not hold the density of their actions", "give a fitted DensityModel as behavior")
    return data.behavior_log_prob.astype(np.float64)


def estimate(values: NDArray[np.float64]) -> Estimate:
    """The mean of (n,) values with its standard error."""
    spread = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Estimate(float(values.mean()), float(spread))
