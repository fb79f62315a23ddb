"""Which rows become transitions, and actions in the library's units."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from offline_vi.data.columns import LOG_PROB_KEY, ActionRange, Columns, IntArray, warn
from offline_vi.errors import ActionRangeError, SpaceMismatchError
from offline_vi.types import BoolArray, FloatArray, Task, unit_task

ACTION_TOLERANCE = np.float32(1.0 + 1e-3)  # actions this large are taken for rounding and clipped
NARROW = 0.01  # share of an action's range


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
        unknown = np.zeros(len(columns.reward), np.bool_) if columns.unknown is None else columns.unknown
        kept = np.flatnonzero(~unknown)
        ends = columns.episode_end | np.append(unknown[1:], True)
        return Rows(kept, columns.next_obs[kept], ends[kept])
    cut = columns.cut & ~columns.terminal
    kept = np.flatnonzero(~cut[:-1])
    terminal = columns.terminal[kept]
    episode_end = terminal | cut[kept + 1]
    episode_end[-1:] = True
    return Rows(kept, columns.obs[np.where(terminal, kept, kept + 1)], episode_end)


def rewards_cut_off(reward: FloatArray, episode_end: BoolArray, kept: IntArray) -> FloatArray:
    """(R,) the reward of the step after each of the R rows that are ``kept`` of N, where that step is of the same
    episode and no transition, because nobody knows what followed; NaN elsewhere.

    ``reward`` and ``episode_end`` are (N,).
    """
    dropped = np.ones(len(reward) + 1, np.bool_)
    dropped[kept] = dropped[-1] = False
    lost = dropped[kept + 1] & ~episode_end[kept]
    return np.where(lost, np.append(reward, np.float32(0.0))[kept + 1], np.float32(np.nan))


def library_actions(
    columns: Columns, task: Task | None, action_range: ActionRange, name: str
) -> tuple[FloatArray, Task | None, FloatArray | None]:
    """(actions (N, A) in [-1, 1], the task that maps them back, log-probabilities (N,) in the same units).

    Raises SpaceMismatchError, ActionRangeError.
    """
    if task is not None and len(task.action_low) != columns.action.shape[1]:
        raise SpaceMismatchError(
            f"{name}: dataset action {columns.action.shape[1:]} vs {task.env_id} {(len(task.action_low),)}",
            "name the environment of the data: env=ID, or train without scores: unscored=True",
        )
    if action_range == "data":
        task = _task_over_range(columns.action, task, name)
    units = task or unit_task(columns.action.shape[1])
    require_bounds(units, name)
    action, astray = units.from_env(columns.action), _astray(columns.action, units)
    beyond = (np.abs(action) > 1.0) | (astray > 0.0)
    farthest = max(np.abs(action).max(), 1.0 + astray.max())
    if action_range == "error" and farthest > ACTION_TOLERANCE:
        raise ActionRangeError(
            f"{name}: actions from {columns.action.min():.6g} to {columns.action.max():.6g}, {beyond.sum()} of "
            f"{beyond.size} entries outside the bounds",
            'give their bounds: action_low= and action_high=; action_range="clip" cuts them off, action_range="data" '
            "maps their range to [-1, 1]",
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
    if log_prob is not None:
        log_prob = log_prob - np.float32(units.log_jacobian)
    return action, task, log_prob


def require_bounds(task: Task, name: str) -> None:
    """Raises SpaceMismatchError where the box of an environment does not bound all actions."""
    if not task.bounded:
        raise SpaceMismatchError(
            f"{name}: the actions of {task.env_id or 'its environment'} are bounded by {task.action_low} and "
            f"{task.action_high}, which are no real bounds",
            'action_range="data" takes the range of the data; or give the bounds: action_low= and action_high=',
        )


def report_narrow_actions(action: FloatArray, task: Task, name: str) -> None:
    """A DataWarning where library actions (R, A) use less than `NARROW` of the range that the task gives them: the
    bounds may be in other units than the data. Constant ones say nothing of units."""
    low, high = action.min(0).astype(np.float64), action.max(0).astype(np.float64)
    narrow = (low < high) & (high - low < 2.0 * NARROW)
    for which in np.flatnonzero(narrow):
        used = task.to_env(np.stack([low, high]).astype(np.float32))[:, which]
        warn(
            f"{name}: action {which} goes from {used[0]:.6g} to {used[1]:.6g}, less than {NARROW:.0%} of its bounds "
            f"{task.action_low[which]:.6g} and {task.action_high[which]:.6g}: are they in the units of the data? "
            'Else action_low= and action_high=, or action_range="data"'
        )


def _astray(action: FloatArray, task: Task) -> FloatArray:
    """How far actions (N, A) are from the one value of a dead actuator, up to rounding; 0 of all others."""
    if not task.dead.any():
        return np.zeros((1, 1), np.float32)
    far = np.abs(action - task.low)
    rounding = (ACTION_TOLERANCE - 1.0) * np.maximum(np.abs(task.low), 1.0)
    return np.where(task.dead & (far > rounding), far, 0.0).astype(np.float32)


def _task_over_range(action: FloatArray, task: Task | None, name: str) -> Task:
    """The task whose [-1, 1] is the range of ``action`` (N, A); a constant dimension gets a width of 2."""
    low, high = action.min(0).astype(np.float64), action.max(0).astype(np.float64)
    constant = (low == high) & (True if task is None else ~(task.dead & (task.low == low)))
    low, high = np.where(constant, low - 1.0, low), np.where(constant, high + 1.0, high)
    action_low, action_high = tuple(low.tolist()), tuple(high.tolist())
    if task is None:  # no environment, but the map must not get lost
        return Task("", action_low, action_high, name=name)
    return replace(task, action_low=action_low, action_high=action_high)
