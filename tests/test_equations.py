"""The shared equations against tables worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from offline_vi.equations import bellman_target, clipped_double_q, soft_value
from offline_vi.types import Batch

INF = math.inf


@pytest.mark.parametrize(
    ("temperature", "expected"),
    # pi_beta = (.5, .3, .2) as 10 equally likely samples, r = (0, .5, 1): alpha log E exp(r / alpha)
    [(1e-3, 0.9984), (0.1, 0.8401), (1.0, 0.4307), (10.0, 0.3577), (1e3, 0.3501), (INF, 0.35), (0.0, 1.0)],
)
def test_soft_value_runs_from_the_mean_to_the_maximum_over_the_support(temperature: float, expected: float) -> None:
    q = torch.tensor([0.0] * 5 + [0.5] * 3 + [1.0] * 2, dtype=torch.float64)[:, None]
    value = soft_value(q, temperature=temperature)
    assert value.shape == (1,)
    assert value.item() == pytest.approx(expected, abs=1e-4)


def test_soft_value_with_one_sample_is_sacs_target() -> None:
    q, log_pi = torch.randn(1, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    torch.testing.assert_close(soft_value(q, -log_pi, temperature=0.2), (q - 0.2 * log_pi)[0])


def test_a_weight_changes_the_reference_measure_by_a_constant() -> None:
    q = torch.randn(7, 3, dtype=torch.float64)
    shifted = soft_value(q, torch.full_like(q, math.log(2.0)), temperature=0.5)
    torch.testing.assert_close(shifted, soft_value(q, temperature=0.5) + 0.5 * math.log(2.0))


@pytest.mark.parametrize("temperature", [0.0, INF])
def test_a_weight_has_no_meaning_at_the_ends(temperature: float) -> None:
    with pytest.raises(ValueError, match="no meaning"):
        soft_value(torch.zeros(2, 1), torch.zeros(2, 1), temperature=temperature)


@pytest.mark.parametrize(("lmbda", "expected"), [(1.0, [1.0, -2.0]), (0.0, [5.0, 4.0]), (0.75, [2.0, -0.5])])
def test_clipped_double_q_mixes_minimum_and_maximum(lmbda: float, expected: list[float]) -> None:
    q = torch.tensor([[1.0, 4.0], [5.0, -2.0], [3.0, 0.0]])  # three members, two values
    torch.testing.assert_close(clipped_double_q(q, lmbda), torch.tensor(expected))


def test_only_termination_cuts_the_bootstrap() -> None:
    zeros = torch.zeros(3, 1)
    batch = Batch(zeros, zeros, torch.tensor([1.0, 2.0, 3.0]), zeros, torch.tensor([0.0, 1.0, 0.0]), torch.arange(3))
    target = bellman_target(batch, torch.tensor([10.0, 100.0, -10.0]), 0.9)
    torch.testing.assert_close(target, torch.tensor([10.0, 2.0, -6.0]))
