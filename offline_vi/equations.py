"""The equations that algorithms share: each a named, cited function, tested against a table.

Every backup here is the library's one reduction at some temperature; compare `bounds.py`.
"""

from __future__ import annotations

from torch import Tensor

from offline_vi.distributions import log_mean_exp
from offline_vi.types import Batch


def soft_value(q: Tensor, log_weight: Tensor | None = None, *, temperature: float) -> Tensor:
    """V(s) of K actions drawn for s: (K, ..., B) -> (..., B).

    temperature T: T log mean_k exp(q_k / T + log w_k). T = inf is the mean (policy evaluation), T = 0 the maximum over
    candidates (BCQ: Fujimoto et al. 2019, eq. 13; EMaQ: Ghasemipour et al. 2021), T = alpha soft Q-learning
    (Haarnoja et al. 2017, eq. 10), K = 1 with log_weight = -log pi SAC's target.

    Raises ValueError where ``log_weight`` is given at T = 0 or T = inf, where it has no meaning.
    """
    if log_weight is None:
        return log_mean_exp(q, dim=0, temperature=temperature)
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"log_weight has no meaning at temperature {temperature}")
    return log_mean_exp(q + temperature * log_weight, dim=0, temperature=temperature)


def clipped_double_q(q: Tensor, lmbda: float) -> Tensor:
    """Soft clipped double Q-learning: lambda min_e Q_e + (1 - lambda) max_e Q_e, (E, ...) -> (...).

    Fujimoto et al. 2019 (BCQ), eq. 13: taken over the ensemble *before* the maximum over candidates. lambda = 1 is the
    minimum of TD3.
    """
    return lmbda * q.amin(0) + (1.0 - lmbda) * q.amax(0)


def bellman_target(batch: Batch, value: Tensor, discount: float) -> Tensor:
    """r + gamma (1 - terminated) V(s'), (B,). A time limit is not an end."""
    return batch.reward + discount * (1.0 - batch.terminated) * value
