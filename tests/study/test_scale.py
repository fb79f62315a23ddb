"""A model of raw inputs is not given large observations without a word."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from offline_vi.behavior.cvae import CVAEConfig
from offline_vi.data.transitions import Transitions
from offline_vi.errors import DataWarning
from offline_vi.study.train import check_scale


def data(size: float) -> Transitions:
    return Transitions.from_arrays(
        obs=np.linspace(0.0, size, 40, dtype=np.float32)[:, None],
        action=np.zeros((40, 1), np.float32),
        reward=np.zeros(40),
        terminated=np.arange(40) % 10 == 9,
        episode=np.repeat(np.arange(4), 10),
        action_low=-1.0,
        action_high=1.0,
    )


def test_large_observations_and_raw_inputs_are_warned_of() -> None:
    raw, own = CVAEConfig(inputs="raw"), CVAEConfig(inputs="normalized")
    with pytest.warns(DataWarning, match="as large as 335"):
        check_scale(raw, data(335.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_scale(own, data(335.0))
        check_scale(raw, data(10.0))
        check_scale(replace(raw, inputs="normalized"), data(1e6))
