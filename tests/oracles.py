"""What the variational parts must return, in NumPy float64, from closed forms and from quadrature.

Never imports the library or torch. Each closed form is checked against quadrature, or another second route, in
`test_oracles` of the test files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats

Array = NDArray[np.float64]


# ------------------------------------------------------------------ Gaussians


def normal_log_pdf(x: Array, mean: Array, covariance: Array) -> Array:
    """(..., D), (..., D), (D, D) -> (...)."""
    error = x - mean
    _, log_det = np.linalg.slogdet(covariance)
    mahalanobis = np.einsum("...i,ij,...j->...", error, np.linalg.inv(covariance), error)
    return np.asarray(-0.5 * (mahalanobis + log_det + len(covariance) * np.log(2.0 * np.pi)))


def normal_kl(mean0: Array, cov0: NDArray[Any], mean1: Array, cov1: NDArray[Any]) -> float:
    """KL( N(mean0, cov0) || N(mean1, cov1) ), nats."""
    precision = np.linalg.inv(cov1)
    error = mean1 - mean0
    log_ratio = np.linalg.slogdet(cov1)[1] - np.linalg.slogdet(cov0)[1]
    return float(0.5 * (np.trace(precision @ cov0) + error @ precision @ error - len(mean0) + log_ratio))


def grid(dim: int, half_width: float = 9.0, points: int = 401) -> tuple[Array, float]:
    """Points (P^dim, dim) of a regular grid and the volume of a cell: the trapezoid rule, which converges faster than
    any power for smooth functions that vanish at the border."""
    axis = np.linspace(-half_width, half_width, points)
    mesh = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)
    return mesh, float((axis[1] - axis[0]) ** dim)


def latent_quadrature(
    log_likelihood: Callable[[Array], Array],
    mean: Array,
    covariance: Array,
    prior_mean: Array | None = None,
    prior_covariance: Array | None = None,
    half_width: float = 9.0,
    points: int = 401,
) -> tuple[float, float, float]:
    """log p(x), ELBO and KL(q || p(z|x)) for q = N(mean, covariance), each integrated on a grid over z on its own.

    ``log_likelihood`` maps z (P, D) to log p(x|z) (P,).
    """
    dim = len(mean)
    z, cell = grid(dim, half_width, points)
    prior_mean = np.zeros(dim) if prior_mean is None else prior_mean
    prior_covariance = np.eye(dim) if prior_covariance is None else prior_covariance
    log_joint = log_likelihood(z) + normal_log_pdf(z, prior_mean, prior_covariance)
    log_q = normal_log_pdf(z, mean, covariance)
    q = np.exp(log_q) * cell
    log_p = float(special.logsumexp(log_joint) + np.log(cell))
    elbo = float((q * (log_joint - log_q)).sum())
    kl = float((q * (log_q - (log_joint - log_p))).sum())
    return log_p, elbo, kl


# ------------------------------------------------------------------ the linear-Gaussian model


class LinearGaussianOracle:
    """z ~ N(0, I), x = W z + mu + e, e ~ N(0, s2 I); W (X, Z)."""

    def __init__(self, weight: Array, mu: Array, s2: float) -> None:
        self.weight, self.mu, self.s2 = weight, mu, s2
        self.dim_x, self.dim_z = weight.shape
        self.precision = np.eye(self.dim_z) + weight.T @ weight / s2  # Lambda
        self.covariance = np.linalg.inv(self.precision)

    def log_prob(self, x: Array) -> Array:
        marginal = self.weight @ self.weight.T + self.s2 * np.eye(self.dim_x)
        return normal_log_pdf(x, self.mu, marginal)

    def posterior_mean(self, x: Array) -> Array:
        return np.asarray((x - self.mu) @ self.weight @ self.covariance / self.s2)

    def log_likelihood(self, x: Array, z: Array) -> Array:
        return normal_log_pdf(x, z @ self.weight.T + self.mu, self.s2 * np.eye(self.dim_x))

    def expected_log_likelihood(self, x: Array, mean: Array, covariance: Array) -> float:
        error = x - self.mu - self.weight @ mean
        spread = np.trace(self.weight @ covariance @ self.weight.T)
        return float(-0.5 * self.dim_x * np.log(2.0 * np.pi * self.s2) - 0.5 * (error @ error + spread) / self.s2)

    def elbo(self, x: Array, mean: Array, covariance: Array) -> float:
        prior_kl = normal_kl(mean, covariance, np.zeros(self.dim_z), np.eye(self.dim_z, dtype=np.float64))
        return self.expected_log_likelihood(x, mean, covariance) - prior_kl

    def gap(self, x: Array, mean: Array, covariance: Array) -> float:
        """KL(q || p(z|x))."""
        return normal_kl(mean, covariance, self.posterior_mean(x), self.covariance)

    def elbo_gradient(self, x: Array, mean: Array, scale: Array) -> tuple[Array, Array]:
        """With respect to the mean and the log-scales of a diagonal q."""
        grad_mean = (x - self.mu) @ self.weight / self.s2 - self.precision @ mean
        return grad_mean, 1.0 - np.diag(self.precision) * scale**2

    def mean_field_gap(self) -> float:
        """KL of the best diagonal q, var_i = 1 / Lambda_ii, to the posterior; the same for every x."""
        return float(0.5 * (np.log(np.diag(self.precision)).sum() - np.linalg.slogdet(self.precision)[1]))


def probabilistic_pca(eigenvalues: Array, num_latents: int) -> tuple[float, float, Array]:
    """sigma^2, mean log-likelihood and the rates 0.5 log(l_i / sigma^2) at the optimum (Tipping and Bishop 1999)."""
    eigenvalues = np.sort(eigenvalues)[::-1]
    dim, kept, rest = len(eigenvalues), eigenvalues[:num_latents], eigenvalues[num_latents:]
    sigma2 = float(rest.mean())
    log_det = np.log(kept).sum() + len(rest) * np.log(sigma2)
    return sigma2, float(-0.5 * (dim * np.log(2.0 * np.pi) + log_det + dim)), 0.5 * np.log(kept / sigma2)


def data_with_eigenvalues(eigenvalues: Array, num: int, rng: np.random.Generator) -> Array:
    """(num, P) with mean 0 and covariance (1/num) X'X = diag(eigenvalues), exactly, in a random orientation."""
    dim = len(eigenvalues)
    x = rng.normal(size=(num, dim))
    x -= x.mean(0)
    left, _, _ = np.linalg.svd(x, full_matrices=False)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    return np.asarray((left * np.sqrt(num * eigenvalues)) @ rotation.T)


# ------------------------------------------------------------------ importance-weighted bounds


def iwae_of_a_shifted_posterior(delta: float, num_samples: int) -> float:
    """E IWAE_K - log p where q is the posterior shifted by delta standard deviations.

    Then log w - log p = -delta e - delta^2 / 2 with e ~ N(0, 1), and for a sum S of K positive weights
    E log S = integral over t > 0 of (exp(-t) - L(t)^K) / t with L(t) = E exp(-t w) (Frullani). Here t = exp(s).
    """
    e, cell = grid(1, 12.0, 4001)
    density = np.exp(-0.5 * e[:, 0] ** 2) / np.sqrt(2.0 * np.pi) * cell
    weight = np.exp(-delta * e[:, 0] - 0.5 * delta**2)
    s = np.linspace(-40.0, 25.0, 6501)
    laplace = np.array([density @ np.exp(-t * weight) for t in np.exp(s)])
    integrand = np.exp(-np.exp(s)) - laplace**num_samples
    return float(integrand.sum() * (s[1] - s[0]) - np.log(num_samples))


def iwae_of_two_samples(delta: float) -> float:
    """The same at K = 2 by hand: log((exp(-d e1) + exp(-d e2)) / 2) = -d (e1 + e2) / 2 + log cosh(d (e1 - e2) / 2),
    and e1 - e2 ~ N(0, 2)."""
    integral, _ = integrate.quad(lambda y: stats.norm.pdf(y) * np.log(np.cosh(delta * y / np.sqrt(2.0))), -12, 12)
    return float(-0.5 * delta**2 + integral)


def iwae_of_a_shifted_posterior_asymptote(delta: float, num_samples: int) -> float:
    """-Var(w) / (2 K) for large K (Domke and Sheldon 2018)."""
    return float(-np.expm1(delta**2) / (2.0 * num_samples))


def log_mean_exp(v: Array, temperature: float) -> float:
    """T log mean exp(v / T), with as many digits as it takes."""
    import mpmath

    with mpmath.workdps(60):
        total = mpmath.fsum(mpmath.exp(mpmath.mpf(float(value)) / temperature) for value in v)
        return float(temperature * mpmath.log(total / len(v)))


# ------------------------------------------------------------------ densities


def tanh_normal_pdf(a: Array, loc: float, scale: float) -> Array:
    """By the change of variables, in one dimension."""
    return np.asarray(stats.norm.pdf(np.arctanh(a), loc, scale) / (1.0 - a**2))


def continuous_bernoulli_pdf(x: Array, logit: float) -> Array:
    """proportional to lambda^x (1 - lambda)^(1 - x) = exp(logit x) up to a constant; on [0, 1]."""
    constant = 1.0 if logit == 0.0 else logit / np.expm1(logit)
    return np.asarray(constant * np.exp(logit * x))


def discretized_logistic_pmf(k: NDArray[Any], loc: float, scale: float, bins: int) -> Array:
    edges = np.arange(1, bins) / bins
    cdf = np.concatenate([[0.0], special.expit((edges - loc) / scale), [1.0]])
    return np.asarray(np.diff(cdf)[k])


def mixture_log_pdf(x: Array, weights: Array, means: Array, scales: Array) -> tuple[Array, Array]:
    """x (B, D), weights (K,), means and scales (K, D) -> log p(x) (B,), p(z = k|x) (B, K)."""
    components = np.stack([stats.norm.logpdf(x, m, s).sum(-1) for m, s in zip(means, scales, strict=True)], -1)
    joint = np.log(weights) + components
    log_p = special.logsumexp(joint, -1)
    return log_p, np.exp(joint - log_p[:, None])


# ------------------------------------------------------------------ networks


def tanh_network(layers: list[tuple[Array, Array]], z: Array) -> Array:
    """Linear layers W (out, in), b (out,) with tanh between them."""
    for number, (weight, bias) in enumerate(layers):
        z = z @ weight.T + bias
        if number < len(layers) - 1:
            z = np.tanh(z)
    return z


# ------------------------------------------------------------------ two modes, and a ring


def two_modes_log_pdf(a: Array, d: float, sd: float) -> Array:
    return np.asarray(np.logaddexp(stats.norm.logpdf(a, -d, sd), stats.norm.logpdf(a, d, sd)) - np.log(2.0))


def two_modes_expected_log_prob(d: float, sd: float) -> float:
    """E log p under the truth."""
    a = np.linspace(-d - 12.0 * sd, d + 12.0 * sd, 40001)
    log_p = two_modes_log_pdf(a, d, sd)
    return float(integrate.simpson(np.exp(log_p) * log_p, x=a))


def single_normal_on_two_modes(d: float, sd: float, width: float = 3.0) -> tuple[float, float]:
    """The maximum-likelihood Normal of two modes: its mass further than width sd from both, and E log p under it."""
    scale = np.sqrt(d**2 + sd**2)
    on_support = 2.0 * (stats.norm.cdf(d + width * sd, 0, scale) - stats.norm.cdf(max(d - width * sd, 0.0), 0, scale))
    return float(1.0 - on_support), float(-0.5 * np.log(2.0 * np.pi * scale**2) - 0.5)


def ring_log_pdf(radius: Array, r: float, sd: float) -> Array:
    """Density over the plane, at distance ``radius``, of a uniform point on a circle plus isotropic N(0, sd^2 I)."""
    bessel = np.log(special.ive(0, radius * r / sd**2)) + radius * r / sd**2
    return np.asarray(-np.log(2.0 * np.pi * sd**2) - 0.5 * (radius**2 + r**2) / sd**2 + bessel)


def ring_expected_log_prob(r: float, sd: float) -> float:
    radius = np.linspace(max(r - 12.0 * sd, 0.0), r + 12.0 * sd, 20001)
    log_p = ring_log_pdf(radius, r, sd)
    return float(integrate.simpson(2.0 * np.pi * radius * np.exp(log_p) * log_p, x=radius))


def single_normal_on_a_ring(r: float, sd: float, width: float = 3.0) -> tuple[float, float]:
    """The maximum-likelihood isotropic Normal of a ring: mass further than width sd from the circle, and E log p."""
    variance = 0.5 * r**2 + sd**2
    low, high = (r - width * sd) ** 2, (r + width * sd) ** 2  # the squared radius is exponential
    on_support = np.exp(-0.5 * low / variance) - np.exp(-0.5 * high / variance)
    return float(1.0 - on_support), float(-np.log(2.0 * np.pi * variance) - 1.0)
