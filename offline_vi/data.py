"""A static data set in memory, its normalisation, and the sources of batches.

Two flags stay apart from the file to the target: ``terminated`` (do not bootstrap) and ``episode_end`` (the next row
belongs to another episode, whatever the reason).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline_vi.errors import (
    ActionRangeError,
    CheckpointCorruptError,
    DatasetFormatError,
    DataWarning,
    EmptyDatasetError,
    NonFiniteDataError,
    SpaceMismatchError,
    UsageError,
)
from offline_vi.types import Batch, BoolArray, FloatArray, Spec, Stack, Task

IntArray = NDArray[np.int64]
RowMode = Literal["d4rl", "strict"]
ActionRange = Literal["error", "clip", "data"]
OnNonfinite = Literal["error", "drop-episode"]

LOG_PROB_KEY = "infos/action_log_probs"
REQUIRED_KEYS = ("observations", "actions", "rewards", "terminals")
ACTION_TOLERANCE = np.float32(1.0 + 1e-3)  # actions this large are taken for rounding and clipped
ROUNDING_TOLERANCE = 1e-4  # conversions to float32 that move a value further are reported


@dataclass(frozen=True)
class Provenance:
    """Where rows came from: enough to say in a result which data it stands on."""

    name: str  # data set name or file stem
    paths: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()  # of each file
    rows: RowMode = "d4rl"  # "d4rl": rows of d4rl.qlearning_dataset; "strict": see `Transitions.from_d4rl`


@dataclass(frozen=True)
class Transitions:
    """R transitions in the order in which they were collected.

    ``next_obs[i]`` is the observation that followed ``action[i]``; on terminal rows in "d4rl" mode it is, as in D4RL,
    the first observation of the next episode (masked by ``terminated``).
    """

    obs: FloatArray  # (R, O)
    action: FloatArray  # (R, A), in [-1, 1]
    reward: FloatArray  # (R,)
    next_obs: FloatArray  # (R, O)
    terminated: BoolArray  # (R,)
    episode_end: BoolArray  # (R,)
    spec: Spec
    task: Task | None = None
    behavior_log_prob: FloatArray | None = None  # (R,) true log pi_beta(a|s) in nats, of library actions in [-1, 1]
    source: Provenance = field(default_factory=lambda: Provenance("arrays"))

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise EmptyDatasetError(f"{self.source.name}: no transition is left", "check the file with `data check`")

    @classmethod
    def from_d4rl(
        cls,
        dataset: Mapping[str, NDArray[Any]],
        *,
        rows: RowMode = "d4rl",
        task: Task | None = None,
        action_range: ActionRange = "error",
        on_nonfinite: OnNonfinite = "error",
        max_episode_steps: int | None = None,
        source: Provenance | None = None,
    ) -> Transitions:
        """Columns in D4RL's layout, N rows in the order of collection.

        Keys: observations (N, O), actions (N, A) in the environment's units, rewards (N,), terminals (N,); optional
        timeouts (N,), next_observations (N, O) and infos/action_log_probs (N,) in nats. Columns of shape (N, 1) stand
        for (N,). Real, integer and boolean types of any width and byte order become float32.

        ``rows`` says which rows become transitions:

        - "d4rl": those of ``d4rl.qlearning_dataset``, bit for bit: next_obs is the following row's observation, rows
          with a timeout and the last row are dropped, next_observations is not read.
        - "strict": no next_obs comes from another episode. With next_observations every row is kept. Without it, rows
          whose next state is unknown (timeouts that are not terminal, the last row) are dropped, and the next_obs of a
          terminal row, which nothing may read, is its own observation.

        ``task`` gives the action bounds (without it: [-1, 1]) and, where there are no timeouts, the episode length
        unless ``max_episode_steps`` does. ``action_range`` says what happens to actions outside the bounds: "error"
        (up to 1e-3 is clipped), "clip", or "data", which maps the range of the data to [-1, 1] and keeps the map in
        the task; log-probabilities follow the map. ``on_nonfinite="drop-episode"`` leaves out episodes with NaN or
        infinities. Rows and episodes in messages count from 0. Everything repaired is counted in a DataWarning.

        Raises DatasetFormatError (keys, shapes, types, unknown episode length), NonFiniteDataError, ActionRangeError,
        SpaceMismatchError (action dimension of task and data), EmptyDatasetError, UsageError.
        """
        _check_choice("rows", rows, ("d4rl", "strict"))
        _check_choice("action_range", action_range, ("error", "clip", "data"))
        _check_choice("on_nonfinite", on_nonfinite, ("error", "drop-episode"))
        source = replace(source or Provenance("arrays"), rows=rows)
        limit = max_episode_steps
        if limit is None and task is not None:
            limit = task.max_episode_steps
        if limit is not None and limit < 1:
            raise UsageError(f"max_episode_steps is {limit}", "an episode has at least one step")

        columns = _read_columns(dataset, rows, limit, source.name)
        columns = _finite_episodes(columns, on_nonfinite, source.name)
        _warn_of_double_ends(columns, rows, source.name)
        action, task, log_prob = _library_actions(columns, task, action_range, source.name)
        kept, next_obs, episode_end = (_d4rl_rows if rows == "d4rl" else _strict_rows)(columns)
        return cls(
            obs=columns.obs[kept],
            action=action[kept],
            reward=columns.reward[kept],
            next_obs=next_obs,
            terminated=columns.terminal[kept],
            episode_end=episode_end,
            spec=Spec(columns.obs.shape[1:], columns.action.shape[1]),
            task=task,
            behavior_log_prob=None if log_prob is None else log_prob[kept],
            source=source,
        )

    def __len__(self) -> int:
        return len(self.reward)

    def episode_slices(self) -> list[slice]:
        """One slice of rows per episode; a trailing unfinished episode counts as one."""
        ends = np.flatnonzero(self.episode_end) + 1
        if len(ends) == 0 or ends[-1] != len(self):
            ends = np.append(ends, len(self))
        starts = np.concatenate([[0], ends[:-1]])
        return [slice(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]

    def episode_returns(self) -> NDArray[np.float64]:
        """Undiscounted sum of rewards of each episode (rows that the row mode drops are not in the sum)."""
        return np.array([self.reward[rows].sum(dtype=np.float64) for rows in self.episode_slices()])

    def select(self, rows: NDArray[np.int64] | slice) -> Transitions:
        """The given rows, in the given order, with everything else kept."""
        log_prob = None if self.behavior_log_prob is None else self.behavior_log_prob[rows]
        return replace(
            self,
            obs=self.obs[rows],
            action=self.action[rows],
            reward=self.reward[rows],
            next_obs=self.next_obs[rows],
            terminated=self.terminated[rows],
            episode_end=self.episode_end[rows],
            behavior_log_prob=log_prob,
        )

    def split_episodes(self, held_out: float = 0.1) -> tuple[Transitions, Transitions]:
        """(training, held-out): the last ``held_out`` share of the episodes, at least one of each.

        Raises EmptyDatasetError where there are fewer than two episodes.
        """
        episodes = self.episode_slices()
        if len(episodes) < 2:
            raise EmptyDatasetError(f"{self.source.name}: one episode cannot be split", "give a data set with more")
        count = min(max(round(held_out * len(episodes)), 1), len(episodes) - 1)
        border = episodes[-count].start
        return self.select(slice(0, border)), self.select(slice(border, len(self)))


def concatenate(parts: Sequence[Transitions]) -> Transitions:
    """Join data sets that were each read alone: episodes never run across.

    Raises SpaceMismatchError where shapes differ.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part in parts[1:]:
        if part.spec != first.spec:
            raise SpaceMismatchError(
                f"{part.source.name} has {part.spec.obs_shape} observations and {part.spec.action_dim}-d actions, "
                f"{first.source.name} has {first.spec.obs_shape} and {first.spec.action_dim}",
                "join only data sets of one task",
            )
        if (part.task is None) != (first.task is None) or (
            part.task is not None
            and first.task is not None
            and (part.task.action_low, part.task.action_high) != (first.task.action_low, first.task.action_high)
        ):
            raise SpaceMismatchError(
                f"{part.source.name} and {first.source.name} scale their actions differently",
                "join only data sets of one task, with --action-range error or clip",
            )
    episode_end = [part.episode_end.copy() for part in parts]
    for flags in episode_end:
        flags[-1] = True
    log_probs = [part.behavior_log_prob for part in parts if part.behavior_log_prob is not None]
    return replace(
        first,
        obs=np.concatenate([part.obs for part in parts]),
        action=np.concatenate([part.action for part in parts]),
        reward=np.concatenate([part.reward for part in parts]),
        next_obs=np.concatenate([part.next_obs for part in parts]),
        terminated=np.concatenate([part.terminated for part in parts]),
        episode_end=np.concatenate(episode_end),
        behavior_log_prob=np.concatenate(log_probs) if len(log_probs) == len(parts) else None,
        source=Provenance(
            "+".join(part.source.name for part in parts),
            tuple(path for part in parts for path in part.source.paths),
            tuple(digest for part in parts for digest in part.source.sha256),
            first.source.rows,
        ),
    )


# ------------------------------------------------------------------ from D4RL's columns to transitions


@dataclass(frozen=True)
class _Columns:
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

    def select(self, rows: BoolArray) -> _Columns:
        return _Columns(
            self.obs[rows],
            self.action[rows],
            self.reward[rows],
            self.terminal[rows],
            self.timeout[rows],
            None if self.next_obs is None else self.next_obs[rows],
            None if self.log_prob is None else self.log_prob[rows],
        )


class _Rows(NamedTuple):
    """Which R of the N rows become transitions."""

    kept: IntArray  # (R,) row numbers
    next_obs: FloatArray  # (R, O)
    episode_end: BoolArray  # (R,)


def _d4rl_rows(columns: _Columns) -> _Rows:
    """The rows of ``d4rl.qlearning_dataset(terminate_on_end=False)`` (d4rl 1.1, d4rl/__init__.py)."""
    kept = np.flatnonzero(~columns.timeout[:-1])
    episode_end = columns.terminal[kept] | columns.timeout[kept + 1]  # the row after the last kept one was dropped
    episode_end[-1:] = True
    return _Rows(kept, columns.obs[kept + 1], episode_end)


def _strict_rows(columns: _Columns) -> _Rows:
    """Every row whose next observation is known or, being terminal, is not needed."""
    if columns.next_obs is not None:
        episode_end = columns.terminal | columns.timeout
        episode_end[-1:] = True
        return _Rows(np.arange(len(columns.reward)), columns.next_obs.copy(), episode_end)  # the caller's array
    cut = columns.timeout & ~columns.terminal
    kept = np.flatnonzero(~cut[:-1])
    terminal = columns.terminal[kept]
    episode_end = terminal | cut[kept + 1]
    episode_end[-1:] = True
    return _Rows(kept, columns.obs[np.where(terminal, kept, kept + 1)], episode_end)


def _read_columns(dataset: Mapping[str, NDArray[Any]], rows: RowMode, limit: int | None, name: str) -> _Columns:
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
    return _Columns(obs, action, reward, terminal, timeout, next_obs, log_prob)


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
            _warn(
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


def _finite_episodes(columns: _Columns, on_nonfinite: OnNonfinite, name: str) -> _Columns:
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
    _warn(
        f"{name}: dropped {len(np.unique(episode[bad_rows]))} of {episode[-1] + 1} episodes ({dropped.sum()} rows): "
        f"{'; '.join(reports)}"
    )
    if dropped.all():
        raise EmptyDatasetError(f"{name}: every episode holds NaN or infinities", "get the file again")
    return columns.select(~dropped)


def _warn_of_double_ends(columns: _Columns, rows: RowMode, name: str) -> None:
    both = int((columns.terminal & columns.timeout).sum())
    if both:
        fate = "dropped, as D4RL does" if rows == "d4rl" else "kept as terminal"
        _warn(f"{name}: {both} rows are both terminal and timeout: {fate}")


def _library_actions(
    columns: _Columns, task: Task | None, action_range: ActionRange, name: str
) -> tuple[FloatArray, Task | None, FloatArray | None]:
    """(actions (N, A) in [-1, 1], the task that maps them back, log-probabilities (N,) in the same units)."""
    if task is not None and len(task.action_low) != columns.action.shape[1]:
        raise SpaceMismatchError(
            f"{name}: dataset action {columns.action.shape[1:]} vs {task.env_id} {(len(task.action_low),)}",
            "the file belongs to another task: name its environment with --env",
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
            "--action-range clip cuts them off; --action-range data maps their range to [-1, 1]",
        )
    if beyond.any():
        if action_range != "data":  # there it is the rounding of the map itself
            _warn(f"{name}: clipped {beyond.sum()} action entries, at most {farthest - 1.0:.3g} outside [-1, 1]")
        action = np.clip(action, -1.0, 1.0)

    log_prob = columns.log_prob
    if log_prob is not None and farthest > ACTION_TOLERANCE:
        _warn(f"{name}: '{LOG_PROB_KEY}' left out, it does not describe clipped actions")
        log_prob = None
    if log_prob is not None and not np.isfinite(log_prob).all():
        _warn(f"{name}: '{LOG_PROB_KEY}' left out, {(~np.isfinite(log_prob)).sum()} entries are not finite")
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


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{option} {value!r} is unknown", f"one of {', '.join(choices)}")


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=2)


class Normalizer(nn.Module):
    """(x - mean) / std with statistics kept as buffers, so that they are saved with whoever owns it.

    The standard deviation has a floor of 1e-3 (as in CORL), so that constant features stay finite.
    """

    mean: Tensor  # (O,), or (S, 1, O) for the batches of S seeds
    std: Tensor  # the same

    def __init__(self, dim: int, stack: Stack = ()) -> None:
        super().__init__()
        shape = (*stack, 1, dim) if stack else (dim,)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def fit(self, values: FloatArray) -> Normalizer:
        """Take mean and standard deviation over the rows of ``values`` (R, O); returns self.

        A DataWarning names the features that hardly vary.
        """
        std = values.std(0, dtype=np.float64)
        constant = np.flatnonzero(std < 1e-3).tolist()
        if constant:
            _warn(f"features {constant} hardly vary (standard deviation below 1e-3)")
        self.mean.copy_(torch.from_numpy(values.mean(0, dtype=np.float64)))
        self.std.copy_(torch.from_numpy(np.maximum(std, 1e-3)))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Source(Protocol):
    """What a training loop draws batches from. Its state makes the next batches reproducible."""

    def sample(self) -> Batch: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class Sampler:
    """Uniform batches with replacement from rows that lie on the device; owns its random stream."""

    def __init__(
        self,
        transitions: Transitions,
        batch_size: int,
        seed: int | np.random.SeedSequence = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.batch_size = batch_size
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.device = torch.device(device)
        self.rows = len(transitions)
        self._columns = columns_on(transitions, self.device)

    def sample(self) -> Batch:
        """The next batch."""
        index = torch.from_numpy(self.rng.integers(self.rows, size=self.batch_size)).to(self.device)
        obs, action, reward, next_obs, terminated = (column.index_select(0, index) for column in self._columns)
        return Batch(obs, action, reward, next_obs, terminated, index)

    def state(self) -> dict[str, Any]:
        """JSON-ready state of the random stream."""
        return {"rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]


class StackedSampler:
    """Batches (S, B, ...) for S seeds side by side, each from a random stream of its own: seed s meets the rows that a
    `Sampler` with its stream would show it."""

    def __init__(
        self,
        transitions: Transitions,
        batch_size: int,
        seeds: Sequence[int | np.random.SeedSequence],
        device: str | torch.device = "cpu",
    ) -> None:
        self.batch_size = batch_size
        self.rngs = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self.device = torch.device(device)
        self.rows = len(transitions)
        self._columns = columns_on(transitions, self.device)

    def sample(self) -> Batch:
        """The next batch."""
        drawn = np.stack([rng.integers(self.rows, size=self.batch_size) for rng in self.rngs])
        index = torch.from_numpy(drawn).to(self.device)
        rows = (column.index_select(0, index.flatten()) for column in self._columns)
        obs, action, reward, next_obs, terminated = (column.unflatten(0, index.shape) for column in rows)
        return Batch(obs, action, reward, next_obs, terminated, index)

    def state(self) -> dict[str, Any]:
        """JSON-ready state of the random streams."""
        return {"rngs": [rng.bit_generator.state for rng in self.rngs]}

    def load_state(self, state: dict[str, Any]) -> None:
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved


class Replay:
    """Transitions that an online run collects: uniform batches from them, and themselves as a `Transitions`.

    Rows lie on the device; from ``capacity`` on the oldest are overwritten. Owns its random stream.
    """

    def __init__(
        self,
        spec: Spec,
        batch_size: int,
        capacity: int = 1_000_000,
        seed: int | np.random.SeedSequence = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.spec, self.batch_size, self.capacity = spec, batch_size, capacity
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.device = torch.device(device)
        self.count = 0  # rows ever added
        self._columns = self._empty(min(capacity, 1024))

    def __len__(self) -> int:
        """Rows that can be drawn."""
        return min(self.count, self.capacity)

    def _empty(self, rows: int) -> dict[str, Tensor]:
        obs_dtype = getattr(torch, self.spec.obs_dtype)
        columns = {
            "obs": torch.zeros((rows, *self.spec.obs_shape), dtype=obs_dtype),
            "action": torch.zeros((rows, self.spec.action_dim)),
            "reward": torch.zeros(rows),
            "next_obs": torch.zeros((rows, *self.spec.obs_shape), dtype=obs_dtype),
            "terminated": torch.zeros(rows),
            "episode_end": torch.zeros(rows, dtype=torch.bool),
        }
        return {name: column.to(self.device) for name, column in columns.items()}

    def _grow(self) -> None:
        rows = len(self._columns["reward"])
        if rows == min(self.count, self.capacity) and rows < self.capacity:
            larger = self._empty(min(2 * rows, self.capacity))
            for name, column in self._columns.items():
                larger[name][:rows] = column
            self._columns = larger

    def add(
        self, obs: Tensor, action: Tensor, reward: float, next_obs: Tensor, terminated: bool, episode_end: bool
    ) -> None:
        """One transition: obs (O), action (A) in [-1, 1]."""
        self._grow()
        at = self.count % self.capacity
        row: tuple[Any, ...] = (obs, action, reward, next_obs, float(terminated), episode_end)
        for column, value in zip(self._columns.values(), row, strict=True):
            column[at] = value
        self.count += 1

    def cut(self, back: int) -> None:
        """The ``back``-th newest row is the last of its episode, which was broken off."""
        self._columns["episode_end"][(self.count - back) % self.capacity] = True

    def sample(self) -> Batch:
        """The next batch."""
        index = torch.from_numpy(self.rng.integers(len(self), size=self.batch_size)).to(self.device)
        obs, action, reward, next_obs, terminated = (
            self._columns[name].index_select(0, index) for name in ("obs", "action", "reward", "next_obs", "terminated")
        )
        return Batch(obs, action, reward, next_obs, terminated, index)

    def tensors(self) -> dict[str, Tensor]:
        """The rows, in the order of the buffer: what a checkpoint holds beside `state`."""
        return {name: column[: len(self)].cpu() for name, column in self._columns.items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over `tensors`, after `load_state`. Raises CheckpointCorruptError where they are of other shapes."""
        fresh = self._empty(min(self.capacity, max(1024, len(self))))
        for name, column in fresh.items():
            saved = tensors.get(name)
            if saved is None or saved.shape != column[: len(self)].shape or saved.dtype != column.dtype:
                raise CheckpointCorruptError(f"the checkpoint's replay buffer has no usable {name}", "train anew")
            column[: len(self)] = saved
        self._columns = fresh

    def state(self) -> dict[str, Any]:
        """JSON-ready: the random stream and how many rows there were."""
        return {"rng": self.rng.bit_generator.state, "count": self.count}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state, self.count = state["rng"], int(state["count"])

    def transitions(self, task: Task | None = None, name: str = "replay") -> Transitions:
        """The rows in the order of collection. Raises EmptyDatasetError before the first one."""
        order = (torch.arange(len(self)) + (self.count if self.count > self.capacity else 0)) % max(len(self), 1)
        rows = {key: column[: len(self)].cpu()[order].numpy() for key, column in self._columns.items()}
        terminated = rows.pop("terminated") > 0.0
        return Transitions(**rows, terminated=terminated, spec=self.spec, task=task, source=Provenance(name))


def columns_on(transitions: Transitions, device: torch.device) -> tuple[Tensor, ...]:
    """obs, action, reward, next_obs and terminated (as 1.0) of all rows, on the device."""
    columns = (
        transitions.obs,
        transitions.action,
        transitions.reward,
        transitions.next_obs,
        transitions.terminated.astype(np.float32),
    )
    return tuple(torch.from_numpy(np.ascontiguousarray(column)).to(device) for column in columns)


# ------------------------------------------------------------------ sequences of images


@dataclass(frozen=True)
class Frames:
    """Episodes of images: R steps in E episodes, every frame stored once, so that an episode of T steps has T + 1.

    ``frames`` is uint8 and may be memory-mapped: nothing here reads more of it than a batch, and nothing makes floats
    of it. ``action[i]`` is taken at the frame before it, as everywhere in this library.
    """

    frames: NDArray[np.uint8]  # (R + E, C, H, W)
    action: FloatArray  # (R, A), in [-1, 1]
    reward: FloatArray  # (R,)
    terminated: BoolArray  # (R,)
    lengths: IntArray  # (E,), steps of each episode
    spec: Spec
    task: Task | None = None
    source: Provenance = field(default_factory=lambda: Provenance("arrays"))

    def __post_init__(self) -> None:
        steps = int(self.lengths.sum())
        if steps == 0:
            raise EmptyDatasetError(f"{self.source.name}: no step is left", "check the files")
        rows = {"frames": len(self.frames) - len(self.lengths), "action": len(self.action)}
        rows |= {"reward": len(self.reward), "terminated": len(self.terminated)}
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or set(rows.values()) != {steps}:
            raise DatasetFormatError(
                f"{self.source.name}: {self.frames.dtype} frames {self.frames.shape}, rows {rows} for {steps} steps",
                "uint8 (R + E, C, H, W), one frame more than steps in every episode",
            )

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def starts(self) -> IntArray:
        """(E,), the row of the first step of each episode; its first frame is ``starts[e] + e``."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]])

    def episode_returns(self) -> NDArray[np.float64]:
        """(E,), undiscounted sums of rewards."""
        return np.add.reduceat(self.reward.astype(np.float64), self.starts)

    def split_episodes(self, held_out: float = 0.1) -> tuple[Frames, Frames]:
        """(training, held-out): the last ``held_out`` share of the episodes, at least one of each; views, no copies.

        Raises EmptyDatasetError where there are fewer than two episodes.
        """
        if len(self.lengths) < 2:
            raise EmptyDatasetError(f"{self.source.name}: one episode cannot be split", "give a data set with more")
        count = min(max(round(held_out * len(self.lengths)), 1), len(self.lengths) - 1)
        border = len(self.lengths) - count
        return self._part(slice(0, border)), self._part(slice(border, None))

    def _part(self, episodes: slice) -> Frames:
        lengths, first = self.lengths[episodes], episodes.start
        start, steps = int(self.starts[first]), int(lengths.sum())
        rows, frames = slice(start, start + steps), slice(start + first, start + first + steps + len(lengths))
        return replace(
            self,
            frames=self.frames[frames],
            action=self.action[rows],
            reward=self.reward[rows],
            terminated=self.terminated[rows],
            lengths=lengths,
        )


class SequenceSampler:
    """Uniform batches of sequences of L steps within one episode; owns its random stream.

    A `Batch` with a time axis first: obs (L, B, K C, H, W) uint8, the last K = ``stack`` frames one after the other
    (the first frame repeated where an episode begins), action (L, B, A), ..., next_obs[t] is obs[t + 1]. Steps after
    the end of an episode shorter than L have ``index`` -1 and repeat the last frame.
    """

    def __init__(
        self,
        data: Frames,
        batch_size: int,
        length: int,
        seed: int | np.random.SeedSequence = 0,
        device: str | torch.device = "cpu",
        stack: int = 1,
    ) -> None:
        if length < 1 or stack < 1 or batch_size < 1:
            raise UsageError(f"{batch_size} sequences of {length} steps, {stack} frames", "at least one of each")
        self.data, self.batch_size, self.length, self.stack = data, batch_size, length, stack
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.device = torch.device(device)
        self._starts = data.starts
        self._windows = np.cumsum(np.maximum(data.lengths - length, 0) + 1)  # how many begin up to each episode's end

    def sample(self) -> Batch:
        """The next batch."""
        drawn = self.rng.integers(self._windows[-1], size=self.batch_size)
        episode = np.searchsorted(self._windows, drawn, side="right")  # (B,)
        first = drawn - np.concatenate([[0], self._windows])[episode]  # (B,), within the episode
        return self.windows(episode, first)

    def windows(self, episode: IntArray, first: IntArray) -> Batch:
        """The sequences that begin at the given steps of the given episodes, (B,) each."""
        last = self.data.lengths[episode]  # (B,), the episode's last frame
        step = first + np.arange(self.length + 1)[:, None]  # (L + 1, B)
        inside = step[:-1] < last
        row = self._starts[episode] + np.minimum(step[:-1], last - 1)  # (L, B)
        at = self._starts[episode] + episode  # the row of the episode's first frame
        behind = np.arange(self.stack)[::-1]  # oldest first
        wanted = at[:, None] + np.clip(np.minimum(step, last)[..., None] - behind, 0, None)  # (L + 1, B, K)
        frames = torch.from_numpy(self.data.frames[wanted].reshape(*step.shape, -1, *self.data.frames.shape[2:]))
        frames = frames.to(self.device)
        columns = (self.data.action[row], self.data.reward[row], self.data.terminated[row].astype(np.float32))
        action, reward, terminated = (torch.from_numpy(column).to(self.device) for column in columns)
        index = torch.from_numpy(np.where(inside, row, -1)).to(self.device)
        return Batch(frames[:-1], action, reward, frames[1:], terminated, index)

    def state(self) -> dict[str, Any]:
        """JSON-ready state of the random stream."""
        return {"rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]
