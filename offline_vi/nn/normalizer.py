"""Normalization of observations: a layer, saved with the network that owns it."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from offline_vi.errors import DataWarning
from offline_vi.nn.recorded import Recorded
from offline_vi.types import FloatArray, Spec


class Normalizer(Recorded):
    """(x - mean) / std over the observations of a spec: the identity until it is fitted.

    The statistics are buffers, saved with whoever owns the layer. An algorithm owns one, gives it to its networks, and
    gives its targets the same one (`target_of`). The standard deviation has a floor of 1e-3, so that constant
    features stay finite; the codes of TD3+BC, SPOT and CORL add 1e-3 to it.
    """

    mean: Tensor  # (O,), or (S, 1, O) for the batches of S seeds
    std: Tensor  # the same

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(spec.row(spec.obs_dim)))
        self.register_buffer("std", torch.ones(spec.row(spec.obs_dim)))

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
        """(..., O) -> (..., O)."""
        return (x - self.mean) / self.std
