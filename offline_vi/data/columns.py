"""A data set's columns as they are read, and the checks that they pass before they become transitions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offline_vi.errors import (
    DatasetFormatError,
    DataWarning,
    EmptyDatasetError,
    NonFiniteDataError,
    UsageError,
)
from offline_vi.types import BoolArray, FloatArray

IntArray = NDArray[np.int64]
RowMode = Literal["d4rl", "strict"]
ActionRange = Literal["error", "clip", "data"]
OnNonfinite = Literal["error", "drop-episode"]

LOG_PROB_KEY = "infos/action_log_probs"
REQUIRED_KEYS = ("observations", "actions", "rewards", "terminals")
ROUNDING_TOLERANCE = 1e-4  # conversions to float32 that move a value further are reported


@dataclass(frozen=True)
class Columns:
    """D4RL's columns after the checks of names, shapes and types: N rows in the order of collection."""

    obs: FloatArray  # (N, O)
    action: FloatArray  # (N, A), in the environment's units
    reward: FloatArray  # (N,)
    terminal: BoolArray  # (N,)
    timeout: BoolArray  # (N,)
    next_obs: FloatArray | None  # (N, O), None where the file has none or nobody reads it
    log_prob: FloatArray | None  # (N,) nats, of actions in the environment's units

    @property
    def episode(self) -> IntArray:
        """(N,) the number of each row's episode, from 0."""
        return np.concatenate([[0], np.cumsum(self.terminal | self.timeout)[:-1]])

    def select(self, rows: BoolArray) -> Columns:
        return Columns(
            self.obs[rows],
            self.action[rows],
            self.reward[rows],
            self.terminal[rows],
            self.timeout[rows],
            None if self.next_obs is None else self.next_obs[rows],
            None if self.log_prob is None else self.log_prob[rows],
        )


def read_columns(dataset: Mapping[str, NDArray[Any]], rows: RowMode, limit: int | None, name: str) -> Columns:
    missing = [key for key in REQUIRED_KEYS if key not in dataset]
    if missing:
        raise DatasetFormatError(
            f"{name}: {', '.join(map(repr, missing))} missing", f"a data set has the keys {', '.join(REQUIRED_KEYS)}"
        )
    obs = _real_column(dataset, "observations", 2, name)
    action = _real_column(dataset, "actions", 2, name)
    reward = _real_column(dataset, "rewards", 1, name)
    terminal = _flag_column(dataset, "terminals", name)
    # D4RL ignores next_observations: in its mode nothing may depend on them, not even the search for NaN
    use_next = rows == "strict" and "next_observations" in dataset
    next_obs = _real_column(dataset, "next_observations", 2, name) if use_next else None
    log_prob = _real_column(dataset, LOG_PROB_KEY, 1, name) if LOG_PROB_KEY in dataset else None
    timeout = _flag_column(dataset, "timeouts", name) if "timeouts" in dataset else None

    named = {
        "actions": action,
        "rewards": reward,
        "terminals": terminal,
        "timeouts": timeout,
        "next_observations": next_obs,
        LOG_PROB_KEY: log_prob,
    }
    for key, column in named.items():
        if column is not None and len(column) != len(obs):
            raise DatasetFormatError(
                f"{name}: '{key}' has {len(column)} rows, 'observations' {len(obs)}", "the file was cut or joined badly"
            )
    if next_obs is not None and next_obs.shape != obs.shape:
        raise DatasetFormatError(
            f"{name}: 'next_observations' has shape {next_obs.shape}, 'observations' {obs.shape}",
            "both hold the same features",
        )
    if len(obs) == 0:
        raise EmptyDatasetError(f"{name}: the data set has no rows", "check the file with `data check`")
    if timeout is None:
        if limit is None:
            raise DatasetFormatError(
                f"{name}: 'timeouts' is missing and the episode length is unknown",
                "name the environment (--env), or pass max_episode_steps",
            )
        timeout = (_timeouts_as_d4rl if rows == "d4rl" else _timeouts)(terminal, limit)
    return Columns(obs, action, reward, terminal, timeout, next_obs, log_prob)


def _numeric_column(dataset: Mapping[str, NDArray[Any]], key: str, ndim: int, name: str) -> NDArray[Any]:
    values = np.asarray(dataset[key])
    if values.dtype.kind not in "biuf":
        raise DatasetFormatError(f"{name}: '{key}' holds {values.dtype}, not numbers", "convert it to float32")
    if ndim == 1 and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != ndim or 0 in values.shape[1:]:
        expected = {1: "(rows,)", 2: "(rows, features)"}[ndim]
        raise DatasetFormatError(f"{name}: '{key}' has shape {values.shape}, not {expected}", "reshape it")
    return values


def _real_column(dataset: Mapping[str, NDArray[Any]], key: str, ndim: int, name: str) -> FloatArray:
    values = _numeric_column(dataset, key, ndim, name)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is reported as such
        column = values.astype(np.float32, copy=False)
    if values.dtype.kind in "iu" or values.dtype.itemsize > 4:
        with np.errstate(invalid="ignore"):
            moved = np.abs(column.astype(np.float64) - values.astype(np.float64))
        far = np.isfinite(column) & (moved > ROUNDING_TOLERANCE)
        if far.any():
            warn(
                f"{name}: {far.sum()} entries of '{key}' ({values.dtype}) lose more than {ROUNDING_TOLERANCE:g} as "
                f"float32, at most {moved[far].max():.3g}"
            )
    return column


def _flag_column(dataset: Mapping[str, NDArray[Any]], key: str, name: str) -> BoolArray:
    values = _numeric_column(dataset, key, 1, name)
    if not np.isfinite(values).all():
        raise DatasetFormatError(f"{name}: '{key}' holds NaN or infinities", "flags are 0 or 1")
    return values.astype(np.bool_)


def _timeouts(terminal: BoolArray, limit: int) -> BoolArray:
    """(N,) cuts after every ``limit`` steps of an episode, counted anew after each end."""
    return _count_to(terminal, limit, first_step=0)


def _timeouts_as_d4rl(terminal: BoolArray, limit: int) -> BoolArray:
    """(N,) the same as ``qlearning_dataset`` counts: from 1 after a terminal row, so that the next cut comes one step
    early."""
    return _count_to(terminal, limit, first_step=1)


def _count_to(terminal: BoolArray, limit: int, first_step: int) -> BoolArray:
    timeout = np.zeros(len(terminal), np.bool_)
    step = start = 0
    for end in [*(np.flatnonzero(terminal) + 1), len(terminal)]:
        timeout[start + limit - 1 - step : end : limit] = True
        step = 0 if timeout[end - 1] else first_step
        start = end
    return timeout


def finite_episodes(columns: Columns, on_nonfinite: OnNonfinite, name: str) -> Columns:
    """The columns without NaN and infinities, whole episodes left out. Raises NonFiniteDataError, EmptyDatasetError."""
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
        raise NonFiniteDataError(f"{name}: {'; '.join(reports)}", "leave the episodes out: --on-nonfinite drop-episode")
    dropped = np.isin(episode, episode[bad_rows])
    warn(
        f"{name}: dropped {len(np.unique(episode[bad_rows]))} of {episode[-1] + 1} episodes ({dropped.sum()} rows): "
        f"{'; '.join(reports)}"
    )
    if dropped.all():
        raise EmptyDatasetError(f"{name}: every episode holds NaN or infinities", "get the file again")
    return columns.select(~dropped)


def warn_of_double_ends(columns: Columns, rows: RowMode, name: str) -> None:
    both = int((columns.terminal & columns.timeout).sum())
    if both:
        fate = "dropped, as D4RL does" if rows == "d4rl" else "kept as terminal"
        warn(f"{name}: {both} rows are both terminal and timeout: {fate}")


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{option} {value!r} is unknown", f"one of {', '.join(choices)}")


def warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=2)
