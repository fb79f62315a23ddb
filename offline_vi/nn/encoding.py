"""Plain values, tensors and arrays, in containers too, as JSON that is read back to the last bit."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offline_vi.errors import CheckpointCorruptError

ELSEWHERE = "the checkpoint belongs to another configuration"
PLAIN = (bool, int, float, str, type(None), np.generic)
CONTAINERS = (list, tuple, dict, set, frozenset, collections.deque)


def is_data(value: Any) -> bool:
    """Whether a value consists of plain values, tensors and arrays alone."""
    if isinstance(value, dict):
        return all(isinstance(key, PLAIN) and is_data(entry) for key, entry in value.items())
    if isinstance(value, CONTAINERS):
        return type(value) in CONTAINERS and all(is_data(entry) for entry in value)
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    return isinstance(value, PLAIN) or numbers or (isinstance(value, Tensor) and not isinstance(value, nn.Parameter))


def encode(value: Any, tensors: dict[str, Tensor] | None = None) -> Any:
    """Plain values, in containers too, as JSON that `decode` reads back to the last bit. Tensors and arrays go into
    ``tensors``, under numbers."""
    if isinstance(value, Tensor | np.ndarray):
        assert tensors is not None
        key, kind = str(len(tensors)), "tensor" if isinstance(value, Tensor) else "array"
        tensors[key] = value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
        return {kind: key}
    if isinstance(value, np.generic):
        return {"numpy": str(value.dtype), "value": encode(value.item())}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, collections.deque):
        return {"deque": [encode(entry, tensors) for entry in value], "maxlen": value.maxlen}
    if isinstance(value, set | frozenset):
        return {type(value).__name__: sorted((encode(entry, tensors) for entry in value), key=repr)}
    if isinstance(value, tuple):
        return {"tuple": [encode(entry, tensors) for entry in value]}
    return [encode(entry, tensors) for entry in value] if isinstance(value, list) else value


def decode(record: Any, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """The value that `encode` encoded."""
    if isinstance(record, list):
        return [decode(entry, tensors) for entry in record]
    if not isinstance(record, Mapping):
        return record
    (kind, body), *rest = record.items()
    if kind == "numpy":
        return np.dtype(body).type(decode(record["value"]))
    if kind == "float":
        return float(body)
    if kind in ("tensor", "array"):
        if body not in (tensors or {}):
            raise CheckpointCorruptError(f"the checkpoint lacks the tensor {body!r} of a value", ELSEWHERE)
        tensor = (tensors or {})[body].clone()
        return tensor if kind == "tensor" else tensor.numpy()
    if kind == "dict":
        return {decode(key): decode(entry, tensors) for key, entry in body}
    if kind == "deque":
        return collections.deque(decode(body, tensors), dict(rest)["maxlen"])
    return {"set": set, "frozenset": frozenset, "tuple": tuple}[kind](decode(body, tensors))


def alike(name: str, saved: Tensor | None, own: Tensor) -> Tensor:
    if saved is None or saved.shape != own.shape or saved.dtype != own.dtype:
        found = "missing" if saved is None else f"of shape {tuple(saved.shape)}, {saved.dtype}"
        raise CheckpointCorruptError(
            f"the checkpoint's {name} is {found}, expected {tuple(own.shape)}, {own.dtype}", ELSEWHERE
        )
    return saved
