"""Lower bounds of log p(x|c): the ELBO and IWAE, each with several gradient estimators.

Everything is one log-weight, reduced over K samples z ~ q(z|x, c) by one function (compare `equations.py`):

    log w = log p(x|z, c) + log p(z|c) - log q(z|x, c)
    ELBO  = log_mean_exp(log w, temperature=inf)        IWAE = log_mean_exp(log w, temperature=1)

| estimator | value | gradient |
|---|---|---|
| analytic | E_q log p(x\\|z) - KL(q, p), the KL divergence in closed form | pathwise |
| reparam | mean of log w | pathwise, with the score of q |
| stl | the same | pathwise, without the score of q, whose mean is 0: no noise where q = p(z\\|x) |
| dreg | log_mean_exp of log w at any temperature | stl's for K > 1 (for the ELBO they are the same) |
| score | mean of log w | REINFORCE with a leave-one-out baseline: for discrete z |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from offline_vi.distributions.normal import DiagonalNormal, detached, kl_per_dim
from offline_vi.distributions.reduction import log_mean_exp
from offline_vi.errors import ConfigError
from offline_vi.inference.latent import Latent
from offline_vi.types import Metrics

Posterior = Callable[[Tensor, Tensor | None], Distribution]
"""(x (B, X), context (B, C) or None) -> q(z|x, c), batch shape (B,)."""


class Bound(NamedTuple):
    """A lower bound of log p(x|c), in nats for each datum. Report ``elbo``; differentiate ``objective``."""

    elbo: Tensor  # (B,), the bound itself, whatever beta and free bits are
    log_likelihood: Tensor  # (B,), E_q log p(x|z, c): minus the distortion
    kl: Tensor  # (B,), KL(q(z|x, c), p(z|c)): the rate
    objective: Tensor  # (B,), what to maximize: its gradient is the estimator's
    kl_per_dim: Tensor | None  # (B, Z), where the KL divergence is that of diagonal Normals


class Weights(NamedTuple):
    """The coefficients of the objective: likelihood * E_q log p(x|z) - beta * KL."""

    likelihood: float | Tensor  # of the expected log-likelihood
    beta: float | Tensor  # of the KL divergence
    balance: float | None = None  # of the KL divergence's gradient, between prior and posterior


class Estimate(NamedTuple):
    """What an estimator of the ELBO returns."""

    log_likelihood: Tensor  # (B,)
    kl: Tensor  # (B,)
    surrogate: Tensor  # (B,), differentiated; its value means nothing
    kl_per_dim: Tensor | None = None  # (B, Z)


def elbo(
    model: Latent,
    posterior: Posterior,
    x: Tensor,
    context: Tensor | None = None,
    *,
    num_samples: int = 1,
    estimator: str = "analytic",
    beta: float | Tensor = 1.0,
    free_bits: float = 0.0,
    kl_balance: float | None = None,
    likelihood_weight: float | Tensor = 1.0,
) -> Bound:
    """E_q log p(x|z, c) - KL(q(z|x, c), p(z|c)) <= log p(x|c); the difference is KL(q, p(z|x, c)).

    x (B, X), context (B, C); ``num_samples`` K samples of z for each datum. A single x (X,) gives a 0-d bound.

    ``beta`` weighs the KL divergence in the objective (Higgins et al. 2017), ``free_bits`` is the rate in nats below
    which a dimension of z costs nothing, on average over the batch (Kingma et al. 2016, eq. 15); ``kl_balance`` b
    differentiates the KL divergence as b KL(sg q, p) + (1 - b) KL(q, sg p) (Hafner et al. 2021, algorithm 2). None of
    them changes ``elbo``. ``likelihood_weight`` N / B makes a minibatch stand for a data set of N whose z is shared
    (the weights of a network), so it belongs to the bound.

    Raises ConfigError for an unknown estimator, and for free bits or a balance where there is no KL divergence per
    dimension.
    """
    q, p = posterior(x, context), model.prior(context)
    weights = Weights(likelihood_weight, beta, kl_balance)
    estimate = _lookup(ELBO_ESTIMATORS, estimator)(model, q, p, x, context, num_samples, weights)
    log_likelihood, kl, surrogate, per_dim = estimate
    penalty = kl
    if per_dim is None and (free_bits > 0.0 or kl_balance is not None):
        raise ConfigError(
            f"free bits or a balance of the KL divergence with estimator {estimator!r}",
            "use 'analytic' and diagonal Normals",
        )
    if free_bits > 0.0 and per_dim is not None:
        penalty = _free_bits(per_dim, free_bits).sum(-1)
        surrogate = surrogate + beta * (kl - penalty)
    value = likelihood_weight * log_likelihood - beta * penalty
    bound = likelihood_weight * log_likelihood - kl
    return Bound(bound, log_likelihood, kl, _objective(value, surrogate), per_dim)


def iwae(
    model: Latent,
    posterior: Posterior,
    x: Tensor,
    context: Tensor | None = None,
    *,
    num_samples: int = 64,
    estimator: str = "dreg",
    temperature: float = 1.0,
) -> Bound:
    """log_mean_exp of K log-weights, (B,): a lower bound of log p(x|c) that rises to it with K (Burda et al. 2016).

    temperature 1 / (1 - alpha) is the Renyi bound of order alpha (Li and Turner 2016), inf the ELBO; below 1 it is no
    lower bound. ``log_likelihood`` and ``kl`` are the two terms of the ELBO of the same samples.

    estimator: "dreg" (Tucker et al. 2019, generalized to every temperature), whose signal-to-noise ratio rises with K,
    "reparam", whose ratio falls (Rainforth et al. 2018), or "score" for discrete z (Mnih and Rezende 2016, VIMCO).

    Raises ConfigError for an unknown estimator.
    """
    q, p = posterior(x, context), model.prior(context)
    log_likelihood, kl, surrogate = _lookup(IWAE_ESTIMATORS, estimator)(
        model, q, p, x, context, num_samples, temperature
    )
    value = log_mean_exp(log_likelihood - kl, 0, temperature)
    return Bound(value, log_likelihood.mean(0), kl.mean(0), _objective(value, surrogate), None)


@torch.no_grad()
def evidence_gap(
    model: Latent, posterior: Posterior, x: Tensor, context: Tensor | None = None, num_samples: int = 1000
) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x|c) = ELBO + KL(q, p(z|x, c)): estimates of the three, (B,) nats each, from the same K samples.

    log p is IWAE_K, from below; so is the gap, which is never negative.
    """
    q, p = posterior(x, context), model.prior(context)
    log_likelihood, kl = _terms(model, q, p, x, context, q.sample((num_samples,)))
    log_weight = log_likelihood - kl
    log_p, bound = (log_mean_exp(log_weight, 0, temperature) for temperature in (1.0, math.inf))
    return log_p, bound, log_p - bound


def _terms(
    model: Latent, q: Distribution, p: Distribution, x: Tensor, context: Tensor | None, z: Tensor
) -> tuple[Tensor, Tensor]:
    """log p(x|z, c) and log q(z) - log p(z|c) at z (K, B, Z): (K, B) each; log w is their difference."""
    return model.likelihood(z, context).log_prob(x), q.log_prob(z) - p.log_prob(z)


def _objective(value: Tensor, surrogate: Tensor) -> Tensor:
    """The number of the one with the gradient of the other."""
    return value.detach() + (surrogate - surrogate.detach())


def _free_bits(per_dim: Tensor, threshold: float) -> Tensor:
    """(B, Z): a dimension whose batch mean is below the threshold costs the threshold and has no gradient."""
    mean = per_dim.mean(-2, keepdim=True) if per_dim.ndim > 1 else per_dim
    return torch.where(mean > threshold, per_dim, torch.full_like(per_dim, threshold))


def _balanced_kl(q: DiagonalNormal, p: DiagonalNormal, balance: float | None) -> Tensor:
    """KL(q, p) of each dimension, (B, Z); its gradient shared out by ``balance`` between p and q."""
    per_dim = kl_per_dim(q, p)
    if balance is None:
        return per_dim
    shared = balance * kl_per_dim(detached(q), p) + (1.0 - balance) * kl_per_dim(q, detached(p))
    return _objective(per_dim, shared)


def _analytic(
    model: Latent, q: Distribution, p: Distribution, x: Tensor, context: Tensor | None, k: int, weights: Weights
) -> Estimate:
    """The KL divergence in closed form, the likelihood pathwise (Kingma and Welling 2014, estimator B)."""
    log_likelihood = model.likelihood(q.rsample((k,)), context).log_prob(x).mean(0)
    per_dim = None
    if isinstance(q, DiagonalNormal) and isinstance(p, DiagonalNormal):
        per_dim = _balanced_kl(q, p, weights.balance)
    kl = kl_divergence(q, p) if per_dim is None else per_dim.sum(-1)
    return Estimate(log_likelihood, kl, weights.likelihood * log_likelihood - weights.beta * kl, per_dim)


def _reparam(
    model: Latent, q: Distribution, p: Distribution, x: Tensor, context: Tensor | None, k: int, weights: Weights
) -> Estimate:
    """Everything pathwise, the score of q included (Kingma and Welling 2014, estimator A)."""
    log_likelihood, kl = _terms(model, q, p, x, context, q.rsample((k,)))
    surrogate = weights.likelihood * log_likelihood - weights.beta * kl
    return Estimate(log_likelihood.mean(0), kl.mean(0), surrogate.mean(0))


def _stl(
    model: Latent, q: Distribution, p: Distribution, x: Tensor, context: Tensor | None, k: int, weights: Weights
) -> Estimate:
    """Sticking the landing: the parameters of q matter only through z (Roeder et al. 2017)."""
    log_likelihood, kl = _terms(model, detached(q), p, x, context, q.rsample((k,)))
    surrogate = weights.likelihood * log_likelihood - weights.beta * kl
    return Estimate(log_likelihood.mean(0), kl.mean(0), surrogate.mean(0))


def _score(
    model: Latent, q: Distribution, p: Distribution, x: Tensor, context: Tensor | None, k: int, weights: Weights
) -> Estimate:
    """REINFORCE; each sample's baseline is the mean of the others, so it needs K >= 2 to have one."""
    z = q.sample((k,))
    log_likelihood, kl = _terms(model, detached(q), p, x, context, z)
    f = weights.likelihood * log_likelihood - weights.beta * kl
    baseline = (f.sum(0) - f) / (k - 1) if k > 1 else torch.zeros_like(f)
    surrogate = f + (f - baseline).detach() * q.log_prob(z)
    return Estimate(log_likelihood.mean(0), kl.mean(0), surrogate.mean(0))


ElboEstimator = Callable[[Latent, Distribution, Distribution, Tensor, Tensor | None, int, Weights], Estimate]
ELBO_ESTIMATORS: dict[str, ElboEstimator] = {
    "analytic": _analytic,
    "reparam": _reparam,
    "stl": _stl,
    "dreg": _stl,
    "score": _score,
}


# Each returns log p(x|z, c) (K, B), log q(z) - log p(z) (K, B), and the surrogate (B,).


def _iwae_reparam(
    model: Latent, q: Distribution, p: Distribution, x: Tensor, context: Tensor | None, k: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    log_likelihood, kl = _terms(model, q, p, x, context, q.rsample((k,)))
    return log_likelihood, kl, log_mean_exp(log_likelihood - kl, 0, temperature)


def _iwae_dreg(
    model: Latent, q: Distribution, p: Distribution, x: Tensor, context: Tensor | None, k: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Doubly reparameterised: the model's gradient is weighted by w, the one through z by w (1 - (1 - w) / T).

    At T = 1 that is w^2 (Tucker et al. 2019, eq. 8), at T = inf it is `_stl`. The second factor sits on z alone: one
    common factor would make the model's gradient wrong.
    """
    z = q.rsample((k,))
    log_likelihood, kl = _terms(model, detached(q), p, x, context, z)
    log_weight = log_likelihood - kl
    w = torch.softmax(log_weight.detach() / temperature, 0)
    if z.requires_grad:
        factor = (1.0 - (1.0 - w) / temperature).reshape(w.shape + (1,) * (z.ndim - w.ndim))
        z.register_hook(lambda gradient: gradient * factor)
    return log_likelihood, kl, (w * log_weight).sum(0)


def _iwae_score(
    model: Latent, q: Distribution, p: Distribution, x: Tensor, context: Tensor | None, k: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """REINFORCE with VIMCO's baseline: the bound with log w_k replaced by the mean of the others; it needs K >= 2."""
    z = q.sample((k,))
    log_likelihood, kl = _terms(model, q, p, x, context, z)
    log_weight = log_likelihood - kl
    bound = log_mean_exp(log_weight, 0, temperature)
    others = (log_weight.sum(0) - log_weight) / (k - 1) if k > 1 else torch.zeros_like(log_weight)
    own = torch.eye(k, dtype=torch.bool, device=z.device).reshape(k, k, *[1] * bound.ndim)
    replaced = torch.where(own, others, log_weight.unsqueeze(1).expand(k, k, *bound.shape))
    baseline = log_mean_exp(replaced, 0, temperature) if k > 1 else others
    score = ((bound - baseline).detach() * q.log_prob(z)).sum(0)
    w = torch.softmax(log_weight.detach() / temperature, 0)
    return log_likelihood, kl, (w * log_weight).sum(0) + score


IwaeEstimator = Callable[
    [Latent, Distribution, Distribution, Tensor, Tensor | None, int, float], tuple[Tensor, Tensor, Tensor]
]
IWAE_ESTIMATORS: dict[str, IwaeEstimator] = {"reparam": _iwae_reparam, "dreg": _iwae_dreg, "score": _iwae_score}


class KLWarmup(nn.Module):
    """beta, 0-d: from 1 / ``steps`` to 1 over the first ``steps`` calls in training mode, else 1 (Bowman et al. 2016).

    While the latent is free the decoder learns to use it; with the full price from the start a decoder that predicts
    its own scale can explain the data first, and then the latent never wakes.
    """

    count: Tensor  # 0-d, calls in training mode, at most ``steps``

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def forward(self) -> Tensor:
        if not self.training or self.steps == 0:
            return torch.ones_like(self.count)
        self.count.add_(1.0).clamp_(max=float(self.steps))
        return self.count / self.steps


def rate(bound: Bound) -> Tensor:
    """Mean KL(q, p) over the batch, in nats: what the latent is used for (Alemi et al. 2018)."""
    return bound.kl.detach().mean(-1)


def distortion(bound: Bound) -> Tensor:
    """Mean -E_q log p(x|z) over the batch, in nats."""
    return -bound.log_likelihood.detach().mean(-1)


def active_units(loc: Tensor, threshold: float = 0.01) -> Tensor:
    """Number of latent dimensions whose posterior mean (B, Z) varies over the data: Var_x E_q[z_d] > threshold, 0-d
    (Burda et al. 2016)."""
    return (loc.detach().var(0, correction=0) > threshold).sum()


def bound_metrics(bound: Bound, prefix: str) -> Metrics:
    """``prefix``/elbo, /rate and /distortion, in nats, means over the batch."""
    return {
        f"{prefix}/elbo": bound.elbo.detach().mean(-1),
        f"{prefix}/rate": rate(bound),
        f"{prefix}/distortion": distortion(bound),
    }


_E = TypeVar("_E")


def _lookup(table: dict[str, _E], name: str) -> _E:
    if name not in table:
        raise ConfigError(f"unknown estimator {name!r}", "choose one of " + ", ".join(table))
    return table[name]
