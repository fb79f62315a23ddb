"""Fitted Q evaluation says when not to believe it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_off_policy import DISCOUNT, Law, walk

from offline_vi.evaluation.fitting_q import (
    FittedQReport,
    discounted_returns,
    fitted_q_report,
    horizon_of,
    possible_returns,
)
from offline_vi.evaluation.off_policy import FQEConfig, fitted_q

LONG = FQEConfig(steps=320, discount=DISCOUNT, tau=0.2, lr=3e-3, hidden=(32, 32), batch_size=64)


def test_a_fit_that_is_long_enough_has_converged_to_the_truth() -> None:
    data, ours = walk(Law(0.0), 300, 4), Law(0.6)
    found = fitted_q_report(ours, data, LONG, seeds=(0, 1), points=8)
    truth = ours.mean * sum(DISCOUNT**t for t in range(4))
    assert found.converged
    assert found.doubt() == ""
    assert found.value == pytest.approx(truth, abs=0.15)
    assert found.curves.shape == (2, 8)
    assert found.steps.tolist() == [40 * k for k in range(1, 9)]
    assert found.over_seeds == pytest.approx(np.std(found.curves[:, -1], ddof=1))
    assert found.value == pytest.approx(found.curves[:, -1].mean())


def test_a_short_fit_with_a_small_standard_error_is_called_not_converged() -> None:
    data, ours = walk(Law(0.0), 300, 4), Law(0.6)
    found = fitted_q_report(ours, data, replace(LONG, steps=40, tau=0.01), seeds=(0,), points=4)
    truth = ours.mean * sum(DISCOUNT**t for t in range(4))
    assert abs(found.value - truth) > 10 * found.over_starts  # what a reader would have believed
    assert not found.converged
    assert found.missing == pytest.approx(np.exp(-40 * 0.01 * (1 - DISCOUNT)))
    assert found.enough_steps == np.ceil(-np.log(0.05) / ((1 - DISCOUNT) * 0.01))
    assert f"{found.enough_steps:,}" in found.doubt()
    assert np.isnan(found.over_seeds)
    one = fitted_q(ours, data, replace(LONG, steps=40, tau=0.01))
    assert found.value == pytest.approx(one.value, abs=1e-5)  # the same fit, read off on the way


def test_an_estimate_that_still_moves_is_called_not_converged() -> None:
    steps, curves = np.array([1]), np.ones((1, 1))
    resting = FittedQReport(1.0, 0.0, np.nan, steps, curves, 0.01, 0.02, 9, possible=(0.0, 5.0))
    moving = replace(resting, drift=0.2)
    assert (resting.converged, resting.doubt()) == (True, "")
    assert not moving.converged
    assert "20%" in moving.doubt()


@pytest.mark.parametrize("final", [(2.0, 900.0), (-300.0, 2.0), (2.0, np.nan)])
def test_a_fit_beyond_every_possible_return_has_diverged(final: tuple[float, float]) -> None:
    """One of two fits; however still the mean stands."""
    curves = np.array(final)[:, None]
    found = FittedQReport(2.0, 0.0, 1.0, np.array([9]), curves, 0.0, 0.0, 9, possible=(-10.0, 50.0))
    assert found.diverged
    assert not found.converged
    assert "-10.00" in found.doubt() and "50.00" in found.doubt()


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [((2.0, 5.0), (2.0, 500.0)), ((-5.0, -2.0), (-500.0, -2.0)), ((-1.0, 3.0), (-100.0, 300.0))],
)
def test_possible_returns_by_hand(rewards: tuple[float, float], expected: tuple[float, float]) -> None:
    """Where all rewards have one sign, an episode may end after a single one."""
    data = walk(Law(0.0), 5, 4)
    found = possible_returns(replace(data, reward=np.tile(np.array(rewards, np.float32), len(data) // 2)), 0.99)
    assert found == pytest.approx(expected, rel=1e-5)


def test_discounted_returns_and_horizons_by_hand() -> None:
    data = walk(Law(0.0), 5, 4)
    rewards = data.reward.reshape(5, 4).astype(np.float64)
    np.testing.assert_allclose(discounted_returns(data, 0.5), rewards @ np.array([1.0, 0.5, 0.25, 0.125]))
    assert horizon_of(data, 0.99) == pytest.approx(100.0)
    assert horizon_of(data, 1.0) == 4.0
