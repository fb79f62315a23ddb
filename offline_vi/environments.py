"""Environments: how one is made from a task, and every quirk of a simulator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from offline_vi import factories
from offline_vi.errors import (
    EnvError,
    MissingDependencyError,
    OfflineVIError,
    SpaceMismatchError,
    UsageError,
)
from offline_vi.factories import Factory
from offline_vi.types import Spec, Task

if TYPE_CHECKING:
    import gymnasium

    Env: TypeAlias = gymnasium.Env[Any, Any]


def observation_of(obs: Any, task: Task) -> NDArray[Any]:
    """What policies see of an environment's observation: float32, images uint8. Raises TypeError for no numbers."""
    value = np.asarray(obs if task.obs_key is None else obs[task.obs_key])
    if value.dtype.kind not in "biuf":
        raise TypeError(f"an observation of {value.dtype}, where numbers are expected")
    return value if value.dtype == np.uint8 else value.astype(np.float32)


def obs_space_of(env: Env, task: Task) -> Any:
    """The space of what `observation_of` returns."""
    space: Any = env.observation_space
    return space if task.obs_key is None else space[task.obs_key]


def make_env(task: Task) -> Env:
    """The task's environment: of a Gymnasium id, or of what `factories.find` finds for ``module:NAME``.

    Raises UsageError for an unknown id (with the nearest one), for arguments that it does not take, and for a module
    that nobody allowed; MissingDependencyError naming the extra to install; EnvError where it cannot be made.
    """
    import gymnasium  # here and below: a run that is scored nowhere does not wait for it

    _register_robotics(task.env_id)
    with warnings.catch_warnings(), _without_deprecations(task.env_id), factories.working_directory():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return _made(task)
        except OfflineVIError:
            raise
        except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            raise MissingDependencyError(
                f"{task.env_id} needs a package that is not installed ({error})", "pip install 'offline-vi[mujoco]'"
            ) from error
        except gymnasium.error.Error as error:  # unknown, deprecated or malformed
            close = get_close_matches(task.env_id, gymnasium.registry, n=1)
            raise UsageError(
                f"unknown environment {task.env_id!r}", f"did you mean {close[0]!r}?" if close else str(error)
            ) from error
        except (Exception, SystemExit) as error:  # whatever a constructor raises
            if isinstance(error, TypeError) and "argument" in str(error):
                raise UsageError(
                    f"{task.env_id} cannot be made with {task.kwargs}: {error}",
                    "give what its constructor takes: env_kwargs",
                ) from error
            raise EnvError(f"{task.env_id} cannot be made: {type(error).__name__}: {error}", "mend it") from error


def _made(task: Task) -> Env:
    import gymnasium

    found = factories.find(task.env_id) if ":" in task.env_id else task.env_id
    if isinstance(found, str):
        limit = {} if task.max_episode_steps is None else {"max_episode_steps": task.max_episode_steps}
        return gymnasium.make(found, disable_env_checker=True, **limit, **task.kwargs)  # `Simulator` checks more
    env = found(**task.kwargs)
    if not isinstance(env, gymnasium.Env):
        raise UsageError(f"{task.env_id} made a {type(env).__name__}, no gymnasium.Env", "name one of Gymnasium's API")
    return env if task.max_episode_steps is None else gymnasium.wrappers.TimeLimit(env, task.max_episode_steps)


def task_in(env: str | Factory, kwargs: Mapping[str, Any] | None = None, max_episode_steps: int | None = None) -> Task:
    """A task on an environment that the caller names: an id, a class or a factory; its box gives the action bounds.

    Raises UsageError for an unknown environment, SpaceMismatchError where its actions are no bounded vector, and what
    `make_env` raises.
    """
    import gymnasium

    name = factories.allow(env)
    task = Task(name, (), (), kwargs=dict(kwargs or {}), name=name, max_episode_steps=max_episode_steps)
    made = make_env(task)
    space = made.action_space
    made.close()
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded():
        raise SpaceMismatchError(f"{name} has the action space {space}", "a bounded Box is needed")
    low, high = tuple(map(float, space.low.ravel())), tuple(map(float, space.high.ravel()))
    return replace(task, action_low=low, action_high=high)


def episode_limit(env: Env, task: Task) -> int:
    """Steps after which an episode is cut: the task's, or the environment's own.

    Raises UsageError where nobody says: an episode might then never end.
    """
    import gymnasium

    limits = [task.max_episode_steps, None if env.spec is None else env.spec.max_episode_steps]
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        limits.append(layer._max_episode_steps if isinstance(layer, gymnasium.wrappers.TimeLimit) else None)
        layer = layer.env
    known = [int(limit) for limit in limits if limit is not None]
    if not known:
        raise UsageError(
            f"no limit is known for the episodes of {task.env_id}: one might never end",
            "give one: max_episode_steps=1000",
        )
    return min(known)


def check_limit(task: Task) -> int:
    """`episode_limit` of a task, before anything is trained."""
    env = make_env(task)
    try:
        return episode_limit(env, task)
    finally:
        env.close()


@contextmanager
def _without_deprecations(env_id: str) -> Iterator[None]:
    """MuJoCo 4 tells on stderr and in a file, for every environment made, what Gymnasium's own models will have to
    change; whatever else it says of a model becomes a warning."""
    import gymnasium

    spec = gymnasium.registry.get(env_id)
    if spec is None or not str(spec.entry_point).startswith("gymnasium.envs.mujoco."):
        yield
        return
    try:
        import mujoco
    except ModuleNotFoundError:  # Gymnasium says so
        yield
        return
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None if "deprecated" in text else warnings.warn(text, stacklevel=2))
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


_ROBOTICS = ("Adroit", "AntMaze", "Fetch", "FrankaKitchen", "Hand", "PointMaze")


def _register_robotics(env_id: str) -> None:
    """gymnasium-robotics registers its environments when asked to; with MuJoCo 3.12 and later its joint types have to
    be told apart again, because pybind11 3.1 made an enum unequal to the numpy integer of its value."""
    if not env_id.startswith(_ROBOTICS):
        return
    import gymnasium

    try:
        import gymnasium_robotics
        import mujoco
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{env_id} needs {error.name}", "pip install 'offline-vi[robotics]'") from error
    gymnasium.register_envs(gymnasium_robotics)
    joint: Any = mujoco.mjtJoint
    if np.int32(3) not in (joint.mjJNT_HINGE,):
        original = joint.__eq__
        joint.__eq__ = lambda own, other: (
            int(own) == int(other) if isinstance(other, int | np.integer) else original(own, other)
        )


def check_spaces(spec: Spec, task: Task) -> int:
    """Compare the data's shapes with the environment's spaces, before the first gradient step. Returns the steps after
    which an episode is cut.

    Raises SpaceMismatchError naming both sides, UsageError where nothing limits an episode.
    """
    import gymnasium

    env = make_env(task)
    obs_space, action_space = env.observation_space, env.action_space
    try:
        limit = episode_limit(env, task)
    finally:
        env.close()
    if isinstance(obs_space, gymnasium.spaces.Dict):
        if task.obs_key is None or task.obs_key not in obs_space.spaces:
            raise SpaceMismatchError(
                f"{task.env_id} has the observations {sorted(obs_space.spaces)}, the data {spec.obs_shape} numbers", ""
            )
        obs_space = obs_space.spaces[task.obs_key]
    if not isinstance(action_space, gymnasium.spaces.Box) or spec.discrete:
        kind = "discrete" if spec.discrete else "continuous"
        raise SpaceMismatchError(f"{task.env_id} has the actions {action_space}, the data {kind} ones")
    pairs = [
        ("observations", spec.obs_shape, tuple(obs_space.shape or ())),
        ("actions", (spec.action_dim,), tuple(action_space.shape)),
        ("images", spec.obs_dtype == "uint8", obs_space.dtype == np.uint8),
    ]
    if any(ours != theirs for _, ours, theirs in pairs):
        told = "; ".join(f"{name} {ours} vs {theirs}{' ok' * (ours == theirs)}" for name, ours, theirs in pairs)
        raise SpaceMismatchError(f"data set vs {task.env_id}: {told}", "name the environment of the data: --env ID")
    if len(task.action_low) != spec.action_dim:
        raise SpaceMismatchError(f"the task bounds {len(task.action_low)} actions, the data have {spec.action_dim}", "")
    return limit


def spec_of(task: Task) -> Spec:
    """The shapes of an environment. Raises UsageError where its observations are no array."""
    import gymnasium

    env = make_env(task)
    space: Any = env.observation_space if task.obs_key is None else env.observation_space[task.obs_key]  # type: ignore[index]
    env.close()
    if not isinstance(space, gymnasium.spaces.Box):
        raise UsageError(f"{task.env_id} has the observations {space}", "an environment with array observations")
    dtype = "uint8" if space.dtype == "uint8" else "float32"
    return Spec(tuple(space.shape), len(task.action_low), dtype)
