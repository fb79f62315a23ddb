"""The shape letters and the plain records that every floor of the library shares.

Shapes
------
**B** batch, **N** samples, **O** observation, **A** action, **Z** latent, **E** ensemble, **S** seeds.
Samples come first, as in `torch.distributions`: z (N, B, Z), actions (N, B, A), Q-values (E, N, B); a (B, C) context
broadcasts against them. Log-probabilities are in nats, summed over event dimensions: (N, B) or (B,).
Actions inside the library live in [-1, 1]^A; a `Task` maps them to the environment's box.
``terminated`` means *do not bootstrap*; a time limit is not an end.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.errors import ConfigError
from offline_vi.ranges import RANGES, check_numbers, short
from offline_vi.renamed import with_former_argument

Metrics = dict[str, Tensor]
"""Detached 0-d tensors named "part/what", or (S,) where several seeds train side by side; ``.item()`` is called only by
the training loop, when it logs. The loop also takes Python numbers."""

Stack = tuple[int, ...]
"""(S,) where S seeds are trained side by side, the axis just left of the batch; () for one."""

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


class Batch(NamedTuple):
    """Transitions (s, a, r, s', terminated) as tensors on one device."""

    obs: Tensor  # (B, O)
    action: Tensor  # (B, A), in [-1, 1]
    reward: Tensor  # (B,)
    next_obs: Tensor  # (B, O)
    terminated: Tensor  # (B,), 1.0 where the task ended; a time limit is not an end
    index: Tensor  # type: ignore[assignment]  # (B,), int64 row numbers in the data set: what a `CandidateCache` reads


OBS_DTYPES = ("float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool")
"""What observations may be kept as."""


@dataclass(frozen=True)
class Spec:
    """What a model or an algorithm is built from: the shapes of one data set."""

    obs_shape: tuple[int, ...]  # of one observation: (O,), or (C, H, W) of an image
    action_dim: int  # A
    obs_dtype: str = "float32"  # float32, or uint8 of images
    discrete: bool = False  # a discrete action is one-hot (B, A)
    stack: Stack = ()  # (S,): networks and batches are those of S seeds; (): of one

    def stacked(self, seeds: int) -> Spec:
        """The same shapes for ``seeds`` seeds side by side."""
        return replace(self, stack=(seeds,))

    def row(self, dim: int) -> tuple[int, ...]:
        """Shape of a vector that all rows of a batch share: (D,), or (S, 1, D) with one vector for each seed."""
        return (*self.stack, 1, dim) if self.stack else (dim,)

    @property
    def obs_dim(self) -> int:
        """Length of a vector observation O. Raises ValueError where O is a shape (images)."""
        if len(self.obs_shape) != 1:
            raise ValueError(f"observations of shape {self.obs_shape} have no single dimension")
        return self.obs_shape[0]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Spec:
        """Raises ConfigError where the record describes no shapes."""
        made: Spec = from_json(cls((1,), 1), record)
        sizes = (*made.obs_shape, made.action_dim, *made.stack)
        whole = all(type(size) is int and size > 0 for size in sizes) and len(made.stack) <= 1
        if not (whole and {"obs_shape", "action_dim"} <= record.keys() and made.obs_dtype in OBS_DTYPES):
            raise ConfigError(f"{short(dict(record))} describes no shapes", "was it saved by this library?")
        return made


@dataclass(frozen=True)
class RewardMap:
    """The rewards that an algorithm is trained on: scale * (r - end_penalty * terminated) + shift."""

    scale: float = 1.0  # positive
    shift: float = 0.0  # in units of the reward after scaling
    end_penalty: float = 0.0  # what ending the task costs, in units of the reward before scaling

    def __post_init__(self) -> None:
        if not (0.0 < self.scale < math.inf and math.isfinite(self.shift) and math.isfinite(self.end_penalty)):
            raise ConfigError(
                f"rewards of {self.scale} (r - {self.end_penalty} at the end) + {self.shift}",
                "the scale is a positive number, the others any number",
            )

    def after(self, first: RewardMap) -> RewardMap:
        """One map for ``first`` and then this one."""
        penalty = first.end_penalty + self.end_penalty / first.scale
        return RewardMap(self.scale * first.scale, self.scale * first.shift + self.shift, penalty)

    def apply(self, reward: Tensor, terminated: Tensor) -> Tensor:
        """Rewards and whether the task ended, both (B,) -> the mapped rewards (B,)."""
        return self.scale * (reward - self.end_penalty * terminated) + self.shift

    def undo_value(self, value: Tensor, steps: Tensor, terminated: Tensor, discount: float) -> Tensor:
        """A discounted return of mapped rewards over L steps, after which the task had ended or not -> that of the
        rewards themselves, all (B,): (Q - shift (1 - gamma^L) / (1 - gamma)) / scale + end_penalty terminated
        gamma^(L - 1)."""
        total = steps if discount == 1.0 else (1.0 - discount**steps) / (1.0 - discount)  # sum of gamma^t
        return (value - self.shift * total) / self.scale + self.end_penalty * terminated * discount ** (steps - 1)

    def recorded(self) -> dict[str, float]:
        """The map in a config.json."""
        penalty = {"end_penalty": self.end_penalty} if self.end_penalty else {}
        return {"reward_scale": self.scale, "reward_shift": self.shift, **penalty}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> RewardMap:
        """The map that is recorded so."""
        scale, shift, penalty = (record.get(name) for name in ("reward_scale", "reward_shift", "end_penalty"))
        return cls(float(scale or 1.0), float(shift or 0.0), float(penalty or 0.0))


LARGEST_BOUND = 1e9
"""Bounds of this magnitude and larger ones, such as float32's largest number, stand for "no bound"."""


def is_real_bound(bound: NDArray[np.float64]) -> BoolArray:
    """(A,) bounds of actions -> (A,) whether each of them bounds anything: it is finite and below `LARGEST_BOUND`."""
    return np.abs(np.asarray(bound, np.float64)) < LARGEST_BOUND  # of NaN and infinity it is False


@with_former_argument("obs_key", "obs_keys", lambda key: () if key is None else (key,))
@dataclass(frozen=True)
class Task:
    """The environment that a data set's policies are scored on, and how its scores are normalized.

    ``action_low`` and ``action_high`` are the environment's values that -1 and +1 stand for. They need not be the
    bounds of its box: a policy keeps the map that it was trained with, whatever environment it is scored on. Where both
    are equal, the actuator is dead: its library action is 0, its value in the environment that one number.
    """

    env_id: str  # a gymnasium id
    action_low: tuple[float, ...]  # (A,)
    action_high: tuple[float, ...]  # (A,)
    kwargs: dict[str, Any] = field(default_factory=dict)  # for gymnasium.make, JSON values only
    name: str = ""  # the data set's name, for tables
    ref_min: float | None = None  # return of a random policy (score 0)
    ref_max: float | None = None  # return of an expert policy (score 100)
    max_episode_steps: int | None = None  # where it differs from the environment's own limit
    obs_keys: tuple[str, ...] = ()  # entries of a Dict observation, joined in this order; "a/b": entry b of entry a
    note: str = ""  # what a reader of a score must know, e.g. that data and simulator are of different versions

    @property
    def low(self) -> NDArray[np.float64]:
        """(A,) ``action_low``."""
        return np.asarray(self.action_low, np.float64)

    @property
    def high(self) -> NDArray[np.float64]:
        """(A,) ``action_high``."""
        return np.asarray(self.action_high, np.float64)

    @property
    def dead(self) -> BoolArray:
        """(A,) the actuators with one value only."""
        return np.asarray(self.low == self.high)

    @property
    def bounded(self) -> bool:
        """Whether all bounds are real ones (`is_real_bound`)."""
        return bool((is_real_bound(self.low) & is_real_bound(self.high)).all())

    def to_env(self, action: FloatArray) -> FloatArray:
        """Map (..., A) from [-1, 1] to the environment's units."""
        return np.asarray(self.low + (action.astype(np.float64) + 1.0) * 0.5 * (self.high - self.low), np.float32)

    def from_env(self, action: FloatArray) -> FloatArray:
        """Map (..., A) from the environment's units to [-1, 1]; exact where the units agree already. Actions of a dead
        actuator become 0, whatever they are."""
        low, high, dead = self.low, self.high, self.dead
        if (low == -1.0).all() and (high == 1.0).all():
            return np.asarray(action, np.float32)
        width = np.where(dead, 1.0, high - low)
        return np.asarray(np.where(dead, 0.0, (action.astype(np.float64) - low) / width * 2.0 - 1.0), np.float32)

    def same_map(self, other: Task) -> bool:
        """Whether another task's actions are in the same units."""
        return (self.action_low, self.action_high) == (other.action_low, other.action_high)

    @property
    def log_jacobian(self) -> float:
        """log |d library action / d environment action| in nats, of the actuators that are not dead: add it to a
        library log-density to get the density in the environment's units."""
        width = (self.high - self.low)[~self.dead]
        return float(np.log(2.0 / width).sum())

    @property
    def obs_key(self) -> str | None:
        """The former name of ``obs_keys``, of which there was one or none."""
        warnings.warn("Task.obs_key is now Task.obs_keys", DeprecationWarning, stacklevel=2)
        return self.obs_keys[0] if self.obs_keys else None

    @property
    def has_references(self) -> bool:
        """Whether returns can be normalized."""
        return self.ref_min is not None and self.ref_max is not None

    def normalized(self, returns: NDArray[np.float64]) -> NDArray[np.float64]:
        """D4RL scores x 100 of undiscounted episode returns; NaN where the task has no reference scores."""
        if self.ref_min is None or self.ref_max is None:
            return np.full_like(returns, np.nan, dtype=np.float64)
        return 100.0 * (np.asarray(returns, np.float64) - self.ref_min) / (self.ref_max - self.ref_min)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Task:
        """Also of a record that has ``obs_key`` for ``obs_keys``. Raises ConfigError where it describes no task."""
        if not isinstance(record, Mapping):
            raise ConfigError(f"{short(record)!r} is no task", "look at a run's config.json")
        try:
            return cls._from_record(record)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the task lacks or misuses {short(error)}", "look at a run's config.json") from None

    @classmethod
    def _from_record(cls, record: Mapping[str, Any]) -> Task:
        known = {name: value for name, value in record.items() if name != "obs_key"}
        former = record.get("obs_key")
        keys = record.get("obs_keys") or ([] if former is None else [former])
        bounds = {name: tuple(record[name]) for name in ("action_low", "action_high")}
        task = cls(**{**known, **bounds, "obs_keys": tuple(keys)})
        texts = (task.env_id, task.name, task.note, *task.obs_keys, *task.kwargs)
        numbers = (*task.action_low, *task.action_high, task.ref_min, task.ref_max)
        if not all(isinstance(text, str) for text in texts) or not isinstance(task.kwargs, dict):
            raise TypeError("a text")
        if not all(number is None or type(number) in (int, float) for number in numbers):
            raise TypeError("a number")
        if len(task.action_low) != len(task.action_high):
            raise ValueError("the bounds of its actions")
        if task.max_episode_steps is not None and not (
            type(task.max_episode_steps) is int and task.max_episode_steps > 0
        ):
            raise ValueError("max_episode_steps")
        return task


def unit_task(action_dim: int, env_id: str = "", name: str = "") -> Task:
    """A task whose environment has the library's units: -1 and +1 stand for themselves."""
    return Task(env_id, (-1.0,) * action_dim, (1.0,) * action_dim, name=name)


def from_json(default: Any, record: Mapping[str, Any]) -> Any:
    """A frozen dataclass like ``default`` with the record's values; lists become tuples.

    Raises ConfigError for an unknown name, a value of another type, or a number out of its range (`ranges`).
    """
    assert is_dataclass(default)
    if not isinstance(record, Mapping):
        raise ConfigError(f"{str(record)[:60]!r} is no table of settings", "look at a run's config.json")
    cls: Any = type(default)
    known = {field.name: getattr(default, field.name) for field in fields(default)}
    values, choices = dict(known), choices_of(cls)
    for name, value in record.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise ConfigError(f"unknown hyper-parameter {name!r}", f"did you mean {close[0]!r}?" if close else "")
        value = tuple(value) if isinstance(value, list) else value
        if name in choices and value not in choices[name]:
            raise ConfigError(f"{name} = {short(value)!r}", f"choose from {', '.join(map(str, choices[name]))}")
        if not _alike(value, 0.0 if known[name] is None and name in RANGES and value is not None else known[name]):
            raise ConfigError(f"{name} = {short(value)!r} is not a {type(known[name]).__name__}", "look at --help")
        values[name] = value
    made = cls(**values)
    check_numbers(made)
    return made


@cache
def choices_of(cls: type) -> dict[str, tuple[Any, ...]]:
    """The fields of a dataclass that take one of a few values: name -> these."""
    try:
        hints = get_type_hints(cls)
    except NameError:  # of types that somebody imports for checks alone
        return {}
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def _alike(value: Any, known: Any) -> bool:
    """Whether a value is of the known one's type: whole numbers pass for real ones, tuples go by their entries, and
    anything passes for None."""
    if known is None:
        return True
    if isinstance(known, tuple):
        return isinstance(value, tuple) and (not known or all(_alike(entry, known[0]) for entry in value))
    if isinstance(known, float):
        return isinstance(value, float | int) and not isinstance(value, bool)
    if isinstance(known, int) and not isinstance(known, bool):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, type(known))
