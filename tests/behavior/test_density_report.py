"""The report of a fitted model is of the model as it was fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offline_vi.behavior import DensityModel
from offline_vi.data.transitions import Transitions
from offline_vi.study.density import density_report
from offline_vi.types import Spec


class Remembering(DensityModel):
    """Every row that its loss has seen makes all actions likelier."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1))

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        return self.seen.expand(action.shape[:-1]) + self.weight

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, dict[str, Any]]:
        self.seen += len(obs)
        return -self.log_prob(obs, action).mean(), {}

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return torch.zeros(num_samples, len(obs), self.spec.action_dim)


def test_a_loss_that_keeps_its_rows_does_not_raise_the_density_of_rows_held_out() -> None:
    data = Transitions.from_arrays(
        obs=np.zeros((40, 2), np.float32),
        action=np.zeros((40, 1), np.float32),
        reward=np.zeros(40),
        terminated=None,
        episode=np.repeat(np.arange(4), 10),
        action_low=-1.0,
        action_high=1.0,
    )
    model = Remembering(data.spec)
    report = density_report(model, data, 4, 0)
    assert report["iwae_4"] == 0.0
    assert float(model.seen) == 0.0
