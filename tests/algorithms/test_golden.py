"""A run of the first released format is read by every later version, and acts as it did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import offline_vi
from offline_vi.rl.algorithm import Algorithm
from offline_vi.runs.checkpoint import load_checkpoint

RUN = Path(__file__).parents[1] / "data" / "run-format-1"


def test_a_run_of_format_1_acts_as_it_did() -> None:
    assert load_checkpoint(RUN).step == 20
    algorithm = offline_vi.load(RUN)
    assert isinstance(algorithm, Algorithm)
    torch.manual_seed(0)
    action = algorithm.act(torch.linspace(-1, 1, 6).reshape(2, 3))
    assert action.flatten().tolist() == pytest.approx([-0.4464765787124634, -0.4106871783733368], abs=1e-5)
    assert sum(path.stat().st_size for path in RUN.rglob("*") if path.is_file()) < 200_000
