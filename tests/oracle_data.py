"""Row semantics of D4RL data sets, one row at a time in plain Python. Never imports offline_vi."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    """One transition, by the numbers of the file rows it is made of."""

    row: int  # whose observation, action, reward
    next_row: int  # whose observation is the next one; -1: the file's own next_observations[row]
    terminated: bool
    last: bool  # nothing of this episode follows


def qlearning_rows(terminals: Any, timeouts: Any | None, limit: int | None) -> list[tuple[int, int, bool]]:
    """(row, next row, done) of d4rl.qlearning_dataset with terminate_on_end=False, written from its description:
    the counter restarts at 0 after a skipped row and at 1 after a terminal one."""
    rows = []
    step = 0
    for i in range(len(terminals) - 1):
        final = bool(timeouts[i]) if timeouts is not None else step + 1 == limit
        if final:
            step = 0
            continue
        if terminals[i]:
            step = 0
        rows.append((i, i + 1, bool(terminals[i])))
        step += 1
    return rows


def true_timeouts(terminals: Any, limit: int) -> list[bool]:
    """Where episodes of at most ``limit`` steps were cut."""
    timeouts, step = [], 0
    for terminal in terminals:
        step += 1
        timeouts.append(step == limit)
        if terminal or step == limit:
            step = 0
    return timeouts


def strict_rows(terminals: Any, timeouts: Any, has_next: bool) -> list[Row]:
    """Every row whose next observation is known without looking into another episode; terminal rows, which need
    none, stand for themselves where the file has none. The file's last row has no successor."""
    rows: list[Row] = []
    count = len(terminals)
    for i in range(count):
        terminal, ends = bool(terminals[i]), bool(terminals[i] or timeouts[i])
        if has_next:
            rows.append(Row(i, -1, terminal, ends))
            continue
        if i == count - 1 or (ends and not terminal):
            if rows and rows[-1].row == i - 1:
                rows[-1] = rows[-1]._replace(last=True)
            continue
        rows.append(Row(i, i if terminal else i + 1, terminal, terminal))
    if rows:
        rows[-1] = rows[-1]._replace(last=True)
    return rows


def episodes(terminals: Any, timeouts: Any) -> list[int]:
    """The number of each row's episode."""
    numbers, number = [], 0
    for terminal, timeout in zip(terminals, timeouts, strict=True):
        numbers.append(number)
        number += bool(terminal or timeout)
    return numbers


def distinct_columns(rows: int, obs_dim: int = 2, action_dim: int = 1) -> dict[str, np.ndarray]:
    """Columns in which every row can be told from every other. The stored next observations differ from the following
    row's by a rounding, so that they can be told from those, too."""
    numbers = np.arange(rows, dtype=np.float32)
    after = numbers[:, None] + 1.0 + np.linspace(0.0, 0.5, obs_dim, dtype=np.float32)
    return {
        "observations": numbers[:, None] + np.linspace(0.0, 0.5, obs_dim, dtype=np.float32),
        "next_observations": after * np.float32(1.0 + 2.0**-12),
        "actions": np.repeat(np.sin(numbers)[:, None], action_dim, axis=1).astype(np.float32),
        "rewards": 10.0 * numbers,
        "terminals": np.zeros(rows, np.bool_),
        "timeouts": np.zeros(rows, np.bool_),
    }
