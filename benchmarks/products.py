"""The matrix products of a training step alone: what a step would take if nothing else cost anything.

`products_of` watches steps as they run, keeps every product with its operands, and gives a function that multiplies
them again, step by step: no losses, no activations, no optimizers, no Python between two products but a loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ops: Any = torch.ops.aten
PRODUCTS = {ops.mm.default, ops.addmm.default, ops.bmm.default, ops.baddbmm.default}
Call = tuple[Any, list[Any], dict[str, Any]]


class Watched(TorchDispatchMode):
    """The products that are computed within, with copies of their operands (and the layout of these)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            operands = [arg.detach().clone() if isinstance(arg, Tensor) else arg for arg in args]
            self.calls.append((func, operands, kwargs or {}))
        return func(*args, **(kwargs or {}))


def products_of(step: Callable[[], object], period: int = 1) -> Callable[[], None]:
    """The products of ``period`` steps, which differ from one to the next; each call multiplies those of one."""
    kinds: list[list[Call]] = []
    for _ in range(period):
        with Watched() as watched:
            step()
        kinds.append(watched.calls)
    turns = itertools.cycle(kinds)

    @torch.no_grad()
    def products() -> None:
        for func, operands, settings in next(turns):
            func(*operands, **settings)

    return products
