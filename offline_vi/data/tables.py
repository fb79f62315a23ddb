"""Tables with named columns: which column is what, and their values as columns of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from offline_vi.data.columns import Columns, warn
from offline_vi.data.own import columns_from_arrays, times_of
from offline_vi.errors import DatasetFormatError, UsageError

LISTS = ("obs", "action", "next_obs")
SINGLE = ("reward", "terminated", "timeout", "failed", "episode", "time", "log_prob")


class Table(Protocol):
    """A data frame: of pandas, of polars, or what was read of a file."""

    @property
    def columns(self) -> Iterable[Any]:
        """The names."""

    def __getitem__(self, name: Any, /) -> Any:
        """The values under a name, (N,)."""


@dataclass(frozen=True)
class Roles:
    """Which columns of a table are what. In lists, "sensor_*" stands for all columns that match, in the table's order;
    empty: there is none."""

    obs: tuple[str, ...]  # observations
    action: tuple[str, ...]  # actions
    reward: str  # the reward
    terminated: str  # empty: see ``every_end``
    every_end: bool = False  # without ``terminated``: whether every episode ends the task, or every one was cut
    timeout: str = ""  # where an episode was cut by time
    failed: str = ""  # the ends of the task that are failures
    episode: str = ""  # the number or name of the episode
    time: str = ""  # by which the rows of an episode are sorted
    episode_gap: float | None = None  # a longer pause in time begins an episode: seconds of dates, or units of time
    next_obs: tuple[str, ...] = ()  # next observations
    log_prob: str = ""  # log-density of the action under the behavior policy, in nats

    def named(self) -> dict[str, tuple[str, ...]]:
        """The columns by their roles, without roles that nothing has."""
        found = {role: getattr(self, role) for role in (*LISTS, *SINGLE)}
        return {role: names if isinstance(names, tuple) else (names,) for role, names in found.items() if names != ""}

    def resolved(self, columns: Sequence[str], name: str) -> Roles:
        """The same without patterns. Raises DatasetFormatError for a column that is not there (with the nearest name)
        or there twice, and UsageError for one that observations must not hold."""
        if unnamed := [column for names in self.named().values() for column in names if not isinstance(column, str)]:
            raise UsageError(
                f"{name}: columns are named by text, not by {unnamed[0]!r}",
                "frame.columns = frame.columns.map(str) makes text of the names of pandas",
            )
        if not (self.obs and self.action and self.reward):
            raise UsageError(
                f"{name}: no column is named for obs, action or reward", "name them: obs=, action=, reward="
            )
        obs, action, next_obs = (_matching(getattr(self, role), columns, role, name) for role in LISTS)
        found = replace(self, obs=obs, action=action, next_obs=next_obs)
        counts = Counter(columns)
        for role, names in found.named().items():
            for column in names:
                _check_there(column, counts, role, name)
        for role, names in found.named().items():
            if role not in ("obs", "episode", "time") and (both := [column for column in names if column in found.obs]):
                raise UsageError(
                    f"{name}: {both[0]!r} is an observation and {role}", "a state does not hold its outcome"
                )
        if found.next_obs and len(found.next_obs) != len(found.obs):
            raise UsageError(
                f"{name}: {len(found.next_obs)} columns of next_obs, {len(found.obs)} of obs",
                "both hold the same features",
            )
        return found


def names_of(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """One name, several, or none."""
    if names is None:
        return ()
    return tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else (names,)


def name_of(name: str | None) -> str:
    """A name, or "" for none."""
    return "" if name is None else name


def columns_from_table(
    table: Table | Mapping[str, Any], roles: Roles, *, max_episode_steps: int | None = None, name: str
) -> Columns:
    """The columns of a table in the order of time.

    Raises UsageError, DatasetFormatError naming the column, EmptyDatasetError.
    """
    found = roles.resolved(list(table if isinstance(table, Mapping) else table.columns), name)

    def numbers(column: str) -> NDArray[Any]:
        values = numbers_of(table[column], column, name)
        _name_bad_cells(values, column, table, found, name)
        return values

    def stacked(names: tuple[str, ...]) -> NDArray[Any]:
        return np.stack([numbers(column) for column in names], axis=1)

    one = {
        role: numbers(column)
        for role in ("reward", "timeout", "failed", "log_prob")
        if (column := getattr(found, role))
    }
    return columns_from_arrays(
        obs=stacked(found.obs),
        action=stacked(found.action),
        reward=one["reward"],
        terminated=numbers(found.terminated) if found.terminated else found.every_end,
        timeout=one.get("timeout"),
        failed=one.get("failed"),
        episode=np.asarray(table[found.episode]) if found.episode else None,
        time=times_of(table[found.time], found.time, name) if found.time else None,
        episode_gap=found.episode_gap,
        next_obs=stacked(found.next_obs) if found.next_obs else None,
        log_prob=one.get("log_prob"),
        max_episode_steps=max_episode_steps,
        name=name,
    )


def _name_bad_cells(
    values: NDArray[Any], column: str, table: Table | Mapping[str, Any], roles: Roles, name: str
) -> None:
    """A DataWarning in the table's own terms where cells of a column hold NaN or infinities: what is done about them is
    decided later, where columns have lost their names."""
    bad = ~np.isfinite(values)
    if bad.any():
        first = int(bad.argmax())
        episode = f", {roles.episode} {np.asarray(table[roles.episode])[first]}" if roles.episode else ""
        warn(
            f"{name}: no finite number in {bad.sum()} of {len(bad):,} cells of {column!r}, first in row {first + 1} "
            f"below the names of the columns{episode}"
        )


def numbers_of(column: Any, label: str, name: str) -> NDArray[Any]:
    """(N,) real numbers, integers or truth values; a missing one is NaN.

    Raises DatasetFormatError for text, categories and dates.
    """
    values = np.asarray(column)
    dtype = getattr(column, "dtype", values.dtype)
    kind = getattr(dtype, "kind", values.dtype.kind)  # pandas knows its categories, whose values may be numbers
    if values.dtype.kind == "O" and (kind in "biuf" or dtype == values.dtype):  # numbers with gaps
        entries = [np.nan if value is None or (value == value) is not True else value for value in values.tolist()]
        if all(isinstance(entry, int | float) for entry in entries):
            values, kind = np.array(entries, np.float64), "f"
    if kind not in "biuf":
        example = f", such as {str(values[0])[:40]!r}" if len(values) else ""
        raise DatasetFormatError(
            f"{name}: the column {label!r} holds {getattr(column, 'dtype', values.dtype)}, not numbers{example}",
            "make it numbers (one column for each category), or leave it out",
        )
    return values


def _matching(wanted: tuple[str, ...], columns: Sequence[str], role: str, name: str) -> tuple[str, ...]:
    present = dict.fromkeys(columns)
    found: list[str] = []
    for pattern in wanted:
        if pattern in present:
            found.append(pattern)
            continue
        found += [column for column in present if fnmatchcase(str(column), str(pattern))] or [pattern]
    if twice := [column for column, count in Counter(found).items() if count > 1]:
        raise UsageError(f"{name}: {twice[0]!r} is named twice in {role}", "name each column once")
    return tuple(found)


def _check_there(column: str, counts: Mapping[str, int], role: str, name: str) -> None:
    """``counts``: how often the table has each name."""
    if counts.get(column, 0) > 1:
        raise DatasetFormatError(
            f"{name}: {counts[column]} columns are called {column!r} ({role})", "give each its own name"
        )
    if column not in counts:
        columns = list(map(str, counts))
        close = get_close_matches(str(column), columns, n=1)
        known = ", ".join(columns[:20]) + ", ..." * (len(columns) > 20)
        raise DatasetFormatError(
            f"{name}: no column {column!r} ({role})",
            f"did you mean {close[0]!r}? If other files have {column!r}, rename it in this one"
            if close
            else f"it has {known}",
        )
