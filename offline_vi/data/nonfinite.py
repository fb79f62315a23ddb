"""NaN and infinities in columns: refused, or repaired and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from offline_vi.data.columns import D4RL_KEYS, Columns, IntArray, OnNonfinite, warn
from offline_vi.errors import EmptyDatasetError, NonFiniteDataError, counted
from offline_vi.types import BoolArray, FloatArray

CHECKED = ("obs", "action", "reward", "next_obs")  # log-probabilities are left out as a whole where they are not finite
REMEDY = (
    'leave the episodes out: on_nonfinite="drop-episode"; cut them at the bad rows: on_nonfinite="split"; '
    'or repeat the last good values: on_nonfinite="hold"'
)


class Repaired(NamedTuple):
    """Columns after a repair: which of their rows are kept, and what was done."""

    columns: Columns
    kept: BoolArray  # (N,)
    done: str = ""


def finite_columns(columns: Columns, on_nonfinite: OnNonfinite, name: str) -> Repaired:
    """The columns with the repairs that were asked for, and their rows without NaN and infinities; a DataWarning counts
    what was done.

    Raises NonFiniteDataError where that is asked for, EmptyDatasetError where no row is left.
    """
    named = CHECKED[:-1] if _next_obs_repeat(columns) else CHECKED
    reports = [report for field in named if (report := _report(columns, field))]
    if not reports:
        return Repaired(columns, np.ones(len(columns.reward), np.bool_))
    found = f"{name}: {'; '.join(reports)}; rows and episodes count from 0"
    if on_nonfinite == "error":
        raise NonFiniteDataError(found, REMEDY)
    repaired = REPAIRS[on_nonfinite](columns)
    warn(f"{found}: {repaired.done}")
    if not repaired.kept.any():
        raise EmptyDatasetError(
            f"{name}: every {'episode' if on_nonfinite == 'drop-episode' else 'row'} holds NaN or infinities",
            "get the data again",
        )
    return repaired


def bad_rows(columns: Columns) -> BoolArray:
    """(N,) rows that hold NaN or infinities in a column that is used."""
    bad = np.zeros(len(columns.reward), np.bool_)
    for field in CHECKED:
        column = getattr(columns, field)
        if column is not None:
            bad |= ~np.isfinite(column.reshape(len(column), -1)).all(1)
    return bad


def without_episodes(columns: Columns) -> Repaired:
    """Without the episodes that hold a bad row."""
    episode, bad = columns.episode, bad_rows(columns)
    dropped = np.isin(episode, episode[bad])
    rows = counted(int(dropped.sum()), "row")
    done = f"dropped {len(np.unique(episode[bad]))} of {counted(int(episode[-1]) + 1, 'episode')} ({rows})"
    return Repaired(columns, ~dropped, done)


def split(columns: Columns) -> Repaired:
    """Without the bad rows: the part of an episode before one is cut there, the rest begins a new episode."""
    bad = bad_rows(columns)
    ends = columns.episode_end
    cut = np.append(bad[1:], False) & ~bad & ~ends
    done = f"left out {counted(int(bad.sum()), 'row')}"
    if cut.any():
        done += f" and cut {counted(int(cut.sum()), 'episode')} there, whose parts count as episodes"
    if only_next := int((bad & ~bad_rows(replace(columns, next_obs=None))).sum()):
        done += f"; {only_next} of these rows are lost because of their next observation alone"
    return Repaired(replace(columns, timeout=columns.cut | cut), ~bad, done)


def held(columns: Columns) -> Repaired:
    """Repeat the last good value of the same entry within the episode; for a next observation, this is the row's own
    observation. Rows at an episode's beginning that have none are split off."""
    episode, filled, count = columns.episode, dict[str, Any](), 0
    for field in CHECKED:
        column = getattr(columns, field)
        if column is not None and not (good := np.isfinite(column)).all():
            before = filled.get("obs", columns.obs)
            filled[field] = np.where(good, column, before) if field == "next_obs" else _hold(column, good, episode)
            count += int((np.isfinite(filled[field]) & ~good).sum())
    columns = replace(columns, **filled)
    done = f"held the last good value of {counted(count, 'number')}, next observations included"
    rest = split(columns)
    return rest._replace(done=f"{done}; {rest.done}" if not rest.kept.all() else done)


def _hold(column: FloatArray, good: BoolArray, episode: IntArray) -> FloatArray:
    """(N, ...) with entries that are not good replaced by the last good ones of their episode, where there are any."""
    entries, fine = column.reshape(len(column), -1), good.reshape(len(column), -1)
    rows = np.arange(len(column))[:, None]
    last = np.maximum.accumulate(np.where(fine, rows, -1))  # (N, F) the row of the last good entry
    known = (last >= 0) & (episode[last] == episode[:, None])
    source = np.where(known, last, rows)
    return np.asarray(np.take_along_axis(entries, source, 0).reshape(column.shape), np.float32)


REPAIRS: dict[OnNonfinite, Callable[[Columns], Repaired]] = {
    "drop-episode": without_episodes,
    "split": split,
    "hold": held,
}


def _next_obs_repeat(columns: Columns) -> bool:
    """Whether each bad next observation is the observation of the following row, which is reported itself."""
    if columns.next_obs is None:
        return True
    good, good_next = (np.isfinite(part).reshape(len(part), -1).min(axis=1) for part in (columns.obs, columns.next_obs))
    return bool((good_next | ~np.append(good[1:], True)).all())


def _report(columns: Columns, field: str) -> str:
    """How many NaN and infinities a column holds, and where the first is; empty where there are none."""
    column = getattr(columns, field)
    if column is None or np.isfinite(column).all():
        return ""
    nan, inf = int(np.isnan(column).sum()), int(np.isinf(column).sum())
    first = int((~np.isfinite(column.reshape(len(column), -1)).all(1)).argmax())
    counts = " and ".join(f"{count} {word}" for count, word in ((nan, "NaN"), (inf, "Inf")) if count)
    return f"{counts} in {D4RL_KEYS[field]}, first at row {first} (episode {columns.episode[first]})"
