"""What makes an algorithm what it is at a moment, whole: tensors, optimizers, schedulers, counters.

Parameters and buffers are only a part of it. An algorithm, or any module in it, may keep optimizers, learning-rate
schedulers, random generators, tensors and arrays that are no buffers, and plain Python values such as a counter of
steps, each in containers and in objects of plain Python classes too. All of these are saved. What cannot be saved is
refused before training begins: a checkpoint that silently lacked a part of the algorithm would be worse than none. What
is no part of it, such as a policy's memory of running episodes, is named in ``transient``.
"""

from __future__ import annotations

import abc
import collections
import enum
import functools
import inspect
import math
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from offline_vi.errors import CapabilityError, CheckpointCorruptError
from offline_vi.nn.recorded import Recorded

ELSEWHERE = "the checkpoint belongs to another configuration"
PLAIN = (bool, int, float, str, type(None), np.generic)
CONTAINERS = (list, tuple, dict, set, frozenset, collections.deque)
CONSTANT = (type, torch.device, torch.dtype, torch.Size, np.random.SeedSequence, functools.partial, range)
HINT = "keep modules in an nn.ModuleList, tensors as buffers (register_buffer), and the rest as plain numbers"
FROZEN = "parameters.frozen"  # no attribute can have this name
INHERITED = {*vars(nn.Module()), "_built_from"}  # what every module has


class Scheduled(abc.ABC):
    """Something whose state is a function of the step alone; the training loop announces each step."""

    @abc.abstractmethod
    def advance(self, step: int) -> None:
        """``step`` (from 1) is about to be taken. Costs little where the step before was announced too; else, after a
        resume, everything is made as it would be by then."""


class State(NamedTuple):
    """A whole algorithm: what a checkpoint holds of it."""

    tensors: dict[str, Tensor]  # copies, on the CPU
    values: dict[str, Any]  # JSON values: counters, schedulers, random generators


class Slot(NamedTuple):
    """A place in a module that holds a part of its state."""

    name: str  # e.g. "critic_opt", "schedulers.0", "steps"
    value: Any
    put: Callable[[Any], None]  # replaces the value


def snapshot(module: nn.Module) -> State:
    """All that makes the algorithm what it is. Parameters and buffers have their module names, each once however many
    modules share it; optimizer state is called ``critic_opt.0.exp_avg`` (number of the parameter, name of the moment).

    Raises CapabilityError for what cannot be saved.
    """
    tensors, values = parameters_and_buffers(module), {}
    for name, value, _ in slots(module):
        if isinstance(value, Optimizer):
            tensors |= _moments(name, value)
            values[f"{name}.groups"] = encode(_settings(value))
        elif isinstance(value, nn.Parameter):  # of no module
            tensors[name] = value
        elif isinstance(value, torch.Generator):
            tensors[name] = value.get_state()
        elif isinstance(value, LRScheduler):
            values[name] = _schedule(name, value)
        elif isinstance(value, np.random.Generator):
            values[name] = value.bit_generator.state
        elif isinstance(value, random.Random):
            values[name] = encode(value.getstate())
        elif isinstance(value, enum.Enum | PurePath):
            values[name] = value.name if isinstance(value, enum.Enum) else str(value)
        else:
            found: dict[str, Tensor] = {}
            values[name] = encode(value, found)
            tensors |= {f"{name}.{key}": tensor for key, tensor in found.items()}
    values[FROZEN] = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return State(copies, values)


@torch.no_grad()
def restore(module: nn.Module, tensors: Mapping[str, Tensor], values: Mapping[str, Any] | None = None) -> None:
    """Take over a `snapshot`, copying every tensor.

    Parameters and buffers alone will do: optimizers and counters that are not there keep what they have. Raises
    CheckpointCorruptError where names or shapes are not those of this algorithm.
    """
    rest, values = dict(tensors), values or {}
    for name, own in parameters_and_buffers(module).items():
        own.copy_(_alike(name, rest.pop(name, None), own))
    if FROZEN in values:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in values[FROZEN])
    found = list(slots(module))
    for slot in found:
        _fill(slot, rest, values)
    known = {slot.name for slot in found} | {f"{slot.name}.groups" for slot in found}
    modules = dict(module.named_modules())
    for name in sorted(values.keys() - known):  # attributes that the algorithm makes while it trains
        prefix, _, attribute = name.rpartition(".")
        if prefix in modules:
            put = functools.partial(object.__setattr__, modules[prefix], attribute)
            _fill(Slot(name, None, put), rest, values)
    if rest:
        raise CheckpointCorruptError(f"the checkpoint holds {min(rest)}, which this algorithm does not have", ELSEWHERE)


def _fill(slot: Slot, rest: dict[str, Tensor], values: Mapping[str, Any]) -> None:
    """Give one part its saved state; what it takes of ``rest`` is no longer there."""
    name, value, put = slot
    record: Any = values.get(name)
    inner = {key: rest[key] for key in rest if key.startswith(f"{name}.")}
    if isinstance(value, Optimizer):
        _take_moments(name, value, rest)
        for group, settings in zip(value.param_groups, decode(values.get(f"{name}.groups", [])), strict=False):
            group |= settings
    elif name in rest and isinstance(value, nn.Parameter):
        value.copy_(_alike(name, rest.pop(name), value))
    elif name in rest and isinstance(value, torch.Generator):
        value.set_state(_alike(name, rest.pop(name), value.get_state()))
    elif name not in values and not _fits(value, name, inner):
        return
    elif isinstance(value, LRScheduler):
        value.load_state_dict(decode(record))
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = record
    elif isinstance(value, random.Random):
        value.setstate(decode(record))
    elif isinstance(value, enum.Enum):
        put(type(value)[str(record)])
    elif isinstance(value, PurePath):
        put(type(value)(str(record)))
    else:
        record = record if name in values else encode(value, {})
        put(decode(record, {key.removeprefix(f"{name}."): rest.pop(key) for key in inner}))


def refuse_unsaved(module: nn.Module) -> None:
    """Raise CapabilityError where a part of the algorithm would be missing from its checkpoints, naming it."""
    for name, value, _ in slots(module):
        if isinstance(value, LRScheduler):
            _schedule(name, value)


def parameters_and_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Each once however many modules share it; constants (buffers that are not persistent) left out."""
    saved = module.state_dict().keys()
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor for name, tensor in named if name in saved}


# ------------------------------------------------------------------ what a module keeps besides


def slots(module: nn.Module) -> Iterator[Slot]:
    """All that the modules keep besides parameters, buffers and constants.

    Modules of torch itself keep nothing else, and the state of a `Scheduled` one follows from the step. Raises
    CapabilityError for what cannot be saved.
    """
    owned = frozenset(map(id, [*module.parameters(), *module.buffers(), *module.modules()]))
    for prefix, part in module.named_modules():
        if not type(part).__module__.startswith("torch.") and not isinstance(part, Scheduled):
            transient = part.transient if isinstance(part, Recorded) else frozenset()
            names = [name for name in vars(part) if name not in INHERITED | transient]
            for name in names:
                put = functools.partial(object.__setattr__, part, name)
                path = f"{prefix}.{name}".lstrip(".")
                try:
                    yield from _slots(path, vars(part)[name], put, owned)
                except TypeError as error:
                    raise CapabilityError(f"{type(module).__name__}.{error}", HINT) from None


def _slots(name: str, value: Any, put: Callable[[Any], None], known: frozenset[int]) -> Iterator[Slot]:
    """Of one attribute; ``known`` are the identities of what is saved elsewhere, or is being looked at.

    Raises TypeError for what cannot be saved.
    """
    generators = torch.Generator | np.random.Generator | random.Random
    if isinstance(value, Optimizer | LRScheduler | generators | enum.Enum | PurePath) or _is_data(value):
        yield Slot(name, value, put)
    elif isinstance(value, nn.Module | nn.Parameter) and id(value) in known:
        return
    elif isinstance(value, nn.Parameter):
        yield Slot(name, value, put)
    elif _is_constant(value):
        return
    elif type(value) in (list, dict):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _slots(f"{name}.{key}", entry, functools.partial(value.__setitem__, key), known)
    elif type(value) is tuple:
        for key, entry in enumerate(value):
            if not isinstance(entry, PLAIN):  # plain entries of a tuple are constants
                yield from _slots(f"{name}.{key}", entry, functools.partial(_refuse, name), known)
    elif _is_python(value) and id(value) not in known:
        for key, entry in vars(value).items():
            change = functools.partial(object.__setattr__, value, key)
            yield from _slots(f"{name}.{key}", entry, change, known | {id(value)})
    else:
        raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold: it would be lost")


def _refuse(name: str, value: object) -> None:
    raise CheckpointCorruptError(f"{name} is a tuple, whose entries cannot be replaced ({value!r})", ELSEWHERE)


def _is_python(value: Any) -> bool:
    """Whether all of an object is in its attributes: its classes are written in Python, and it is no module."""
    heap = 1 << 9  # of classes that are made at run time
    classes = [cls for cls in type(value).__mro__ if cls is not object]
    python = all(cls.__flags__ & heap and "__slots__" not in vars(cls) for cls in classes)
    return python and type(value).__dictoffset__ != 0 and not isinstance(value, nn.Module)


def _is_constant(value: Any) -> bool:
    return isinstance(value, CONSTANT) or _is_frozen(type(value)) or inspect.isroutine(value)


def _is_frozen(cls: Any) -> bool:
    """Whether a class is a frozen dataclass, such as a configuration: the same in every process."""
    return "__dataclass_params__" in vars(cls) and bool(cls.__dataclass_params__.frozen)


def _is_data(value: Any) -> bool:
    """Whether a value consists of plain values, tensors and arrays alone."""
    if isinstance(value, dict):
        return all(isinstance(key, PLAIN) and _is_data(entry) for key, entry in value.items())
    if isinstance(value, CONTAINERS):
        return type(value) in CONTAINERS and all(_is_data(entry) for entry in value)
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


# ------------------------------------------------------------------ optimizers and schedulers


def _moments(name: str, optimizer: Optimizer) -> dict[str, Tensor]:
    found = optimizer.state_dict()["state"]
    return {f"{name}.{number}.{key}": torch.as_tensor(v) for number, part in found.items() for key, v in part.items()}


def _settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Learning rates and the like of each group: a scheduler changes them."""
    groups = optimizer.param_groups
    return [{key: value for key, value in group.items() if key != "params" and _is_data(value)} for group in groups]


def _take_moments(name: str, optimizer: Optimizer, rest: dict[str, Tensor]) -> None:
    """Move the moments of one optimizer out of ``rest``, each compared with the parameter that it belongs to."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    found: dict[int, dict[str, Tensor]] = {}
    for key in [key for key in rest if key.startswith(f"{name}.")]:
        number, _, moment = key.removeprefix(f"{name}.").partition(".")
        if number.isdigit() and int(number) < len(parameters):
            value, parameter = rest.pop(key), parameters[int(number)]
            expected = parameter if value.ndim else value
            found.setdefault(int(number), {})[moment] = _alike(key, value, expected).clone()  # it is aliased
    state = optimizer.state_dict()
    state["state"] = found
    optimizer.load_state_dict(state)


def _schedule(name: str, scheduler: LRScheduler) -> Any:
    """The counters and rates of a scheduler. Its functions are code, not state. Raises CapabilityError."""
    record = scheduler.state_dict()
    lost = [key for key, value in record.items() if not (_is_data(value) or callable(value))]
    if lost:
        raise CapabilityError(f"{lost[0]} of the scheduler {name} cannot be saved", "use a scheduler of torch.optim")
    return encode({key: value for key, value in record.items() if _is_data(value)})


def _fits(value: Any, name: str, inner: Mapping[str, Tensor]) -> bool:
    """Whether the tensors ``inner`` are those of a plain value as it is now: then they can be put without a record."""
    own: dict[str, Tensor] = {}
    encode(value, own)
    return bool(own) and {f"{name}.{key}" for key in own} == inner.keys()


def _alike(name: str, saved: Tensor | None, own: Tensor) -> Tensor:
    if saved is None or saved.shape != own.shape:
        found = "missing" if saved is None else f"of shape {tuple(saved.shape)}"
        raise CheckpointCorruptError(f"the checkpoint's {name} is {found}, expected {tuple(own.shape)}", ELSEWHERE)
    return saved
