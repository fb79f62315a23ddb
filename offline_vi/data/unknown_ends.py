"""Ends of episodes after which nothing was recorded: counted where data are read, reported once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from offline_vi.data.columns import Columns, warn
from offline_vi.errors import counted


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
    some = sum(ends.rows > 0 for ends in found)
    which = f"{some} of {len(found)}" if some < len(found) else f"all {some}"
    several = f" in {which} data sets" if len(found) > 1 else ""
    warn(
        f"{name}: {counted(rows, 'episode')} cut without a next observation in the last row{several}: no policy learns "
        "from such a row, but its reward counts in the returns of the data"
        + (f"; {counted(alone, 'episode')} of one row left out" if alone else "")
    )
