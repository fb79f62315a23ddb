"""What the studies here share beyond `offline_vi.study.cells`: the Student interval of their tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def interval(values: Sequence[float]) -> str:
    """Mean with the 95 % Student interval over runs."""
    if len(values) < 2:
        return f"{values[0]:.1f} (1 run)"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.1f} +- {half:.1f} ({len(values)} runs)"
