"""Every signal that announces the end leaves a checkpoint, soon, whatever is running."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest
from odd import CASES
from signalled import SIGNALS, WORKS, signalled

PAIRS = list(zip(itertools.cycle(WORKS), SIGNALS, strict=False))
ALL = list(itertools.product(WORKS, SIGNALS)) if CASES else PAIRS


@pytest.mark.parametrize(("work", "signum"), ALL)
def test_a_signal_is_obeyed_soon_with_everything_saved(work: str, signum: signal.Signals, tmp_path: Path) -> None:
    outcome = signalled(work, signum, tmp_path)
    assert (outcome.code, outcome.status) == (128 + signum, "interrupted")
    assert outcome.seconds < 10.0  # two on a machine that has nothing else to do
    assert (outcome.step > 0) == (work != "candidates")  # there nothing is trained yet
