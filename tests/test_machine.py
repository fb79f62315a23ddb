"""Half precision where no gradient flows, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.behavior import CVAE, CVAEConfig, Decoded
from offline_vi.errors import ConfigError
from offline_vi.machine import (
    fastest_precision,
    full_precision,
    keep_freed_memory,
    precision_of_targets,
    without_gradient,
)
from offline_vi.nets import Critic
from offline_vi.types import Batch, Spec

CPU = torch.device("cpu")
SPEC = Spec((5,), 2)


def batch() -> Batch:
    size = 64
    return Batch(
        torch.randn(size, 5),
        torch.rand(size, 2) * 2 - 1,
        torch.randn(size),
        torch.randn(size, 5),
        torch.zeros(size),
        torch.arange(size),
    )


@without_gradient
def product(a: torch.Tensor) -> torch.Tensor:
    return a @ a.mT


def test_marked_passes_run_in_the_chosen_precision() -> None:
    a = torch.randn(4, 4, requires_grad=True)
    assert not product(a).requires_grad
    assert product(a).dtype == torch.float32
    with precision_of_targets("bfloat16", CPU):
        assert product(a).dtype == torch.bfloat16
        assert (a @ a.mT).dtype == torch.float32  # not marked
        with precision_of_targets("float32", CPU):
            assert product(a).dtype == torch.float32
    assert product(a).dtype == torch.float32
    with pytest.raises(ConfigError, match="int8"), precision_of_targets("int8", CPU):
        pass


def test_values_leave_a_critic_in_full_precision() -> None:
    critic = Critic(5, 2, (64, 64))
    with torch.no_grad():
        list(critic.parameters())[-1].add_(300.0)  # 8 bits of mantissa know only even numbers there
    rows = batch()
    exact = critic(rows.obs, rows.action)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = critic(rows.obs, rows.action)
        with full_precision(CPU):
            same = critic(rows.obs, rows.action)
    assert rough.dtype == torch.float32
    assert torch.equal(same, exact)
    assert not torch.equal(rough, exact)
    assert (rough - exact).abs().max() < 0.02


def test_targets_of_bcq_in_bfloat16_are_close_and_its_gradients_are_float32() -> None:
    model = CVAE(SPEC, CVAEConfig(hidden=(32,)))
    algorithm = BCQ(SPEC, Decoded(model), BCQConfig(hidden=(32, 32)))
    rows, targets = batch(), []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(1)
        with precision_of_targets(precision, CPU):
            targets.append(algorithm.target(rows))
            loss, _ = algorithm.critic_loss(rows)
            assert loss.dtype == torch.float32
            assert {g.dtype for g in torch.autograd.grad(loss, list(algorithm.critic.parameters()))} == {torch.float32}
    difference = (targets[0] - targets[1]).abs()
    assert 0.0 < difference.max() < 0.05


def test_the_machine_answers() -> None:
    assert fastest_precision(CPU, rows=64, width=64, repeats=2) in ("float32", "bfloat16")
    assert isinstance(keep_freed_memory(), bool)
    assert keep_freed_memory() == keep_freed_memory()
