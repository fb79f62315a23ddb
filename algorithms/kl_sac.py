"""KL-SAC: soft actor-critic whose action prior is the behaviour model, so that its entropy term is -KL(pi, pi_beta).

The posterior of an optimal action under the prior pi_beta(a|s) is pi_beta exp((Q - V) / alpha); the policy fits it by
the same ELBO as SAC's, and a dual variable alpha keeps KL(pi, pi_beta) at epsilon. An offline algorithm: where the data
have no actions the prior is small and the bound with it.

S. Levine: Reinforcement Learning and Control as Probabilistic Inference, arXiv 1805.00909, 2018 (the bound); Y. Wu,
G. Tucker, O. Nachum: Behavior Regularized Offline Reinforcement Learning, arXiv 1911.11361, 2019 (BRAC: the KL
divergence to pi_beta in target and actor); T. Haarnoja et al.: Soft Actor-Critic Algorithms and Applications, arXiv
1812.05905 (the dual).

Differences from the reference codes
------------------------------------
- No code was followed: these are SAC's equations with log p0 = log pi_beta, and -epsilon for the entropy target.
- The behaviour model is an argument, fitted and frozen beforehand; any density does. With a latent-variable model
  log pi_beta is a lower bound from ``num_samples``, and the KL divergence an upper one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offline_vi.algorithm import Algorithm, adam, descend
from offline_vi.behavior.base import DensityModel, capable
from offline_vi.behavior.gaussian import GaussianBehavior, GaussianBehaviorConfig
from offline_vi.bounds import elbo
from offline_vi.control import Optimality
from offline_vi.distributions import DiagonalNormal
from offline_vi.equations import bellman_target, clipped_double_q, soft_value, td_loss
from offline_vi.machine import without_gradient
from offline_vi.nets import Critic, polyak_
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class KLSACConfig:
    """Hyper-parameters; networks and rates are SAC's, the others our own choices."""

    discount: float = 0.99  # gamma
    tau: float = 0.005  # tau: rate of the target critics
    temperature: float = 1.0  # alpha at the start
    divergence: float = 1.0  # epsilon: KL(pi, pi_beta) that alpha aims at, in nats for each action dimension
    num_samples: int = 8  # L: latent samples of the bound on log pi_beta
    lr: float = 3e-4  # Adam, of policy, critics and log alpha
    hidden: tuple[int, ...] = (256, 256)  # units per layer, of policy and critics
    batch_size: int = 256  # transitions per step


class KLSAC(Algorithm):
    """Soft actor-critic relative to any behaviour model with a log-density."""

    def __init__(self, spec: Spec, behavior: DensityModel, config: KLSACConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or KLSACConfig()
        self.batch_size = config.batch_size
        self.behavior = capable(behavior, DensityModel, "KLSAC")
        self.largest_kl = config.divergence * spec.action_dim
        self.actor = GaussianBehavior(spec, GaussianBehaviorConfig(hidden=config.hidden, init_log_scale=-1.0))
        self.critic = Critic(spec.obs_dim, spec.action_dim, config.hidden, ensemble=2, stack=spec.stack)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.full(spec.stack, config.temperature).log())
        self.actor_opt = adam(self.actor.parameters(), lr=config.lr)
        self.critic_opt = adam(self.critic.parameters(), lr=config.lr)
        self.alpha_opt = adam([self.log_alpha], lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        critic_loss, critic_metrics = self.critic_loss(batch)
        descend(self.critic_opt, critic_loss)

        actor_loss, actor_metrics = self.actor_loss(batch)
        alpha_loss, alpha_metrics = self.alpha_loss(actor_metrics["actor/kl"])
        descend(self.actor_opt, actor_loss)
        descend(self.alpha_opt, alpha_loss)

        polyak_(self.critic_target, self.critic, self.config.tau)
        return critic_metrics | actor_metrics | alpha_metrics

    @property
    def alpha(self) -> Tensor:
        """The temperature, 0-d, or (S, 1)."""
        alpha = self.log_alpha.detach().exp()
        return alpha.unsqueeze(-1) if alpha.ndim else alpha

    def log_prior(self, obs: Tensor, action: Tensor) -> Tensor:
        """log p0(a|s) = log pi_beta(a|s): (B, O), (K, B, A) -> (K, B) nats."""
        return self.behavior.log_prob(obs, action, self.config.num_samples)

    def value(self, obs: Tensor, action: Tensor) -> Tensor:
        """min_j Q_j(s, a): (B, O), (..., B, A) -> (..., B)."""
        return clipped_double_q(self.critic(obs, action), 1.0)

    def posterior(self, observed: Tensor, obs: Tensor | None = None) -> DiagonalNormal:
        """pi(u|s), the action before the tanh, given O = 1 and s."""
        assert obs is not None
        return self.actor.distribution(obs).base

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma [min_j Q'_j(s', a') - alpha (log pi(a'|s') - log pi_beta(a'|s'))], a' ~ pi, (B,)."""
        action, log_prob = self.actor.distribution(batch.next_obs).rsample_and_log_prob((1,))  # (1, B, A), (1, B)
        q = clipped_double_q(self.critic_target(batch.next_obs, action), 1.0)  # (E, 1, B) -> (1, B)
        log_weight = self.log_prior(batch.next_obs, action) - log_prob
        return bellman_target(batch, soft_value(q, log_weight, temperature=self.alpha), self.config.discount)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_j mean_B (Q_j(s, a) - y)^2."""
        return td_loss(self.critic(batch.obs, batch.action), self.target(batch))

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """-alpha ELBO = mean_B [alpha (log pi(a|s) - log pi_beta(a|s)) - min_j Q_j(s, a)], a ~ pi."""
        model = Optimality(self.value, self.alpha, self.log_prior)
        observed = torch.ones_like(batch.reward)  # O = 1
        bound = elbo(model, self.posterior, observed, batch.obs, estimator="reparam")
        loss = (-self.alpha * bound.objective).mean(-1)
        return loss, {"actor/loss": loss.detach(), "actor/kl": bound.kl.detach().mean(-1)}

    def alpha_loss(self, kl: Tensor) -> tuple[Tensor, Metrics]:
        """log alpha (epsilon - KL): SAC's dual, whose entropy is -KL; alpha grows while the policy is too far away."""
        loss = self.log_alpha * (self.largest_kl - kl)
        return loss, {"actor/alpha": self.log_alpha.detach().exp()}

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critic.q1(obs, action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The policy's median, tanh of the mean of u."""
        return self.actor.distribution(obs).mode
