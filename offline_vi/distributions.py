"""Distributions, the heads that turn a network's outputs into one, and the one reduction of the library.

Log-probabilities are in nats, summed over the event dimensions. Every spread is a *log*-scale, bounded by a smooth
clamp: a hard one has no gradient outside, where a network then stays.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    MultivariateNormal,
    Transform,
    constraints,
    kl_divergence,
    register_kl,
)

D = TypeVar("D", bound=Distribution)

LOG_SCALE_MIN = -5.0  # the density of a likelihood whose scale may shrink to 0 is unbounded
LOG_SCALE_MAX = 2.0
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def log_mean_exp(v: Tensor, dim: int = 0, temperature: float | Tensor = 1.0) -> Tensor:
    """T log( 1/K sum_k exp(v_k / T) ), the reduction over K samples that every bound and every backup here shares.

    T = inf is the mean (ELBO, policy evaluation), T = 1 log-mean-exp (IWAE), T = 0 the maximum (BCQ, EMaQ); it falls as
    T grows, and is accurate at any T in between. A tensor is a temperature in between, broadcast against what is left
    of ``v``. Removes ``dim`` of ``v``.

    Raises ValueError for a negative temperature.
    """
    if not isinstance(temperature, Tensor):
        if temperature == 0.0:
            return v.amax(dim)
        if temperature == math.inf:
            return v.mean(dim)
        if not temperature > 0.0:
            raise ValueError(f"temperature {temperature} is negative")
    if v.shape[dim] == 1:
        return v.squeeze(dim)
    top = v.detach().amax(dim, keepdim=True)
    top = torch.where(top.isfinite(), top, torch.zeros_like(top))  # weights that are all 0 give -inf, not NaN
    u = (v - top) / temperature
    peaked = torch.logsumexp(u, dim) - math.log(v.shape[dim])
    flat = u.clamp(min=-1.0).expm1().mean(dim).log1p()  # at large T the difference above is rounding error times T
    return top.squeeze(dim) + temperature * torch.where(u.amin(dim) > -1.0, flat, peaked)


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
    """A network's raw output -> a log-scale in (low, high), smoothly; 0 gives ``init``, with slope 1 there.

    The slope sets how fast a scale moves under Adam, whose steps do not know it: from log sigma = -3 the bare clamp to
    [-5, 2] is three times as fast, and a likelihood widens over all modes before the latent has learnt to tell them
    apart.
    """

    def __init__(self, init: float, low: float = LOG_SCALE_MIN, high: float = LOG_SCALE_MAX) -> None:
        self.init, self.low, self.high = init, low, high
        self.shift = soft_clamp_inverse(init, low, high)
        self.slope = 0.5 * (high - low) / math.cosh(self.shift) ** 2

    def __call__(self, raw: Tensor) -> Tensor:
        return soft_clamp(self.shift + raw / self.slope, self.low, self.high)


def log_dtanh(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), elementwise, without the cancellation that makes it -inf from |u| = 9 in float32."""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))


def dequantize(x: Tensor, bins: int = 256) -> Tensor:
    """Integers 0..bins-1 -> (x + u) / bins with u ~ U[0, 1): E_u log p(x) - dim log(bins) <= log P(integers).

    Without it a density model of integers can let its scale run to the floor (Theis et al. 2016).
    """
    x = x.to(torch.get_default_dtype()) if not x.is_floating_point() else x
    return (x + torch.rand_like(x)) / bins


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


# ------------------------------------------------------------------ distributions


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


class TanhNormal(Distribution):
    """The law of tanh(u), u ~ N(loc, diag(exp(log_scale))^2), on (-1, 1)^D (Haarnoja et al. 2018, appendix C)."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.interval(-1.0, 1.0), 1)
    has_rsample = True
    margin = 1e-6  # data at +-1 have u = +-inf; they are read as +-(1 - margin)

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
        u = torch.atanh(value.clamp(-1.0 + self.margin, 1.0 - self.margin))
        return self.base.log_prob(u) - log_dtanh(u).sum(-1)


def log_sinhc(a: Tensor) -> Tensor:
    """log(sinh(a) / a), elementwise; even, smooth at 0 and linear far from it."""
    a = a.abs()
    small, large = a.clamp(max=0.3).square(), a.clamp(min=0.3)
    series = small * (1 / 6 - small * (1 / 180 - small * (1 / 2835 - small / 37800)))
    return torch.where(a < 0.3, series, large + torch.log(-torch.expm1(-2.0 * large)) - torch.log(2.0 * large))


class ContinuousBernoulli(Distribution):
    """Density proportional to exp(logit x) on [0, 1]^D (Loaiza-Ganem and Cunningham 2019).

    In terms of the logit it is normalised for any logit; from probabilities, as in torch, it is not once they round.
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
        """By the inverse of the distribution function, log(1 - u + u exp(h)) / h."""
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


# ------------------------------------------------------------------ KL divergences


def kl_per_dim(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    """KL(q || p) of each dimension, (..., D) nats; from log-scales, so that no ratio of variances underflows."""
    log_ratio = q.log_scale - p.log_scale
    error = (q.loc - p.loc) * torch.exp(-p.log_scale)
    return 0.5 * (torch.expm1(2.0 * log_ratio) + error.square()) - log_ratio


_register_kl: Callable[..., Callable[[Callable[[Any, Any], Tensor]], Callable[[Any, Any], Tensor]]] = register_kl


@_register_kl(DiagonalNormal, DiagonalNormal)
def _kl_diagonal_diagonal(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    return kl_per_dim(q, p).sum(-1)


@_register_kl(FullNormal, DiagonalNormal)
def _kl_full_diagonal(q: FullNormal, p: DiagonalNormal) -> Tensor:
    return kl_divergence(q, FullNormal(p.loc, p.scale_tril))


@_register_kl(DiagonalNormal, FullNormal)
def _kl_diagonal_full(q: DiagonalNormal, p: FullNormal) -> Tensor:
    return kl_divergence(FullNormal(q.loc, q.scale_tril), p)


@_register_kl(TanhNormal, TanhNormal)
def _kl_tanh_tanh(q: TanhNormal, p: TanhNormal) -> Tensor:
    return kl_divergence(q.base, p.base)  # a bijection applied to both changes nothing


# ------------------------------------------------------------------ scale rules: locations -> a Normal


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

    Start small: with two modes +-d a model whose sigma is above d does not see them, and stays so.
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
        """log sigma, 0-d, smoothly above ``low``; remembered."""
        log_scale = 0.5 * torch.log(error.square().mean() + math.exp(2.0 * self.low))
        self.log_scale = log_scale.detach()
        return log_scale

    def forward(self, loc: Tensor, raw: Tensor) -> Distribution:
        return OptimalNormal(loc, self) if self.training else DiagonalNormal(loc, self.log_scale)


class PredictedScale(nn.Module):
    """A sigma for every output, predicted by the network. Without the floor the density is unbounded."""

    features_per_dim = 1

    def __init__(self, init_log_scale: float = -1.0, low: float = LOG_SCALE_MIN, high: float = LOG_SCALE_MAX) -> None:
        super().__init__()
        self.bounded = Bounded(init_log_scale, low, high)

    def forward(self, loc: Tensor, raw: Tensor) -> DiagonalNormal:
        return DiagonalNormal(loc, self.bounded(raw))


# ------------------------------------------------------------------ heads: network outputs (..., features) -> p(x|.)


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
    """(..., 2 D) -> TanhNormal over (-1, 1)^D with a predicted scale (before the tanh)."""

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
