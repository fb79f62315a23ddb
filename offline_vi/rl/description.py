"""An agent as a record that JSON can hold: which class, built from which arguments.

    {"class": "bcq",
     "spec": {"obs_shape": [11], "action_dim": 3, ...},
     "proposals": {"class": "DecoderMeans", "model": {"class": "cvae", "spec": {...}, "config": {...}}},
     "config": {"discount": 0.99, ...}}

`describe` reads the record off any algorithm, behavior model or proposals; `rebuild` makes the object again, freshly
initialized. A class is named as in `registry`, or as "module:Class"; nothing is imported because a record names it.
An object that appears twice, such as the model that `Jointly` trains and BCQ samples from, is one object again.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from offline_vi import registry
from offline_vi.errors import CapabilityError, ConfigError
from offline_vi.nn.recorded import Recorded
from offline_vi.runs.config import from_json
from offline_vi.types import Spec

Record = dict[str, Any]
"""A JSON object."""

OWN = {  # classes of the library that are in no table of the registry
    "Jointly": "offline_vi.rl.algorithm:Jointly",
    "DecoderMeans": "offline_vi.behavior.proposals:DecoderMeans",
    "MostLikelySamples": "offline_vi.behavior.proposals:MostLikelySamples",
    "UniformBox": "offline_vi.behavior.reference:UniformBox",
    "EveryAction": "offline_vi.behavior.reference:EveryAction",
}
NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}  # which JSON does not have


def describe(thing: Recorded) -> Record:
    """The record of an algorithm, a behavior model or proposals.

    Raises CapabilityError where an argument of a constructor cannot be written down: a function of no module, an open
    file, an object of a class that is not a `Recorded`.
    """
    return _describe(thing, {})


def rebuild(record: Mapping[str, Any]) -> Any:
    """What `describe` described, freshly initialized from torch's default generator.

    Raises ConfigError where a class is not known (see `registry.class_of`) or its constructor has other arguments.
    """
    return _rebuild(record, [])


def single_seed(record: Record) -> Record:
    """The record of one of several agents that train in parallel: the same without the axis of seeds."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: [] if key == "stack" else strip(entry) for key, entry in value.items()}
        return [strip(entry) for entry in value] if isinstance(value, list) else value

    stripped: Record = strip(record)
    return stripped


def find_class(record: Mapping[str, Any], wanted: str) -> Record | None:
    """The first object of the class of that name in a record, from the outside in; None where there is none."""
    if record.get("class") == wanted:
        return dict(record)
    for value in record.values():
        if isinstance(value, Mapping) and (found := find_class(value, wanted)) is not None:
            return found
    return None


# ------------------------------------------------------------------ from objects to records


def _describe(thing: Recorded, seen: dict[int, int]) -> Record:
    thing = thing.kept()
    if id(thing) in seen:
        return {"same_as": seen[id(thing)]}
    seen[id(thing)] = len(seen)
    hints, cls = get_type_hints(type(thing).__init__), type(thing)
    record: Record = {"class": _name_of(cls)}
    for name, value in thing.arguments().items():
        where = f"{cls.__name__}({name}={type(value).__name__} ...)"
        record[name] = _value(value, hints.get(name), seen, where)
    return record


def _value(value: Any, hint: Any, seen: dict[int, int], where: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, Recorded):
        return _describe(value, seen)
    if isinstance(value, enum.Enum):
        return {"enum": registry.name_of(type(value)), "name": value.name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        body = {name: _value(entry, None, seen, f"{where}.{name}") for name, entry in fields.items()}
        return body if _dataclass_of(hint) is type(value) else {"dataclass": registry.name_of(type(value)), **body}
    if isinstance(value, list | tuple):
        return [_value(entry, None, seen, where) for entry in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {key: _value(entry, None, seen, where) for key, entry in value.items()}}
    if inspect.isfunction(value) and "<" not in value.__qualname__:
        return {"function": f"{value.__module__}:{value.__qualname__}"}
    raise CapabilityError(
        f"{where} cannot be written down, so the agent could not be loaded again",
        "give its constructor numbers, text, frozen dataclasses, functions of a module, models or proposals",
    )


def _name_of(cls: type) -> str:
    reference = registry.name_of(cls)
    return next((name for name, target in OWN.items() if target == reference), reference)


def _dataclass_of(hint: Any) -> type | None:
    """The dataclass in an annotation such as ``BCQConfig | None``."""
    kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    return kinds[0] if kinds else None


# ------------------------------------------------------------------ from records to objects


def _rebuild(record: Mapping[str, Any], made: list[Any]) -> Any:
    try:
        name = record["class"]
        cls: Any = registry.class_of(OWN.get(name, name))
        if not issubclass(cls, Recorded):
            raise ConfigError(f"{name!r} is no algorithm, behavior model or proposals")
        hints, place = get_type_hints(cls.__init__), len(made)
        made.append(None)
        arguments = {key: _read(value, hints.get(key), made) for key, value in record.items() if key != "class"}
        inspect.signature(cls).bind(**arguments)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the description of the agent lacks or misuses {error}", "was it saved by this library?"
        ) from None
    made[place] = cls(**arguments)
    return made[place]


def _read(value: Any, hint: Any, made: list[Any]) -> Any:
    if isinstance(value, list):
        return tuple(_read(entry, None, made) for entry in value)
    if not isinstance(value, Mapping):
        return value
    if "class" in value:
        return _rebuild(value, made)
    if "same_as" in value:
        return made[value["same_as"]]
    if "number" in value:
        return NUMBERS[value["number"]]
    if "mapping" in value:
        return {key: _read(entry, None, made) for key, entry in value["mapping"].items()}
    if "enum" in value:
        return registry.class_of(value["enum"])[value["name"]]  # type: ignore[index]
    if "function" in value:
        return registry.function_of(value["function"])
    cls = registry.class_of(value["dataclass"]) if "dataclass" in value else _dataclass_of(hint)
    if cls is None or not dataclasses.is_dataclass(cls):
        raise KeyError(f"an argument {sorted(value)[:3]}")
    if cls is Spec:
        return Spec.from_json(value)
    fields = {key: _read(entry, None, made) for key, entry in value.items() if key != "dataclass"}
    required = [f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    return cls(**fields) if required else from_json(cls(), fields)
