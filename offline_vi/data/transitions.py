"""A static data set in memory.

Two flags stay apart from the file to the target: ``terminated`` (do not bootstrap) and ``episode_end`` (the next row
belongs to another episode, whatever the reason).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_vi.data.checks import check_columns
from offline_vi.data.columns import (
    ActionRange,
    Columns,
    DiscreteActions,
    NextObs,
    OnNonfinite,
    RowMode,
    check_choice,
    next_obs_of,
)
from offline_vi.data.episodes import columns_from_episodes
from offline_vi.data.own import Bound, Observations, bounded_task, columns_from_arrays
from offline_vi.data.provenance import ColumnOptions as ColumnOptions, Provenance as Provenance, ValueOptions
from offline_vi.data.rows import following_rows, library_actions, rewards_cut_off, rows_within_episodes
from offline_vi.data.steps import Steps
from offline_vi.data.tables import Roles, Table, columns_from_table, name_of, names_of
from offline_vi.data.unknown_ends import UnknownEnds, report_unknown_ends
from offline_vi.errors import ConfigError, EmptyDatasetError, SpaceMismatchError
from offline_vi.joined import JOIN, distinct_names, short_name
from offline_vi.types import BoolArray, FloatArray, RewardMap, Spec, Task, unit_task


@dataclass(frozen=True, repr=False)
class Transitions:
    """R transitions in the order in which they were collected.

    ``next_obs[i]`` is the observation that followed ``action[i]``. On terminal rows read as "following_row" it is the
    first observation of the next episode, as in D4RL (masked by ``terminated``).
    """

    obs: FloatArray  # (R, O)
    action: FloatArray  # (R, A), in [-1, 1]
    reward: FloatArray  # (R,)
    next_obs: FloatArray  # (R, O)
    terminated: BoolArray  # (R,)
    episode_end: BoolArray  # (R,)
    spec: Spec  # the shapes
    task: Task | None = None  # the environment that policies are scored on; None: they are not scored
    behavior_log_prob: FloatArray | None = None  # (R,) true log pi_beta(a|s) in nats, of library actions in [-1, 1]
    source: Provenance = field(default_factory=lambda: Provenance("arrays"))  # where the rows came from
    weight: NDArray[np.float64] | None = None  # (R,) how often each row is drawn, mean 1; None: all alike
    returns: FloatArray | None = None  # (R,) what critics regress in place of bootstrapped targets; None: bootstrap
    failed: BoolArray | None = None  # (R,) the ends of the task that are failures; None: all are alike
    cut_off: FloatArray | None = None  # (R,) reward of a last step that is in no row, after its row before; else NaN

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise EmptyDatasetError(f"{self.source.name}: no transition is left", "look at its terminals and timeouts")

    @classmethod
    def from_d4rl(
        cls, dataset: Mapping[str, NDArray[Any]], *, rows: RowMode | None = None, **options: Unpack[ColumnOptions]
    ) -> Transitions:
        """Arrays under the keys of D4RL's layout (`Columns.from_d4rl`), such as ``env.get_dataset()`` returns.

        Options are those of `from_columns`; ``rows`` is the former name of ``next_obs``.

        Raises DatasetFormatError where a key is missing, and what `from_columns` raises.
        """
        if rows is not None:
            options["next_obs"] = next_obs_of(rows)
        source = options.get("source")
        columns = Columns.from_d4rl(dataset, source.name if source else Provenance("arrays").name)
        return cls.from_columns(columns, **options)

    @classmethod
    def from_arrays(
        cls,
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
        action_low: Bound | None = None,
        action_high: Bound | None = None,
        **options: Unpack[ValueOptions],
    ) -> Transitions:
        """N steps as arrays: obs (N, O), action (N, A) in physical units, the others (N,); one number needs no axis.

        ``terminated`` marks the rows after which the task had ended; None says that nothing ended it, so that every
        episode was cut, and True that every episode ended it. ``failed`` marks those of these ends that are failures:
        what `with_reward` penalizes. Ends are told by ``episode``, the number or name of each row's episode, by
        ``timeout``, the rows after which an episode was cut, by ``max_episode_steps=``, or by ``time`` and
        ``episode_gap``: an episode ends where the next row is later by more than that, in seconds where times are
        dates, else in their own units. Rows are in the order of time, unless ``time`` and ``episode`` say otherwise.
        ``next_obs`` (N, O) are the observations after each step; without it they are the following row's, and a row
        that was cut is no transition, because nobody knows what followed. A dictionary of observations is joined by
        ``obs_keys`` in their order (default: observation and desired_goal, else all entries). ``log_prob`` is log
        pi_beta(a|s) in nats, of physical actions.

        ``action_low=`` and ``action_high=`` are mapped to -1 and 1; without them actions are in [-1, 1] already.

        Raises UsageError (arguments that contradict each other), and what `from_columns` raises.
        """
        columns = columns_from_arrays(
            obs=obs,
            action=action,
            reward=reward,
            terminated=terminated,
            timeout=timeout,
            failed=failed,
            episode=episode,
            time=time,
            episode_gap=episode_gap,
            next_obs=next_obs,
            log_prob=log_prob,
            obs_keys=obs_keys,
            max_episode_steps=options.get("max_episode_steps"),
            name=_name(options),
        )
        return cls._from_own(columns, action_low, action_high, options)

    @classmethod
    def from_episodes(
        cls,
        episodes: Sequence[Any],
        *,
        obs_keys: Sequence[str] = (),
        action_low: Bound | None = None,
        action_high: Bound | None = None,
        **options: Unpack[ValueOptions],
    ) -> Transitions:
        """Episodes as dictionaries, dataclasses or Minari's ``EpisodeData``: obs, action, reward, terminated, and
        optionally timeout, next_obs, log_prob, under these names, Gymnasium's and Minari's, or D4RL's.

        An episode of T steps has T rewards and T + 1 observations, or T, whose last step is dropped unless it
        terminated. ``terminated`` is one value or T. The other arguments are those of `from_arrays`.

        Raises what `from_arrays` raises.
        """
        columns = columns_from_episodes(episodes, obs_keys=obs_keys, name=_name(options))
        return cls._from_own(columns, action_low, action_high, options)

    @classmethod
    def from_frame(
        cls,
        frame: Table | Mapping[str, Any],
        *,
        obs: Sequence[str] | str,
        action: Sequence[str] | str,
        reward: str,
        terminated: str | bool | None,
        timeout: str | None = None,
        failed: str | None = None,
        episode: str | None = None,
        time: str | None = None,
        episode_gap: float | None = None,
        next_obs: Sequence[str] | str | None = None,
        log_prob: str | None = None,
        action_low: Bound | None = None,
        action_high: Bound | None = None,
        **options: Unpack[ValueOptions],
    ) -> Transitions:
        """A data frame of pandas or polars, or a dictionary of columns (N,) by their names.

        Each argument names a column, or several. "sensor_*" stands for all columns that match, in the frame's order.
        The arguments mean what they mean in `from_arrays`.

        Raises DatasetFormatError where a column is missing (with the nearest name) or holds no numbers, and what
        `from_arrays` raises.
        """
        columns = columns_from_table(
            frame,
            Roles(
                names_of(obs),
                names_of(action),
                reward,
                "" if isinstance(terminated, bool) else name_of(terminated),
                every_end=terminated is True,
                timeout=name_of(timeout),
                failed=name_of(failed),
                episode=name_of(episode),
                time=name_of(time),
                episode_gap=episode_gap,
                next_obs=names_of(next_obs),
                log_prob=name_of(log_prob),
            ),
            max_episode_steps=options.get("max_episode_steps"),
            name=_name(options),
        )
        return cls._from_own(columns, action_low, action_high, options)

    @classmethod
    def _from_own(cls, columns: Columns, low: Bound | None, high: Bound | None, options: ValueOptions) -> Transitions:
        """Ends and next observations of own data are known: no row leans on another episode's."""
        task = bounded_task(options.get("task"), low, high, columns, _name(options))
        changed: ValueOptions = {**options, "task": task}
        report_unknown_ends([UnknownEnds.of(columns)], _name(options))
        return cls.from_columns(columns, next_obs="within_episode", **changed)

    @classmethod
    def from_columns(cls, columns: Columns, **options: Unpack[ColumnOptions]) -> Transitions:
        """The transitions of N rows in the order of collection, in the environment's units.

        ``next_obs`` says where next observations come from, and with it which rows become transitions:

        - "following_row": the rows of ``d4rl.qlearning_dataset``, bit for bit: the next observation is the following
          row's; rows with a timeout and the last row are dropped. Stored next observations are only compared: where
          they contradict the following row in up to 1 % of the steps within episodes, these are ends of episodes that
          were not marked, and the episodes are cut there; more are refused.
        - "within_episode": no next observation comes from another episode. Where they are stored every row is kept.
          Else rows whose next state is unknown (timeouts that are not terminal, the last row) are dropped, and the
          next_obs of a terminal row, which nothing may read, is its own observation.

        ``task`` gives the action bounds (without it: [-1, 1]) and, where there are no timeouts, the episode length
        unless ``max_episode_steps`` does. ``action_range`` says what happens to actions outside the bounds: "error"
        (up to 1e-3 is clipped), "clip", or "data", which maps the range of the data to [-1, 1] and keeps the map in
        the task; log-probabilities follow the map. ``discrete_actions`` says what happens to actions that are labels
        (one-hot rows, 0 and 1, whole numbers of up to 32 kinds): "error", or "continuous", which takes them for
        amounts.

        ``on_nonfinite`` says what happens to NaN and infinities: "error"; "drop-episode" leaves out the episodes;
        "split" leaves out the rows, cuts the episode before each and begins another after it; "hold" repeats the last
        good value of the same entry within the episode, and splits off rows that have none before them. Messages count
        rows and episodes from 0, and a DataWarning counts everything that was repaired.

        Raises DatasetFormatError (shapes, types, order, unknown episode length), NonFiniteDataError, ActionRangeError
        (outside the bounds, or labels), SpaceMismatchError (action dimension of task and data), EmptyDatasetError,
        UsageError.
        """
        return cls.examined(columns, **options)[0]

    @classmethod
    def examined(
        cls,
        given: Columns,
        *,
        next_obs: NextObs = "following_row",
        task: Task | None = None,
        action_range: ActionRange = "error",
        on_nonfinite: OnNonfinite = "error",
        discrete_actions: DiscreteActions = "error",
        max_episode_steps: int | None = None,
        source: Provenance | None = None,
    ) -> tuple[Transitions, Steps]:
        """What `from_columns` returns, and what became of the rows; raises what it raises."""
        _check_choices(next_obs, action_range, on_nonfinite, discrete_actions)
        source = replace(source or Provenance("arrays"), next_obs=next_obs)
        if max_episode_steps is None and task is not None:
            max_episode_steps = task.max_episode_steps
        checked = check_columns(
            given,
            source.name,
            next_obs=next_obs,
            on_nonfinite=on_nonfinite,
            discrete_actions=discrete_actions,
            max_episode_steps=max_episode_steps,
        )
        columns = checked.columns
        action, task, log_prob = library_actions(columns, task, action_range, source.name)
        kept, after, episode_end = (following_rows if next_obs == "following_row" else rows_within_episodes)(columns)
        data = cls(
            obs=columns.obs[kept],
            action=action[kept],
            reward=columns.reward[kept],
            next_obs=after,
            terminated=columns.terminal[kept],
            episode_end=episode_end,
            spec=Spec(columns.obs.shape[1:], columns.action.shape[1]),
            task=task,
            behavior_log_prob=None if log_prob is None else log_prob[kept],
            failed=None if columns.failed is None else columns.failed[kept],
            source=source,
            cut_off=rewards_cut_off(columns.reward, columns.episode_end, kept),
        )
        if not checked.kept.all():
            recorded = len(np.unique(checked.whole.episode[checked.kept][kept]))
            data = replace(data, source=replace(source, parts=len(data.episode_slices()) - recorded))
        return data, Steps.of(given, checked, kept)

    def __len__(self) -> int:
        return len(self.reward)

    def __repr__(self) -> str:
        name = f"{short_name(self.source.name)}: " if self.source.name else ""
        return f"Transitions({name}{len(self):,} rows, {len(self.episode_slices()):,} episodes)"

    def episode_slices(self) -> list[slice]:
        """One slice of rows per episode; a trailing unfinished episode counts as one."""
        ends = np.flatnonzero(self.episode_end) + 1
        if len(ends) == 0 or ends[-1] != len(self):
            ends = np.append(ends, len(self))
        starts = np.concatenate([[0], ends[:-1]])
        return [slice(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]

    def episode_returns(self) -> NDArray[np.float64]:
        """Undiscounted sum of the rewards of the rows of each episode: what weights go by."""
        return np.array([self.reward[rows].sum(dtype=np.float64) for rows in self.episode_slices()])

    def observed_returns(self, discount: float = 1.0) -> NDArray[np.float64]:
        """sum_t gamma^t r_t of each episode, as far as its rewards are known: what its policy earned.

        A last step whose next state is not known is no transition, and so in no row, but its reward is in the sum.
        """
        cut_off, found = _cut_off(self), []
        for rows in self.episode_slices():
            reward = np.append(self.reward[rows], cut_off[rows.stop - 1]).astype(np.float64)
            found.append(np.nansum(reward * discount ** np.arange(len(reward))))
        return np.array(found)

    @property
    def longest(self) -> int:
        """Steps of the longest episode, with a last step that is in no row."""
        cut_off = _cut_off(self)
        return max(int(rows.stop - rows.start + np.isfinite(cut_off[rows.stop - 1])) for rows in self.episode_slices())

    @property
    def failures(self) -> BoolArray:
        """(R,) ``failed`` where the data say it, else ``terminated``."""
        return self.terminated if self.failed is None else self.failed

    def mean_return(self) -> float:
        """What the policies that made the data earned: the mean of `observed_returns` over the episodes as they were
        recorded. Where missing values cut one into parts, these count as one."""
        returns = self.observed_returns()
        return float(returns.sum() / (len(returns) - self.source.parts))

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
            weight=None if self.weight is None else self.weight[rows],
            returns=None if self.returns is None else self.returns[rows],
            failed=None if self.failed is None else self.failed[rows],
            cut_off=None if self.cut_off is None else self.cut_off[rows],
        )

    def with_weights(self, weight: NDArray[np.float64] | None, rule: Mapping[str, Any]) -> Transitions:
        """The same rows, each drawn by training loops in proportion to its weight (R,); None: all alike again.

        ``rule`` says in JSON values how the weights came about, and is kept in ``source``. Weights are scaled to the
        mean 1. Raises ConfigError where there are not R of them, where one is negative or no number, or all are 0.
        """
        if weight is None:
            return replace(self, weight=None, source=replace(self.source, weights=None))
        weight = np.asarray(weight, np.float64)
        if weight.shape != (len(self),):
            raise ConfigError(f"weights of shape {weight.shape} for {len(self)} rows", "one for each row")
        if not (np.isfinite(weight).all() and (weight >= 0.0).all() and weight.any()):
            raise ConfigError("weights are negative, not finite, or all 0", "positive numbers, or 0 to leave rows out")
        return replace(self, weight=weight / weight.mean(), source=replace(self.source, weights=dict(rule)))

    def with_returns(self, returns: NDArray[np.floating[Any]] | None) -> Transitions:
        """The same rows for critics that regress ``returns`` (R,), in the units of the rewards; None: as they were.

        Training loops then draw each row as an episode of one step whose reward is its return, so that the Bellman
        target of any algorithm is that return. Rewards, episodes and everything counted from them stay as they are.

        Raises ConfigError where there are not R of them, or one is not finite.
        """
        if returns is None:
            return replace(self, returns=None)
        returns = np.asarray(returns, np.float32)
        if returns.shape != (len(self),):
            raise ConfigError(f"returns of shape {returns.shape} for {len(self)} rows", "one for each row")
        if not np.isfinite(returns).all():
            raise ConfigError("returns are not finite", "lower the learning rate of the values that they come from")
        return replace(self, returns=returns)

    def with_task(self, task: Task) -> Transitions:
        """The same actions of the environment, in the units of another task's map and with that task.

        Log-probabilities follow. Raises ActionRangeError where actions are outside of its bounds, SpaceMismatchError
        for another number of actions.
        """
        own = self.task or unit_task(self.spec.action_dim)
        if own.same_map(task):
            return replace(self, task=task)
        in_env = Columns(self.obs, own.to_env(self.action), self.reward, self.terminated)
        log_prob = self.behavior_log_prob
        if log_prob is not None:
            in_env = replace(in_env, log_prob=log_prob + np.float32(own.log_jacobian))
        action, _, log_prob = library_actions(in_env, task, "error", self.source.name)
        return replace(self, action=action, task=task, behavior_log_prob=log_prob)

    def with_reward(self, scale: float = 1.0, shift: float = 0.0, *, end_penalty: float = 0.0) -> Transitions:
        """The same rows with rewards scale * (r - end_penalty * terminated) + shift, recorded in ``source``; done
        twice, the maps compose. Where the data say which ends are failures (``failed``), the penalty is for these
        alone.

        Raises ConfigError where the scale is not a positive number or another one not a number, or where the rows have
        returns of the rewards as they are.
        """
        if self.returns is not None:
            raise ConfigError("the returns are of other rewards", "change the rewards first, then compute returns")
        change = RewardMap(scale, shift, end_penalty)
        whole = change.after(self.source.reward_map)
        source = replace(self.source, reward_scale=whole.scale, reward_shift=whole.shift, end_penalty=whole.end_penalty)
        earned = self.reward - np.float32(end_penalty) * self.failures
        reward = np.asarray(change.scale * earned + change.shift, np.float32)
        cut_off = np.asarray(change.scale * _cut_off(self) + change.shift, np.float32)
        return replace(self, reward=reward, source=source, cut_off=cut_off)

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


def _cut_off(data: Transitions) -> FloatArray:
    """(R,) `Transitions.cut_off`, NaN where that is not known."""
    return np.full(len(data), np.nan, np.float32) if data.cut_off is None else data.cut_off


def _name(options: ValueOptions) -> str:
    return (options.get("source") or Provenance("arrays")).name


def _check_choices(next_obs: str, action_range: str, on_nonfinite: str, discrete_actions: str) -> None:
    check_choice("next_obs", next_obs, get_args(NextObs))
    check_choice("action_range", action_range, get_args(ActionRange))
    check_choice("on_nonfinite", on_nonfinite, get_args(OnNonfinite))
    check_choice("discrete_actions", discrete_actions, get_args(DiscreteActions))


def concatenate(parts: Sequence[Transitions]) -> Transitions:
    """Join data sets that were each read alone: episodes never run across. Weights and returns are given to the whole,
    afterwards.

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
            part.task is not None and first.task is not None and not part.task.same_map(first.task)
        ):
            raise SpaceMismatchError(
                f"{part.source.name} and {first.source.name} scale their actions differently",
                'join only data sets of one task, with action_range="error" or action_range="clip"',
            )
        if part.source.reward_map != first.source.reward_map:
            raise SpaceMismatchError(
                f"{part.source.name} and {first.source.name} have rewards in different units",
                "join the data first, then change the rewards of the whole",
            )
    episode_end = [part.episode_end.copy() for part in parts]
    for flags in episode_end:
        flags[-1] = True
    log_probs = [part.behavior_log_prob for part in parts if part.behavior_log_prob is not None]
    tasks = [part.task for part in parts if part.task is not None]
    return replace(
        first,
        task=replace(tasks[0], name=JOIN.join(dict.fromkeys(task.name for task in tasks))) if tasks else None,
        obs=np.concatenate([part.obs for part in parts]),
        action=np.concatenate([part.action for part in parts]),
        reward=np.concatenate([part.reward for part in parts]),
        next_obs=np.concatenate([part.next_obs for part in parts]),
        terminated=np.concatenate([part.terminated for part in parts]),
        episode_end=np.concatenate(episode_end),
        behavior_log_prob=np.concatenate(log_probs) if len(log_probs) == len(parts) else None,
        weight=None,
        returns=None,
        failed=None if all(part.failed is None for part in parts) else np.concatenate([p.failures for p in parts]),
        cut_off=np.concatenate([_cut_off(part) for part in parts]),
        source=Provenance(
            JOIN.join(distinct_names([(part.source.name, "".join(part.source.paths)) for part in parts])),
            tuple(path for part in parts for path in part.source.paths),
            tuple(digest for part in parts for digest in part.source.sha256),
            first.source.next_obs,
            first.source.reward_scale,
            first.source.reward_shift,
            first.source.columns,
            first.source.obs_names,
            first.source.action_names,
            parts=sum(part.source.parts for part in parts),
            rules=first.source.rules,
            end_penalty=first.source.end_penalty,
        ),
    )
