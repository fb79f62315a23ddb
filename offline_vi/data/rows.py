"""Which rows become transitions, and actions in the library's units."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from offline_vi.data.columns import LOG_PROB_KEY, ActionRange, Columns, IntArray, warn
from offline_vi.errors import ActionRangeError, SpaceMismatchError
from offline_vi.types import BoolArray, FloatArray, Task

ACTION_TOLERANCE = np.float32(1.0 + 1e-3)  # actions this large are taken for rounding and clipped


class Rows(NamedTuple):
    """Which R of the N rows become transitions."""

    kept: IntArray  # (R,) row numbers
    next_obs: FloatArray  # (R, O)
    episode_end: BoolArray  # (R,)


def following_rows(columns: Columns) -> Rows:
    """The rows of ``d4rl.qlearning_dataset(terminate_on_end=False)`` (d4rl 1.1, d4rl/__init__.py)."""
    kept = np.flatnonzero(~columns.cut[:-1])
    episode_end = columns.terminal[kept] | columns.cut[kept + 1]  # the row after the last kept one was dropped
    episode_end[-1:] = True
    return Rows(kept, columns.obs[kept + 1], episode_end)


def rows_within_episodes(columns: Columns) -> Rows:
    """Every row whose next observation is known or, being terminal, is not needed."""
    if columns.next_obs is not None:
        episode_end = columns.episode_end.copy()
        episode_end[-1:] = True
        return Rows(np.arange(len(columns.reward)), columns.next_obs.copy(), episode_end)  # the caller's array
    cut = columns.cut & ~columns.terminal
    kept = np.flatnonzero(~cut[:-1])
    terminal = columns.terminal[kept]
    episode_end = terminal | cut[kept + 1]
    episode_end[-1:] = True
    return Rows(kept, columns.obs[np.where(terminal, kept, kept + 1)], episode_end)


def library_actions(
    columns: Columns, task: Task | None, action_range: ActionRange, name: str
) -> tuple[FloatArray, Task | None, FloatArray | None]:
    """(actions (N, A) in [-1, 1], the task that maps them back, log-probabilities (N,) in the same units).

    Raises SpaceMismatchError, ActionRangeError.
    """
    if task is not None and len(task.action_low) != columns.action.shape[1]:
        raise SpaceMismatchError(
            f"{name}: dataset action {columns.action.shape[1:]} vs {task.env_id} {(len(task.action_low),)}",
            "the file belongs to another task: name its environment, env=ID",
        )
    if action_range == "data":
        task = _task_over_range(columns.action, task, name)
    action = columns.action if task is None else task.from_env(columns.action)
    beyond = np.abs(action) > 1.0
    farthest = np.abs(action).max()
    if action_range == "error" and farthest > ACTION_TOLERANCE:
        raise ActionRangeError(
            f"{name}: actions from {columns.action.min():.6g} to {columns.action.max():.6g}, {beyond.sum()} of "
            f"{beyond.size} entries outside the bounds",
            'action_range="clip" cuts them off; action_range="data" maps their range to [-1, 1]',
        )
    if beyond.any():
        if action_range != "data":  # there it is the rounding of the map itself
            warn(f"{name}: clipped {beyond.sum()} action entries, at most {farthest - 1.0:.3g} outside [-1, 1]")
        action = np.clip(action, -1.0, 1.0)

    log_prob = columns.log_prob
    if log_prob is not None and farthest > ACTION_TOLERANCE:
        warn(f"{name}: '{LOG_PROB_KEY}' left out, it does not describe clipped actions")
        log_prob = None
    if log_prob is not None and not np.isfinite(log_prob).all():
        warn(f"{name}: '{LOG_PROB_KEY}' left out, {(~np.isfinite(log_prob)).sum()} entries are not finite")
        log_prob = None
    if log_prob is not None and task is not None:
        log_prob = log_prob - np.float32(task.log_jacobian)
    return action, task, log_prob


def _task_over_range(action: FloatArray, task: Task | None, name: str) -> Task:
    """The task whose [-1, 1] is the range of ``action`` (N, A); a constant dimension gets a width of 2."""
    low, high = action.min(0).astype(np.float64), action.max(0).astype(np.float64)
    constant = low == high
    low, high = np.where(constant, low - 1.0, low), np.where(constant, high + 1.0, high)
    action_low, action_high = tuple(low.tolist()), tuple(high.tolist())
    if task is None:  # no environment, but the map must not get lost
        return Task("", action_low, action_high, name=name)
    return replace(task, action_low=action_low, action_high=action_high)
