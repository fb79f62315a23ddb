"""Control as inference: an action is a latent variable, being optimal is what was observed.

    prior p0(a|s)  x  likelihood p(O = 1|s, a) = exp(Q(s, a) / alpha)  x  posterior pi(a|s)

so that alpha times the bound of `bounds.elbo` is the soft value, alpha E_pi[Q / alpha + log p0 - log pi] (Levine 2018,
Reinforcement Learning and Control as Probabilistic Inference, section 3). The latent is u, the action before the tanh,
which a saturated policy still tells apart: the bound is that of the action a = tanh(u), since log|da/du| is in both
prior and posterior.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from offline_vi.distributions.squashed import log_dtanh

Value = Callable[[Tensor, Tensor], Tensor]
"""(B, O), (..., B, A) -> (..., B): Q(s, a)."""
LogPrior = Callable[[Tensor, Tensor], Tensor]
"""(B, O), (..., B, A) -> (..., B): log p0(a|s) in nats, of actions in [-1, 1]."""


def flat(obs: Tensor, action: Tensor) -> Tensor:
    """log p0 = 0: the convention of SAC, whose reference measure is Lebesgue's. The normalized uniform prior is
    -A log 2; the difference, alpha A log 2 a step, is a bonus for staying alive wherever episodes can end."""
    return torch.zeros_like(action[..., 0])


def uniform(obs: Tensor, action: Tensor) -> Tensor:
    """log p0 = -A log 2: uniform over the box [-1, 1]^A."""
    return torch.full_like(action[..., 0], -action.shape[-1] * math.log(2.0))


def weight(log_prior: LogPrior, log_proposal: LogPrior) -> LogPrior:
    """log p0(a|s) - log q(a|s), nats: what an action drawn from q stands for where the prior is p0. Under the flat
    prior a uniform proposal weighs A log 2, one of A single actions log A."""
    return lambda obs, action: log_prior(obs, action) - log_proposal(obs, action)


class Optimal:
    """p(O = 1|s, u)."""

    def __init__(self, log_likelihood: Tensor) -> None:
        self.log_likelihood = log_likelihood

    def log_prob(self, observed: Tensor) -> Tensor:
        """Q(s, tanh u) / alpha, (K, B) nats up to a constant; ``observed`` is O = 1."""
        return self.log_likelihood


class Unsquashed:
    """p0(u|s): a density of actions seen before the tanh."""

    def __init__(self, obs: Tensor, log_prior: LogPrior) -> None:
        self.obs, self.log_prior = obs, log_prior

    def log_prob(self, u: Tensor) -> Tensor:
        """(K, B, A) -> (K, B) nats."""
        return self.log_prior(self.obs, torch.tanh(u)) + log_dtanh(u).sum(-1)


class Optimality:
    """The latent-variable model of optimal actions, for `bounds.elbo`: context obs (B, O), x = O = 1, z = u (K, B, A).

    ``value`` is Q(s, a); ``alpha`` the temperature, 0-d or (S, 1).
    """

    def __init__(self, value: Value, alpha: Tensor, log_prior: LogPrior = flat) -> None:
        self.value, self.alpha, self.log_prior = value, alpha, log_prior

    def prior(self, obs: Tensor) -> Unsquashed:
        return Unsquashed(obs, self.log_prior)

    def likelihood(self, u: Tensor, obs: Tensor) -> Optimal:
        return Optimal(self.value(obs, torch.tanh(u)) / self.alpha)
