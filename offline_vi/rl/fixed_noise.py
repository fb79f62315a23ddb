"""Random numbers that are drawn once, so that a policy that samples becomes a function of the observation alone.

Algorithms and behavior models draw from torch's default generator wherever their equations say so. Nothing about them
changes here: within `FixedNoise` the same calls return the same numbers again and again, and the same ones for every
row of a batch, so that an action depends neither on the other rows nor on what was drawn before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Draw = Callable[..., Tensor]

LIKE: dict[object, Draw] = {torch.randn_like: torch.randn, torch.rand_like: torch.rand}


class FixedNoise(TorchFunctionMode):
    """A bank of random tensors: within it, the k-th draw is the k-th tensor.

    ``bank`` holds tensors that were drawn before; what is missing is drawn from ``seed`` and kept. In a draw of shape
    (..., B, D) the axis B is that of the rows, which share their numbers: the bank has (..., 1, D).

    It knows `torch.randn`, `torch.rand`, their ``_like`` forms and `torch.multinomial`.
    Of a single index that is drawn by weights, it takes the likeliest; of several, those at fixed quantiles.
    """

    def __init__(self, bank: Iterable[Tensor] = (), seed: int = 0) -> None:
        super().__init__()
        self.bank = list(bank)
        self.generator = torch.Generator().manual_seed(seed)
        self.calls = 0

    def __enter__(self) -> Self:
        self.calls = 0
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in LIKE:
            return self.next(LIKE[func], args[0].shape, args[0].dtype, args[0].device)
        if func in LIKE.values():
            return self.next(func, shape_of(args), given.get("dtype"), given.get("device"))
        if func is torch.multinomial:
            return self.indices(*args, **given)
        return func(*args, **given)

    def next(
        self, draw: Draw, shape: Sequence[int], dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Tensor:
        """The next tensor of the bank, of the given shape."""
        if self.calls == len(self.bank):
            shared = (*shape[:-2], 1, shape[-1]) if len(shape) > 1 else tuple(shape)
            self.bank.append(draw(shared, generator=self.generator, dtype=dtype).to(device or "cpu"))
        self.calls += 1
        return self.bank[self.calls - 1].expand(tuple(shape))

    def indices(self, weights: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
        """(B, K) weights -> (B, N) indices. By the inverse of the distribution function."""
        if num_samples == 1:
            return weights.argmax(-1, keepdim=True)
        cumulative = weights.cumsum(-1) / weights.sum(-1, keepdim=True)  # (B, K)
        uniform = self.next(torch.rand, (weights.shape[0], num_samples), weights.dtype, weights.device)  # (B, N)
        return (cumulative[:, None, :-1] < uniform.unsqueeze(-1)).sum(-1)


def shape_of(args: Sequence[Any]) -> Sequence[int]:
    """The shape in ``randn(2, 3)`` and in ``randn((2, 3))``."""
    return args[0] if len(args) == 1 and isinstance(args[0], tuple | list | torch.Size) else args
