"""Minari's metadata.json. What a file says is checked before it is believed, and never run.

Minari makes environments from specifications in the file. Here spaces come from a short list of types, and an
environment is taken by its id alone and only where the registry means the same.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces
from minari.serialization import deserialize_space

from offline_vi.datasets.tasks import d4rl_references, family_of
from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    DataWarning,
    MissingInputError,
    UnsafeDatasetError,
)
from offline_vi.observations import chosen_keys, entries
from offline_vi.types import Task

MAX_METADATA_BYTES = 4 << 20
MAX_JSON_DEPTH = 32
MAX_SPACE_SIZE = 1 << 20  # numbers in one observation or action
_ENV_KWARGS = {"maze_map", "reward_type", "continuing_task", "reset_target", "tasks_to_complete", "max_episode_steps"}
_OWN_MODEL = re.compile(r"\w+\.xml", re.ASCII)  # a robot's: a bare name is looked for among Gymnasium's own files alone
# environments that may be missing here without a suspicion
_KNOWN_PACKAGES = ("gymnasium.", "gymnasium_robotics.", "minigrid.", "ale_py.")


def read_metadata(path: Path) -> dict[str, Any]:
    """metadata.json, at most 4 MB and 32 levels deep. Raises MissingInputError, UnsafeDatasetError,
    DatasetCorruptError."""
    if not path.is_file():
        raise MissingInputError(f"{path} is not there", "download the data set again")
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise UnsafeDatasetError(f"{path} is larger than {MAX_METADATA_BYTES:,} bytes", "metadata are small")
    return _parse_json(path.read_bytes().decode(errors="replace"), str(path))


def _parse_json(text: str, where: str) -> dict[str, Any]:
    # a string that does not end reaches to the end: searching it again from every quote would take hours
    outside_strings = re.sub(r'"(?:[^"\\]|\\.)*+"?', "", text, flags=re.DOTALL)
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", outside_strings):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_JSON_DEPTH:
        raise UnsafeDatasetError(f"{where} is nested {deepest} levels deep", "metadata are flat")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetCorruptError(f"{where} is no JSON ({error})", "get the data set again") from error
    if not isinstance(record, dict):
        raise DatasetFormatError(f"{where} is no JSON object", "get the data set again")
    return record


def space_in(metadata: dict[str, Any], key: str, name: str) -> spaces.Space[Any]:
    """The space under ``key``: a Box, Discrete, Dict or Tuple of reasonable size.

    Raises UnsafeDatasetError, DatasetFormatError, DatasetCorruptError.
    """
    text = metadata.get(key)
    if not isinstance(text, str):  # Minari would make the environment to ask for its space
        raise UnsafeDatasetError(f"{name}: metadata have no {key}", "get the data set again")
    record = _parse_json(text, f"{name}: {key}")
    _check_space(record, f"{name}: {key}")
    try:
        space: spaces.Space[Any] = deserialize_space(record)
    except (AssertionError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise DatasetFormatError(f"{name}: {key} is malformed ({error})", "get the data set again") from error
    return space


def _check_space(record: Any, where: str) -> None:
    """Refuse what is not a Box, Discrete, Dict or Tuple of reasonable size."""
    if not isinstance(record, dict):
        raise DatasetFormatError(f"{where} is malformed", "get the data set again")
    kind, shape, below = record.get("type"), record.get("shape", []), record.get("subspaces", [])
    if kind == "Box":
        good_shape = isinstance(shape, list) and all(isinstance(size, int) and size >= 0 for size in shape)
        if not good_shape or math.prod(shape) > MAX_SPACE_SIZE:
            raise UnsafeDatasetError(f"{where} has the shape {str(shape)[:60]}", "that is no observation or action")
        if not re.fullmatch(r"float(16|32|64)|u?int(8|16|32|64)|bool", str(record.get("dtype"))):
            raise UnsafeDatasetError(f"{where} holds {str(record.get('dtype'))[:60]}", "numbers are expected")
    elif kind == "Dict" and isinstance(below, dict):
        for key, space in below.items():
            _check_space(space, f"{where}/{key}")
    elif kind == "Tuple" and isinstance(below, list):
        for number, space in enumerate(below):
            _check_space(space, f"{where}/{number}")
    elif kind != "Discrete":
        raise UnsafeDatasetError(f"{where} is a {str(kind)[:60]}", "Box, Discrete, Dict and Tuple are accepted")


def observation_keys(space: spaces.Space[Any], keys: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Which entries of a Dict are joined to the observation (`offline_vi.observations.chosen_keys`). Where the space is
    one vector, ``keys`` are those of the environment's observations that it was made of.

    Raises DatasetFormatError where it is neither, SpaceMismatchError for keys that are no vectors.
    """
    if not entries(space) and not (isinstance(space, spaces.Box) and len(space.shape) == 1):
        raise DatasetFormatError(f"{name}: observation space {space}", "a vector, or a Dict of vectors, is read")
    return chosen_keys(space, keys, name) if entries(space) else keys


def total_episodes(metadata: dict[str, Any], name: str) -> int:
    """How many episodes the file holds. Raises DatasetFormatError."""
    total = metadata.get("total_episodes")
    if not isinstance(total, int) or total < 0:
        raise DatasetFormatError(f"{name}: metadata say total_episodes {total!r}", "get the data set again")
    return total


def task_in(
    metadata: dict[str, Any], name: str, actions: spaces.Box, obs_keys: tuple[str, ...], env: str | None
) -> Task:
    """The task with the bounds of the set's own action space and the file's environment; with none where the caller
    names one, ``env``, or "" for none at all. Reference scores are left out where they are of another environment.

    Raises UnsafeDatasetError, DatasetFormatError.
    """
    task = Task(
        env_id="",
        action_low=tuple(map(float, actions.low)),
        action_high=tuple(map(float, actions.high)),
        name=name,
        ref_min=_score(metadata, "ref_min_score", name),
        ref_max=_score(metadata, "ref_max_score", name),
        obs_keys=obs_keys,
    )
    if env and _environment_of(metadata, name) not in ("", env):
        return replace(task, ref_min=None, ref_max=None)
    if env is None and metadata.get("env_spec") is not None:
        task = _with_environment(task, metadata["env_spec"], name)
    if (task.ref_min is None or task.ref_max is None) and name.startswith("mujoco/"):
        family = family_of(name.split("/")[1])
        if family is not None:  # Minari's own sets have no scores; D4RL's are the ones people know
            scores = d4rl_references()[family.reference]
            note = "D4RL's reference scores, not Minari's own"
            task = replace(task, ref_min=scores.ref_min, ref_max=scores.ref_max, note=note)
    return task


def _environment_of(metadata: dict[str, Any], name: str) -> str:
    """The id of the environment that a file names; empty where it names none."""
    text = metadata.get("env_spec")
    return "" if text is None else str(_parse_json(str(text), f"{name}: env_spec").get("id"))


def _score(metadata: dict[str, Any], key: str, name: str) -> float | None:
    value = metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise DatasetFormatError(f"{name}: metadata say {key} {str(value)[:60]}", "get the data set again")
    return float(value)


def _with_environment(task: Task, text: Any, name: str) -> Task:
    """The task on the registered environment that the file names. The file's own entry point is only compared."""
    spec = _parse_json(str(text), f"{name}: env_spec")
    env_id, entry_point, kwargs = str(spec.get("id")), spec.get("entry_point"), spec.get("kwargs") or {}
    hint = "if you trust the data, name the environment yourself: env=ID"
    if str(entry_point).startswith("gymnasium_robotics."):
        with suppress(ModuleNotFoundError):  # it registers its environments when it is asked to
            import gymnasium_robotics

            gymnasium.register_envs(gymnasium_robotics)
    registered = gymnasium.registry.get(env_id)
    if registered is None:
        if not str(entry_point).startswith(_KNOWN_PACKAGES):
            raise UnsafeDatasetError(f"{name}: its environment {env_id[:60]} is unknown and is not run", hint)
        warnings.warn(f"{name}: {env_id} is not registered here: no scores", DataWarning, stacklevel=2)
        return task
    if registered.entry_point != entry_point:
        raise UnsafeDatasetError(f"{name}: {env_id} here is not {str(entry_point)[:60]} as in the file", hint)
    if spec.get("additional_wrappers"):
        raise UnsafeDatasetError(f"{name}: recorded through wrappers, which are not run", hint)
    if not isinstance(kwargs, dict):
        raise UnsafeDatasetError(f"{name}: the environment's arguments are no JSON object", hint)
    kwargs = {key: value for key, value in kwargs.items() if key != "render_mode"}
    refused = {key for key, value in kwargs.items() if key not in _ENV_KWARGS or isinstance(value, dict)}
    if str(entry_point).startswith("gymnasium.envs.mujoco.") and _OWN_MODEL.fullmatch(str(kwargs.get("xml_file"))):
        refused -= {"xml_file"}
    if refused:
        raise UnsafeDatasetError(f"{name}: environment arguments {sorted(refused)} are not accepted from a file", hint)
    steps = spec.get("max_episode_steps")
    return replace(
        task, env_id=env_id, kwargs=kwargs, max_episode_steps=steps if isinstance(steps, int) and steps > 0 else None
    )
