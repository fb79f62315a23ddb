"""Whole episodes that people have in memory, as columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_vi.data.columns import Columns, warn
from offline_vi.data.own import columns_from_arrays, flags_of, matrix_of
from offline_vi.errors import DatasetFormatError

EPISODE_KEYS = {  # what the parts of an episode are called: ours, Gymnasium's and Minari's, D4RL's
    "obs": ("obs", "observations"),
    "action": ("action", "actions"),
    "reward": ("reward", "rewards"),
    "terminated": ("terminated", "terminations", "terminals"),
    "timeout": ("timeout", "truncated", "truncations", "timeouts"),
    "next_obs": ("next_obs", "next_observations"),
    "log_prob": ("log_prob",),
}
NEEDED = ("obs", "action", "reward", "terminated")


def columns_from_episodes(episodes: Sequence[Any], *, obs_keys: Sequence[str] = (), name: str = "episodes") -> Columns:
    """The steps of whole episodes as columns; arguments as in `Transitions.from_episodes`.

    Raises UsageError, DatasetFormatError, EmptyDatasetError.
    """
    parts = [_episode_arrays(episode, obs_keys, f"{name}: episode {number}") for number, episode in enumerate(episodes)]
    lengths = np.array([len(part["reward"]) for part in parts], np.int64)
    if len(parts) == 0 or not lengths.any():
        raise DatasetFormatError(f"{name}: no episode has a step", "give one dictionary for each episode")
    if not lengths.all():
        warn(f"{name}: {(lengths == 0).sum()} of {len(parts)} episodes have no step and are left out")
    parts = [part for part in parts if len(part["reward"])]
    keys = parts[0].keys()
    for part in parts:
        if part.keys() != keys:
            raise DatasetFormatError(
                f"{name}: some episodes have {', '.join(sorted(part.keys() ^ keys))}, some do not",
                "record all of them alike: T + 1 observations for T steps, or T",
            )
        for key, values in part.items():
            if values.shape[1:] != parts[0][key].shape[1:]:
                raise DatasetFormatError(
                    f"{name}: '{key}' of the episodes has the shapes {values.shape[1:]} and {parts[0][key].shape[1:]}",
                    "all episodes hold the same features",
                )
    joined: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in keys}
    episode = np.repeat(np.arange(len(parts)), lengths[lengths > 0])
    return columns_from_arrays(**joined, episode=episode, name=name)


def _episode_arrays(episode: Any, obs_keys: Sequence[str], where: str) -> dict[str, NDArray[Any]]:
    """The arrays of one episode of T steps by the arguments of `columns_from_arrays`."""
    parts = _parts(episode, where)
    missing = [field for field in NEEDED if field not in parts]
    if missing:
        hints = {"terminated": "whether the last step ended the task: terminated=True, or False where it was only cut"}
        raise DatasetFormatError(
            f"{where} has no {' and no '.join(missing)} (it has {', '.join(_fields(episode, where))})",
            hints.get(missing[0], f"call it {' or '.join(EPISODE_KEYS[missing[0]])}"),
        )
    found: dict[str, NDArray[Any]] = {key: np.asarray(parts[key]) for key in ("reward", "log_prob") if key in parts}
    if found["reward"].ndim == 0:
        raise DatasetFormatError(f"{where}: 'reward' is a single number", "an episode has one reward for each step")
    steps = len(found["reward"])
    found |= {key: matrix_of(parts[key], obs_keys, key, where) for key in ("obs", "action", "next_obs") if key in parts}
    for key in ("terminated", "timeout"):
        if key in parts:
            flag = flags_of(parts[key], key, where)
            found[key] = flag if flag.ndim else bool(flag) & (np.arange(steps) == steps - 1)
    if len(found["obs"]) == steps + 1 and "next_obs" not in found:
        found |= {"obs": found["obs"][:-1], "next_obs": found["obs"][1:]}
    wrong = {key: len(values) for key, values in found.items() if len(values) != steps}
    if wrong:
        raise DatasetFormatError(
            f"{where} has {steps} rewards and {', '.join(f'{count} rows of {key}' for key, count in wrong.items())}",
            "an episode has one reward for each step, and T or T + 1 observations for T steps",
        )
    return found


def _parts(episode: Any, where: str) -> dict[str, Any]:
    """What an episode holds by our names, without what is None.

    Raises DatasetFormatError for two names of one thing.
    """
    fields = {field: value for field, value in _fields(episode, where).items() if value is not None}
    found: dict[str, Any] = {}
    for part, names in EPISODE_KEYS.items():
        present = [name for name in names if name in fields]
        if len(present) > 1:
            raise DatasetFormatError(f"{where} has {' and '.join(present)}, which mean the same", "leave one out")
        if present:
            found[part] = fields[present[0]]
    return found


def _fields(episode: Any, where: str) -> Mapping[str, Any]:
    """The fields of a dictionary, a dataclass, a named tuple, or another object with attributes."""
    if isinstance(episode, Mapping):
        return episode
    if dataclasses.is_dataclass(episode):
        return {field.name: getattr(episode, field.name) for field in dataclasses.fields(episode)}
    try:
        return episode._asdict() if isinstance(episode, tuple) else vars(episode)  # type: ignore[attr-defined,no-any-return]
    except (AttributeError, TypeError):
        raise DatasetFormatError(
            f"{where} is a {type(episode).__name__}", "a dictionary with obs, action, reward, terminated"
        ) from None
