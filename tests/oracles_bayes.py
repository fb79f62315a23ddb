"""Bayesian regression in NumPy float64, from full matrices. Never imports the library or torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from oracles import normal_kl

Array = NDArray[np.float64]


def posterior(mean: Array, covariance: Array, f: Array, y: Array, noise: float) -> tuple[Array, Array]:
    """N(mean, covariance) over weights (F,) given rows f (N, F), y (N,) of y = w'f + N(0, noise): by precisions."""
    precision = np.linalg.inv(covariance)
    new = np.linalg.inv(precision + f.T @ f / noise)
    return np.asarray(new @ (precision @ mean + f.T @ y / noise)), np.asarray(new, np.float64)


def gain(mean: Array, covariance: Array, f: Array, y: float, noise: float) -> float:
    """KL(new, old) of one row f (F,), from the two full matrices."""
    new_mean, new_covariance = posterior(mean, covariance, f[None], np.array([y]), noise)
    return normal_kl(new_mean, new_covariance, mean, covariance)


def mean_field_gain(mean: Array, variance: Array, f: Array, y: float, noise: float) -> float:
    """KL(new, old) where the new posterior, too, is diagonal: variances 1 / (1 / v_i + f_i^2 / noise), exact mean."""
    exact_mean, _ = posterior(mean, np.diag(variance), f[None], np.array([y]), noise)
    return normal_kl(exact_mean, np.diag(1.0 / (1.0 / variance + f**2 / noise)), mean, np.diag(variance))


def expected_gain_by_quadrature(mean: Array, covariance: Array, f: Array, noise: float) -> float:
    """E over y ~ N(f'm, noise + f'Sf) of `gain`, with Gauss-Hermite nodes."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    scale = np.sqrt(noise + f @ covariance @ f)
    gains = [gain(mean, covariance, f, float(f @ mean + scale * node), noise) for node in nodes]
    return float(np.dot(weights, gains) / weights.sum())


def second_order_of_one_weight(mean: float, sd: float, f: float, y: float, noise: float, step: float = 1.0) -> float:
    """step^2 / 2 g' H^-1 g by finite differences, in the coordinates (mean, sd) of q = N(mean, sd^2)."""

    def expected_log_likelihood(m: float, s: float) -> float:
        return -0.5 * ((y - f * m) ** 2 + f**2 * s**2) / noise

    def divergence(m: float, s: float) -> float:
        return float(np.log(sd / s) + (s**2 + (m - mean) ** 2) / (2.0 * sd**2) - 0.5)

    h = 1e-4
    points = [np.array([h, 0.0]), np.array([0.0, h])]
    at = np.array([mean, sd])
    gradient, curvature = [], []
    for e in points:
        gradient.append((expected_log_likelihood(*(at + e)) - expected_log_likelihood(*(at - e))) / (2 * h))
        curvature.append((divergence(*(at + e)) - 2 * divergence(*at) + divergence(*(at - e))) / h**2)
    return float(0.5 * step**2 * sum(g**2 / c for g, c in zip(gradient, curvature, strict=True)))
