"""Ends of episodes after which nothing was recorded: counted where data are read, reported once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from offline_vi.data.columns import Columns, warn


class UnknownEnds(NamedTuple):
    """Rows that end episodes that were cut, and whose next observation nobody knows."""

    rows: int = 0
    alone: int = 0  # episodes that are such a row and nothing else

    @classmethod
    def of(cls, columns: Columns) -> UnknownEnds:
        """Those of one data set."""
        unknown = columns.unknown
        if unknown is None or not unknown.any():
            return cls()
        alone = np.isin(columns.episode[unknown], columns.episode[~unknown], invert=True)
        return cls(int(unknown.sum()), int(np.count_nonzero(alone)))


def report_unknown_ends(found: Sequence[UnknownEnds], name: str) -> None:
    """A DataWarning where there are any, one for all data sets that are joined under the name."""
    rows, alone = sum(ends.rows for ends in found), sum(ends.alone for ends in found)
    if rows == 0:
        return
    several = f" in {sum(ends.rows > 0 for ends in found)} of {len(found)} data sets" if len(found) > 1 else ""
    warn(
        f"{name}: {rows} rows{several} end episodes that were cut, and their next observation is not known: no policy "
        "learns from these rows, but their rewards count in the returns of the data"
        + (f"; {alone} episodes of one row are left out" if alone else "")
    )
