"""The tanh of a Normal: distributions of actions in a box."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import (
    Distribution,
    constraints,
    kl_divergence,
)

from offline_vi.distributions.normal import DiagonalNormal, detached, registered_kl


def log_dtanh(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), elementwise, without the cancellation that makes it -inf from |u| = 9 in float32."""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))


class TanhNormal(Distribution):
    """The law of tanh(u), u ~ N(loc, diag(exp(log_scale))^2), on (-1, 1)^D (Haarnoja et al. 2018, appendix C)."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.interval(-1.0, 1.0), 1)
    has_rsample = True
    margin = 1e-6  # data at +-1 have u = +-inf; they are read as +-(1 - margin)
    edge = math.atanh(1.0 - margin)  # the largest u of them

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.base = DiagonalNormal(loc, log_scale)
        super().__init__(self.base.batch_shape, self.base.event_shape, validate_args=False)

    @property
    def mode(self) -> Tensor:
        """tanh(loc): the image of the mode, and the median of each dimension; the density itself can have two modes."""
        return torch.tanh(self.base.loc)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TanhNormal:
        base = self.base.expand(batch_shape)
        return TanhNormal(base.loc, base.log_scale)

    def detach(self) -> TanhNormal:
        """A copy whose parameters carry no gradient."""
        return detached(self)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return torch.tanh(self.base.rsample(sample_shape))

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """Samples (*shape, ..., D) and their log-density (*shape, ...) nats, from u itself: exact where tanh(u) rounds
        to 1."""
        u = self.base.rsample(sample_shape)
        return torch.tanh(u), self.base.log_prob(u) - log_dtanh(u).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., D) -> (...) nats, of data in [-1, 1]; finite and differentiable on the border too."""
        return self.log_prob_before(torch.atanh(value.clamp(-1.0 + self.margin, 1.0 - self.margin)))

    def log_prob_before(self, u: Tensor) -> Tensor:
        """`log_prob` of tanh(u), (..., D) -> (...) nats, without the digits that tanh(u) has lost."""
        u = u.clamp(-self.edge, self.edge)
        return self.base.log_prob(u) - log_dtanh(u).sum(-1)


@registered_kl(TanhNormal, TanhNormal)
def _kl_tanh_tanh(q: TanhNormal, p: TanhNormal) -> Tensor:
    return kl_divergence(q.base, p.base)  # a bijection applied to both changes nothing
