"""A static data set in memory, its normalisation, and the sources of batches.

Two flags stay apart from the file to the target: ``terminated`` (do not bootstrap) and ``episode_end`` (the next row
belongs to another episode, whatever the reason).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline_vi.data.columns import (
    LOG_PROB_KEY,
    ActionRange,
    Columns,
    IntArray,
    OnNonfinite,
    RowMode,
    check_choice,
    finite_episodes,
    read_columns,
    warn,
    warn_of_double_ends,
)
from offline_vi.errors import (
    ActionRangeError,
    EmptyDatasetError,
    SpaceMismatchError,
    UsageError,
)
from offline_vi.types import BoolArray, FloatArray, Spec, Task

ACTION_TOLERANCE = np.float32(1.0 + 1e-3)  # actions this large are taken for rounding and clipped


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
        check_choice("rows", rows, ("d4rl", "strict"))
        check_choice("action_range", action_range, ("error", "clip", "data"))
        check_choice("on_nonfinite", on_nonfinite, ("error", "drop-episode"))
        source = replace(source or Provenance("arrays"), rows=rows)
        limit = max_episode_steps
        if limit is None and task is not None:
            limit = task.max_episode_steps
        if limit is not None and limit < 1:
            raise UsageError(f"max_episode_steps is {limit}", "an episode has at least one step")

        columns = read_columns(dataset, rows, limit, source.name)
        columns = finite_episodes(columns, on_nonfinite, source.name)
        warn_of_double_ends(columns, rows, source.name)
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


class _Rows(NamedTuple):
    """Which R of the N rows become transitions."""

    kept: IntArray  # (R,) row numbers
    next_obs: FloatArray  # (R, O)
    episode_end: BoolArray  # (R,)


def _d4rl_rows(columns: Columns) -> _Rows:
    """The rows of ``d4rl.qlearning_dataset(terminate_on_end=False)`` (d4rl 1.1, d4rl/__init__.py)."""
    kept = np.flatnonzero(~columns.timeout[:-1])
    episode_end = columns.terminal[kept] | columns.timeout[kept + 1]  # the row after the last kept one was dropped
    episode_end[-1:] = True
    return _Rows(kept, columns.obs[kept + 1], episode_end)


def _strict_rows(columns: Columns) -> _Rows:
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


def _library_actions(
    columns: Columns, task: Task | None, action_range: ActionRange, name: str
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
