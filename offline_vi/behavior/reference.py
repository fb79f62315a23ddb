"""Reference measures as proposals: nothing is fitted, every action is as likely as any other.

They are what soft Q-learning sums or integrates over where nobody's behavior is to be kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offline_vi.behavior.base import DensityModel
from offline_vi.errors import ConfigError
from offline_vi.types import Metrics, Spec


class UniformBox(DensityModel):
    """Uniform over the box [-1, 1]^A: log-density -A log 2."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """A log 2, whatever the data."""
        return -self.log_prob(obs, action).mean(-1), {}

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        shape = (num_samples, *obs.shape[:-1], self.spec.action_dim)
        return torch.rand(shape, device=obs.device, dtype=obs.dtype) * 2.0 - 1.0

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """Exact; actions (..., B, A)."""
        return torch.full_like(action[..., 0], -self.spec.action_dim * math.log(2.0))


class EveryAction(DensityModel):
    """All A one-hot actions, each once, in their order: probability 1 / A.

    A mean over these A "samples" is the sum over a finite set of actions, exactly.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """log A, whatever the data."""
        return -self.log_prob(obs, action).mean(-1), {}

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        """(B, O) -> (A, B, A). Raises ConfigError where ``num_samples`` is not A."""
        count = self.spec.action_dim
        if num_samples != count:
            raise ConfigError(f"{num_samples} candidates of {count} actions", "as many candidates as actions")
        one_hot = torch.eye(count, device=obs.device, dtype=obs.dtype)
        one_hot = one_hot.reshape(count, *[1] * (obs.ndim - 1), count)
        return one_hot.expand(count, *obs.shape[:-1], count)

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """Exact; actions (..., B, A)."""
        return torch.full_like(action[..., 0], -math.log(self.spec.action_dim))
