"""How reference codes initialize their networks, where that is not torch's way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from offline_vi.nn.networks import EnsembleLinear, StackedLinear

Init = Literal["torch", "orthogonal", "xavier", "fan-out", "positive-bias", "small-last"]
"""torch: U(-1/sqrt(in), 1/sqrt(in)) for weights and biases; orthogonal: IQL's; xavier: IDQL's; fan-out: CQL's;
positive-bias: ReBRAC's; small-last: SPOT's on AntMaze. See `SCHEMES`."""
M = TypeVar("M", bound=nn.Module)
POLICY_LAST, VALUE_LAST = 1e-3, 3e-3  # largest entry of the last layer of a policy and of a value function


def orthogonal(shape: torch.Size) -> Tensor:
    """sqrt(2) times a random (in, out) matrix with orthonormal rows or columns (Saxe et al. 2014)."""
    return nn.init.orthogonal_(torch.empty(shape), math.sqrt(2.0))


def fan_out(shape: torch.Size) -> Tensor:
    """U(-1/sqrt(out), 1/sqrt(out)) of shape (in, out): rlkit's ``fanin_init``, which divides by the outputs."""
    return uniform(shape, 1.0 / math.sqrt(shape[-1]))


def xavier(shape: torch.Size) -> Tensor:
    """U(-b, b) of shape (in, out), b = sqrt(6 / (in + out)) (Glorot and Bengio 2010)."""
    return uniform(shape, math.sqrt(6.0 / sum(shape)))


def uniform(shape: torch.Size, bound: float) -> Tensor:
    """U(-bound, bound)."""
    return torch.empty(shape).uniform_(-bound, bound)


class Scheme(NamedTuple):
    """What differs from torch."""

    weight: Callable[[torch.Size], Tensor] | None = None  # of a matrix (in, out); None: torch's
    bias: float | None = None  # None: torch's
    small_last: bool = False  # whether the last layer, its bias included, is U(-last, last)


SCHEMES: dict[Init, Scheme] = {
    "torch": Scheme(),
    "orthogonal": Scheme(orthogonal, 0.0),  # ikostrikov/implicit_q_learning, common.py and policy.py: every layer
    "xavier": Scheme(xavier, 0.0),  # philippe-eecs/IDQL, jaxrl5/networks/mlp.py
    "fan-out": Scheme(fan_out, 0.1, small_last=True),  # aviralkumar2907/CQL, rlkit/torch/networks.py
    "positive-bias": Scheme(None, 0.1, small_last=True),  # tinkoff-ai/ReBRAC, src/networks.py
    "small-last": Scheme(small_last=True),  # thuml/SPOT, SPOT.py: actor_init_w, critic_init_w
}


@torch.no_grad()
def initialized(network: M, init: Init, last: float) -> M:
    """The network with its linear layers drawn anew as ``init`` says, from torch's default generator.

    ``last`` bounds the last layer where that is small: `POLICY_LAST` or `VALUE_LAST`. "torch" draws nothing.
    """
    scheme = SCHEMES[init]
    layers = [part for part in network.modules() if isinstance(part, nn.Linear | StackedLinear | EnsembleLinear)]
    for layer in layers:
        small = scheme.small_last and layer is layers[-1]
        for matrix in matrices(layer):
            if small:
                matrix.copy_(uniform(matrix.shape, last))
            elif scheme.weight is not None:
                matrix.copy_(scheme.weight(matrix.shape))
        if small:
            layer.bias.copy_(uniform(layer.bias.shape, last))
        elif scheme.bias is not None:
            layer.bias.fill_(scheme.bias)
    return network


def matrices(layer: nn.Linear | StackedLinear | EnsembleLinear) -> Iterator[Tensor]:
    """The weights (in, out) of a layer, one for each seed and member, as views."""
    if isinstance(layer, nn.Linear):
        yield layer.weight.mT
    else:
        yield from layer.weight.flatten(0, -3)
