"""What columns are checked for before they become transitions: names, shapes and types, where episodes end, NaN, and
the order of the rows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from offline_vi.data.columns import Columns, NextObs, OnNonfinite, converted, warn
from offline_vi.errors import DatasetFormatError, EmptyDatasetError, NonFiniteDataError, UsageError
from offline_vi.types import BoolArray

# a stored next observation contradicts the following row where they differ by more than rounding
ORDER_RTOL, ORDER_ATOL = 1e-3, 1e-5
MAX_CONTRADICTIONS = 0.01  # of the steps within episodes; D4RL's medium-replay files lack fewer episode ends than that


def check_columns(
    columns: Columns,
    name: str,
    *,
    next_obs: NextObs = "following_row",
    on_nonfinite: OnNonfinite = "error",
    max_episode_steps: int | None = None,
) -> Columns:
    """The columns as `Columns` describes them, with ``timeout``, and with ``next_obs`` where it is used.

    Arguments as in `Transitions.from_columns`; ``name`` is that of the data in messages. Raises DatasetFormatError
    (shapes, types, order, unknown episode length), NonFiniteDataError, EmptyDatasetError, UsageError.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise UsageError(f"max_episode_steps is {max_episode_steps}", "an episode has at least one step")
    columns = converted(columns, name)
    if columns.timeout is None:
        columns = replace(columns, timeout=_timeouts(columns.terminal, next_obs, max_episode_steps, name))
    if next_obs == "following_row":
        _check_order(columns, name)
        columns = replace(columns, next_obs=None)  # nothing else may depend on it, not even the search for NaN
    columns = _finite_episodes(columns, on_nonfinite, name)
    both = int((columns.terminal & columns.cut).sum())
    if both:
        fate = "dropped, as D4RL does" if next_obs == "following_row" else "kept as terminal"
        warn(f"{name}: {both} rows are both terminal and timeout: {fate}")
    return columns


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


def _check_order(columns: Columns, name: str) -> None:
    """Within an episode a stored next observation is the following row's: else the rows are not in the order of time.

    A few contradictions are ends of episodes that were not marked, and are reported. Raises DatasetFormatError.
    """
    if columns.next_obs is None:
        return
    stored, following = columns.next_obs[:-1], columns.obs[1:]
    inside = ~columns.episode_end[:-1]
    rows = np.flatnonzero((stored != following).any(1) & inside)
    finite = np.isfinite(stored[rows]).all(1) & np.isfinite(following[rows]).all(1)
    rows = rows[finite]
    close = np.isclose(stored[rows], following[rows], rtol=ORDER_RTOL, atol=ORDER_ATOL).all(1)
    wrong, steps = int((~close).sum()), int(inside.sum())
    if wrong > MAX_CONTRADICTIONS * steps:
        raise DatasetFormatError(
            f"{name}: in {wrong} of {steps} steps 'next_observations' is not the following row's observation, first at "
            f"row {rows[~close][0]}: the rows are not in the order of time",
            'use the stored next observations: next_obs="within_episode"',
        )
    if wrong:
        warn(
            f"{name}: in {wrong} of {steps} steps 'next_observations' is not the following row's observation, first at "
            f"row {rows[~close][0]}: ends of episodes seem to be unmarked"
        )


def _finite_episodes(columns: Columns, on_nonfinite: OnNonfinite, name: str) -> Columns:
    """The columns without NaN and infinities, whole episodes left out."""
    reports: list[str] = []
    episode = columns.episode
    bad_rows = np.zeros(len(episode), np.bool_)
    named = {
        "observations": columns.obs,
        "actions": columns.action,
        "rewards": columns.reward,
        "next_observations": columns.next_obs,
    }
    for key, column in named.items():
        if column is None or np.isfinite(column).all():
            continue
        nan, inf = int(np.isnan(column).sum()), int(np.isinf(column).sum())
        bad = ~np.isfinite(column.reshape(len(column), -1)).all(1)
        first = int(bad.argmax())
        counts = " and ".join(f"{count} {word}" for count, word in ((nan, "NaN"), (inf, "Inf")) if count)
        reports.append(f"{counts} in {key}, first at row {first} (episode {episode[first]})")
        bad_rows |= bad
    if not reports:
        return columns
    if on_nonfinite == "error":
        raise NonFiniteDataError(f"{name}: {'; '.join(reports)}", 'leave the episodes out: on_nonfinite="drop-episode"')
    dropped = np.isin(episode, episode[bad_rows])
    warn(
        f"{name}: dropped {len(np.unique(episode[bad_rows]))} of {episode[-1] + 1} episodes ({dropped.sum()} rows): "
        f"{'; '.join(reports)}"
    )
    if dropped.all():
        raise EmptyDatasetError(f"{name}: every episode holds NaN or infinities", "get the file again")
    return columns.select(~dropped)
