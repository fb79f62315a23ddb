"""Are actions labels? Algorithms for continuous actions would take them for amounts, in silence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_vi.errors import ActionRangeError

FOR_LABELS = "for labels, in Python: algorithms.DiscreteSAC, or SoftQ over one-hot rows (docs/soft-q.md)"
MAX_LABELS = 32  # whole numbers of more kinds than that are amounts


def labels_in(blocks: Iterable[NDArray[Any]]) -> str:
    """What the actions (B, A) of some blocks of rows are, together: "one-hot rows of 3", "0 and 1 alone", "whole
    numbers of 5 kinds from 0 to 4"; empty where they are amounts.

    Labels are whole numbers of 2 to 32 kinds, of which there are twice as many rows. Below 0 they are taken for labels
    only where their type is an integer: bang-bang controls are -1 and +1. Entries that are not finite say nothing.
    """
    kinds, rows, width, hot = np.array([], np.float64), 0, 0, True
    for block in blocks:
        values = np.asarray(block)
        values = values.reshape(len(values), -1)
        if values.dtype.kind not in "biuf":
            return ""
        found = values[np.isfinite(values)]
        if values.dtype.kind == "f" and ((found != np.rint(found)).any() or (found < 0).any()):
            return ""
        kinds = np.union1d(kinds, found.astype(np.float64))
        if len(kinds) > MAX_LABELS:
            return ""
        rows, width = rows + len(values), values.shape[1]
        hot = hot and bool(((values != 0).sum(1) == 1).all())
    if not 2 <= len(kinds) <= rows / 2:
        return ""
    if set(kinds) == {0.0, 1.0}:
        return f"one-hot rows of {width}" if hot and width > 1 else "0 and 1 alone"
    return f"whole numbers of {len(kinds)} kinds from {kinds[0]:g} to {kinds[-1]:g}"


def refuse_labels(blocks: Iterable[NDArray[Any]], name: str) -> None:
    """Raises ActionRangeError where actions are labels (`labels_in`)."""
    if labels := labels_in(blocks):
        raise ActionRangeError(
            f"{name}: the actions are {labels}: they look like labels, not like amounts",
            f'if they are amounts: discrete_actions="continuous"; {FOR_LABELS}',
        )
