"""What became of the rows of a data set on the way to transitions: kept for reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offline_vi.data.checks import Checked
from offline_vi.data.columns import Columns, IntArray
from offline_vi.data.discrete import labels_in
from offline_vi.types import BoolArray, FloatArray

if TYPE_CHECKING:
    from offline_vi.data.transitions import Transitions


@dataclass(frozen=True)
class Steps:
    """N rows of a data set as they were read, before any is dropped."""

    reward: FloatArray  # (N,)
    terminal: BoolArray  # (N,)
    timeout: BoolArray  # (N,), cuts as they are used: recorded, by the limit of steps, and those that were not marked
    recorded: BoolArray | None  # (N,), timeouts as they are recorded; None where there is no such column
    finite: BoolArray  # (N,), rows that are left after NaN and infinities were dealt with
    used: BoolArray  # (N,), rows that became transitions
    next_obs: bool  # whether all next observations are stored
    log_prob: bool  # whether log-probabilities are
    labels: str = ""  # what the actions are, where they look like labels (`labels_in`)
    failed: BoolArray | None = None  # (N,), ends that are failures; None where that is not recorded

    @classmethod
    def of(cls, given: Columns, checked: Checked, kept: IntArray) -> Steps:
        """The steps of columns as they were given and checked; ``kept`` are the rows of the latter that
        became transitions."""
        used = np.zeros(len(checked.kept), np.bool_)
        used[np.flatnonzero(checked.kept)[kept]] = True
        return cls(
            reward=checked.whole.reward,
            terminal=checked.whole.terminal,
            timeout=checked.whole.cut,
            recorded=None if given.timeout is None else np.asarray(given.timeout).reshape(-1).astype(np.bool_),
            finite=checked.kept,
            used=used,
            next_obs=given.next_obs is not None and given.unknown is None,
            log_prob=given.log_prob is not None,
            failed=checked.whole.failed,
            labels=labels_in([given.action]),
        )

    @classmethod
    def of_transitions(cls, data: Transitions) -> Steps:
        """The steps of rows that were transitions to begin with."""
        every = np.ones(len(data), np.bool_)
        timeout = data.episode_end & ~data.terminated
        log_prob = data.behavior_log_prob is not None
        return cls(data.reward, data.terminated, timeout, timeout, every, every, True, log_prob, failed=data.failed)

    @property
    def ends(self) -> BoolArray:
        """(N,) the last row of each episode; the last row of all is one."""
        ends = self.terminal | self.timeout
        return np.append(ends[:-1], True)

    @property
    def starts(self) -> IntArray:
        """(E,) the first row of each episode."""
        return np.append(0, np.flatnonzero(self.ends[:-1]) + 1)

    @property
    def lengths(self) -> IntArray:
        """(E,) rows of each episode."""
        return np.diff(np.append(self.starts, len(self.reward)))

    @property
    def returns(self) -> NDArray[np.float64]:
        """(E,) undiscounted sums of all rewards of each episode; NaN where one of them is."""
        with np.errstate(invalid="ignore"):
            return np.add.reduceat(self.reward.astype(np.float64), self.starts)

    @property
    def dropped_episodes(self) -> int:
        """Episodes of which no row became a transition."""
        return int((np.add.reduceat(self.used.astype(np.int64), self.starts) == 0).sum())
