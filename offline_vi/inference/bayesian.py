"""Bayesian networks: the weights are a latent variable that all data share, their posterior a `LocalPosterior`.

    LatentVariableModel = prior p(w) = N(0, s_p^2 I)  x  likelihood p(y|x, w) = N(f_w(x), s_y^2 I)
    ELBO of the data    = sum over N of E_q log p(y|x, w) - KL(q(w), p(w))

`BayesianLinear` is conjugate: its posterior is exact. `BayesianMLP` is mean field (Blundell et al. 2015), trained by
the same `bounds.elbo`, in which a minibatch of B stands for N data (``likelihood_weight`` = N / B).

What an observation would teach, in nats, is `information_gain`: an exploration bonus (Houthooft et al. 2016, VIME) and,
with the sign flipped, the pessimism of offline planning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, kl_divergence

from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.errors import ConfigError
from offline_vi.inference.bounds import bound_metrics, elbo
from offline_vi.inference.latent import LatentVariableModel
from offline_vi.inference.posterior import DiagonalLocalPosterior, fit_local
from offline_vi.nn.networks import mlp
from offline_vi.types import Metrics


def expected_gain(variance: Tensor, noise: Tensor | float) -> Tensor:
    """E KL(new, old) = I(w; y|x) = 1/2 sum_j log(1 + k_j / s_y^2), (..., Y) -> (...) nats.

    ``variance`` k_j = Var_q f_j(x), ``noise`` s_y^2. Exact where f is linear in Gaussian weights; elsewhere that of the
    Normal with these moments. An ensemble's disagreement about a latent, in units of its own noise, is the same number.
    """
    return 0.5 * torch.log1p(variance / noise).sum(-1)


def realised_gain(variance: Tensor, error: Tensor, noise: Tensor | float) -> Tensor:
    """KL(new, old) after seeing y: 1/2 sum_j [ log(s / s_y^2) - k / s + k r^2 / s^2 ], s = s_y^2 + k; (..., Y) ->
    (...) nats.

    r = y - E f(x) is the error of the prediction. Its mean over y ~ N(E f, s) is `expected_gain`.
    """
    total = variance + noise
    return 0.5 * (torch.log(total / noise) - variance / total + variance * (error / total).square()).sum(-1)


class WeightBelief(Protocol):
    """A posterior over weights, as `information_gain` needs it."""

    @property
    def noise(self) -> float:
        """s_y^2."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, X) -> mean and variance of f_w(x) under q, (B, Y) each."""

    def kl_step(self, x: Tensor, y: Tensor) -> Tensor:
        """KL(q given also this row, q), (B,) nats: each row on its own, q left as it was."""

    def second_order(self, x: Tensor, y: Tensor) -> Tensor:
        """1/2 g' H^-1 g, (B,) nats: g the gradient of E_q log p(y|x, w), H the Hessian of KL(., q) at q."""


GAINS: dict[str, Callable[[WeightBelief, Tensor, Tensor], Tensor]] = {
    "realised": lambda model, x, y: _realised(model, x, y),
    "kl_step": lambda model, x, y: model.kl_step(x, y),
    "second_order": lambda model, x, y: model.second_order(x, y),
}


def information_gain(model: WeightBelief, x: Tensor, y: Tensor | None = None, method: str = "expected") -> Tensor:
    """What observing y at x teaches about the weights: (B, X), (B, Y) -> (B,) nats, each row on its own.

    | method | value |
    |---|---|
    | expected | I(w; y\\|x), before y is known; never misled by noise that cannot be learned |
    | realised | KL(new, old) of the conjugate update with the moments of f_w(x) |
    | kl_step | KL(new, old) after fitting q to the row (VIME: save, update, KL, undo) |
    | second_order | 1/2 g' H^-1 g, one Newton step without the likelihood's curvature (VIME, eq. 11): overshoots |

    Raises ConfigError for an unknown method, or one that needs y where there is none.
    """
    if method == "expected":
        return expected_gain(model.moments(x)[1], model.noise)
    if method not in GAINS:
        raise ConfigError(f"unknown method {method!r}", "choose one of expected, " + ", ".join(GAINS))
    if y is None:
        raise ConfigError(f"the method {method!r} needs the observed y", "or use 'expected'")
    return GAINS[method](model, x, y)


def _realised(model: WeightBelief, x: Tensor, y: Tensor) -> Tensor:
    mean, variance = model.moments(x)
    return realised_gain(variance, y - mean, model.noise)


class RandomFourierFeatures(nn.Module):
    """sqrt(2 / F) cos(W x + b), (..., X) -> (..., F): a random basis of the functions of a Gaussian kernel of width
    1 / ``frequency`` (Rahimi and Recht 2007). W ~ N(0, frequency^2), b ~ U[0, 2 pi), fixed."""

    weight: Tensor  # (X, F)
    phase: Tensor  # (F,)

    def __init__(self, dim: int, features: int = 100, frequency: float = 1.5) -> None:
        super().__init__()
        self.register_buffer("weight", frequency * torch.randn(dim, features))
        self.register_buffer("phase", 2.0 * math.pi * torch.rand(features))

    def forward(self, x: Tensor) -> Tensor:
        return math.sqrt(2.0 / len(self.phase)) * torch.cos(x @ self.weight + self.phase)


class BayesianLinear(nn.Module):
    """y_j = w_j' f(x) + e_j, e_j ~ N(0, s_y^2): q(w_j) = N(m_j, S) is the exact posterior, S shared by the outputs.

    ``features`` maps (B, X) to f (B, F), with F = ``dim``; ``outputs`` is the number of outputs Y; ``noise`` is the
    variance s_y^2. The attributes ``mean`` (F, Y) and ``covariance`` (F, F) are m and S; before any data they are 0 and
    ``prior_variance`` I. Both are float64: S shrinks by rank one for every row.
    """

    mean: Tensor  # (F, Y), m
    covariance: Tensor  # (F, F), S

    def __init__(
        self, features: nn.Module, dim: int, outputs: int, noise: float = 0.05, prior_variance: float = 1.0
    ) -> None:
        super().__init__()
        self.features, self.noise = features, noise
        self.register_buffer("mean", torch.zeros(dim, outputs, dtype=torch.float64))
        self.register_buffer("covariance", prior_variance * torch.eye(dim, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, x: Tensor, y: Tensor) -> None:
        """q <- q given the rows (B, X), (B, Y). For one row S' = S - S f f' S / (s_y^2 + k), k = f' S f."""
        f = self._features(x)  # (B, F)
        cross = f @ self.covariance  # (B, F)
        total = cross @ f.mT + self.noise * torch.eye(len(f), dtype=f.dtype, device=f.device)  # (B, B)
        gain = torch.cholesky_solve(cross, torch.linalg.cholesky(total)).mT  # (F, B)
        self.mean += gain @ (y.to(f.dtype) - f @ self.mean)
        shrunk = self.covariance - gain @ cross
        self.covariance.copy_(0.5 * (shrunk + shrunk.mT))

    @torch.no_grad()
    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, X) -> E f_w(x) and k = f' S f for every output, (B, Y) each."""
        f = self._features(x)
        mean = f @ self.mean
        variance = ((f @ self.covariance) * f).sum(-1, keepdim=True).clamp(min=0.0)
        return mean, variance.expand_as(mean)

    def kl_step(self, x: Tensor, y: Tensor) -> Tensor:
        """Exact here: the fitted posterior is the conjugate one."""
        return _realised(self, x, y)

    def second_order(self, x: Tensor, y: Tensor, step: float = 1.0) -> Tensor:
        """step^2 / 2 sum_j [ k r_j^2 / s_y^4 + k^2 / (2 s_y^4) ], the first term the mean's, the second S's."""
        mean, variance = self.moments(x)
        ratio = variance / self.noise
        newton = ratio * (y - mean).square() / self.noise + 0.5 * ratio.square()
        return 0.5 * step**2 * newton.sum(-1)

    def _features(self, x: Tensor) -> Tensor:
        f: Tensor = self.features(x)
        return f.to(self.mean.dtype)


class WeightPrior(nn.Module):
    """N(0, s_p^2 I) over the flattened weights (W,), whatever the context."""

    zero: Tensor

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.log_scale = math.log(scale)
        self.register_buffer("zero", torch.zeros(size), persistent=False)

    def forward(self, context: Tensor | None = None) -> DiagonalNormal:
        return DiagonalNormal(self.zero, torch.full_like(self.zero, self.log_scale))


@dataclass(frozen=True)
class Network:
    """A module without its weights: they are an argument, flattened."""

    net: nn.Module  # its own weights are never used or trained

    def __post_init__(self) -> None:
        self.net.requires_grad_(False)

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """The shapes of the weights, by their names."""
        return {name: parameter.shape for name, parameter in self.net.named_parameters()}

    @cached_property
    def sizes(self) -> list[int]:
        """The sizes of the weights, in their order."""
        return [shape.numel() for shape in self.shapes.values()]

    def flattened(self) -> Tensor:
        """(W,) the module's own weights."""
        return torch.cat([parameter.detach().flatten() for parameter in self.net.parameters()])

    def __call__(self, weights: Tensor, x: Tensor) -> Tensor:
        """(W,), (..., X) -> (..., Y)."""
        parts = zip(self.shapes.items(), weights.split(self.sizes), strict=True)
        named = {name: part.reshape(shape) for (name, shape), part in parts}
        out: Tensor = torch.func.functional_call(self.net, named, (x,))
        return out


class DataLikelihood(nn.Module):
    """p(y_1..y_B|x, w) of a whole batch: one datum of the latent w. (K, W), (B, X) -> batch shape (K,)."""

    def __init__(self, network: Network, noise: float) -> None:
        super().__init__()
        self.network, self.log_scale = network, 0.5 * math.log(noise)

    def forward(self, weights: Tensor, x: Tensor) -> Distribution:
        mean = torch.vmap(self.network, in_dims=(0, None))(weights, x)  # (K, B, Y)
        return Independent(normal(mean, self.log_scale), 1, validate_args=False)


class RowLikelihood(nn.Module):
    """p(y_b|x_b, w_b) with weights of its own for every row: (K, B, W), (B, X) -> batch shape (K, B)."""

    def __init__(self, network: Network, noise: float) -> None:
        super().__init__()
        self.network, self.log_scale = network, 0.5 * math.log(noise)

    def forward(self, weights: Tensor, x: Tensor) -> DiagonalNormal:
        rows = torch.vmap(self.network)  # over B
        return normal(torch.vmap(rows, in_dims=(0, None))(weights, x), self.log_scale)


def normal(mean: Tensor, log_scale: float) -> DiagonalNormal:
    """N(mean, exp(log_scale)^2 I)."""
    return DiagonalNormal(mean, torch.full_like(mean, log_scale))


class BayesianMLP(nn.Module):
    """A network whose weights have the mean-field posterior q(w) = N(m, diag(s)^2).

    ``noise`` is s_y^2, ``prior_scale`` s_p; q begins at the network's own initialization with s = ``init_scale``.
    ``num_samples`` K weights stand for q in its moments and gradients.
    """

    def __init__(
        self,
        net: nn.Module,
        noise: float = 0.05,
        prior_scale: float = 0.5,
        init_scale: float = 0.05,
        num_samples: int = 32,
    ) -> None:
        super().__init__()
        self.network, self.noise, self.num_samples = Network(net), noise, num_samples
        loc = self.network.flattened()
        self.model = LatentVariableModel(WeightPrior(len(loc), prior_scale), DataLikelihood(self.network, noise))
        self.posterior = DiagonalLocalPosterior(DiagonalNormal(loc, torch.full_like(loc, math.log(init_scale))))

    @classmethod
    def of_sizes(cls, sizes: Sequence[int], noise: float = 0.05, prior_scale: float = 0.5) -> BayesianMLP:
        """A tanh network of the given sizes: smooth, so that its uncertainty grows with the distance to the data."""
        return cls(mlp(sizes, nn.Tanh), noise, prior_scale)

    def loss(self, x: Tensor, y: Tensor, total: float, num_samples: int = 2) -> tuple[Tensor, Metrics]:
        """-ELBO of the ``total`` = N data that the rows (B, X), (B, Y) stand for, in nats for each datum (over N)."""
        weight = total / len(x)
        bound = elbo(self.model, self.posterior, y, x, num_samples=num_samples, likelihood_weight=weight)
        return -bound.objective / total, bound_metrics(bound, "bayes")

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """f_w(x) for K draws of the weights, (B, X) -> (K, B, Y)."""
        weights = self.posterior().sample((self.num_samples,))
        return torch.vmap(self.network, in_dims=(0, None))(weights, x)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, X) -> mean and variance of f_w(x) over K draws, (B, Y) each."""
        values = self.predict(x)
        return values.mean(0), values.var(0)

    def kl_step(self, x: Tensor, y: Tensor, steps: int = 300, lr: float = 0.05) -> Tensor:
        """KL(q', q), q' the mean-field fit to p(y_b|x_b, w) q(w): for every row anew, from q."""
        prior = self.posterior().detach()
        belief = LatentVariableModel(_Constant(prior), RowLikelihood(self.network, self.noise))
        start = prior.expand((len(x),))
        fitted = fit_local(belief, y, x, init=start, steps=steps, lr=lr, num_samples=self.num_samples)
        with torch.no_grad():
            return kl_divergence(DiagonalNormal(*_parameters(fitted())), DiagonalNormal(*_parameters(prior)))

    def second_order(self, x: Tensor, y: Tensor, step: float = 1.0) -> Tensor:
        """step^2 / 2 sum_i [ s_i^2 (d/dm_i)^2 + (d/dlog s_i)^2 / 2 ]: the Hessian of the KL divergence at q is 1 / s^2
        for m and 2 for log s. VIME's code drops the 1/2 and has the same numbers in other coordinates. The squares of
        gradients over K draws are too large by their variance / K."""
        q = DiagonalLocalPosterior(self.posterior().detach().expand((len(x),)))
        likelihood = RowLikelihood(self.network, self.noise)
        with torch.enable_grad():
            log_prob = likelihood(q().rsample((self.num_samples,)), x).log_prob(y).mean(0).sum()
            loc, log_scale = torch.autograd.grad(log_prob, [q.loc, q.log_scale])
        newton = (loc * q.log_scale.exp()).square() + 0.5 * log_scale.square()
        return 0.5 * step**2 * newton.detach().sum(-1)


class _Constant(nn.Module):
    """A prior that is one distribution, whatever the context."""

    def __init__(self, distribution: DiagonalNormal) -> None:
        super().__init__()
        self.distribution = distribution

    def forward(self, context: Tensor | None = None) -> DiagonalNormal:
        return self.distribution


def _parameters(q: Distribution) -> tuple[Tensor, Tensor]:
    assert isinstance(q, DiagonalNormal)
    return q.loc, q.log_scale
