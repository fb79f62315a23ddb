"""Data sets that plug-ins register: what their functions may return, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from offline_vi import registry
from offline_vi.data.columns import Columns
from offline_vi.data.transitions import Provenance, Transitions
from offline_vi.datasets.reading import Read, Reading
from offline_vi.datasets.task_choice import scored_on, task_of_file
from offline_vi.errors import DatasetFormatError, UsageError

HASHES = ("sha256",)
"""What is asked of a file."""

FIXED = (
    *HASHES,
    "next_obs",
    "action_range",
    "on_nonfinite",
    "discrete_actions",
    "action_low",
    "action_high",
    "action_units",
)
"""Options that no longer mean anything once there are transitions."""


def load(name: str, reading: Reading) -> Transitions | Read:
    """What the function registered as ``name`` returns.

    `Transitions` are taken as they are, under the registered name and scored on ``reading.env`` where it is given;
    their action map stays. `Columns`, or arrays under the keys of D4RL's layout, are read by all options, as a file is.

    Raises DatasetFormatError for anything else, UsageError for options that cannot apply to `Transitions`.
    """
    found = registry.data_sets()[name].load()
    if isinstance(found, Transitions):
        _refuse(FIXED, name, reading, "let the registered function return Columns or a dictionary of arrays")
        task = scored_on(found.task, reading)
        return replace(found, task=task, source=replace(found.source, name=name, paths=(name,)))
    if isinstance(found, Mapping):
        found = Columns.from_d4rl(found, name)
    if not isinstance(found, Columns):
        raise DatasetFormatError(
            f"{name}: its plug-in returned a {type(found).__name__}",
            "return Transitions, Columns, or a dictionary of arrays under D4RL's keys",
        )
    _refuse(HASHES, name, reading, "it is no file")
    shapes = (int(np.prod(np.shape(found.obs)[1:])), int(np.prod(np.shape(found.action)[1:])))
    task = task_of_file(name, shapes, reading)
    return Read(found, task, Provenance(name, (name,), next_obs=reading.next_obs))


def read(name: str, reading: Reading) -> Read:
    """The columns of a registered data set; those of `Transitions` in the environment's units."""
    found = load(name, reading)
    if isinstance(found, Read):
        return found
    task, log_prob = found.task, found.behavior_log_prob
    columns = Columns(
        obs=found.obs,
        action=found.action if task is None else task.to_env(found.action),
        reward=found.reward,
        terminal=found.terminated,
        timeout=found.episode_end & ~found.terminated,
        next_obs=found.next_obs,
        log_prob=log_prob if log_prob is None or task is None else log_prob + np.float32(task.log_jacobian),
    )
    return Read(columns, task, found.source)


def _refuse(options: tuple[str, ...], name: str, reading: Reading, remedy: str) -> None:
    default = Reading()
    if given := [option for option in options if getattr(reading, option) != getattr(default, option)]:
        raise UsageError(f"{name} comes from a plug-in, to which {', '.join(given)} cannot apply", remedy)
