"""SAC: variational inference over trajectories. The policy is the posterior of the action given that it was optimal.

The actor climbs alpha times the library's one ELBO with likelihood exp(Q / alpha); the critics bootstrap from the same
bound at K = 1, the soft value; a dual variable alpha keeps the policy's entropy at a target. An online algorithm: on a
fixed data set it is a baseline that is expected to fail.

KL-SAC is SAC whose action prior is the behavior model: its entropy is -KL(pi, pi_beta), its optimum
pi_beta exp((Q - V) / alpha), and alpha keeps KL(pi, pi_beta) at epsilon = -H. An offline algorithm: where the data have
no actions the prior is small and the bound with it.

T. Haarnoja, A. Zhou, P. Abbeel, S. Levine: Soft Actor-Critic, ICML 2018; T. Haarnoja et al.: Soft Actor-Critic
Algorithms and Applications, arXiv 1812.05905 (automatic temperature). KL-SAC: S. Levine: Reinforcement Learning and
Control as Probabilistic Inference, arXiv 1805.00909, 2018 (the bound); Y. Wu, G. Tucker, O. Nachum: Behavior
Regularized Offline Reinforcement Learning, arXiv 1911.11361, 2019 (BRAC: KL(pi, pi_beta) in target and actor).
Reference code of SAC: DLR-RM/stable-baselines3, stable_baselines3/sac/sac.py and policies.py, version 2.8.0, commit
5e00d26428f8633141b841a51be473971e2a6ea4.

Differences from the reference codes
------------------------------------
- Updates and settings are those of Stable-Baselines3 (minimum of both critics in target and actor, log alpha trained,
  entropy target -A, alpha = 1 at the start); the original code used Q_1 alone in the actor and a value network.
- The policy is a `GaussianBehavior`, the library's tanh-Normal: its log-scale is bounded smoothly to [-5, 2] (the
  reference clamps it to [-20, 2]), its density computed from u, the action before the tanh (the reference's
  log(1 - a^2 + 1e-6) has no gradient from |u| = 10 on).
- The reference halves the critics' losses; Adam's steps differ by its eps alone.
- ``log_prior`` is explicit. The default, log p0 = 0, is the usual convention; see `optimality.flat`.
- KL-SAC follows no code. With a latent-variable model log pi_beta is a lower bound from ``num_samples``, and the KL
  divergence an upper one.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline_vi.behavior.base import DensityModel, require_capability
from offline_vi.behavior.gaussian import GaussianBehavior, GaussianBehaviorConfig
from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.inference.bounds import elbo
from offline_vi.inference.optimality import LogPrior, Optimality, flat
from offline_vi.nn.networks import Critic, target_of
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import OnlineAlgorithm
from offline_vi.rl.equations import bellman_target, min_q, soft_value, td_loss
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class SACConfig:
    """Hyper-parameters; the defaults are those of Stable-Baselines3."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target critics
    temperature: float = 1.0  # alpha at the start
    target_entropy: float | None = None  # H in nats, relative to the prior; None: -A
    lr: float = 3e-4  # Adam, of policy, critics and log alpha
    temperature_rate: float = 1.0  # of Adam's rate for log alpha, in units of lr; 0: alpha stays as it is
    hidden: tuple[int, ...] = (256, 256)  # units per layer, of policy and critics
    init_log_scale: float = 0.0  # log of the policy's standard deviation at the start, before the tanh
    batch_size: int = 256  # transitions per step


class SAC(OnlineAlgorithm):
    """Soft actor-critic. ``log_prior`` is log p0(a|s), the reference measure of the entropy."""

    def __init__(self, spec: Spec, config: SACConfig | None = None, log_prior: LogPrior = flat) -> None:
        super().__init__()
        self.config = config = config or SACConfig()
        self.batch_size = config.batch_size
        self.log_prior = log_prior
        self.target_entropy = -float(spec.action_dim) if config.target_entropy is None else config.target_entropy
        policy = GaussianBehaviorConfig(hidden=config.hidden, init_log_scale=config.init_log_scale)
        actor = GaussianBehavior(spec, policy)
        self.inputs = actor.inputs  # no loss of ours shows it observations: it stays as it is, or was fitted
        self.actor = actor
        self.critic = Critic(spec, config.hidden, ensemble=2, inputs=self.inputs)
        self.critic_target = target_of(self.critic)
        self.log_alpha = nn.Parameter(torch.full(spec.stack, config.temperature).log())
        self.actor_opt = adam(self.actor.parameters(), lr=config.lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)
        self.alpha_opt = adam([self.log_alpha], lr=config.temperature_rate * config.lr)

    def update(self, batch: Batch) -> Metrics:
        critic_loss, critic_metrics = self.critic_loss(batch)
        gradient_step(self.critic_opt, critic_loss)

        actor_loss, actor_metrics = self.actor_loss(batch)
        alpha_loss, alpha_metrics = self.alpha_loss(actor_metrics["actor/entropy"])
        gradient_step(self.actor_opt, actor_loss)
        gradient_step(self.alpha_opt, alpha_loss)

        polyak_(self.critic_target, self.critic, self.config.tau)
        return critic_metrics | actor_metrics | alpha_metrics

    def capture_phase(self) -> Hashable:
        return "every step"

    @property
    def alpha(self) -> Tensor:
        """The temperature, 0-d, or (S, 1)."""
        alpha = self.log_alpha.detach().exp()
        return alpha.unsqueeze(-1) if alpha.ndim else alpha

    def value(self, obs: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a): (B, O), (..., B, A) -> (..., B)."""
        return min_q(self.critic(obs, action))

    def posterior(self, observed: Tensor, obs: Tensor | None = None) -> DiagonalNormal:
        """pi(u|s), the action before the tanh, given O = 1 and s."""
        assert obs is not None
        return self.actor.distribution(obs).base

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma [min_j Q'_j(s', a') - alpha (log pi(a'|s') - log p0(a'|s'))], a' ~ pi, (B,): the soft value of one
        sample."""
        action, log_prob = self.actor.distribution(batch.next_obs).rsample_and_log_prob((1,))  # (1, B, A), (1, B)
        q = min_q(self.critic_target(batch.next_obs, action))  # (E, 1, B) -> (1, B)
        log_weight = self.log_prior(batch.next_obs, action) - log_prob
        return bellman_target(batch, soft_value(q, log_weight, temperature=self.alpha), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """-alpha ELBO = mean_B [alpha (log pi(a|s) - log p0(a|s)) - min_j Q_j(s, a)], a ~ pi."""
        model = Optimality(self.value, self.alpha, self.log_prior)
        observed = torch.ones_like(batch.reward)  # O = 1
        bound = elbo(model, self.posterior, observed, batch.obs, estimator="reparam")
        loss = (-self.alpha * bound.objective).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/entropy": -bound.kl.detach().mean(-1)}

    def alpha_loss(self, entropy: Tensor) -> tuple[Tensor, Metrics]:
        """log alpha (entropy - H): alpha falls while the entropy, relative to the prior, is above its target."""
        loss = self.log_alpha * (entropy - self.target_entropy)
        return loss, {"actor/alpha": self.log_alpha.detach().exp()}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def explore(self, obs: Tensor) -> Tensor:
        return self.actor.sample(obs)[0]

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The policy's median, tanh of the mean of u."""
        return self.actor.distribution(obs).mode


@dataclass(frozen=True)
class KLSACConfig(SACConfig):
    """SAC's, with two choices of our own. By the default target KL(pi, pi_beta) is a nat for each action dimension."""

    init_log_scale: float = -1.0  # narrower than the behavior, mostly
    num_samples: int = 8  # L: latent samples of the bound on log pi_beta


class KLSAC(SAC):
    """Soft actor-critic relative to any behavior model with a log-density."""

    config: KLSACConfig

    def __init__(self, spec: Spec, behavior: DensityModel, config: KLSACConfig | None = None) -> None:
        super().__init__(spec, config or KLSACConfig(), self.log_behavior)
        self.behavior = require_capability(behavior, DensityModel, "KLSAC")

    def log_behavior(self, obs: Tensor, action: Tensor) -> Tensor:
        """log p0(a|s) = log pi_beta(a|s): (B, O), (K, B, A) -> (K, B) nats."""
        return self.behavior.log_prob(obs, action, self.config.num_samples)
