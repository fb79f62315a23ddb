"""The policy that made a D4RL data set, where its file holds the weights: the true density of every action.

With it a behavior model can be judged on actions that are not in the data, above all on its own samples: a good bound
on the data's log-density does not say that what the model samples lies on their support.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_vi.datasets.safe.hdf5 import Budget, arrays_of, open_hdf5, read_array
from offline_vi.errors import DatasetFormatError, MissingInputError, NonFiniteDataError

Float64Array = NDArray[np.float64]

POLICY_GROUP = "metadata/policy"
MIN_LOG_STD, MAX_LOG_STD = -20.0, 2.0  # rlkit's and Stable-Baselines3's clamp of a SAC policy's log-scale
_MAX_NAME = 64  # bytes of the two names in the group
_EDGE = 1.0 - 2.0**-25  # float32 actions round to 1 from here


@dataclass(frozen=True)
class Layer:
    """x -> W x + b."""

    weight: Float64Array  # (out, in)
    bias: Float64Array  # (out,)

    def __call__(self, x: Float64Array) -> Float64Array:
        """(..., in) -> (..., out)."""
        return x @ self.weight.T + self.bias


@dataclass(frozen=True)
class TanhGaussianPolicy:
    """pi(a|s): a = tanh(m(s) + s(s) * noise), m and s of a ReLU network; float64 throughout.

    Observations and actions are those of the file: raw, and in (-1, 1)^A.
    """

    hidden: tuple[Layer, ...]
    mean: Layer
    log_std: Layer

    @property
    def obs_dim(self) -> int:
        return int((*self.hidden, self.mean)[0].weight.shape[1])

    @property
    def action_dim(self) -> int:
        return len(self.mean.bias)

    def parameters_of(self, obs: ArrayLike) -> tuple[Float64Array, Float64Array]:
        """(B, O) -> mean and log-scale before the tanh, (B, A) each."""
        h = np.asarray(obs, np.float64)
        for layer in self.hidden:
            h = np.maximum(layer(h), 0.0)
        return self.mean(h), np.clip(self.log_std(h), MIN_LOG_STD, MAX_LOG_STD)

    def log_prob(self, obs: ArrayLike, action: ArrayLike) -> Float64Array:
        """(B, O), (..., B, A) -> (..., B) nats, exact. What float32 has rounded to +-1 counts as the value half a step
        inside; from |a| = 0.9999 the rounding of a float32 action moves the result by 1e-3 and more."""
        mean, log_std = self.parameters_of(obs)
        u = np.arctanh(np.clip(np.asarray(action, np.float64), -_EDGE, _EDGE))
        normal = -0.5 * ((u - mean) * np.exp(-log_std)) ** 2 - log_std - 0.5 * np.log(2.0 * np.pi)
        log_dtanh = 2.0 * (np.log(2.0) - u - np.logaddexp(0.0, -2.0 * u))
        total: Float64Array = (normal - log_dtanh).sum(-1)
        return total

    def sample(self, obs: ArrayLike, num_samples: int = 1, seed: int = 0) -> Float64Array:
        """(B, O) -> (N, B, A)."""
        mean, log_std = self.parameters_of(obs)
        noise = np.random.default_rng(seed).standard_normal((num_samples, *mean.shape))
        return np.tanh(mean + np.exp(log_std) * noise)


def read_policy(path: Path | str, max_bytes: int = 0) -> TanhGaussianPolicy:
    """The policy in a D4RL file's ``metadata/policy``: fc0, fc1, ..., last_fc, last_fc_log_std, each weight and bias.

    Raises MissingInputError where there is none, DatasetFormatError where it is of another kind or its shapes do not
    fit, NonFiniteDataError, and whatever `hdf5` raises for damaged or unsafe files.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        present = arrays_of(file, path, ("metadata",))
        if not any(key.startswith(f"{POLICY_GROUP}/") for key in present):
            raise MissingInputError(f"{path}: the file does not hold the policy that made it", "newer D4RL files do")
        for key, known in (("nonlinearity", "relu"), ("output_distribution", "tanh_gaussian")):
            found = _name(present, f"{POLICY_GROUP}/{key}", path)
            if found != known:
                raise DatasetFormatError(f"{path}: the policy's {key} is {found!r}", f"only {known!r} is known")
        budget = Budget(path, max_bytes)
        depth = 0
        while f"{POLICY_GROUP}/fc{depth}/weight" in present:
            depth += 1
        names = [*(f"fc{number}" for number in range(depth)), "last_fc", "last_fc_log_std"]
        *hidden, mean, log_std = [_layer(present, f"{POLICY_GROUP}/{name}", budget, path) for name in names]
    for name, (below, layer) in zip(names[1:], pairwise([*hidden, mean]), strict=False):
        if layer.weight.shape[1] != len(below.bias):
            raise DatasetFormatError(
                f"{path}: '{POLICY_GROUP}/{name}' takes {layer.weight.shape[1]} inputs and is given {len(below.bias)}",
                "the file was put together badly",
            )
    if mean.weight.shape != log_std.weight.shape:
        raise DatasetFormatError(
            f"{path}: the policy's mean has shape {mean.weight.shape}, its log-scale {log_std.weight.shape}",
            "the file was put together badly",
        )
    return TanhGaussianPolicy(tuple(hidden), mean, log_std)


def support_threshold(policy: TanhGaussianPolicy, obs: ArrayLike, action: ArrayLike, quantile: float = 0.01) -> float:
    """The ``quantile`` of the true log-density in nats over the data's own actions: (B, O), (B, A)."""
    return float(np.quantile(policy.log_prob(obs, action), quantile))


def share_off_support(policy: TanhGaussianPolicy, obs: ArrayLike, action: ArrayLike, threshold: float) -> float:
    """The share of actions (..., B, A), say a model's samples at (B, O), whose true log-density is below ``threshold``.

    With `support_threshold` at 1 % the policy's own samples give 0.01.
    """
    return float((policy.log_prob(obs, action) < threshold).mean())


def _name(present: dict[str, h5py.Dataset], key: str, path: Path) -> str:
    """A short byte string. Nothing else is read: variable-length strings may be of any size."""
    array = present.get(key)
    if array is None:
        raise DatasetFormatError(f"{path}: '{key}' is missing", "the file does not describe its policy")
    if array.shape != () or array.dtype.kind != "S" or array.dtype.itemsize > _MAX_NAME:
        raise DatasetFormatError(f"{path}: '{key}' holds {array.dtype}{array.shape}, not a name", "convert the file")
    return bytes(read_array(array, path, key).item()).decode(errors="replace")


def _layer(present: dict[str, h5py.Dataset], key: str, budget: Budget, path: Path) -> Layer:
    weight, bias = (_numbers(present, f"{key}/{part}", budget, path) for part in ("weight", "bias"))
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise DatasetFormatError(
            f"{path}: '{key}' has a weight of shape {weight.shape} and a bias of shape {bias.shape}",
            "expected (out, in) and (out,)",
        )
    return Layer(weight, bias)


def _numbers(present: dict[str, h5py.Dataset], key: str, budget: Budget, path: Path) -> Float64Array:
    array: Any = present.get(key)
    if array is None:
        raise DatasetFormatError(f"{path}: '{key}' is missing", "the file does not describe its policy")
    budget.admit(array, key)
    values = read_array(array, path, key).astype(np.float64)
    if not np.isfinite(values).all():
        raise NonFiniteDataError(f"{path}: '{key}' is not finite", "get the file again")
    return values
