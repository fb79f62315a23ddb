"""Latent-variable models: a prior p(z|c) times a likelihood p(x|z, c). Two of them are exact.

z lives in the prior's own coordinates; whoever needs noise coordinates (a clip, a box) maps standard normal noise by
prior.loc + prior.stddev * noise.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, OneHotCategorical

from offline_vi.distributions.normal import LOG_SCALE_MAX, LOG_SCALE_MIN, Bounded, DiagonalNormal, FullNormal
from offline_vi.nn.networks import join


class Latent(Protocol):
    """What a bound needs to know of a model."""

    @property
    def prior(self) -> Any:
        """(B, C) or None -> p(z|c), a Distribution with batch shape (B,) or ()."""

    @property
    def likelihood(self) -> Any:
        """(K, B, Z), (B, C) or None -> p(x|z, c), a Distribution with batch shape (K, B)."""


class LatentVariableModel(nn.Module):
    """``prior``: context (B, C) -> p(z|c); ``likelihood``: z (K, B, Z), context -> p(x|z, c)."""

    def __init__(self, prior: nn.Module, likelihood: nn.Module) -> None:
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood


class StandardNormalPrior(nn.Module):
    """N(0, I) over z, whatever the context: batch shape that of the context, () without one."""

    zero: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(dim), persistent=False)

    def forward(self, context: Tensor | None = None) -> DiagonalNormal:
        zero = self.zero if context is None else self.zero.expand(*context.shape[:-1], -1)
        return DiagonalNormal(zero, zero)


class ConditionalNormalPrior(nn.Module):
    """N(m(c), diag(s(c))^2); ``net`` maps (B, C) to (B, 2 Z). Begins near s = 1.

    log s stays in (``low``, ``high``), by default (-5, 2)."""

    def __init__(self, net: nn.Module, low: float = LOG_SCALE_MIN, high: float = LOG_SCALE_MAX) -> None:
        super().__init__()
        self.net, self.bounded = net, Bounded(0.0, low, high)

    def forward(self, context: Tensor) -> DiagonalNormal:
        loc, raw = self.net(context).chunk(2, dim=-1)
        return DiagonalNormal(loc, self.bounded(raw))


class Conditional(nn.Module):
    """A network on (context, z), then a head that makes a distribution of its outputs.

    z (K, B, Z) and context (B, C), or None -> batch shape (K, B).
    """

    def __init__(self, net: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.net, self.head = net, head

    def forward(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        h = self.net(z if context is None else join(context, z))
        x: Distribution = self.head(h)
        return x


class LinearLikelihood(nn.Module):
    """N(W z + mu, sigma^2 I)."""

    def __init__(self, weight: Tensor, loc: Tensor, sigma2: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.loc = nn.Parameter(loc.clone())
        self.log_scale = nn.Parameter(torch.as_tensor(0.5 * math.log(sigma2), dtype=weight.dtype))

    def forward(self, z: Tensor, context: Tensor | None = None) -> DiagonalNormal:
        return DiagonalNormal(z @ self.weight.mT + self.loc, self.log_scale)


class LinearGaussian(LatentVariableModel):
    """z ~ N(0, I), x = W z + mu + e, e ~ N(0, sigma^2 I): probabilistic PCA, the model in which every bound can be
    checked (Tipping and Bishop 1999). W (X, Z), mu (X,), sigma2 > 0.

    It is Bayesian linear regression, too: with features F (N, Z) and targets y (N,), ``LinearGaussian(F,
    torch.zeros(N), noise_variance)`` has the regression weights as z, and the one datum is x = y[None], (1, N).
    """

    likelihood: LinearLikelihood

    def __init__(self, weight: Tensor, loc: Tensor, sigma2: float) -> None:
        prior = StandardNormalPrior(weight.shape[1]).to(weight.dtype)
        super().__init__(prior, LinearLikelihood(weight, loc, sigma2))

    @property
    def sigma2(self) -> Tensor:
        return torch.exp(2.0 * self.likelihood.log_scale)

    def log_prob(self, x: Tensor) -> Tensor:
        """(..., X) -> (...) nats, exact: N(x; mu, W W' + sigma^2 I)."""
        weight = self.likelihood.weight
        covariance = weight @ weight.mT + self.sigma2 * torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        marginal = FullNormal(self.likelihood.loc, torch.linalg.cholesky(covariance))
        log_prob: Tensor = marginal.log_prob(x)  # type: ignore[no-untyped-call]
        return log_prob

    def posterior(self, x: Tensor, context: Tensor | None = None) -> FullNormal:
        """p(z|x), exact: precision Lambda = I + W'W / sigma^2, mean Lambda^-1 W'(x - mu) / sigma^2."""
        weight = self.likelihood.weight
        identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        root = torch.linalg.cholesky(identity + weight.mT @ weight / self.sigma2)
        information = (x - self.likelihood.loc) @ weight / self.sigma2
        loc = torch.cholesky_solve(information.unsqueeze(-1), root).squeeze(-1)
        scale_tril = torch.linalg.cholesky(torch.cholesky_inverse(root))
        return FullNormal(loc, scale_tril.expand(*loc.shape[:-1], -1, -1))


class MixtureParameters(nn.Module):
    """Parameters of K diagonal Gaussians over (D,) that depend on no context."""

    def __init__(self, num_components: int, dim: int, init_log_scale: float = 0.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.loc = nn.Parameter(torch.randn(num_components, dim))
        self.raw_log_scale = nn.Parameter(torch.zeros(num_components, dim))
        self.bounded = Bounded(init_log_scale)

    def forward(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """-> logits (K,), loc (K, D), log_scale (K, D)."""
        return self.logits, self.loc, self.bounded(self.raw_log_scale)


class ConditionalMixtureParameters(nn.Module):
    """Parameters of K diagonal Gaussians over (D,) for each context; ``net`` maps (B, C) to (B, K (1 + 2 D)).

    The components begin at different places: those that begin together stay together.
    """

    def __init__(
        self, net: nn.Module, num_components: int, dim: int, init_log_scale: float = -1.0, spread: float = 0.5
    ) -> None:
        super().__init__()
        self.net, self.num_components, self.dim = net, num_components, dim
        self.offset = nn.Parameter(spread * torch.randn(num_components, dim))
        self.bounded = Bounded(init_log_scale)

    @staticmethod
    def features(num_components: int, dim: int) -> int:
        """Number of network outputs."""
        return num_components * (1 + 2 * dim)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> logits (B, K), loc (B, K, D), log_scale (B, K, D)."""
        size = self.num_components * self.dim
        logits, loc, raw = self.net(context).split([self.num_components, size, size], dim=-1)
        shape = (self.num_components, self.dim)
        return logits, loc.unflatten(-1, shape) + self.offset, self.bounded(raw.unflatten(-1, shape))


class Mixture(nn.Module):
    """A mixture of K diagonal Gaussians: z one-hot (..., K), x (..., D). ``parameters_of`` maps a context, or None, to
    logits, loc and log_scale."""

    def __init__(self, parameters_of: nn.Module) -> None:
        super().__init__()
        self.parameters_of = parameters_of

    def prior(self, context: Tensor | None = None) -> OneHotCategorical:
        """(B, C) -> p(z|c), batch shape (B,), or () without context."""
        logits, _, _ = self.parameters_of(context)
        return OneHotCategorical(logits=logits, validate_args=False)

    def likelihood(self, z: Tensor, context: Tensor | None = None) -> DiagonalNormal:
        """(N, B, K), (B, C) -> p(x|z, c), batch shape (N, B): the component that z points at."""
        _, loc, log_scale = self.parameters_of(context)
        chosen = z.unsqueeze(-2)  # (N, B, 1, K)
        return DiagonalNormal((chosen @ loc).squeeze(-2), (chosen @ log_scale).squeeze(-2))

    def log_joint(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(..., D) -> log p(x, z = k), (..., K) nats."""
        logits, loc, log_scale = self.parameters_of(context)
        log_joint: Tensor = logits.log_softmax(-1) + DiagonalNormal(loc, log_scale).log_prob(x.unsqueeze(-2))
        return log_joint

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(..., D) -> (...) nats, exact."""
        return self.log_joint(x, context).logsumexp(-1)

    def posterior(self, x: Tensor, context: Tensor | None = None) -> OneHotCategorical:
        """p(z|x, c), exact: its probabilities are the responsibilities."""
        return OneHotCategorical(logits=self.log_joint(x, context), validate_args=False)

    def responsibilities(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(..., D) -> p(z = k|x, c), (..., K)."""
        return self.log_joint(x, context).softmax(-1)

    @torch.no_grad()
    def sample(self, num_samples: int = 1, context: Tensor | None = None) -> Tensor:
        """(B, C) -> (N, B, D), or (N, D) without context."""
        z = self.prior(context).sample((num_samples,))
        return self.likelihood(z, context).sample()
