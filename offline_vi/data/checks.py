"""What columns are checked for before they become transitions: names, shapes and types, labels for actions, where
episodes end, the order of the rows, and NaN.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from offline_vi.data.columns import Columns, DiscreteActions, NextObs, OnNonfinite, converted, warn
from offline_vi.data.discrete import refuse_labels
from offline_vi.data.nonfinite import finite_columns
from offline_vi.data.order import cut_where_contradicted
from offline_vi.errors import DatasetFormatError, UsageError
from offline_vi.types import BoolArray


class Checked(NamedTuple):
    """Columns that became what `Columns` describes."""

    whole: Columns  # all N rows, with ``timeout`` as it is used
    kept: BoolArray  # (N,), rows without NaN and infinities
    columns: Columns  # these rows, repaired


def check_columns(
    columns: Columns,
    name: str,
    *,
    next_obs: NextObs = "following_row",
    on_nonfinite: OnNonfinite = "error",
    discrete_actions: DiscreteActions = "error",
    max_episode_steps: int | None = None,
) -> Checked:
    """The columns as `Columns` describes them, with ``timeout``, and with ``next_obs`` where it is used.

    Arguments as in `Transitions.from_columns`; ``name`` is that of the data in messages. Raises DatasetFormatError
    (shapes, types, order, unknown episode length), ActionRangeError (labels for actions), NonFiniteDataError,
    EmptyDatasetError, UsageError.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise UsageError(f"max_episode_steps is {max_episode_steps}", "an episode has at least one step")
    given, columns = columns, converted(columns, name)
    if discrete_actions == "error":
        refuse_labels([given.action], name)  # by their own type: float32 would hide integers
    if columns.timeout is None:
        columns = replace(columns, timeout=_timeouts(columns.terminal, next_obs, max_episode_steps, name))
    if next_obs == "following_row":
        columns = cut_where_contradicted(columns, name)
        columns = replace(columns, next_obs=None)  # nothing else may depend on it, not even the search for NaN
    else:
        columns = _without_next_obs_of_terminals(columns)
    whole, (columns, kept, _) = columns, finite_columns(columns, on_nonfinite, name)
    if not kept.all():
        columns = columns.select(kept)
    both = int((columns.terminal & columns.cut).sum())
    if both:
        fate = "dropped, as D4RL does" if next_obs == "following_row" else "kept as terminal"
        warn(f"{name}: {both} rows are both terminal and timeout: {fate}")
    return Checked(whole, kept, columns)


def _timeouts(terminal: BoolArray, next_obs: NextObs, limit: int | None, name: str) -> BoolArray:
    """(N,) cuts after every ``limit`` steps of an episode.

    Steps are counted anew after each end, or as ``qlearning_dataset`` counts them: from 1 after a terminal row, so that
    the next cut comes one step early.
    """
    if limit is None:
        raise DatasetFormatError(
            f"{name}: 'timeouts' is missing and the episode length is unknown",
            "say how long an episode may be: max_episode_steps=N, or name the environment: env=ID",
        )
    timeout = np.zeros(len(terminal), np.bool_)
    step = start = 0
    for end in [*(np.flatnonzero(terminal) + 1), len(terminal)]:
        timeout[start + limit - 1 - step : end : limit] = True
        step = 0 if timeout[end - 1] or next_obs == "within_episode" else 1
        start = end
    return timeout


def _without_next_obs_of_terminals(columns: Columns) -> Columns:
    """A terminal row's next observation, which nothing may read, is its own observation where it is not finite."""
    if columns.next_obs is None:
        return columns
    unknown = columns.terminal & ~np.isfinite(columns.next_obs).all(1)
    return replace(columns, next_obs=np.where(unknown[:, None], columns.obs, columns.next_obs))
