"""Which task a data set's policies are scored on, and which action bounds it has: what the caller says, else what the
name says.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from offline_vi import factories
from offline_vi.datasets.reading import Reading
from offline_vi.datasets.tasks import FAMILIES, family_of, is_d4rl_name, task_of
from offline_vi.errors import DataWarning, SpaceMismatchError, UsageError
from offline_vi.factories import Factory, environment_title, kwargs_from

if TYPE_CHECKING:
    from offline_vi.types import Task


def task_of_file(name: str, shape: tuple[int, int], reading: Reading) -> Task | None:
    """The task of a file in D4RL's layout whose observations and actions have the shapes (O, A).

    A name that merely begins like a D4RL task ("hopper-lab") gives one only where the shapes agree and nothing else was
    said, and that is reported in a DataWarning. Raises what `task_on` and `with_bounds` raise.
    """
    task = task_of(name)
    if task is not None and not is_d4rl_name(name):
        family = family_of(name)
        agrees = family is not None and shape == (family.obs_dim, family.action_dim)
        if not agrees or reading.action_low or reading.env not in ("", task.env_id):
            task = None
        elif not reading.env:
            warnings.warn(
                f"{name}: taken for data of {task.env_id}, by the beginning of its name and its shapes; "
                "another env=ID, or action_low= and action_high=, would be used instead",
                DataWarning,
                stacklevel=2,
            )
    if reading.env:
        task = task_on(reading.env, task, reading.env_kwargs)
    return with_bounds(as_made(task, reading), shape[1], reading, name)


def with_bounds(task: Task | None, action_dim: int, reading: Reading, name: str) -> Task | None:
    """The task with the action bounds that the caller gives, in the data's units.

    Raises UsageError where only one is given, where they are no interval, or where action_range="data" sets others.
    """
    from offline_vi.types import Task

    if not (reading.action_low or reading.action_high):
        return task
    if reading.action_range == "data":
        raise UsageError('action_low and action_high contradict action_range="data"', 'action_range="clip" or "error"')
    low, high = (
        bound * action_dim if len(bound) == 1 else bound for bound in (reading.action_low, reading.action_high)
    )
    if not len(low) == len(high) == action_dim:
        raise UsageError(
            f"{name}: {len(low)} values of action_low, {len(high)} of action_high for {action_dim}-d actions",
            "give both, one number for all actions or one for each",
        )
    if not all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(low, high, strict=True)):
        raise UsageError(f"action_low {low} and action_high {high} are no intervals", "low < high for every action")
    low, high = tuple(map(float, low)), tuple(map(float, high))
    return Task("", low, high, name=name) if task is None else replace(task, action_low=low, action_high=high)


def episode_limit(task: Task | None, reading: Reading) -> int | None:
    """Steps after which an episode is cut, for files without timeouts; None where nobody knows."""
    from offline_vi.environments import make_env

    if reading.max_episode_steps or task is None:
        return reading.max_episode_steps or None
    if task.max_episode_steps is not None or not task.env_id:
        return task.max_episode_steps
    env = make_env(task)
    env.close()
    return None if env.spec is None else env.spec.max_episode_steps


def as_made(task: Task | None, reading: Reading) -> Task | None:
    """The task with the constructor arguments and the limit of episodes that the caller gives."""
    if task is None:
        return None
    kwargs = {**task.kwargs, **kwargs_from(reading.env_kwargs)}
    return replace(task, kwargs=kwargs, max_episode_steps=limit_from(reading.max_episode_steps, task.max_episode_steps))


def scored_elsewhere(task: Task, recorded: str) -> Task:
    """The task, its note saying in which environment data were ``recorded`` (`environment_title`), where that is known
    and is another."""
    scored = environment_title(task.env_id, task.kwargs)
    if recorded in ("", scored):
        return task
    told = f"recorded in {recorded}, scored in {scored}"
    return replace(task, note=f"{task.note}; {told}" if task.note else told)


def limit_from(given: int, known: int | None) -> int | None:
    """The limit of episodes that the caller gives, 0 for none, else the one that is known. Raises UsageError."""
    if given < 0:
        raise UsageError(f"max_episode_steps={given}", "a positive number of steps")
    return given or known


def task_on(env: str, task: Task | None, env_kwargs: Sequence[str] = ()) -> Task:
    """The task scored on another environment, whose box gives the action bounds.

    Raises UsageError for an unknown environment, SpaceMismatchError where its actions are no bounded vector.
    """
    import gymnasium

    from offline_vi.environments import make_env
    from offline_vi.types import Task

    try:
        space = make_env(Task(env, (), (), kwargs=kwargs_from(env_kwargs))).action_space
    except gymnasium.error.Error as error:
        raise UsageError(f"environment {env!r}: {error}", "give a Gymnasium id such as Hopper-v5") from error
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded():
        raise SpaceMismatchError(f"{env} has the action space {space}", "a bounded Box is needed")
    low, high = tuple(map(float, space.low.ravel())), tuple(map(float, space.high.ravel()))
    if task is None:
        return Task(env, low, high, name=env)
    return replace(task, env_id=env, action_low=low, action_high=high, kwargs={}, max_episode_steps=None, note="")


def environment(
    env: str | Factory, env_kwargs: Mapping[str, Any] | Sequence[str] = (), max_episode_steps: int | None = None
) -> Task:
    """The task of a Gymnasium id, with D4RL's reference scores where a D4RL family is scored on it; or of a class or a
    function that makes an environment. ``env_kwargs`` are the arguments of its constructor.

    Raises UsageError, SpaceMismatchError, MissingDependencyError.
    """
    name = env if isinstance(env, str) else factories.allow(env)
    words = factories.words_of(env_kwargs) if isinstance(env_kwargs, Mapping) else tuple(env_kwargs)
    reading = Reading(env=name, env_kwargs=words, max_episode_steps=max_episode_steps or 0)
    known = [task_of(family.prefix) for family in FAMILIES if family.env_id == name]
    task = replace(known[0], max_episode_steps=None) if known and known[0] is not None else None
    made = as_made(task_on(name, None, words) if task is None else task, reading)
    assert made is not None
    return made
