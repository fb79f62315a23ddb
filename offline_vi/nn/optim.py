"""Optimizers, their steps and schedules, moving averages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

Schedule = Literal["cosine", "constant"]
"""Of a learning rate: it falls to 0 along half a cosine, or stays."""


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, in place, over all parameters."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)


def steps_taken(optimizer: torch.optim.Optimizer) -> int:
    """How many steps ``optimizer`` has taken, from its own state: the counter that a checkpoint holds already, and that
    lies on the host wherever the parameters are."""
    state = optimizer.state.get(optimizer.param_groups[0]["params"][0])
    return int(state["step"]) if state else 0


def cosine_(optimizer: torch.optim.Optimizer, lr: float, horizon: int) -> None:
    """Set the learning rate of the next step: from ``lr`` to 0 along half a cosine over ``horizon`` steps."""
    progress = min(steps_taken(optimizer) / horizon, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * lr * (1.0 + math.cos(math.pi * progress))


def follow_(schedule: Schedule, optimizer: torch.optim.Optimizer, lr: float, horizon: int) -> None:
    """Set the learning rate of the next step as ``schedule`` has it, from ``lr`` over ``horizon`` steps."""
    if schedule == "cosine":
        cosine_(optimizer, lr, horizon)


def adam(parameters: Iterable[Tensor], lr: float, *, eps: float = 1e-8) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), one pass over each parameter."""
    return torch.optim.Adam(parameters, lr=lr, eps=eps, fused=True)


def gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of ``optimizer`` down ``loss``, a scalar or one value per seed (summed).

    Gradients reach the optimiser's own parameters and nothing else: no network is trained by accident through another
    one's loss, and no gradient is computed that nobody uses.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.zero_grad(set_to_none=True)
    loss.sum().backward(inputs=parameters)
    optimizer.step()
