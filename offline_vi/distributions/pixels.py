"""Distributions of pixels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import (
    Distribution,
    constraints,
)


def dequantize(x: Tensor, bins: int = 256) -> Tensor:
    """Integers 0..bins-1 -> (x + u) / bins with u ~ U[0, 1): E_u log p(x) - dim log(bins) <= log P(integers).

    Without it a density model of integers can let its scale run to the floor (Theis et al. 2016).
    """
    x = x.to(torch.get_default_dtype()) if not x.is_floating_point() else x
    return (x + torch.rand_like(x)) / bins


def log_sinhc(a: Tensor) -> Tensor:
    """log(sinh(a) / a), elementwise; even, smooth at 0 and linear far from it."""
    a = a.abs()
    small, large = a.clamp(max=0.3).square(), a.clamp(min=0.3)
    series = small * (1 / 6 - small * (1 / 180 - small * (1 / 2835 - small / 37800)))
    return torch.where(a < 0.3, series, large + torch.log(-torch.expm1(-2.0 * large)) - torch.log(2.0 * large))


class ContinuousBernoulli(Distribution):
    """Density proportional to exp(logit x) on [0, 1]^D (Loaiza-Ganem and Cunningham 2019).

    In terms of the logit it is normalized for any logit; from probabilities, as in torch, it is not once they round.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.unit_interval, 1)
    has_rsample = True

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """1/2 + d/dh log(sinh(h/2) / (h/2))."""
        half = 0.5 * self.logits
        large = torch.where(half.abs() < 0.03, torch.full_like(half, 0.03), half)
        exact = 0.5 * (1.0 / torch.tanh(large) - 1.0 / large)
        return 0.5 + torch.where(half.abs() < 0.03, half / 6.0 - half**3 / 90.0, exact)

    @property
    def mode(self) -> Tensor:
        return (self.logits > 0).to(self.logits)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw by the inverse of the distribution function, log(1 - u + u exp(h)) / h."""
        shape = (*sample_shape, *self.logits.shape)
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        h = torch.where(
            self.logits.abs() < 1e-3, torch.full_like(self.logits, 1e-3), self.logits
        )  # a change below 1e-3
        x = torch.logaddexp(torch.log1p(-u), torch.log(u) + h) / h
        return x.clamp(0.0, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., D) -> (...) nats."""
        return (self.logits * (value - 0.5) - log_sinhc(0.5 * self.logits)).sum(-1)


class DiscretizedLogistic(Distribution):
    """A logistic law cut into equal bins of [0, 1], the outer two reaching to infinity: a probability of integers.

    ``value`` may be anything in its bin (k / 256, k / 255 of an 8-bit image, dequantised data); loc and log_scale
    (..., D) are in units of [0, 1] (Salimans et al. 2017, PixelCNN++, eq. 2).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.unit_interval, 1)
    has_rsample = False
    loc: Tensor
    log_scale: Tensor

    def __init__(self, loc: Tensor, log_scale: Tensor, bins: int = 256) -> None:
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        self.bins = bins
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The location, cut to [0, 1]: the mean up to the mass beyond the border."""
        return torch.clamp(self.loc, 0.0, 1.0)

    @property
    def mode(self) -> Tensor:
        return self.mean

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Midpoints of bins."""
        shape = (*sample_shape, *self.loc.shape)
        logit = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).logit(eps=1e-7)
        k = self._bin(self.loc + self.log_scale.exp() * logit)
        return (k + 0.5) / self.bins

    def _bin(self, value: Tensor) -> Tensor:
        return (value * self.bins).floor().clamp(0, self.bins - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., D) -> (...) nats."""
        k = self._bin(value)
        inverse_scale = torch.exp(-self.log_scale)
        lower = (k / self.bins - self.loc) * inverse_scale
        upper = ((k + 1.0) / self.bins - self.loc) * inverse_scale
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)), which never cancels
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        inside = below + above + torch.log(-torch.expm1(-inverse_scale / self.bins))
        return torch.where(k == 0, below, torch.where(k == self.bins - 1, above, inside)).sum(-1)
