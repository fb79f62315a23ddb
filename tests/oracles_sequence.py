"""Linear-Gaussian chains and the linear quadratic regulator in NumPy float64. Never imports the library or torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def kalman_log_likelihood(y: Array, a: float, q: float, r: float) -> float:
    """z_1 ~ N(0, 1), z_t = a z_{t-1} + N(0, q), y_t = z_t + N(0, r): log p(y_1..y_T)."""
    mean, variance, total = 0.0, 1.0, 0.0
    for t, value in enumerate(y):
        if t > 0:
            mean, variance = a * mean, a**2 * variance + q
        spread = variance + r
        total += -0.5 * (np.log(2 * np.pi * spread) + (value - mean) ** 2 / spread)
        gain = variance / spread
        mean, variance = mean + gain * (value - mean), (1.0 - gain) * variance
    return float(total)


def joint_log_likelihood(y: Array, a: float, q: float, r: float) -> float:
    """The same from the full covariance of y."""
    count = len(y)
    transfer = np.array([[a ** (i - j) if i >= j else 0.0 for j in range(count)] for i in range(count)])
    covariance = transfer @ np.diag([1.0] + [q] * (count - 1)) @ transfer.T + r * np.eye(count)
    _, log_det = np.linalg.slogdet(covariance)
    return float(-0.5 * (y @ np.linalg.solve(covariance, y) + log_det + count * np.log(2 * np.pi)))


def filter_elbo(y: Array, a: float, q: float, r: float) -> float:
    """ELBO of q(z_t|z_{t-1}, y_t), each optimal for its step: sum_t E log N(y_t; a z_{t-1}, q + r), where z_{t-1} is
    drawn from the previous ones, a Gaussian whose moments follow a recursion."""
    total = -0.5 * (np.log(2 * np.pi * (1 + r)) + y[0] ** 2 / (1 + r))
    mean, variance = y[0] / (1 + r), r / (1 + r)
    for value in y[1:]:
        spread = q + r
        total += -0.5 * (np.log(2 * np.pi * spread) + ((value - a * mean) ** 2 + a**2 * variance) / spread)
        gain = q / spread
        mean = (1 - gain) * a * mean + gain * value
        variance = ((1 - gain) * a) ** 2 * variance + q * r / spread
    return float(total)


def riccati_cost(x0: Array, steps: int, dt: float = 0.1, control_cost: float = 0.1) -> tuple[float, float]:
    """Double integrator, sum over t < steps of x'x + R u^2 plus x_T'x_T: the least cost and the first u."""
    a, b = np.array([[1.0, dt], [0.0, 1.0]]), np.array([[0.0], [dt]])
    p = np.eye(2)
    gain = np.zeros((1, 2))
    for _ in range(steps):
        gain = np.linalg.solve(control_cost + b.T @ p @ b, b.T @ p @ a)
        p = np.eye(2) + a.T @ p @ (a - b @ gain)
    return float(x0 @ p @ x0), float(-(gain @ x0)[0])


def open_loop_moments(a: Array, noise: Array, z: Array, steps: int) -> tuple[Array, Array]:
    """Mean A^k z and covariance sum_i A^i Q A'^i after k = 1..steps steps."""
    means, covariances = [], []
    mean, covariance = z, np.zeros((len(z), len(z)))
    for _ in range(steps):
        mean, covariance = a @ mean, a @ covariance @ a.T + noise
        means.append(mean)
        covariances.append(covariance)
    return np.stack(means), np.stack(covariances)
