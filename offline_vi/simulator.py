"""An environment that is not trusted: whatever it does wrong ends an episode, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline_vi.environments import close, make_env, obs_space_of, observation_of
from offline_vi.errors import EnvError
from offline_vi.types import FloatArray, Task

if TYPE_CHECKING:
    from offline_vi.environments import Env

LARGEST = float(np.finfo(np.float32).max)  # a reward beyond it is as good as infinite
REASON = 200  # characters of a reason

Question = Literal["reset", "step"]
"""What a simulator is asked: `Simulator.reset` with a seed, or `Simulator.step` with an action."""


class EpisodeFailure(EnvError):
    """What an environment did that leaves an episode without a result."""


class Step(NamedTuple):
    """What a step of an environment returned, checked."""

    obs: NDArray[Any]  # (O), float32; images uint8
    reward: float  # finite
    terminated: bool  # the task has ended
    truncated: bool  # the time limit has cut the episode


def as_it_is(env: Env) -> Env:
    """Nothing around an environment."""
    return env


class Simulator:
    """A task's environment whose answers are checked.

    An exception or `sys.exit`, observations of another shape or kind than its space or not finite, a reward that is no
    finite number, ends that are no booleans, another number of values: each raises EpisodeFailure. The environment is
    then closed, and made anew for the next episode.
    """

    def __init__(self, task: Task, wrap: Callable[[Env], Env] = as_it_is) -> None:
        self.task, self.wrap = task, wrap
        self._env: Env | None = None
        self._space: Any = None  # of its observations
        self._question: tuple[Question, Any] = "reset", 0

    def open(self) -> Env:
        """The environment, made where there is none. Raises what `make_env` raises."""
        if self._env is None:
            self._env = self.wrap(make_env(self.task))
            self._space = obs_space_of(self._env, self.task)
        return self._env

    def reset(self, seed: int) -> NDArray[Any]:
        """Begin an episode; returns the first observation (O). Raises EpisodeFailure."""
        try:
            obs, _ = self.open().reset(seed=seed)
            return self._observation(obs)
        except (Exception, SystemExit) as error:  # whatever a simulator raises
            raise self._failure(error) from error

    def step(self, action: FloatArray) -> Step:
        """Take the action (A,), in [-1, 1], which is clipped to the environment's box. Raises EpisodeFailure."""
        try:
            box: Any = self.open().action_space
            command = self.task.to_env(action).clip(box.low, box.high).astype(box.dtype)
            obs, reward, terminated, truncated, _ = self.open().step(command)
            ends = flag(terminated, "terminated"), flag(truncated, "truncated")
            return Step(self._observation(obs), number(reward), *ends)
        except (Exception, SystemExit) as error:  # whatever a simulator raises
            raise self._failure(error) from error

    def begin(self, question: Question, argument: Any) -> None:
        """Note what is asked, and with which seed or action (A,). `answer` does it; a `processes.Elsewhere` begins at
        once."""
        self._question = question, argument

    def answer(self) -> Any:
        """What the method that was asked returns. Raises EpisodeFailure."""
        question, argument = self._question
        return getattr(self, question)(argument)

    def close(self) -> None:
        """Close the environment; what it raises then harms no episode any more."""
        env, self._env = self._env, None
        if env is not None:
            close(env)

    def _observation(self, obs: Any) -> NDArray[Any]:
        space = self._space
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            value = observation_of(obs, self.task)
        if value.shape != space.shape:
            raise EpisodeFailure(f"an observation of the shape {value.shape}, not {space.shape}")
        if (value.dtype == np.uint8) != (space.dtype == np.uint8):
            raise EpisodeFailure(f"an observation of {value.dtype}, where {space.dtype} is expected")
        if not np.isfinite(value).all():
            raise EpisodeFailure("an observation that is not finite")
        return value.copy()  # some environments return the same array again and again

    def _failure(self, error: BaseException) -> EpisodeFailure:
        """The one error of an episode; what is left of the environment is put away."""
        self.close()
        return EpisodeFailure(f"{self.task.env_id}: {reason(error)}", "the environment is broken")


def number(value: Any) -> float:
    """A reward: one finite number. Raises EpisodeFailure."""
    found = np.asarray(value)
    if found.dtype.kind not in "biuf":
        raise EpisodeFailure(f"a reward that is no number: {value!r}"[:REASON])
    if found.size != 1:
        raise EpisodeFailure(f"a reward of the shape {found.shape}, where one number is expected")
    reward = float(found.item())
    if not abs(reward) <= LARGEST:
        raise EpisodeFailure(f"a reward that is not finite: {reward}")
    return reward


def flag(value: Any, name: str) -> bool:
    """Whether an episode ended: one boolean, or 0 or 1. Raises EpisodeFailure."""
    found = np.asarray(value)
    if found.dtype.kind not in "biuf" or found.size != 1 or found.item() not in (0, 1):
        raise EpisodeFailure(f"{name} is no boolean: {value!r}"[:REASON])
    return bool(found.item())


def reason(error: BaseException) -> str:
    """An error in one line: whose text may fail, too."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    name = "" if isinstance(error, EnvError) else type(error).__name__
    return ": ".join(part for part in (name, text) if part)[:REASON]
