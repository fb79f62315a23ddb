"""Data that people have in memory, as columns.

Rows get their order and episodes their ends here. Everything else is checked where all data are (`check_columns`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_vi.data.columns import Columns, IntArray, array_of, converted, warn
from offline_vi.errors import DatasetFormatError, EmptyDatasetError, UsageError, counted
from offline_vi.types import BoolArray, Task

Observations = ArrayLike | Mapping[str, Any]
"""(N, O), (N,) for one number, or entries of these shapes by their keys."""
Bound = float | Sequence[float]

DEFAULT_OBS_KEYS = ("observation", "desired_goal")


def columns_from_arrays(
    *,
    obs: Observations,
    action: ArrayLike,
    reward: ArrayLike,
    terminated: ArrayLike | bool | None,
    timeout: ArrayLike | None = None,
    failed: ArrayLike | None = None,
    episode: ArrayLike | None = None,
    time: ArrayLike | None = None,
    episode_gap: float | None = None,
    next_obs: Observations | None = None,
    log_prob: ArrayLike | None = None,
    obs_keys: Sequence[str] = (),
    max_episode_steps: int | None = None,
    name: str = "arrays",
) -> Columns:
    """N steps as columns in the order of time; arguments as in `Transitions.from_arrays`.

    Raises UsageError, DatasetFormatError, EmptyDatasetError.
    """
    _check_ends_are_known(episode, time, timeout, max_episode_steps, episode_gap, name)
    every = terminated is True  # episode ends the task in its last row
    ends = failed if every else None if terminated is False else terminated
    flags = {"terminated": ends, "timeout": timeout, "failed": failed}
    given = {flag: None if values is None else flags_of(values, flag, name) for flag, values in flags.items()}
    reward = array_of(reward)
    columns = Columns(
        obs=matrix_of(obs, obs_keys, "obs", name),
        action=matrix_of(action, (), "action", name),
        reward=reward,
        terminal=np.zeros(reward.shape[:1], np.bool_) if given["terminated"] is None else given["terminated"],
        timeout=given["timeout"],
        failed=given["failed"],
        next_obs=None if next_obs is None else matrix_of(next_obs, obs_keys, "next_obs", name),
        log_prob=None if log_prob is None else array_of(log_prob),
    )
    columns = converted(columns, name)
    rows, times = len(columns.reward), None if time is None else times_of(time, "time", name)
    if episode is None and episode_gap is None:
        number, order = _numbers_by_flags(columns, max_episode_steps), np.arange(rows)
    else:
        number = np.zeros(rows, np.int64) if episode is None else _episode_numbers(episode, rows, name)
        order = _order(number, times, name)
    columns = replace(columns, **{field: values[order] for field, values in columns.present().items()})
    number = number[order]
    if episode_gap is not None and times is not None:
        number = _numbers_by_gaps(number, times[order], columns, episode_gap)
    if every:
        columns = replace(columns, terminal=np.append(np.diff(number) != 0, True))
    columns = _with_ends(columns, number, order, name)
    return columns if columns.next_obs is not None else _with_next_obs(columns, name)


def _check_ends_are_known(
    episode: ArrayLike | None,
    time: ArrayLike | None,
    timeout: ArrayLike | None,
    limit: int | None,
    gap: float | None,
    name: str,
) -> None:
    if gap is not None and not 0.0 < gap < np.inf:
        raise UsageError(f"{name}: episode_gap is {gap}", "a positive number of seconds, or of the units of time")
    if gap is not None and time is None:
        raise UsageError(f"{name}: a gap between episodes is one in time", "name the time of each row, too: time=")
    if episode is None and timeout is None and limit is None and gap is None:
        raise UsageError(
            f"{name}: nothing says where episodes end",
            "name the episode of each row, episode=, or the rows after which one was cut, timeout=, or the length at "
            "which all were, max_episode_steps=N, or the time and the gap in it that parts two, episode_gap=900",
        )
    if time is not None and episode is None and gap is None:
        raise UsageError(
            f"{name}: times order the rows of an episode",
            "name the episode of each row, too, episode=, or the gap in time that parts two, episode_gap=900",
        )


def bounded_task(task: Task | None, low: Bound | None, high: Bound | None, columns: Columns, name: str) -> Task | None:
    """The task with the action bounds that the caller gives, one number for all actions or one for each.

    Raises UsageError where only one is given, or where they are no intervals.
    """
    if low is None and high is None:
        return task
    count = columns.action.shape[1]
    bounds = [np.zeros(0) if bound is None else array_of(bound) for bound in (low, high)]
    sizes = [bound.size for bound in bounds]
    if not set(sizes) <= {1, count}:
        raise UsageError(
            f"{name}: {sizes[0]} values of action_low, {sizes[1]} of action_high for {count}-d actions",
            "give both, one number for all actions or one for each",
        )
    lows, highs = (tuple(np.broadcast_to(bound.astype(np.float64), count).tolist()) for bound in bounds)
    if not np.isfinite([lows, highs]).all() or not (np.array(lows) <= np.array(highs)).all():
        raise UsageError(f"{name}: action_low {lows} and action_high {highs} are no intervals", "low < high")
    if task is None:
        return Task("", lows, highs, name=name)
    return replace(task, action_low=lows, action_high=highs)


def times_of(values: ArrayLike, column: str, name: str) -> NDArray[Any]:
    """(N,) times as values that can be compared: numbers, datetimes, or text of numbers or of ISO 8601 dates.

    Raises DatasetFormatError where one is missing or no time.
    """
    times = array_of(values)
    if times.dtype.kind in "OU":
        times = _times_in_text(times, column, name)
    missing = np.isnat(times) if times.dtype.kind in "mM" else ~np.isfinite(times)
    if times.ndim != 1 or missing.any():
        raise DatasetFormatError(
            f"{name}: {missing.sum()} times of '{column}' are missing, first at row {int(missing.argmax())}"
            if times.ndim == 1
            else f"{name}: '{column}' has shape {times.shape}",
            "each row has one time",
        )
    return times


def _times_in_text(texts: NDArray[Any], column: str, name: str) -> NDArray[Any]:
    for numbers in (np.int64, np.float64):  # nanoseconds of a clock are too many for the latter
        with suppress(TypeError, ValueError, OverflowError):
            return texts.astype(numbers)
    try:
        dates = [datetime.fromisoformat(str(text)) for text in texts.tolist()]
        if len({date.tzinfo is None for date in dates}) > 1:
            raise ValueError("some times have a time zone, some have none")
        epoch = datetime(1970, 1, 1, tzinfo=dates[0].tzinfo)
        return np.array([(date - epoch).total_seconds() for date in dates])
    except ValueError as error:
        raise DatasetFormatError(
            f"{name}: '{column}' holds no times ({error})",
            "numbers, or ISO 8601 dates: 2024-01-31 12:00:00; where the rows are in order already, name no time",
        ) from error


def flags_of(values: ArrayLike, flag: str, name: str) -> NDArray[Any]:
    """0 and 1, or True and False. Raises DatasetFormatError for anything else."""
    array = array_of(values)
    others = np.ones(array.shape, np.bool_) if array.dtype.kind not in "biuf" else ~np.isin(array, (0, 1))
    if others.any():
        first = np.unravel_index(int(others.argmax()), array.shape)
        raise DatasetFormatError(
            f"{name}: '{flag}' holds {others.sum()} other values than 0 and 1, the first is {array[first]!s:.40}"
            + (f" in row {int(first[0])}" if array.ndim else ""),
            f"say it by a comparison, {flag}=(x == code), or in the table: 0 or 1 in every row",
        )
    return array


def matrix_of(values: Observations, keys: Sequence[str], field: str, name: str) -> NDArray[Any]:
    """(N, O) of what is given as (N, O), as (N,), or by keys."""
    if isinstance(values, list | tuple) and values and isinstance(values[0], Mapping):
        values = _by_keys(values, field, name)
    if isinstance(values, Mapping):
        values = _joined(values, keys, field, name)
    try:
        array = array_of(values)
    except ValueError as error:  # rows of different lengths
        raise DatasetFormatError(
            f"{name}: '{field}' is no array ({error})", "every row has the same features"
        ) from error
    return array[:, None] if array.ndim == 1 else array


def _by_keys(rows: Sequence[Any], field: str, name: str) -> dict[str, Any]:
    """The entries of N observations, each a dictionary, by their keys."""
    if any(not isinstance(row, Mapping) or row.keys() != rows[0].keys() for row in rows):
        raise DatasetFormatError(
            f"{name}: the dictionaries of '{field}' have different keys", "every row has the same entries"
        )
    return {key: [row[key] for row in rows] for key in rows[0]}


def _joined(entries: Mapping[str, Any], keys: Sequence[str], field: str, name: str) -> NDArray[Any]:
    """The entries under the keys side by side; by default observation and desired_goal, else all in their order."""
    chosen = keys or [key for key in DEFAULT_OBS_KEYS if key in entries and "observation" in entries] or list(entries)
    missing = [key for key in chosen if key not in entries]
    if missing or not chosen:
        raise DatasetFormatError(
            f"{name}: '{field}' has no {', '.join(map(repr, missing)) or 'entries'} (it has {', '.join(entries)})",
            "name its entries: obs_keys=",
        )
    parts = [array_of(entries[key]) for key in chosen]
    parts = [part[:, None] if part.ndim == 1 else part for part in parts]
    if any(part.ndim != 2 or len(part) != len(parts[0]) for part in parts):
        shapes = ", ".join(f"{key} {part.shape}" for key, part in zip(chosen, parts, strict=True))
        raise DatasetFormatError(f"{name}: the entries of '{field}' are {shapes}", "name vectors: obs_keys=")
    return np.concatenate(parts, axis=1)


def _episode_numbers(episode: ArrayLike, rows: int, name: str) -> IntArray:
    """(N,) the number of each row's episode, in the order in which they first appear."""
    values = array_of(episode)
    values = values[:, 0] if values.shape == (rows, 1) else values
    if values.shape != (rows,):
        raise DatasetFormatError(f"{name}: 'episode' has shape {values.shape}, not ({rows},)", "name one for each row")
    numbers: dict[Any, int] = {}
    found = np.array([numbers.setdefault(value, len(numbers)) for value in values.tolist()], np.int64)
    missing = [number for value, number in numbers.items() if value is None or (value != value) is not False]
    if missing:
        first = int(np.isin(found, missing).argmax())
        raise DatasetFormatError(
            f"{name}: 'episode' is missing, first at row {first}", "leave such rows out, or name it"
        )
    return found


def _numbers_by_flags(columns: Columns, limit: int | None) -> IntArray:
    """(N,) the number of each row's episode, which ends at flags and, where no timeouts are given, after ``limit``
    steps."""
    if columns.timeout is not None or limit is None or limit < 1:
        return columns.episode
    rows = np.arange(len(columns.reward))
    start = np.maximum.accumulate(np.where(np.append(True, columns.terminal[:-1]), rows, 0))
    return replace(columns, timeout=(rows - start) % limit == limit - 1).episode


def _numbers_by_gaps(number: IntArray, time: NDArray[Any], columns: Columns, gap: float) -> IntArray:
    """(N,) the number of each row's episode, rows in the order of time: one ends where ``number`` changes, where a flag
    ends it, and where the next row is more than ``gap`` later, in seconds of dates, else in the units of time."""
    seconds = (time - time[:1]).astype("timedelta64[ns]").astype(np.float64) / 1e9 if time.dtype.kind in "mM" else time
    ends = (np.diff(number) != 0) | (np.diff(seconds) > gap) | columns.episode_end[:-1]
    return np.append(0, np.cumsum(ends)).astype(np.int64)[: len(number)]


def _order(number: IntArray, time: NDArray[Any] | None, name: str) -> IntArray:
    """(N,) the rows sorted by (episode, time); without times as they are.

    Raises DatasetFormatError where episodes are interleaved without times, or equal times leave the order open.
    """
    rows = np.arange(len(number))
    if time is None:
        returns = np.diff(number) < 0  # new episodes have larger numbers
        if returns.any():
            raise DatasetFormatError(
                f"{name}: the episode of row {int(returns.argmax()) + 1} has begun before: episodes are interleaved, "
                "or their numbers are used twice",
                "say in which order the rows of an episode are, time=, or give each episode another number",
            )
        return rows
    if time.shape != number.shape:
        raise DatasetFormatError(
            f"{name}: 'time' has {len(time)} rows, 'episode' {len(number)}", "give one for each row"
        )
    stable = np.argsort(number, kind="stable")
    order = np.lexsort((time, number))
    within = np.diff(number[order]) == 0
    equal = within & (np.diff(time[order].astype("int64") if time.dtype.kind in "mM" else time[order]) == 0)
    if equal.any() and (order != stable).any():
        first, second = order[[int(equal.argmax()), int(equal.argmax()) + 1]]
        raise DatasetFormatError(
            f"{name}: {counted(int(equal.sum()), 'row')} with a time that another row of the episode has, first rows "
            f"{first} and {second}, and the rows are not sorted by time",
            "rows that are there twice have to go; if episodes share a number, give each its own",
        )
    if equal.any():
        again = counted(int(equal.sum()), "row")
        warn(f"{name}: {again} with the time of the row before: such rows stay in the order in which they are given")
    if (order != rows).any():
        warn(f"{name}: {(order != rows).sum()} of {len(rows)} rows were moved into the order of (episode, time)")
    return order


def _with_ends(columns: Columns, number: IntArray, order: IntArray, name: str) -> Columns:
    """The columns with ``timeout`` on the last row of each episode that did not terminate there.

    Raises DatasetFormatError for an end within an episode.
    """
    last: BoolArray = np.append(np.diff(number) != 0, True)
    early = columns.episode_end & ~last
    if early.any():
        first = int(early.argmax())
        raise DatasetFormatError(
            f"{name}: {counted(int(early.sum()), 'row')} marked as the end of an episode that goes on, first row "
            f"{order[first]}: its last row is {order[first + int(last[first:].argmax())]}",
            "flags and episodes contradict each other: leave one of them out, or fix it",
        )
    if columns.failed is not None and (others := columns.failed & ~columns.terminal).any():
        raise DatasetFormatError(
            f"{name}: {counted(int(others.sum()), 'row')} marked as a failure where the task does not end, first row "
            f"{order[int(others.argmax())]}",
            "a failure is an end of the task: mark it as terminated, too",
        )
    return replace(columns, timeout=columns.cut | (last & ~columns.terminal))


def _with_next_obs(columns: Columns, name: str) -> Columns:
    """The columns with next observations: that of the following row, or, for a terminal row, which needs none, its own.
    What followed the last row of an episode that was cut is ``unknown``. Of such a row the reward is used, if it is a
    number, and nothing else: its action and its log-probability become those of a row that is used.

    Raises EmptyDatasetError where no next observation is known.
    """
    unknown = columns.cut & ~columns.terminal
    known = np.flatnonzero(~unknown)
    if len(known) == 0:
        raise EmptyDatasetError(
            f"{name}: no step is followed by another one of its episode", "record the observations after each step, too"
        )
    rows = np.arange(len(unknown))
    filled = {"action": columns.action, "log_prob": columns.log_prob}
    used: Any = {
        field: np.where(unknown.reshape(-1, *[1] * (values.ndim - 1)), values[known[0]], values)
        for field, values in filled.items()
        if values is not None
    }
    return replace(
        columns,
        **used,
        reward=np.where(unknown & ~np.isfinite(columns.reward), np.float32(0.0), columns.reward),
        next_obs=columns.obs[np.where(columns.episode_end, rows, rows + 1)],
        unknown=unknown,
    )
