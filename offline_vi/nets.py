"""Networks: a plain MLP, an ensemble whose members are one batched matrix product, and moving averages of weights.

Initialisation is that of `torch.nn.Linear`, which the reference codes use: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of the given sizes with ``activation`` between them and none at the end."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


class EnsembleLinear(nn.Module):
    """E linear layers side by side: (E, M, in) -> (E, M, out)."""

    def __init__(self, ensemble: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.empty(ensemble, fan_in, fan_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(ensemble, 1, fan_out).uniform_(-bound, bound))

    def forward(self, x: Tensor, members: slice = slice(None)) -> Tensor:
        out: Tensor = torch.baddbmm(self.bias[members], x, self.weight[members])
        return out


class EnsembleMLP(nn.Module):
    """E ReLU networks of equal shape on a common input: (..., in) -> (E, ..., out)."""

    def __init__(self, sizes: Sequence[int], ensemble: int) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.layers = nn.ModuleList(EnsembleLinear(ensemble, fan_in, fan_out) for fan_in, fan_out in pairwise(sizes))

    def forward(self, x: Tensor, members: slice = slice(None)) -> Tensor:
        count = len(range(self.ensemble)[members])
        h: Tensor = x.reshape(1, -1, x.shape[-1]).expand(count, -1, -1)
        for layer in self.layers[:-1]:
            h = torch.relu(layer(h, members))
        h = self.layers[-1](h, members)
        return h.reshape(count, *x.shape[:-1], h.shape[-1])


class Critic(nn.Module):
    """E action-value functions Q_e(s, a)."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int], ensemble: int = 2) -> None:
        super().__init__()
        self.net = EnsembleMLP([obs_dim + action_dim, *hidden, 1], ensemble)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """(B, O), (..., B, A) -> (E, ..., B)."""
        values: Tensor = self.net(join(obs, action))
        return values.squeeze(-1)

    def q1(self, obs: Tensor, action: Tensor) -> Tensor:
        """The first member alone: (B, O), (..., B, A) -> (..., B)."""
        values: Tensor = self.net(join(obs, action), slice(0, 1))
        return values.squeeze(-1).squeeze(0)


def join(context: Tensor, x: Tensor) -> Tensor:
    """Concatenate (B, C), broadcast over the sample axes of ``x``, with x (..., B, X): (..., B, C + X)."""
    return torch.cat([context.expand(*x.shape[:-1], context.shape[-1]), x], dim=-1)


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, in place, over all parameters."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)
