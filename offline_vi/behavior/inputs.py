"""How models transform observations before their networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offline_vi.nn.normalizer import Normalizer
from offline_vi.types import Spec


class RunningNormalizer(Normalizer):
    """A `Normalizer` whose statistics are those of all rows that it has been shown, instead of being fitted ahead.

    It begins with one row of mean 0 and variance 1, so that a first batch of a single row has a spread. A model shows
    it the batches of its own loss, in training mode only: a fitted, frozen model does not change.
    """

    count: Tensor  # 0-d, rows seen, and the one of the beginning

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.register_buffer("count", torch.ones(()))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take in the rows of x (B, O), in training mode (Chan et al. 1979, the update of pooled moments)."""
        if not self.training:
            return
        rows, shape = x.shape[-2], self.mean.shape
        weight = rows / (self.count + rows)
        change = x.mean(-2).reshape(shape) - self.mean
        variance = torch.lerp(self.std.square(), x.var(-2, correction=0).reshape(shape), weight)
        variance = variance + weight * (1.0 - weight) * change.square()
        self.mean += weight * change
        self.std.copy_(variance.sqrt().clamp(min=1e-3))
        self.count += rows


class RawInputs(nn.Module):
    """Observations as they are, in place of a `RunningNormalizer`."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()

    def observe(self, x: Tensor) -> None:
        """Nothing to learn."""

    def forward(self, x: Tensor) -> Tensor:
        return x
