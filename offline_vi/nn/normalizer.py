"""Normalization of observations: a layer, saved with the network that owns it."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from offline_vi.errors import DataWarning
from offline_vi.types import FloatArray, Stack


class Normalizer(nn.Module):
    """(x - mean) / std with statistics kept as buffers, so that they are saved with whoever owns it.

    The standard deviation has a floor of 1e-3 (as in CORL), so that constant features stay finite.
    """

    mean: Tensor  # (O,), or (S, 1, O) for the batches of S seeds
    std: Tensor  # the same

    def __init__(self, dim: int, stack: Stack = ()) -> None:
        super().__init__()
        shape = (*stack, 1, dim) if stack else (dim,)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def fit(self, values: FloatArray) -> Normalizer:
        """Take mean and standard deviation over the rows of ``values`` (R, O); returns self.

        A DataWarning names the features that hardly vary.
        """
        std = values.std(0, dtype=np.float64)
        constant = np.flatnonzero(std < 1e-3).tolist()
        if constant:
            warnings.warn(f"features {constant} hardly vary (standard deviation below 1e-3)", DataWarning, stacklevel=2)
        self.mean.copy_(torch.from_numpy(values.mean(0, dtype=np.float64)))
        self.std.copy_(torch.from_numpy(np.maximum(std, 1e-3)))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
