"""What the tests of captured updates share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from offline_vi.data.transitions import Transitions
from offline_vi.types import Spec

SPEC = Spec((3,), 2)


def recording(graph: Any, inputs: list[torch.Tensor], batch: slice) -> Any:
    """The recording itself as a program: what is compiled, or replayed on a GPU."""
    return graph


def toy(rows: int = 400) -> Transitions:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    end = np.arange(1, rows + 1) % 50 == 0
    actions, rewards = rng.uniform(-1, 1, (rows, 2)), rng.normal(size=rows)
    terminated = end & (rng.random(rows) < 0.5)
    return Transitions(obs[:-1], actions.astype(np.float32), rewards.astype(np.float32), obs[1:], terminated, end, SPEC)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], within: float = 2e-5) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value.double(), second[name].double(), atol=within, rtol=within), name
