"""Networks: a plain MLP, an ensemble whose members are one batched matrix product, policies, moving averages.

Initialization is that of `torch.nn.Linear`, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which BCQ, PLAS, BEAR, TD3+BC and, off
AntMaze, SPOT use; what IQL, CQL, ReBRAC and SPOT on AntMaze use is in `initialization.py`.

With ``stack`` = (S,) a network is S networks, one for each seed, and inputs have the axis S just left of the batch:
(..., S, B, D). ``stack`` = (), the default, is one network (`stack.py`).

A network of observations begins with the layer ``inputs`` that its owner gives it, e.g. a `Normalizer`; without one it
sees the observations as they are. A network and its target share that layer (`target_of`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offline_vi.distributions.squashed import TanhNormal
from offline_vi.errors import ConfigError
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.precision import full_precision
from offline_vi.types import Spec, Stack

M = TypeVar("M", bound=nn.Module)


def relu() -> nn.ReLU:
    """A rectifier that overwrites what it is given: a linear layer's output, which no gradient needs."""
    return nn.ReLU(inplace=True)


def mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] = relu,
    dropout: float = 0.0,
    stack: Stack = (),
    layer_norm: bool = False,
) -> nn.Sequential:
    """Linear layers of the given sizes, between them ``activation``, with LayerNorm before it and dropout after it
    where they are asked for, and none at the end.

    Raises ConfigError where ``dropout`` is no share below 1.
    """
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"dropout = {dropout} is no share of the hidden units", "at least 0, below 1")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes[:-1]):
        layers += [linear(fan_in, fan_out, stack)]
        layers += [StackedLayerNorm(fan_out, stack)] if layer_norm else []
        layers += [activation()]
        layers += [nn.Dropout(dropout)] if dropout > 0.0 else []
    return nn.Sequential(*layers, linear(sizes[-2], sizes[-1], stack))


def linear(fan_in: int, fan_out: int, stack: Stack = ()) -> nn.Module:
    """One layer, (..., in) -> (..., out), or one for each seed."""
    return StackedLinear(stack[0], fan_in, fan_out) if stack else nn.Linear(fan_in, fan_out)


class StackedLinear(nn.Module):
    """S linear layers, one for each seed: (..., S, B, in) -> (..., S, B, out)."""

    def __init__(self, stack: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.empty(stack, fan_in, fan_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(stack, 1, fan_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.baddbmm(self.bias, fold(x, self.bias.shape[:1]), self.weight)
        return unfold(h, x.shape, self.bias.shape[:1])


class StackedLayerNorm(nn.Module):
    """Layer normalization (Ba et al. 2016), one for each seed: (..., D) -> (..., D), or (..., S, B, D)."""

    def __init__(self, width: int, stack: Stack = ()) -> None:
        super().__init__()
        shape = (*stack, 1, width) if stack else (width,)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.ndim == 1:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias)
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


def fold(x: Tensor, stack: Sequence[int]) -> Tensor:
    """All rows of each network together: (..., *stack, B, D) -> (*stack, M, D)."""
    return x.movedim(-3, 0).flatten(1, -2) if stack else x.reshape(-1, x.shape[-1])


def unfold(h: Tensor, shape: Sequence[int], stack: Sequence[int]) -> Tensor:
    """Undo the `fold` of an x of the given shape: (E.., *stack, M, H) -> (E.., *x.shape[:-1], H)."""
    if not stack:
        return h.reshape(*h.shape[:-2], *shape[:-1], h.shape[-1])
    rows: Tensor = h.unflatten(-2, (*shape[:-3], shape[-2]))
    return rows.movedim(h.ndim - 3, -3)


def of_members(part: Tensor, members: slice) -> Tensor:
    """The part of some members: (E, ...) -> (E', ...). All of them are taken as they are: the gradient of a slice is a
    copy of it in a tensor of zeros."""
    return part if members == slice(None) else part[members]


class EnsembleLinear(nn.Module):
    """E linear layers side by side, each once for every seed: (E * S, M, in) -> (E * S, M, out)."""

    def __init__(self, ensemble: int, fan_in: int, fan_out: int, stack: Stack = ()) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.empty(ensemble, *stack, fan_in, fan_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(ensemble, *stack, 1, fan_out).uniform_(-bound, bound))

    def forward(self, x: Tensor, members: slice = slice(None)) -> Tensor:
        weight, bias = (of_members(part, members).flatten(0, -3) for part in (self.weight, self.bias))
        return torch.baddbmm(bias, x, weight)


class EnsembleLayerNorm(nn.Module):
    """E layer normalisations side by side, each once for every seed: (E * S, M, H) -> (E * S, M, H)."""

    def __init__(self, ensemble: int, width: int, stack: Stack = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(ensemble, *stack, 1, width))
        self.bias = nn.Parameter(torch.zeros(ensemble, *stack, 1, width))

    def forward(self, x: Tensor, members: slice = slice(None)) -> Tensor:
        weight, bias = (of_members(part, members).flatten(0, -3) for part in (self.weight, self.bias))
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * weight + bias


class Unchanged(nn.Module):
    """A layer that does nothing."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return x


class EnsembleMLP(nn.Module):
    """E ReLU networks of equal shape on a common input: (..., in) -> (E, ..., out).

    ``layer_norm`` normalises after each ReLU (Ball et al. 2023; Tarasov et al. 2023).
    """

    def __init__(self, sizes: Sequence[int], ensemble: int, layer_norm: bool = False, stack: Stack = ()) -> None:
        super().__init__()
        self.ensemble, self.stack = ensemble, stack
        self.layers = nn.ModuleList(
            EnsembleLinear(ensemble, fan_in, fan_out, stack) for fan_in, fan_out in pairwise(sizes)
        )
        self.norms = nn.ModuleList(
            EnsembleLayerNorm(ensemble, width, stack) if layer_norm else Unchanged() for width in sizes[1:-1]
        )

    def forward(self, x: Tensor, members: slice = slice(None)) -> Tensor:
        count = len(range(self.ensemble)[members])
        rows = fold(x, self.stack)
        h: Tensor = rows.expand(count, *rows.shape).flatten(0, -3)  # (E * S, M, in)
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            h = norm(torch.relu_(layer(h, members)), members)
        with full_precision(x.device):  # values span hundreds: 8 bits of mantissa would round them to whole numbers
            h = self.layers[-1](h.to(x.dtype), members)
        return unfold(h.unflatten(0, (count, *self.stack)), x.shape, self.stack)


class Critic(nn.Module):
    """E action-value functions Q_e(s, a)."""

    def __init__(
        self,
        spec: Spec,
        hidden: Sequence[int],
        ensemble: int = 2,
        *,
        layer_norm: bool = False,
        inputs: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.inputs = inputs or Unchanged()
        self.net = EnsembleMLP([spec.obs_dim + spec.action_dim, *hidden, 1], ensemble, layer_norm, spec.stack)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """(B, O), (..., B, A) -> (E, ..., B)."""
        values: Tensor = self.net(join(self.inputs(obs), action))
        return values.squeeze(-1)

    def q1(self, obs: Tensor, action: Tensor) -> Tensor:
        """The first member alone: (B, O), (..., B, A) -> (..., B)."""
        values: Tensor = self.net(join(self.inputs(obs), action), slice(0, 1))
        return values.squeeze(-1).squeeze(0)


class ValueFunction(nn.Module):
    """V(s): (B, O) -> (B,)."""

    def __init__(self, spec: Spec, hidden: Sequence[int], *, inputs: nn.Module | None = None) -> None:
        super().__init__()
        self.inputs = inputs or Unchanged()
        self.net = mlp([spec.obs_dim, *hidden, 1], stack=spec.stack)

    def forward(self, obs: Tensor) -> Tensor:
        values: Tensor = self.net(self.inputs(obs))
        return values.squeeze(-1)


class DeterministicPolicy(nn.Module):
    """a = tanh(net(s)): (B, O) -> (B, A)."""

    def __init__(
        self,
        spec: Spec,
        hidden: Sequence[int],
        dropout: float = 0.0,
        *,
        layer_norm: bool = False,
        inputs: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.inputs = inputs or Unchanged()
        sizes = [spec.obs_dim, *hidden, spec.action_dim]
        self.net = mlp(sizes, dropout=dropout, stack=spec.stack, layer_norm=layer_norm)

    def forward(self, obs: Tensor) -> Tensor:
        return torch.tanh(self.net(self.inputs(obs)))


class TanhNormalPolicy(nn.Module):
    """pi(a|s) = tanh(N(m(s), diag(s(s))^2)) with log s clamped to [-5, 2], as in CQL's code (BEAR's does not bound
    it): (B, O) -> a distribution of batch shape (B,)."""

    low, high = -5.0, 2.0

    def __init__(self, spec: Spec, hidden: Sequence[int], *, inputs: nn.Module | None = None) -> None:
        super().__init__()
        self.inputs = inputs or Unchanged()
        self.net = mlp([spec.obs_dim, *hidden, 2 * spec.action_dim], stack=spec.stack)

    def forward(self, obs: Tensor) -> TanhNormal:
        loc, log_scale = self.net(self.inputs(obs)).chunk(2, dim=-1)
        return TanhNormal(loc, log_scale.clamp(self.low, self.high))


def target_of(network: M) -> M:
    """A copy that no optimizer trains, and that shares the network's `Normalizer`: fitted once, both see the same."""
    shared = {id(part): part for part in network.modules() if isinstance(part, Normalizer)}
    return copy.deepcopy(network, shared).requires_grad_(False)


def join(context: Tensor, x: Tensor) -> Tensor:
    """Concatenate (B, C), broadcast over the sample axes of ``x``, with x (..., B, X): (..., B, C + X)."""
    return torch.cat([context.expand(*x.shape[:-1], context.shape[-1]), x], dim=-1)
