"""Which task a data set's policies are scored on, and which action bounds it has: what the caller says, else what the
name says.

Bounds are compared with the data where actions are mapped (`offline_vi.data.rows`); here the environments are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from offline_vi import factories
from offline_vi.datasets.reading import Reading
from offline_vi.datasets.tasks import FAMILIES, d4rl_name, family_of, is_d4rl_name, task_in_family, task_of
from offline_vi.errors import DataWarning, MissingDependencyError, SpaceMismatchError, UsageError
from offline_vi.factories import Factory, environment_title, kwargs_from

if TYPE_CHECKING:
    from offline_vi.types import Task


def task_of_file(name: str, shape: tuple[int, int], reading: Reading) -> Task | None:
    """The task of a file in D4RL's layout whose observations and actions have the shapes (O, A).

    Raises what `task_on` and `with_bounds` raise.
    """
    if reading.action_units == "rescaled" and not (reading.action_low or reading.action_range == "data"):
        raise UsageError(
            f"{name}: nobody says which range of its actions is mapped onto the environment's box",
            "give the data's own bounds: action_low= and action_high=",
        )
    task = _task_by_name(name, shape, reading)
    env = reading.env or (task.env_id if task is not None and reading.obs_keys else "")
    if reading.obs_keys and (reading.unscored or not env):
        raise UsageError(
            f"{name} is one array, and no environment is known whose observations {reading.obs_keys} could be",
            "name it: env=ID, or leave obs_keys out",
        )
    if env and not reading.unscored:
        with or_unscored():
            task = task_on(env, task, reading.obs_keys, reading.env_kwargs)
    if task is not None:
        task = as_made(unscored(task) if reading.unscored else task, reading)
    return with_bounds(task, shape[1], reading, name)


def _task_by_name(name: str, shape: tuple[int, int], reading: Reading) -> Task | None:
    """What a name says, where the shapes agree; a name that merely begins like a D4RL task ("hopper-lab") says
    something only where nothing else was said, and that is reported in a DataWarning."""
    family = family_of(d4rl_name(name))
    if family is None:
        return None
    whole, agrees = is_d4rl_name(name), shape == (family.obs_dim, family.action_dim)
    told = ""
    if whole and not agrees:
        told = (
            f"its observations and actions {shape} are not those of D4RL's {family.prefix} "
            f"{(family.obs_dim, family.action_dim)}: no task by its name"
        )
    elif agrees and not whole:
        if reading.action_low or reading.env not in ("", family.env_id):
            return None
        if not reading.env:
            told = (
                f"taken for data of D4RL's {family.prefix} ({family.env_id}), by the beginning of its name and its "
                "shapes; another env=ID, or action_low= and action_high=, would be used instead"
            )
    if agrees and family.other_columns and not reading.env:
        told = f"{told + '; ' if told else ''}nothing is scored ({family.note})"
    if told:
        warnings.warn(f"{name}: {told}", DataWarning, stacklevel=3)
    return task_of(name) if agrees else None


def with_bounds(task: Task | None, action_dim: int, reading: Reading, name: str) -> Task | None:
    """The task with the action bounds that the caller gives, in the data's units.

    Raises UsageError where only one is given, where they are no interval, or where action_range="data" sets others.
    """
    from offline_vi.types import Task, is_real_bound

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
    if not is_real_bound(np.array([*low, *high])).all() or not all(a <= b for a, b in zip(low, high, strict=True)):
        raise UsageError(
            f"action_low {low} and action_high {high} are no intervals", "real numbers, low <= high for every action"
        )
    low, high = tuple(map(float, low)), tuple(map(float, high))
    return Task("", low, high, name=name) if task is None else replace(task, action_low=low, action_high=high)


# ------------------------------------------------------------------ environments


@contextmanager
def or_unscored() -> Iterator[None]:
    """Where a simulator is missing, the hint says that training needs none."""
    try:
        yield
    except MissingDependencyError as error:
        error.hint += "; or train without scores: unscored=True"
        raise


def unscored(task: Task) -> Task:
    """The task without its environment; what else is known of it stays."""
    return replace(task, env_id="", kwargs={})


def as_made(task: Task, reading: Reading) -> Task:
    """The task with the constructor arguments and the limit of episodes that the caller gives."""
    kwargs = {**task.kwargs, **kwargs_from(reading.env_kwargs)} if task.env_id else task.kwargs
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


def episode_limit(task: Task | None, reading: Reading) -> int | None:
    """Steps after which an episode is cut, for files without timeouts; None where nobody knows."""
    from offline_vi.environments import known_limit, registered_limit

    given = limit_from(reading.max_episode_steps, None if task is None else task.max_episode_steps)
    if given is not None:
        return given
    env_id = reading.env or (task.env_id if task is not None else "")
    limit = registered_limit(env_id) if env_id else None
    if limit is not None or task is None or not task.env_id:
        return limit
    return known_limit(task)


def task_on(env: str, task: Task | None, obs_keys: tuple[str, ...] = (), env_kwargs: Sequence[str] = ()) -> Task:
    """The task of data in the units of the environment ``env``, whose box gives the action bounds.

    ``task`` is what is known of the data already. Naming the environment that it has changes nothing; what belongs to
    another environment, such as reference scores, is left out. The box may lack bounds: the data then need others.
    Raises UsageError for an unknown environment, SpaceMismatchError where its actions are no vector of real numbers,
    or where observations under ``obs_keys`` are missing.
    """
    from offline_vi.environments import task_in

    if task is not None and task.env_id == env and not obs_keys:
        return task
    found = task_in(env, obs_keys, kwargs_from(env_kwargs))
    if task is not None and task.env_id == env:
        return replace(task, obs_keys=found.obs_keys)
    return found if task is None else replace(found, name=task.name)


def in_environment(own: Task, reading: Reading, name: str) -> Task:
    """The task of a set with an action space of its own, whose bounds ``own`` has, on the environment that the caller
    or the set names.

    Raises SpaceMismatchError where the two spaces differ and the caller does not say what the actions are counted in.
    """
    task = as_made(replace(own, env_id="" if reading.unscored else reading.env or own.env_id), reading)
    if not task.env_id:
        return task
    try:
        low, high = box_of(task)
    except MissingDependencyError:
        if reading.env:
            raise
        return task  # the set can be read and described without its simulator
    if reading.action_units == "rescaled":
        return task  # read by the set's own space: `acting` takes the box
    comparable = reading.action_units == "compared" and len(low) == len(own.action_low)  # else shapes are refused later
    if comparable and not _same_bounds(own, low, high):
        raise SpaceMismatchError(
            f"{name} has actions from {own.action_low} to {own.action_high}, {task.env_id} from {low} to {high}",
            'action_units="rescaled" maps one onto the other; action_units="environment" takes the actions as they are',
        )
    return replace(task, action_low=low, action_high=high) if reading.env else task


def acting(task: Task | None, reading: Reading) -> Task | None:
    """The task that policies act by: where actions were rescaled, -1 and +1 stand for the bounds of the box.

    Raises UsageError where no environment is known, SpaceMismatchError where its box has other actions or no bounds.
    """
    if reading.action_units != "rescaled":
        return task
    if task is None or not task.env_id:
        raise UsageError(
            "the actions cannot be rescaled: no environment is known", "name it: env=ID, or leave action_units out"
        )
    low, high = box_of(task)
    found = replace(task, action_low=low, action_high=high)
    if not found.bounded or len(low) != len(task.action_low):
        raise SpaceMismatchError(
            f"actions from {task.action_low} to {task.action_high} cannot be rescaled to those of {task.env_id}, from "
            f"{low} to {high}",
            "leave action_units out",
        )
    return found


def box_of(task: Task) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The bounds of the task's environment. Raises what `make_env` raises."""
    from offline_vi.environments import action_box, close, make_env

    with or_unscored():
        env = make_env(task)
    close(env)
    return action_box(env, task.env_id)


def _same_bounds(own: Task, low: tuple[float, ...], high: tuple[float, ...]) -> bool:
    """Whether a box has the bounds of ``own``; where those are no real ones, they say nothing."""
    from offline_vi.types import is_real_bound

    return all(
        bool(np.isclose(mine, its, rtol=1e-5, atol=1e-8)[is_real_bound(mine)].all())
        for mine, its in ((own.low, np.asarray(low)), (own.high, np.asarray(high)))
    )


def scored_on(task: Task | None, reading: Reading) -> Task | None:
    """The task of a policy, or of data in library units, as the caller wants it scored: nowhere, on another
    environment, with other arguments or another limit. Its action map stays. Raises what `on_environment` raises."""
    if reading.env and not reading.unscored:
        task = on_environment(task, reading.env, reading.env_kwargs)
    if task is None:
        return None
    return as_made(unscored(task) if reading.unscored else task, reading)


def on_environment(task: Task | None, env: str, env_kwargs: Sequence[str] = ()) -> Task:
    """The task of a policy on another environment: it keeps the action map that it was trained with.

    Without a task the policy was trained on actions in [-1, 1], which were the environment's own units. Entries of a
    dict observation are those of the training. What belongs to another environment (arguments, limit, reference scores,
    note) is left out. Raises what `task_on` raises.
    """
    from offline_vi.environments import task_in
    from offline_vi.types import unit_task

    kwargs = kwargs_from(env_kwargs)
    if task is None:
        found = task_in(env, kwargs=kwargs)
        unit = unit_task(len(found.action_low))
        return replace(found, action_low=unit.action_low, action_high=unit.action_high)
    if task.env_id == env:
        return task
    found = _of_its_name(task, env) or task_in(env, _keys_for(env, kwargs, task), kwargs)
    return replace(found, action_low=task.action_low, action_high=task.action_high, name=task.name)


def _of_its_name(task: Task, env: str) -> Task | None:
    """The D4RL task that data were read as without being scored, where it is scored on ``env``."""
    family = family_of(task.name)
    if task.env_id or family is None or family.env_id != env or family.other_columns:
        return None
    known = task_in_family(family, task.name)
    return known if (known.ref_min, known.ref_max) == (task.ref_min, task.ref_max) else None


def _keys_for(env: str, kwargs: dict[str, Any], task: Task) -> tuple[str, ...]:
    """The keys of the training, where the environment's observations are a dict at all."""
    from offline_vi.environments import close, make_env
    from offline_vi.observations import entries
    from offline_vi.types import Task

    made = make_env(Task(env, (), (), kwargs=kwargs))
    close(made)
    return task.obs_keys if entries(made.observation_space) else ()


def environment(
    env: str | Factory, env_kwargs: Mapping[str, Any] | Sequence[str] = (), max_episode_steps: int | None = None
) -> Task:
    """The task of a Gymnasium id, with D4RL's reference scores where a D4RL family is scored on it; or of a class or a
    function that makes an environment. ``env_kwargs`` are the arguments of its constructor.

    Raises UsageError, SpaceMismatchError (also for actions without bounds), MissingDependencyError.
    """
    from offline_vi.environments import require_bounded, task_in

    name = env if isinstance(env, str) else factories.allow(env)
    words = factories.words_of(env_kwargs) if isinstance(env_kwargs, Mapping) else tuple(env_kwargs)
    found = require_bounded(task_in(name, kwargs=kwargs_from(words)))
    for family in FAMILIES:
        if family.env_id == name:
            known = task_in_family(family, family.prefix)
            found = replace(known, max_episode_steps=None, obs_keys=found.obs_keys)
            break
    return as_made(found, Reading(env_kwargs=words, max_episode_steps=max_episode_steps or 0))
