"""Approximate posteriors q(z|x, c): one network for all data, or free parameters for each datum.

A posterior is whatever maps (x, context) to a Distribution over z; those below are modules.
"""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from offline_vi.distributions.normal import (
    LOG_SCALE_MAX,
    LOG_SCALE_MIN,
    Bounded,
    DiagonalNormal,
    FullNormal,
    MirroredNormal,
)
from offline_vi.inference.bounds import elbo
from offline_vi.inference.latent import Latent
from offline_vi.nn.networks import join


class AmortizedPosterior(nn.Module):
    """q(z|x, c) = N(m(x, c), diag(s(x, c))^2); ``net`` maps (..., C + X) to (..., 2 Z). Begins near s = 1;
    log s stays in (``low``, ``high``), by default (-5, 2).

    A floor on log s is not a cap on the KL divergence: it costs about -low nats a dimension, and m(x, c) is free. The
    clamp has slope 1 where it begins: with a steeper one s runs ahead of m, and a latent that was to tell two modes
    apart settles half asleep.
    """

    def __init__(self, net: nn.Module, low: float = LOG_SCALE_MIN, high: float = LOG_SCALE_MAX) -> None:
        super().__init__()
        self.net, self.bounded = net, Bounded(0.0, low, high)

    def forward(self, x: Tensor, context: Tensor | None = None) -> DiagonalNormal:
        loc, raw = self.net(x if context is None else join(context, x)).chunk(2, dim=-1)
        return DiagonalNormal(loc, self.bounded(raw))


class LocalPosterior(nn.Module, abc.ABC):
    """q_i(z) with parameters of its own for every datum i; begins at ``init``, batch shape (B,).

    With batch shape () it is the posterior of one z that all data share, such as the weights of a network.
    """

    def __init__(self, init: Any) -> None:
        super().__init__()
        self.loc = nn.Parameter(init.loc.detach().clone())

    @abc.abstractmethod
    def forward(self, x: Tensor | None = None, context: Tensor | None = None) -> Distribution:
        """q, whatever x and context are: datum i is row i."""


class DiagonalLocalPosterior(LocalPosterior):
    """q_i(z) = N(m_i, diag(s_i)^2): mean field. Samples come in mirrored pairs: where z is strongly correlated a
    posteriori, mean field never silences the noise of the gradient, and this takes away most of it."""

    def __init__(self, init: DiagonalNormal) -> None:
        super().__init__(init)
        self.log_scale = nn.Parameter(init.log_scale.detach().clone())

    def forward(self, x: Tensor | None = None, context: Tensor | None = None) -> MirroredNormal:
        return MirroredNormal(self.loc, self.log_scale)


class FullLocalPosterior(LocalPosterior):
    """q_i(z) = N(m_i, L_i L_i')."""

    def __init__(self, init: DiagonalNormal | FullNormal) -> None:
        super().__init__(init)
        scale_tril = init.scale_tril.detach()
        self.log_diagonal = nn.Parameter(scale_tril.diagonal(dim1=-2, dim2=-1).log())
        self.below = nn.Parameter(scale_tril.tril(-1))  # what is on and above the diagonal is never used

    def forward(self, x: Tensor | None = None, context: Tensor | None = None) -> FullNormal:
        return FullNormal(self.loc, self.below.tril(-1) + torch.diag_embed(self.log_diagonal.exp()))


def fit_local(
    model: Latent,
    x: Tensor,
    context: Tensor | None = None,
    *,
    init: Distribution | None = None,
    family: type[LocalPosterior] = DiagonalLocalPosterior,
    steps: int = 300,
    lr: float = 0.05,
    num_samples: int = 256,
    estimator: str = "stl",
) -> LocalPosterior:
    """Stochastic variational inference: a posterior for each datum, fitted by Adam whose rate falls to 0 as a cosine.

    x (B, X), context (B, C). ``init`` is where q begins: the prior, or an amortised q(z|x, c) to be refined
    (semi-amortised inference, Kim et al. 2018). ``family`` is `DiagonalLocalPosterior` or `FullLocalPosterior`. The
    model's parameters and their gradients are left alone. With "stl" the gradient noise vanishes as q reaches p(z|x);
    what a family leaves of the gap to p(z|x) also leaves noise, which more samples reduce: hence so many. A costly
    likelihood may have fewer.

    Nothing says whether ``steps`` were enough: `evidence_gap` of the result shows what is left. With many or precise
    observations 300 steps may leave several nats, and 600 much less.
    """
    if init is None:
        prior = model.prior(context)
        batch = model.likelihood(prior.sample(), context).log_prob(x).shape
        init = prior.expand(batch)
    with torch.enable_grad():
        posterior = family(init)
        parameters = list(posterior.parameters())
        optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.95))  # forgets the steep gradients far away
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            bound = elbo(model, posterior, x, context, num_samples=num_samples, estimator=estimator)
            gradients = torch.autograd.grad(-bound.objective.sum(), parameters)  # a sum: each datum on its own
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            schedule.step()
    return posterior
