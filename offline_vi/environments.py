"""Environments: how one is made from a task, and every quirk of a simulator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from offline_vi.observations import chosen_keys, joined, joined_space
from offline_vi.types import Spec, Task

if TYPE_CHECKING:
    import gymnasium

    Env: TypeAlias = gymnasium.Env[Any, Any]


USUAL_LIMIT = 1_000
"""Steps that an error proposes as a limit of episodes where nothing says how long they are."""


def observation_of(obs: Any, task: Task) -> NDArray[Any]:
    """What policies see of an environment's observation: float32, images uint8. Raises TypeError for no numbers."""
    value = joined(obs, task.obs_keys)
    return value if value.dtype == np.uint8 else value.astype(np.float32)


def obs_space_of(env: Env, task: Task) -> Any:
    """The space of what `observation_of` returns. Raises SpaceMismatchError where the task's keys are not its own."""
    return joined_space(env.observation_space, task.obs_keys, task.env_id)


def make_env(task: Task) -> Env:
    """The task's environment: of a Gymnasium id, or of what `factories.find` finds for ``module:NAME``.

    Raises UsageError for an unknown id (with the nearest one), for arguments that it does not take, and for a module
    that nobody allowed; MissingDependencyError naming the extra to install; EnvError where it cannot be made.
    """
    import gymnasium  # here and below: a run that is scored nowhere does not wait for it

    if not task.env_id:
        raise UsageError(f"no environment is known for {task.name or 'this task'}", "name one: env=ID")
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
            raise EnvError(f"{task.env_id} cannot be made: {type(error).__name__}: {error}", "fix it") from error


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


def close(env: Env) -> None:
    """Close an environment; what it raises then harms nothing any more."""
    with suppress(Exception, SystemExit):
        env.close()


def task_in(
    env: str,
    obs_keys: Sequence[str] = (),
    kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
) -> Task:
    """A task on an environment whose box gives the action bounds; not all of them need be real (`require_bounded`).

    Raises what `make_env` raises, SpaceMismatchError where actions are no vector of real numbers, or where observations
    under ``obs_keys`` are missing.
    """
    task = Task(env, (), (), kwargs=dict(kwargs or {}), name=env, max_episode_steps=max_episode_steps)
    made = make_env(task)
    close(made)
    low, high = action_box(made, env)
    return replace(task, action_low=low, action_high=high, obs_keys=chosen_keys(made.observation_space, obs_keys, env))


def require_bounded(task: Task) -> Task:
    """The task. Raises SpaceMismatchError where not all its bounds are real ones."""
    if not task.bounded:
        raise SpaceMismatchError(
            f"the actions of {task.env_id} are bounded by {task.action_low} and {task.action_high}",
            "a bounded Box is needed",
        )
    return task


def action_box(env: Env, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(lowest, highest) commands of an environment, (A,) each; not all of them need be bounds (`is_real_bound`).

    Raises SpaceMismatchError where actions are no vector of real numbers.
    """
    import gymnasium

    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box):
        raise SpaceMismatchError(f"{name} has the action space {space}", "a Box of real numbers is needed")
    return tuple(map(float, space.low.ravel())), tuple(map(float, space.high.ravel()))


def episode_limit(env: Env, task: Task, usual: int = USUAL_LIMIT) -> int:
    """Steps after which an episode is cut: the task's, or the environment's own. ``usual`` is for the error.

    Raises UsageError where nobody says: an episode might then never end.
    """
    limit = _limit_of(env, task)
    if limit is None:
        raise UsageError(
            f"no limit is known for the episodes of {task.env_id}: one might never end",
            f"give one: max_episode_steps={usual}",
        )
    return limit


def _limit_of(env: Env, task: Task) -> int | None:
    import gymnasium

    limits = [task.max_episode_steps, None if env.spec is None else env.spec.max_episode_steps]
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        limits.append(layer._max_episode_steps if isinstance(layer, gymnasium.wrappers.TimeLimit) else None)
        layer = layer.env
    return min((int(limit) for limit in limits if limit is not None), default=None)


def known_limit(task: Task) -> int | None:
    """Steps after which an episode of a task is cut; None where nobody says."""
    env = make_env(task)
    try:
        return _limit_of(env, task)
    finally:
        close(env)


def check_limit(task: Task) -> int:
    """`episode_limit` of a task, before anything is trained."""
    env = make_env(task)
    try:
        return episode_limit(env, task)
    finally:
        close(env)


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


def check_spaces(spec: Spec, task: Task, usual: int = USUAL_LIMIT) -> int:
    """Compare the data's shapes with the environment's spaces, before the first gradient step. Returns the steps after
    which an episode is cut. ``usual`` is what the error proposes where no limit is known.

    Raises SpaceMismatchError naming both sides, UsageError where nothing limits an episode.
    """
    import gymnasium

    env = make_env(task)
    try:
        limit = episode_limit(env, task, usual)
    finally:
        close(env)
    obs_space, action_space = obs_space_of(env, task), env.action_space
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
    return limit


def spec_of(task: Task) -> Spec:
    """The shapes of an environment. Raises UsageError where its observations are no array."""
    import gymnasium

    env = make_env(task)
    close(env)
    space = obs_space_of(env, task)
    if not isinstance(space, gymnasium.spaces.Box):
        raise UsageError(f"{task.env_id} has the observations {space}", "an environment with array observations")
    dtype = "uint8" if space.dtype == "uint8" else "float32"
    return Spec(tuple(space.shape), len(task.action_low), dtype)
