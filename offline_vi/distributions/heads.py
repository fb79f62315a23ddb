"""Heads: what turns a network's outputs into a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    constraints,
)

from offline_vi.distributions.normal import LOG_SCALE_MAX, LOG_SCALE_MIN, Bounded, DiagonalNormal
from offline_vi.distributions.pixels import ContinuousBernoulli, DiscretizedLogistic
from offline_vi.distributions.squashed import TanhNormal


class OptimalNormal(Distribution):
    """N(loc, sigma^2 I) whose sigma^2 is the mean squared error of the batch it is evaluated on: see `OptimalScale`."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, rule: OptimalScale) -> None:
        self.loc, self.rule = loc, rule
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.rule.log_scale.exp().expand_as(self.loc)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return DiagonalNormal(self.loc, self.rule.log_scale).rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., D) -> (...) nats; differentiable through sigma."""
        return DiagonalNormal(self.loc, self.rule.fit(value - self.loc)).log_prob(value)


class FixedScale(nn.Module):
    """A constant sigma. sigma^2 = beta A / (2 D) is what an MSE averaged over A and a KL averaged over D amount to."""

    features_per_dim = 0
    log_scale: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.register_buffer("log_scale", torch.tensor(math.log(sigma)))

    def forward(self, loc: Tensor, raw: Tensor) -> DiagonalNormal:
        return DiagonalNormal(loc, self.log_scale)


class LearnedScale(nn.Module):
    """One learned sigma, or one per dimension with ``dim``: the sigma-VAE (Rybkin et al. 2021).

    log sigma stays in (``low``, ``high``), by default (-5, 2). Start small: with two modes +-d a model whose sigma is
    above d does not see them, and stays so.
    """

    features_per_dim = 0

    def __init__(
        self,
        init_log_scale: float = -3.0,
        dim: int = 1,
        low: float = LOG_SCALE_MIN,
        high: float = LOG_SCALE_MAX,
        stack: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.bounded = Bounded(init_log_scale, low, high)
        self.raw = nn.Parameter(torch.zeros((*stack, 1, dim) if stack else (dim,)))

    @property
    def log_scale(self) -> Tensor:
        """(1,) or (D,); with S seeds (S, 1, 1) or (S, 1, D)."""
        return self.bounded(self.raw)

    def forward(self, loc: Tensor, raw: Tensor) -> DiagonalNormal:
        return DiagonalNormal(loc, self.log_scale)


class OptimalScale(nn.Module):
    """sigma^2 = the mean squared error of the batch, its maximum likelihood value (Rybkin et al. 2021).

    In training mode the density depends on the whole batch; in evaluation mode, and for samples, sigma is that of the
    last training batch.
    """

    features_per_dim = 0
    log_scale: Tensor

    def __init__(self, low: float = LOG_SCALE_MIN) -> None:
        super().__init__()
        self.low = low
        self.register_buffer("log_scale", torch.zeros(()))

    def fit(self, error: Tensor) -> Tensor:
        """log sigma, 0-d, smoothly above ``low`` (default -5); remembered."""
        log_scale = 0.5 * torch.log(error.square().mean() + math.exp(2.0 * self.low))
        self.log_scale = log_scale.detach()
        return log_scale

    def forward(self, loc: Tensor, raw: Tensor) -> Distribution:
        return OptimalNormal(loc, self) if self.training else DiagonalNormal(loc, self.log_scale)


class PredictedScale(nn.Module):
    """A sigma for every output, predicted by the network, with log sigma in (``low``, ``high``), by default (-5, 2).
    Without the floor the density is unbounded."""

    features_per_dim = 1

    def __init__(self, init_log_scale: float = -1.0, low: float = LOG_SCALE_MIN, high: float = LOG_SCALE_MAX) -> None:
        super().__init__()
        self.bounded = Bounded(init_log_scale, low, high)

    def forward(self, loc: Tensor, raw: Tensor) -> DiagonalNormal:
        return DiagonalNormal(loc, self.bounded(raw))


def identity(x: Tensor) -> Tensor:
    return x


class GaussianHead(nn.Module):
    """(..., features) -> N(activation(h), sigma^2) over (..., D); the scale rule says what sigma is.

    ``mean_activation=torch.tanh`` bounds the mean of actions to [-1, 1].
    """

    def __init__(self, dim: int, scale: nn.Module, mean_activation: Callable[[Tensor], Tensor] = identity) -> None:
        super().__init__()
        self.dim, self.scale, self.mean_activation = dim, scale, mean_activation
        self.features = dim * (1 + int(scale.features_per_dim))  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Distribution:
        loc, raw = h[..., : self.dim], h[..., self.dim :]
        normal: Distribution = self.scale(self.mean_activation(loc), raw)
        return normal


class TanhNormalHead(nn.Module):
    """(..., 2 D) -> TanhNormal over (-1, 1)^D with a predicted scale (before the tanh), whose logarithm is in
    (``low``, ``high``), by default (-5, 2)."""

    def __init__(
        self, dim: int, init_log_scale: float = -1.0, low: float = LOG_SCALE_MIN, high: float = LOG_SCALE_MAX
    ) -> None:
        super().__init__()
        self.dim, self.features = dim, 2 * dim
        self.scale = PredictedScale(init_log_scale, low, high)

    def forward(self, h: Tensor) -> TanhNormal:
        base = self.scale(*h.chunk(2, dim=-1))
        return TanhNormal(base.loc, base.log_scale)


class BernoulliHead(nn.Module):
    """(..., D) logits -> Bernoulli over {0, 1}^D. Of grey values it is not a density: see `ContinuousBernoulliHead`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.features = dim, dim

    def forward(self, h: Tensor) -> Distribution:
        return Independent(Bernoulli(logits=h, validate_args=False), 1, validate_args=False)


class ContinuousBernoulliHead(nn.Module):
    """(..., D) logits -> `ContinuousBernoulli`, a density over [0, 1]^D."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.features = dim, dim

    def forward(self, h: Tensor) -> ContinuousBernoulli:
        return ContinuousBernoulli(h)


class DiscretizedLogisticHead(nn.Module):
    """(..., 2 D) -> `DiscretizedLogistic` over D integers, seen as values in [0, 1]."""

    def __init__(self, dim: int, bins: int = 256, init_log_scale: float = -2.0, low: float = -7.0) -> None:
        super().__init__()
        self.dim, self.features, self.bins = dim, 2 * dim, bins
        self.scale = PredictedScale(init_log_scale, low)

    def forward(self, h: Tensor) -> DiscretizedLogistic:
        base = self.scale(*h.chunk(2, dim=-1))
        return DiscretizedLogistic(base.loc + 0.5, base.log_scale, self.bins)
