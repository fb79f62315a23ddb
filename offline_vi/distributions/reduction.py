"""The one reduction of the library: every objective is a log-mean-exp of log-weights at some temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
