"""Observations of several entries (dicts): which of them are joined, in which order, and to what.

A key names an entry; "a/b" is entry b of the dict under a. Data, evaluation and training in an environment go through
this one module, so that the same keys mean the same vector everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_vi.errors import DataWarning, SpaceMismatchError

GOAL_KEYS = ("observation", "desired_goal")  # of goal-conditioned environments


def entries(space: Any) -> dict[str, Any]:
    """The entries of a Dict space by their keys, in the space's own order, those of a Dict within it as "a/b"; none of
    another space."""
    import gymnasium  # here, not above: a run that is scored nowhere does not wait for it

    found: dict[str, Any] = {}
    if isinstance(space, gymnasium.spaces.Dict):
        for key, below in space.spaces.items():
            found |= {f"{key}/{name}": inner for name, inner in entries(below).items()} or {key: below}
    return found


def is_vector(space: Any) -> bool:
    """Whether an entry can be joined: numbers, of one axis at most."""
    import gymnasium

    return isinstance(space, gymnasium.spaces.Box) and len(space.shape) <= 1


def default_keys(space: Any) -> tuple[str, ...]:
    """Which entries of a space are joined where nobody says: observation and desired_goal where there are both,
    observation alone, else all vectors in the space's own order. Empty for a space without entries.

    Raises SpaceMismatchError where none is a vector.
    """
    found = entries(space)
    if not found:
        return ()
    vectors = [key for key, entry in found.items() if is_vector(entry)]
    named = [key for name in GOAL_KEYS for key in vectors if key == name or key.startswith(f"{name}/")]
    observed = any(key.split("/")[0] == "observation" for key in named)
    chosen = named if observed else vectors
    if not chosen:
        raise SpaceMismatchError(f"none of the observations {described(found)} is a vector", "vectors are read")
    return tuple(chosen)


def chosen_keys(space: Any, keys: Sequence[str], name: str) -> tuple[str, ...]:
    """``keys``, a key of a Dict replaced by those of its entries; `default_keys` where none are given, which is
    reported in a DataWarning.

    ``name`` is that of data or environment in messages. Raises SpaceMismatchError for a key that is not there, or whose
    entry is no vector.
    """
    found = entries(space)
    if keys:
        return tuple(dict.fromkeys(entry for key in keys for entry in _vectors_under(key, found, name)))
    if chosen := default_keys(space):
        rest = described({key: entry for key, entry in found.items() if key not in chosen})
        warnings.warn(
            f"{name}: observations are {described({key: found[key] for key in chosen})}, joined in this order"
            f"{f', without {rest}' if rest else ''}; obs_keys= takes others",
            DataWarning,
            stacklevel=2,
        )
    return chosen


def _vectors_under(key: str, found: Mapping[str, Any], name: str) -> list[str]:
    below = [entry for entry in found if entry == key or entry.startswith(f"{key}/")]
    if below and all(is_vector(found[entry]) for entry in below):
        return below
    raise SpaceMismatchError(
        f"{name}: the observation {key!r} {'is no vector' if below else 'is not there'} "
        f"{f'among {sorted(found)}' if found else 'in one array'}",
        "name vectors: obs_keys=" if found else "leave obs_keys out",
    )


def described(found: Mapping[str, Any]) -> str:
    """Entries with their shapes, for messages."""
    return ", ".join(f"{key} {getattr(space, 'shape', space)}" for key, space in found.items())


def joined_space(space: Any, keys: Sequence[str], name: str) -> Any:
    """The space of what `joined` makes of a space's observations: itself without keys.

    Raises SpaceMismatchError where keys are missing, given for no Dict, or left out for one.
    """
    import gymnasium

    found = entries(space)
    if not keys and not found:
        return space
    if not keys or tuple(keys) != chosen_keys(space, keys, name):
        raise SpaceMismatchError(
            f"{name} has the observations {sorted(found)}, and nobody says which of them are meant",
            "name them in the order of the data: obs_keys=",
        )
    low, high = (
        np.concatenate([np.asarray(getattr(found[key], side), np.float64).reshape(-1) for key in keys])
        for side in ("low", "high")
    )
    return gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def entry(observation: Any, key: str) -> Any:
    """The entry of one observation under a key. Raises KeyError where it is missing."""
    if key in observation:
        return observation[key]
    first, slash, rest = key.partition("/")
    if not slash:
        raise KeyError(key)
    return entry(observation[first], rest)


def joined(observation: Any, keys: Sequence[str]) -> NDArray[Any]:
    """One observation as an array: itself without keys, else its entries joined to a vector (O,)."""
    if not keys:
        return np.asarray(observation)
    return np.concatenate([np.asarray(entry(observation, key)).reshape(-1) for key in keys])
