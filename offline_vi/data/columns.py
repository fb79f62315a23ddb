"""The border that data cross: a data set's columns as a reader returns them, and what they are checked for before they
become transitions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from offline_vi.errors import DatasetFormatError, DataWarning, EmptyDatasetError, UsageError
from offline_vi.types import BoolArray, FloatArray

IntArray = NDArray[np.int64]
NextObs = Literal["following_row", "within_episode"]
ActionRange = Literal["error", "clip", "data"]
OnNonfinite = Literal["error", "drop-episode", "split", "hold"]
DiscreteActions = Literal["error", "continuous"]
RowMode = Literal["d4rl", "strict"]  # the former values of `NextObs`, under the name "rows"
FORMER_NEXT_OBS: dict[str, NextObs] = {"d4rl": "following_row", "strict": "within_episode"}

LOG_PROB_KEY = "infos/action_log_probs"
REQUIRED_KEYS = ("observations", "actions", "rewards", "terminals")
D4RL_KEYS = {  # field of `Columns` -> key of D4RL's layout
    "obs": "observations",
    "action": "actions",
    "reward": "rewards",
    "terminal": "terminals",
    "timeout": "timeouts",
    "next_obs": "next_observations",
    "log_prob": LOG_PROB_KEY,
}
MATRICES = ("obs", "action", "next_obs")
FLAGS = ("terminal", "timeout", "failed", "unknown")
BLOCK_ROWS = 1 << 14  # converted at once
ROUNDING_TOLERANCE = 1e-4  # conversions to float32 that move a value further are reported


@dataclass(frozen=True)
class Columns:
    """N steps of one environment with vectors, in the order of collection and in the environment's units.

    A reader may give real, integer and boolean types of any width and byte order, and (N, 1) for (N,);
    `check_columns` makes them what is written here.
    """

    obs: FloatArray  # (N, O)
    action: FloatArray  # (N, A), in the environment's units
    reward: FloatArray  # (N,)
    terminal: BoolArray  # (N,), the task ended: do not bootstrap
    timeout: BoolArray | None = None  # (N,), the episode was cut; None where that is not recorded
    next_obs: FloatArray | None = None  # (N, O), the observation after each step; None where that is not recorded
    log_prob: FloatArray | None = None  # (N,), log pi_beta(a|s) in nats, of actions in the environment's units
    failed: BoolArray | None = None  # (N,), the ends of the task that are failures; None where that is not recorded
    unknown: BoolArray | None = None  # (N,), next_obs is made up, for lack of a recorded one: the row is no transition

    @classmethod
    def from_d4rl(cls, dataset: Mapping[str, NDArray[Any]], name: str = "arrays") -> Columns:
        """The columns under the keys of D4RL's layout; other keys are ignored.

        Keys: observations, actions, rewards, terminals; optional timeouts, next_observations and
        infos/action_log_probs. Raises DatasetFormatError where one is missing.
        """
        missing = [key for key in REQUIRED_KEYS if key not in dataset]
        if missing:
            raise DatasetFormatError(
                f"{name}: {', '.join(map(repr, missing))} missing",
                f"a data set has the keys {', '.join(REQUIRED_KEYS)}",
            )
        return cls(**{field: dataset[key] for field, key in D4RL_KEYS.items() if key in dataset})

    @property
    def cut(self) -> BoolArray:
        """(N,) where a time limit is known to have cut the episode."""
        return np.zeros(len(self.terminal), np.bool_) if self.timeout is None else self.timeout

    @property
    def episode_end(self) -> BoolArray:
        """(N,) the last row of each episode, as far as the flags say."""
        return self.terminal | self.cut

    @property
    def episode(self) -> IntArray:
        """(N,) the number of each row's episode, from 0."""
        return np.concatenate([[0], np.cumsum(self.episode_end)[:-1]])

    def select(self, rows: BoolArray) -> Columns:
        """The rows where ``rows`` (N,) is True."""
        return replace(self, **{field: column[rows] for field, column in self.present().items()})

    def present(self) -> dict[str, NDArray[Any]]:
        """The columns that there are, by field."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return {field: column for field, column in columns.items() if column is not None}


def array_of(values: Any) -> NDArray[Any]:
    """What people hand in as an array: tensors of any device and type, masked entries as NaN, else what NumPy makes of
    it. Raises ValueError where rows have different lengths."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    if isinstance(values, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(values.astype(np.float64), np.nan) if np.ma.is_masked(values) else values.data)
    return np.asarray(values)


def converted(columns: Columns, name: str) -> Columns:
    """The same columns as float32 and bool, with their shapes compared.

    Raises DatasetFormatError naming the column, EmptyDatasetError.
    """
    given: dict[str, NDArray[Any]] = {
        field: (_flag_column if field in FLAGS else _real_column)(column, field, name)
        for field, column in columns.present().items()
    }
    rows = len(given["obs"])
    for field, column in given.items():
        if len(column) != rows:
            raise DatasetFormatError(
                f"{name}: '{key_of(field)}' has {len(column)} rows, 'observations' {rows}",
                "the file was cut or joined badly",
            )
    if "next_obs" in given and given["next_obs"].shape != given["obs"].shape:
        raise DatasetFormatError(
            f"{name}: 'next_observations' has shape {given['next_obs'].shape}, 'observations' {given['obs'].shape}",
            "both hold the same features",
        )
    if rows == 0:
        raise EmptyDatasetError(f"{name}: the data set has no rows", "get the file again")
    return replace(columns, **given)


def key_of(field: str) -> str:
    """What messages call a column: its key in D4RL's layout where it has one."""
    return D4RL_KEYS.get(field, field)


def _numeric_column(values: NDArray[Any], field: str, name: str) -> NDArray[Any]:
    values, key, ndim = array_of(values), key_of(field), 2 if field in MATRICES else 1
    if values.dtype.kind not in "biuf":
        raise DatasetFormatError(f"{name}: '{key}' holds {values.dtype}, not numbers", "convert it to float32")
    if ndim == 1 and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != ndim or 0 in values.shape[1:]:
        expected = {1: "(rows,)", 2: "(rows, features)"}[ndim]
        raise DatasetFormatError(f"{name}: '{key}' has shape {values.shape}, not {expected}", "reshape it")
    return values


def _real_column(values: NDArray[Any], field: str, name: str) -> FloatArray:
    values = _numeric_column(values, field, name)
    if values.dtype == np.float32:
        return values.astype(np.float32, copy=False)  # of this machine's byte order
    return as_float32(lambda start, stop: values[start:stop], values.shape, values.dtype, D4RL_KEYS[field], name)


def as_float32(
    rows: Callable[[int, int], NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any], key: str, name: str
) -> FloatArray:
    """A column of ``shape`` as float32, converted a block of rows at a time: ``rows(start, stop)`` gives them.

    Entries that move by more than `ROUNDING_TOLERANCE` are reported in a DataWarning that names the data and the key.
    """
    column = np.empty(shape, np.float32)
    count, farthest = 0, 0.0
    for start in range(0, len(column), BLOCK_ROWS):
        part = column[start : start + BLOCK_ROWS]
        values = rows(start, start + len(part))
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite and is reported as such
            part[:] = values
            moved = np.abs(part.astype(np.float64) - values.astype(np.float64))
        far = np.isfinite(part) & (moved > ROUNDING_TOLERANCE)
        count, farthest = count + int(far.sum()), max(farthest, float(moved.max(where=far, initial=0.0)))
    if count:
        warn(
            f"{name}: {count} entries of '{key}' ({dtype}) lose more than {ROUNDING_TOLERANCE:g} as float32, at most "
            f"{farthest:.3g}"
        )
    return column


def _flag_column(values: NDArray[Any], field: str, name: str) -> BoolArray:
    values = _numeric_column(values, field, name)
    if not np.isfinite(values).all():
        raise DatasetFormatError(f"{name}: '{key_of(field)}' holds NaN or infinities", "flags are 0 or 1")
    return values.astype(np.bool_)


def next_obs_of(rows: str, stacklevel: int = 3) -> NextObs:
    """What a former value of ``rows`` is called now, with a DeprecationWarning for the caller so many frames up.

    Raises UsageError for an unknown value.
    """
    check_choice("rows", rows, tuple(FORMER_NEXT_OBS))
    now = FORMER_NEXT_OBS[rows]
    warnings.warn(f'rows="{rows}" is now next_obs="{now}"', DeprecationWarning, stacklevel=stacklevel)
    return now


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UsageError where a value is none of the choices."""
    if value not in choices:
        raise UsageError(f"{option} {value!r} is unknown", f"one of {', '.join(choices)}")


def warn(message: str) -> None:
    """Give a DataWarning: the data were repaired, or are odd."""
    warnings.warn(message, DataWarning, stacklevel=2)
