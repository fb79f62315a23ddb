"""Normal distributions and the bounds on their log-scales."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    MultivariateNormal,
    Transform,
    constraints,
    kl_divergence,
    register_kl,
)

D = TypeVar("D", bound=Distribution)

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
LOG_SCALE_MIN = -5.0  # the density of a likelihood whose scale may shrink to 0 is unbounded
LOG_SCALE_MAX = 2.0


registered_kl: Callable[..., Callable[[Callable[[Any, Any], Tensor]], Callable[[Any, Any], Tensor]]] = register_kl
"""`torch.distributions.register_kl`, typed."""


def soft_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """A smooth map of the line into (low, high); 0 goes to the middle (Hansen et al. 2024, TD-MPC2)."""
    return low + 0.5 * (high - low) * (torch.tanh(x) + 1.0)


def soft_clamp_inverse(y: float, low: float, high: float) -> float:
    """The x with soft_clamp(x) = y: what a head adds to its raw output to begin at ``y``.

    Raises ValueError where y is not strictly between low and high.
    """
    if not low < y < high:
        raise ValueError(f"{y} is not strictly between {low} and {high}")
    return math.atanh(2.0 * (y - low) / (high - low) - 1.0)


class Bounded:
    """A network's raw output -> a log-scale in (low, high), by default (-5, 2), smoothly; 0 gives ``init``, with slope
    1 there.

    The slope sets how fast a scale moves under Adam, whose steps do not know it: from log sigma = -3 the bare clamp to
    [-5, 2] is three times as fast, and a likelihood widens over all modes before the latent has learned to tell them
    apart.
    """

    def __init__(self, init: float, low: float = LOG_SCALE_MIN, high: float = LOG_SCALE_MAX) -> None:
        self.init, self.low, self.high = init, low, high
        self.shift = soft_clamp_inverse(init, low, high)
        self.slope = 0.5 * (high - low) / math.cosh(self.shift) ** 2

    def __call__(self, raw: Tensor) -> Tensor:
        return soft_clamp(self.shift + raw / self.slope, self.low, self.high)


def detached(distribution: D) -> D:
    """A copy whose parameters carry no gradient; what is evaluated at may carry one."""
    return _detached(distribution)  # type: ignore[no-any-return]


def _detached(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part.detach()
    if isinstance(part, list):
        return [_detached(element) for element in part]
    if isinstance(part, Distribution | Transform):
        part = copy.copy(part)
        part.__dict__ = {name: _detached(value) for name, value in part.__dict__.items()}
    return part


class DiagonalNormal(Distribution):
    """N(loc, diag(exp(log_scale))^2) over vectors: loc and log_scale broadcast to (..., D)."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real_vector,
        "log_scale": constraints.real_vector,
    }
    support = constraints.real_vector
    has_rsample = True
    loc: Tensor
    log_scale: Tensor

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        super().__init__(
            self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False
        )  # validation would wait for the GPU

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.log_scale.exp()

    @property
    def variance(self) -> Tensor:
        return (2.0 * self.log_scale).exp()

    @property
    def scale_tril(self) -> Tensor:
        """(..., D, D), for those who treat it as a full Normal."""
        return torch.diag_embed(self.stddev)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiagonalNormal:
        shape = (*batch_shape, self.loc.shape[-1])
        return DiagonalNormal(self.loc.expand(shape), self.log_scale.expand(shape))

    def detach(self) -> DiagonalNormal:
        """A copy whose parameters carry no gradient."""
        return detached(self)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = torch.randn((*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.stddev * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., D) -> (...) nats."""
        error = (value - self.loc) * torch.exp(-self.log_scale)
        return (-0.5 * error.square() - self.log_scale - HALF_LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        return (self.log_scale + 0.5 + HALF_LOG_2PI).sum(-1)


class MirroredNormal(DiagonalNormal):
    """A `DiagonalNormal` whose samples come in pairs m +- s eps along the first sample axis (antithetic variates,
    Hammersley and Morton 1956): each has the same law, and what is odd in eps cancels from their mean."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        if not sample_shape:
            return super().rsample()
        first, *others = sample_shape
        half = super().rsample((-(-first // 2), *others))
        return torch.cat([half, 2.0 * self.loc - half])[:first]


class FullNormal(MultivariateNormal):
    """N(loc, L L') over vectors: loc (..., D), scale_tril L (..., D, D) lower triangular with a positive diagonal."""

    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None:
        super().__init__(loc, scale_tril=scale_tril, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FullNormal:
        dim = self.event_shape[0]
        return FullNormal(self.loc.expand(*batch_shape, dim), self.scale_tril.expand(*batch_shape, dim, dim))

    def detach(self) -> FullNormal:
        """A copy whose parameters carry no gradient."""
        return detached(self)


def kl_per_dim(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    """KL(q || p) of each dimension, (..., D) nats; from log-scales, so that no ratio of variances underflows."""
    log_ratio = q.log_scale - p.log_scale
    error = (q.loc - p.loc) * torch.exp(-p.log_scale)
    return 0.5 * (torch.expm1(2.0 * log_ratio) + error.square()) - log_ratio


@registered_kl(DiagonalNormal, DiagonalNormal)
def _kl_diagonal_diagonal(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    return kl_per_dim(q, p).sum(-1)


@registered_kl(FullNormal, DiagonalNormal)
def _kl_full_diagonal(q: FullNormal, p: DiagonalNormal) -> Tensor:
    return kl_divergence(q, FullNormal(p.loc, p.scale_tril))


@registered_kl(DiagonalNormal, FullNormal)
def _kl_diagonal_full(q: DiagonalNormal, p: FullNormal) -> Tensor:
    return kl_divergence(FullNormal(q.loc, q.scale_tril), p)
