"""Are rows in the order of time? Stored next observations tell: within an episode each is the following row's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from offline_vi.data.columns import Columns, warn
from offline_vi.errors import DatasetFormatError
from offline_vi.types import BoolArray, FloatArray

# two numbers are the same where they differ by a rounding: of half precision, of a feature's largest value, ...
HALF_PRECISION, OF_THE_LARGEST = 1e-3, 1e-5
SINGLE_PRECISION = 1e-6
OF_A_STEP = 0.5  # ... but not by half of what the feature changes in a step on average, unless float32 cannot tell
MAX_CONTRADICTIONS = 0.01  # of the steps within episodes; D4RL's medium-replay files lack fewer episode ends than that


def contradictions(obs: FloatArray, next_obs: FloatArray) -> BoolArray:
    """(N, O), (N, O) -> (N - 1,) where a next observation is not the following row's; ends of episodes are not known
    here. Entries that are not finite contradict nothing."""
    stored, following = next_obs[:-1], obs[1:]
    wrong = (stored != following).any(1)
    rows = np.flatnonzero(wrong)
    if len(rows) == 0:
        return np.asarray(wrong)
    with np.errstate(invalid="ignore", over="ignore"):
        step = np.abs(stored - obs[:-1])
    known = np.isfinite(step)
    mean_step = step.sum(0, where=known, dtype=np.float64) / np.maximum(known.sum(0), 1)
    largest = np.abs(obs).max(0, where=np.isfinite(obs), initial=0.0)
    stored, following = stored[rows].astype(np.float64), following[rows].astype(np.float64)
    size = np.maximum(np.abs(stored), np.abs(following))
    rounding = np.minimum(HALF_PRECISION * size + OF_THE_LARGEST * largest, OF_A_STEP * mean_step)
    finite = np.isfinite(stored) & np.isfinite(following)
    with np.errstate(invalid="ignore"):
        far = np.abs(stored - following) > np.maximum(rounding, SINGLE_PRECISION * size)
    wrong[rows] = (far & finite).any(1)
    return np.asarray(wrong)


def cut_where_contradicted(columns: Columns, name: str) -> Columns:
    """The columns with ``timeout`` where `contradictions` show that an episode ends. Raises DatasetFormatError where
    there are so many that the rows are in no order."""
    if columns.next_obs is None or len(columns.reward) < 2:
        return columns
    return replace(columns, timeout=ends_shown(contradictions(columns.obs, columns.next_obs), columns, name))


def ends_shown(wrong: BoolArray, flags: Columns, name: str) -> BoolArray:
    """(N,) timeouts: those of ``flags``, and the rows within episodes where ``wrong`` (N - 1,) is True.

    Raises DatasetFormatError where these are more than 1 % of the steps within episodes.
    """
    inside = ~flags.episode_end[:-1]
    rows, steps = np.flatnonzero(wrong & inside), int(inside.sum())
    if len(rows) == 0:
        return flags.cut
    found = (
        f"{name}: in {len(rows)} of {steps} steps 'next_observations' is not the following row's observation, first at "
        f"row {rows[0]}"
    )
    if len(rows) > MAX_CONTRADICTIONS * steps:
        raise DatasetFormatError(
            f"{found}: the rows are not in the order of time, or the ends of episodes are not marked",
            'use the stored next observations: next_obs="within_episode"',
        )
    warn(f"{found}: the episodes are cut there, as ends of episodes seem to be unmarked")
    timeout = flags.cut.copy()
    timeout[rows] = True
    return timeout
