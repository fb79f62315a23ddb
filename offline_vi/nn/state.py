"""What makes an algorithm what it is at a moment, whole: tensors, optimizers, schedulers, counters.

Parameters and buffers are only a part of it. An algorithm, or any module in it, may keep optimizers, learning-rate
schedulers, random generators, tensors and arrays that are no buffers, and plain Python values such as a counter of
steps, each in containers and in objects of plain Python classes too. All of these are saved. What cannot be saved is
refused before training begins: a checkpoint that silently lacked a part of the algorithm would be worse than none. What
is no part of it, such as a policy's memory of running episodes, is named in ``transient``.
"""

from __future__ import annotations

import abc
import copy
import enum
import functools
import inspect
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
from offline_vi.nn.encoding import ELSEWHERE, PLAIN, alike, decode as decode, encode as encode, is_data
from offline_vi.nn.optimizer_state import (
    check_settings,
    moments_of,
    plain_state,
    schedule_of,
    settings_of,
    take_moments,
)
from offline_vi.nn.recorded import Recorded

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
    value: Any  # what is there now
    put: Callable[[Any], None]  # replaces the value


def snapshot(module: nn.Module) -> State:
    """All that makes the algorithm what it is. Parameters and buffers have their module names, each once however many
    modules share it; optimizer state is called ``critic_opt.0.exp_avg`` (number of the parameter, name of the moment).

    Raises CapabilityError for what cannot be saved.
    """
    tensors, values = parameters_and_buffers(module), {}
    for name, value, _ in slots(module):
        if isinstance(value, Optimizer):
            tensors |= moments_of(name, value)
            values[f"{name}.groups"] = encode(settings_of(value))
        elif isinstance(value, nn.Parameter):  # of no module
            tensors[name] = value
        elif isinstance(value, torch.Generator):
            tensors[name] = value.get_state()
        elif isinstance(value, LRScheduler):
            values[name] = schedule_of(name, value)
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
    """Take over a `snapshot`, copying every tensor. All of them are compared with what the module expects, by name,
    shape and dtype, before the first one is copied: where one does not fit, the module stays as it was.

    Parameters and buffers alone will do: optimizers and counters that are not there keep what they have. Raises
    CheckpointCorruptError where names, shapes or dtypes are not those of this algorithm.
    """
    try:
        steps = list(_steps(module, dict(tensors), values or {}))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointCorruptError(f"the checkpoint does not fit this algorithm ({error!r})", ELSEWHERE) from error
    for step in steps:
        step()


def _steps(module: nn.Module, rest: dict[str, Tensor], values: Mapping[str, Any]) -> Iterator[Callable[[], object]]:
    """What taking over a snapshot consists of, each step checked and none of them done."""
    for name, own in parameters_and_buffers(module).items():
        yield functools.partial(own.copy_, alike(name, rest.pop(name, None), own))
    if FROZEN in values:
        for name, parameter in module.named_parameters():
            yield functools.partial(parameter.requires_grad_, name not in values[FROZEN])
    found = list(slots(module))
    for slot in found:
        yield from _filling(slot, rest, values)
    known = {FROZEN} | {slot.name for slot in found} | {f"{slot.name}.groups" for slot in found}
    modules = dict(module.named_modules())
    for name in sorted(values.keys() - known):  # attributes that the algorithm makes while it trains
        prefix, _, attribute = name.rpartition(".")
        if prefix in modules:
            if not is_data(inspect.getattr_static(modules[prefix], attribute, None)):
                raise CheckpointCorruptError(f"the checkpoint holds {name}, which is no part of the state", ELSEWHERE)
            put = functools.partial(object.__setattr__, modules[prefix], attribute)
            yield from _filling(Slot(name, None, put), rest, values)
    if rest:
        raise CheckpointCorruptError(f"the checkpoint holds {min(rest)}, which this algorithm does not have", ELSEWHERE)


def _filling(slot: Slot, rest: dict[str, Tensor], values: Mapping[str, Any]) -> Iterator[Callable[[], object]]:
    """The steps that give one part its saved state; what they take of ``rest`` is no longer there."""
    name, value, put = slot
    record: Any = values.get(name)
    inner = {key: rest[key] for key in rest if key.startswith(f"{name}.")}
    if isinstance(value, Optimizer):
        state = {**value.state_dict(), "state": take_moments(name, value, rest)}
        yield functools.partial(value.load_state_dict, state)
        if f"{name}.groups" in values:
            settings = decode(values[f"{name}.groups"])
            check_settings(f"{name}.groups", settings, settings_of(value))
            yield lambda: [group.update(saved) for group, saved in zip(value.param_groups, settings, strict=True)]
    elif name in rest and isinstance(value, nn.Parameter):
        yield functools.partial(value.copy_, alike(name, rest.pop(name), value))
    elif name in rest and isinstance(value, torch.Generator):
        yield functools.partial(value.set_state, alike(name, rest.pop(name), value.get_state()))
    elif name not in values and not _fits(value, name, inner):
        return
    elif isinstance(value, LRScheduler):
        schedule = decode(record)
        check_settings(name, [schedule], [plain_state(value)])
        yield functools.partial(value.load_state_dict, schedule)
    elif isinstance(value, np.random.Generator):
        copy.deepcopy(value).bit_generator.state = record  # raises what is wrong with it
        yield functools.partial(setattr, value.bit_generator, "state", record)
    elif isinstance(value, random.Random):
        random.Random().setstate(decode(record))  # raises what is wrong with it
        yield functools.partial(value.setstate, decode(record))
    elif isinstance(value, enum.Enum):
        yield functools.partial(put, type(value)[str(record)])
    elif isinstance(value, PurePath):
        yield functools.partial(put, type(value)(str(record)))
    else:
        record = record if name in values else encode(value, {})
        held = {key.removeprefix(f"{name}."): rest.pop(key) for key in inner}
        yield functools.partial(put, decode(record, held))


def refuse_unsaved(module: nn.Module) -> None:
    """Raise CapabilityError where a part of the algorithm would be missing from its checkpoints, naming it."""
    for name, value, _ in slots(module):
        if isinstance(value, LRScheduler):
            schedule_of(name, value)


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
    """The slots of one attribute; ``known`` are the identities of what is saved elsewhere, or is being looked at.

    Raises TypeError for what cannot be saved.
    """
    generators = torch.Generator | np.random.Generator | random.Random
    if isinstance(value, Optimizer | LRScheduler | generators | enum.Enum | PurePath) or is_data(value):
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


def _fits(value: Any, name: str, inner: Mapping[str, Tensor]) -> bool:
    """Whether the tensors ``inner`` are those of a plain value as it is now: then they can be put without a record."""
    own: dict[str, Tensor] = {}
    encode(value, own)
    return bool(own) and {f"{name}.{key}" for key in own} == inner.keys()
