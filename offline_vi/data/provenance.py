"""Where rows came from, and how columns are read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from offline_vi.data.columns import (
    FORMER_NEXT_OBS,
    ActionRange,
    DiscreteActions,
    NextObs,
    OnNonfinite,
    RowMode,
    next_obs_of,
)
from offline_vi.types import RewardMap, Task


@dataclass(frozen=True)
class Provenance:
    """Where rows came from: enough to say in a result which data it rests on."""

    name: str  # data set name or file stem
    paths: tuple[str, ...] = ()  # the files
    sha256: tuple[str, ...] = ()  # of each file
    next_obs: NextObs = "following_row"  # where next observations come from: see `Transitions.from_columns`
    reward_scale: float = 1.0  # the rewards are scale times those of the source, plus shift:
    reward_shift: float = 0.0  # see `Transitions.with_reward`
    columns: str = ""  # the file that names the columns of a table
    obs_names: tuple[str, ...] = ()  # the columns of a table that observations are, in their order
    action_names: tuple[str, ...] = ()  # those that actions are
    weights: Mapping[str, Any] | None = None  # the rule of `Transitions.with_weights`; None: all rows count alike
    parts: int = 0  # episodes that begin where a recorded one was cut, because values were missing
    rules: Mapping[str, Any] = field(default_factory=dict)  # options of `datasets.load` that are not the default
    end_penalty: float = 0.0  # of `Transitions.with_reward`

    def __post_init__(self) -> None:
        if self.next_obs in FORMER_NEXT_OBS:
            object.__setattr__(self, "next_obs", next_obs_of(self.next_obs))

    @property
    def rows(self) -> RowMode:
        """The former name and value of ``next_obs``."""
        warnings.warn("Provenance.rows is now Provenance.next_obs", DeprecationWarning, stacklevel=2)
        return "d4rl" if self.next_obs == "following_row" else "strict"

    @property
    def reward_map(self) -> RewardMap:
        """What turns the rewards of the source into those of the rows."""
        return RewardMap(self.reward_scale, self.reward_shift, self.end_penalty)


class ValueOptions(TypedDict, total=False):
    """Arguments of `Transitions.from_columns` that say nothing about next observations; it explains them, and their
    defaults are those of `datasets.Reading`.

    ``task``: the environment and its action bounds. ``action_range``: "error", "clip" or "data". ``on_nonfinite``:
    "error", "drop-episode", "split" or "hold". ``discrete_actions``: "error" or "continuous". ``max_episode_steps``:
    the length at which episodes were cut. ``source``: where the data come from.
    """

    task: Task | None
    action_range: ActionRange
    on_nonfinite: OnNonfinite
    discrete_actions: DiscreteActions
    max_episode_steps: int | None
    source: Provenance | None


class ColumnOptions(ValueOptions, total=False):
    """Arguments of `Transitions.from_columns`: those of `ValueOptions`, and ``next_obs``, "following_row" (default) or
    "within_episode"."""

    next_obs: NextObs
