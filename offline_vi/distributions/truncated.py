"""The Normal truncated to the box: a distribution of actions that has no infinite tails to fold into it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from offline_vi.distributions.normal import DiagonalNormal

HALF_SQRT_2 = math.sqrt(0.5)


class TruncatedNormal(Distribution):
    """N(loc, diag(exp(log_scale))^2) given that it falls into [-1, 1]^D, with loc in [-1, 1]^D too.

    Its mode is ``loc``. The density is bounded, on the border of the box as well: saturated actions cost a finite
    number of nats, and gain no more than others. From scale 2 or so it is all but uniform.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.interval(-1.0, 1.0), 1)
    has_rsample = True

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.base = DiagonalNormal(loc, log_scale)
        super().__init__(self.base.batch_shape, self.base.event_shape, validate_args=False)

    @property
    def mode(self) -> Tensor:
        """loc, the likeliest action."""
        return self.base.loc

    def tails(self) -> tuple[Tensor, Tensor]:
        """erf(x / sqrt 2) of the standardized borders x, (..., D) each: half their difference is the mass in the box.

        The box holds loc, so that the first is not positive, the second not negative, and nothing cancels."""
        low, high = (HALF_SQRT_2 * (border - self.base.loc) / self.base.stddev for border in (-1.0, 1.0))
        return torch.erf(low), torch.erf(high)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw by the inverse of the distribution function."""
        low, high = self.tails()
        uniform = torch.rand((*sample_shape, *low.shape), dtype=low.dtype, device=low.device)
        inside = 1.0 - torch.finfo(low.dtype).eps  # of erf, where its inverse is finite
        noise = torch.erfinv((low + uniform * (high - low)).clamp(-inside, inside)) / HALF_SQRT_2
        return (self.base.loc + self.base.stddev * noise).clamp(-1.0, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., D) in [-1, 1] -> (...) nats."""
        low, high = self.tails()
        return self.base.log_prob(value) - (0.5 * (high - low)).log().sum(-1)
