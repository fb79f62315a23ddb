"""Environments: how one is made from a task, and every quirk of a simulator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from offline_vi.errors import (
    MissingDependencyError,
    SpaceMismatchError,
    UsageError,
)
from offline_vi.observations import joined, joined_space
from offline_vi.types import Spec, Task

if TYPE_CHECKING:
    import gymnasium

    Env: TypeAlias = gymnasium.Env[Any, Any]


def observation_of(obs: Any, task: Task) -> NDArray[Any]:
    """What policies see of an environment's observation: float32, images uint8."""
    value = joined(obs, task.obs_keys)
    return value if value.dtype == np.uint8 else value.astype(np.float32)


def obs_space_of(env: Env, task: Task) -> Any:
    """The space of what `observation_of` returns. Raises SpaceMismatchError where the task's keys are not its own."""
    return joined_space(env.observation_space, task.obs_keys, task.env_id)


def make_env(task: Task) -> Env:
    """The task's environment.

    Raises UsageError for an unknown id (with the nearest one), MissingDependencyError naming the extra to install.
    """
    import gymnasium  # here and below: a run that is scored nowhere does not wait for it

    _register_robotics(task.env_id)
    options = dict(task.kwargs)
    if task.max_episode_steps is not None:
        options["max_episode_steps"] = task.max_episode_steps
    with warnings.catch_warnings(), _without_deprecations(task.env_id):
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return gymnasium.make(task.env_id, **options)
        except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            raise MissingDependencyError(
                f"{task.env_id} needs a package that is not installed ({error})", "pip install 'offline-vi[mujoco]'"
            ) from error
        except gymnasium.error.Error as error:  # unknown, deprecated or malformed
            close = get_close_matches(task.env_id, gymnasium.registry, n=1)
            raise UsageError(
                f"unknown environment {task.env_id!r}", f"did you mean {close[0]!r}?" if close else str(error)
            ) from error


def action_box(env: Env, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(lowest, highest) commands of an environment, (A,) each; not all of them need be bounds (`is_real_bound`).

    Raises SpaceMismatchError where actions are no vector of real numbers.
    """
    import gymnasium

    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box):
        raise SpaceMismatchError(f"{name} has the action space {space}", "a Box of real numbers is needed")
    return tuple(map(float, space.low.ravel())), tuple(map(float, space.high.ravel()))


def registered_limit(env_id: str) -> int | None:
    """Steps after which a registered environment is cut, without making it; None where nobody says."""
    import gymnasium

    with suppress(MissingDependencyError):
        _register_robotics(env_id)
    spec = gymnasium.registry.get(env_id)
    return None if spec is None else spec.max_episode_steps


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


def check_spaces(spec: Spec, task: Task) -> None:
    """Compare the data's shapes with the environment's spaces, before the first gradient step.

    Raises SpaceMismatchError naming both sides.
    """
    import gymnasium

    env = make_env(task)
    action_space = env.action_space
    env.close()
    obs_space = obs_space_of(env, task)
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
        raise SpaceMismatchError(
            f"data set vs {task.env_id}: {told}",
            "name the environment of the data: env=ID, or train without scores: unscored=True",
        )
    if len(task.action_low) != spec.action_dim:
        raise SpaceMismatchError(f"the task bounds {len(task.action_low)} actions, the data have {spec.action_dim}", "")


def spec_of(task: Task) -> Spec:
    """The shapes of an environment. Raises UsageError where its observations are no array."""
    import gymnasium

    env = make_env(task)
    env.close()
    space = obs_space_of(env, task)
    if not isinstance(space, gymnasium.spaces.Box):
        raise UsageError(f"{task.env_id} has the observations {space}", "an environment with array observations")
    dtype = "uint8" if space.dtype == "uint8" else "float32"
    return Spec(tuple(space.shape), len(task.action_low), dtype)
