"""The equations that algorithms share: each a named, cited function, tested against a table.

Every backup here is the library's one reduction at some temperature; compare `bounds.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.distributions.reduction import log_mean_exp
from offline_vi.errors import ConfigError
from offline_vi.types import Batch, Metrics


def soft_value(q: Tensor, log_weight: Tensor | None = None, *, temperature: float | Tensor) -> Tensor:
    """V(s) of K actions drawn for s: (K, ..., B) -> (..., B).

    temperature T: T log mean_k exp(q_k / T + log w_k). T = inf is the mean (policy evaluation), T = 0 the maximum over
    candidates (BCQ: Fujimoto et al. 2019, eq. 13; EMaQ: Ghasemipour et al. 2021), T = alpha soft Q-learning
    (Haarnoja et al. 2017, eq. 10), K = 1 with log_weight = -log pi SAC's target.

    Raises ValueError where ``log_weight`` is given at T = 0 or T = inf, where it has no meaning.
    """
    if log_weight is None:
        return log_mean_exp(q, dim=0, temperature=temperature)
    if not isinstance(temperature, Tensor) and not 0.0 < temperature < float("inf"):
        raise ValueError(f"log_weight has no meaning at temperature {temperature}")
    return log_mean_exp(q + temperature * log_weight, dim=0, temperature=temperature)


def clipped_double_q(q: Tensor, lmbda: float) -> Tensor:
    """Soft clipped double Q-learning: lambda min_e Q_e + (1 - lambda) max_e Q_e, (E, ...) -> (...).

    Fujimoto et al. 2019 (BCQ), eq. 13: taken over the ensemble *before* the maximum over candidates. lambda = 1 is the
    minimum of TD3.
    """
    return lmbda * q.amin(0) + (1.0 - lmbda) * q.amax(0)


def min_q(q: Tensor) -> Tensor:
    """min_j Q_j, (E, ...) -> (...): what most algorithms bootstrap from (Fujimoto et al. 2018)."""
    return clipped_double_q(q, 1.0)


def bellman_target(batch: Batch, value: Tensor, discount: float) -> Tensor:
    """r + gamma (1 - terminated) V(s'), (B,). A time limit is not an end."""
    return batch.reward + discount * (1.0 - batch.terminated) * value


def td_loss(q: Tensor, target: Tensor) -> tuple[Tensor, Metrics]:
    """sum_e mean_B (Q_e(s, a) - y)^2 of q (E, ..., B) and a target (..., B): each critic regresses the same target."""
    loss = (q - target).square().mean(-1).sum(0)
    return loss, {"critic/loss": loss.detach(), "critic/q": q.detach().mean((0, -1)), "critic/target": target.mean(-1)}


def smoothed(action: Tensor, sigma: float, clip: float) -> Tensor:
    """Target policy smoothing: a + clip(N(0, sigma^2), -c, c), kept in the box, (..., A).

    Fujimoto et al. 2018 (TD3), eq. 14.
    """
    noise = (torch.randn_like(action) * sigma).clamp(-clip, clip)
    return (action + noise).clamp(-1.0, 1.0)


def normalized_q(q: Tensor) -> Tensor:
    """Q / mean_B |Q|, (..., B), the divisor a constant: a weight beside Q then means the same whatever the reward.

    Fujimoto and Gu 2021 (TD3+BC), eq. 5.
    """
    return q / q.detach().abs().mean(-1, keepdim=True)


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """L(u) = |tau - 1(u < 0)| u^2 of u = target - prediction, elementwise.

    tau = 1/2 is half the squared error (the mean), tau -> 1 the maximum over the data's actions: Kostrikov et al. 2022
    (IQL), eq. 5.
    """
    return (expectile - (error < 0.0).to(error.dtype)).abs() * error.square()


def return_scale(returns: NDArray[np.float64]) -> float:
    """c = 1000 / (max - min) of the data's returns (R,): the reward's unit for IQL on locomotion tasks
    (ikostrikov/implicit_q_learning, train_offline.py, ``normalize``).

    Raises ConfigError where all returns are the same.
    """
    spread = float(np.ptp(returns))
    if not spread > 0.0:
        raise ConfigError("the returns of all episodes are the same", "scale the reward by a number")
    return 1000.0 / spread


def advantage_weight(advantage: Tensor, beta: float, cap: float) -> Tensor:
    """min(exp(beta A), cap), elementwise: the weight of a data action in Kostrikov et al. 2022 (IQL), eq. 7; beta is an
    inverse temperature."""
    return torch.exp(beta * advantage).clamp(max=cap)


Kernel = Callable[[Tensor, Tensor], Tensor]
"""(..., D), (..., D) -> (...)."""


def laplacian_kernel(sigma: float) -> Kernel:
    """exp(-|x - y|_1 / (2 sigma)), as in the code of Kumar et al. 2019 (BEAR)."""
    return lambda x, y: torch.exp(-(x - y).abs().sum(-1) / (2.0 * sigma))


def gaussian_kernel(sigma: float) -> Kernel:
    """exp(-|x - y|_2^2 / (2 sigma)), as in the code of Kumar et al. 2019 (BEAR): sigma is a variance."""
    return lambda x, y: torch.exp(-(x - y).square().sum(-1) / (2.0 * sigma))


def mmd_squared(x: Tensor, y: Tensor, kernel: Kernel, *, biased: bool) -> Tensor:
    """MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) of samples (N, B, D) and (M, B, D) -> (B,).

    Gretton et al. 2012: ``biased`` keeps the pairs of a sample with itself (V-statistic, eq. 5; never negative), else
    they are left out (U-statistic, eq. 3; may be negative).
    """
    between = kernel(x.unsqueeze(1), y.unsqueeze(0)).mean((0, 1))
    return _within(x, kernel, biased) + _within(y, kernel, biased) - 2.0 * between


def _within(x: Tensor, kernel: Kernel, biased: bool) -> Tensor:
    """Mean of k over pairs, (N, B, D) -> (B,); k(x, x) = 1."""
    count = x.shape[0]
    total = kernel(x.unsqueeze(1), x.unsqueeze(0)).sum((0, 1))
    return total / count**2 if biased else (total - count) / (count * (count - 1))
