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
import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, get_args, get_type_hints

from offline_vi import registry
from offline_vi.errors import CapabilityError, ConfigError, OfflineVIError
from offline_vi.nn.recorded import Recorded
from offline_vi.renamed import as_before
from offline_vi.types import Spec, from_json

Record = dict[str, Any]
"""A JSON object."""

OWN = {  # classes of the library that are in no table of the registry
    "Jointly": "offline_vi.rl.algorithm:Jointly",
    "BehaviorFit": "offline_vi.training.behavior:BehaviorFit",
    "TrajectoryValues": "offline_vi.training.trajectory_values:TrajectoryValues",
    "BestSteps": "offline_vi.training.best_steps:BestSteps",
    "Normalizer": "offline_vi.nn.normalizer:Normalizer",
    "KnownStates": "offline_vi.rl.states:KnownStates",
    "DecoderMeans": "offline_vi.behavior.proposals:DecoderMeans",
    "CandidateCache": "offline_vi.behavior.proposals:CandidateCache",
    "CentralActions": "offline_vi.behavior.proposals:CentralActions",
    "MostLikelySamples": "offline_vi.behavior.proposals:MostLikelySamples",
    "UniformBox": "offline_vi.behavior.reference:UniformBox",
    "EveryAction": "offline_vi.behavior.reference:EveryAction",
    "DiscreteSAC": "offline_vi.algorithms.soft_q:DiscreteSAC",
}
TAGS = frozenset({"class", "same_as", "number", "list", "mapping", "enum", "function", "dataclass"})
NUMBERS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}  # which JSON does not have


def describe(thing: Recorded) -> Record:
    """The record of an algorithm, a behavior model or proposals.

    Raises CapabilityError where a class, or an argument of a constructor, cannot be written down: a function or class
    of no module, an open file, an object of a class that is not a `Recorded`.
    """
    return _describe(thing, {})


def rebuild(record: Mapping[str, Any]) -> Any:
    """What `describe` described, freshly initialized from torch's default generator.

    Raises ConfigError where a class is not known (see `registry.class_of`) or cannot be built from these arguments.
    """
    return _rebuild(record, [])


def class_named(name: str) -> type:
    """The class that a record names. Raises ConfigError where it is not known, see `registry.class_of`."""
    if name in OWN:
        return registry.AlgorithmEntry(OWN[name], "").load()
    return registry.class_of(name)


def single_seed(record: Record) -> Record:
    """The record of one of several agents that train in parallel: the same without the axis of seeds."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            shapes = "obs_shape" in value
            return {key: [] if shapes and key == "stack" else strip(entry) for key, entry in value.items()}
        return [strip(entry) for entry in value] if isinstance(value, list) else value

    stripped: Record = strip(record)
    return stripped


def completed(value: Any) -> Any:
    """A record of an earlier version with the hyper-parameters that it had no name for, at the values that they had."""
    if isinstance(value, list):
        return [completed(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    record = {key: completed(entry) for key, entry in value.items()}
    with suppress(OfflineVIError):  # a class that is not loaded is compared as it is
        for name, hint in _hints(class_named(str(value["class"]))).items() if "class" in value else ():
            settings = _dataclass_of(hint)
            if settings not in (None, Spec) and isinstance(record.get(name), dict) and not TAGS & record[name].keys():
                record[name] = json.loads(json.dumps(dataclasses.asdict(as_before(settings)))) | record[name]
    return record


def spec_of(record: Mapping[str, Any]) -> Spec:
    """The shapes that an agent is of: the first `Spec` among its arguments and theirs.

    Raises ConfigError where there is none.
    """
    found = next(_specs(record), None)
    if found is None:
        raise ConfigError(
            f"nothing says of which shapes {record.get('class')} is", "give its constructor the argument `spec: Spec`"
        )
    try:
        return Spec.from_json(found)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the shapes of {record.get('class')} lack or misuse {error}") from None


def _specs(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping) and "obs_shape" in value:
        yield value
    for entry in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _specs(entry)


def classes_in(record: Any) -> list[str]:
    """The names of all classes in a record, each once."""
    if isinstance(record, list):
        return list(dict.fromkeys(name for entry in record for name in classes_in(entry)))
    if not isinstance(record, Mapping):
        return []
    if "mapping" in record or "fields" in record:  # whose keys are somebody's
        inner = record.get("mapping", record.get("fields"))
        entries = list(inner.values()) if isinstance(inner, Mapping) else []
    else:
        entries = list(record.values())
    own = [str(record[key]) for key in ("class", "dataclass", "enum") if key in record]
    return list(dict.fromkeys(own + classes_in(entries)))


# ------------------------------------------------------------------ from objects to records


def _describe(thing: Recorded, seen: dict[int, int]) -> Record:
    if id(thing) in seen:
        return {"same_as": seen[id(thing)]}
    seen[id(thing)] = len(seen)
    cls = type(thing)
    hints = _hints(cls)
    record: Record = {"class": _name_of(cls)}
    for name, value in thing.arguments().items():
        where = f"{cls.__name__}({name}={type(value).__name__} ...)"
        record[name] = _value(value, hints.get(name), seen, where)
    return record


def _value(value: Any, hint: Any, seen: dict[int, int], where: str) -> Any:
    if isinstance(value, enum.Enum):
        return {"enum": _name_of(type(value)), "name": value.name}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, Recorded):
        return _describe(value, seen)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        body = {name: _value(entry, None, seen, f"{where}.{name}") for name, entry in fields.items()}
        expected = _dataclass_of(hint) is type(value) and not TAGS & body.keys()
        return body if expected else {"dataclass": _name_of(type(value)), "fields": body}
    if isinstance(value, list):
        return {"list": [_value(entry, None, seen, where) for entry in value]}
    if isinstance(value, tuple):
        return [_value(entry, None, seen, where) for entry in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {key: _value(entry, None, seen, where) for key, entry in value.items()}}
    if inspect.isfunction(value) and registry.loaded(f"{value.__module__}:{value.__qualname__}") is value:
        return {"function": f"{value.__module__}:{value.__qualname__}"}
    raise CapabilityError(
        f"{where} cannot be written down, so the agent could not be loaded again",
        "give its constructor numbers, text, frozen dataclasses, functions of a module, models or proposals",
    )


def _name_of(cls: type) -> str:
    reference = registry.name_of(cls)
    if ":" in reference and registry.loaded(reference) is not cls:
        raise CapabilityError(
            f"{cls.__name__} could not be found again: it is no class of the module {cls.__module__}",
            "define it in a module, outside of functions",
        )
    return next((name for name, target in OWN.items() if target == reference), reference)


def _hints(cls: Any) -> dict[str, Any]:
    """The types of a constructor's arguments; none where they name what only a type checker sees."""
    with suppress(NameError):
        return get_type_hints(cls.__init__)
    return {}


def _dataclass_of(hint: Any) -> type | None:
    """The dataclass in an annotation such as ``BCQConfig | None``."""
    kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    return kinds[0] if kinds else None


# ------------------------------------------------------------------ from records to objects


def _rebuild(record: Mapping[str, Any], made: list[Any]) -> Any:
    try:
        name = record["class"]
        cls: Any = class_named(name)
        if not issubclass(cls, Recorded):
            raise ConfigError(f"{name!r} is no algorithm, behavior model or proposals")
        hints, signature, place = _hints(cls), inspect.signature(cls), len(made)
        made.append(None)
        arguments = {key: _read(value, hints.get(key), made) for key, value in record.items() if key != "class"}
        if surplus := arguments.keys() - signature.parameters.keys():
            raise ConfigError(
                f"{name} takes no argument {min(surplus)!r}", f"it takes {', '.join(signature.parameters)}"
            )
        bound = inspect.BoundArguments(signature, OrderedDict(arguments))
        made[place] = cls(*bound.args, **bound.kwargs)
    except OfflineVIError:
        raise
    except Exception as error:  # whatever somebody's constructor raises
        raise ConfigError(
            f"the description of the agent lacks or misuses {error}", "was it saved by this library?"
        ) from error
    return made[place]


def _read(value: Any, hint: Any, made: list[Any]) -> Any:
    if isinstance(value, list):
        return tuple(_read(entry, None, made) for entry in value)
    if not isinstance(value, Mapping):
        return value
    if "class" in value:
        return _rebuild(value, made)
    if "same_as" in value:
        return _earlier(value["same_as"], made)
    if "number" in value:
        return NUMBERS[value["number"]]
    if "list" in value:
        return [_read(entry, None, made) for entry in value["list"]]
    if "mapping" in value:
        return {key: _read(entry, None, made) for key, entry in value["mapping"].items()}
    if "enum" in value:
        return _member(registry.class_of(value["enum"]), value["name"])
    if "function" in value:
        return registry.function_of(value["function"])
    if "dataclass" in value:
        return _dataclass(registry.class_of(value["dataclass"]), value["fields"], made)
    return _dataclass(_dataclass_of(hint), value, made)


def _earlier(place: Any, made: list[Any]) -> Any:
    """An object that was made before."""
    if type(place) is not int or not 0 <= place < len(made) or made[place] is None:
        raise ConfigError(f"the description of the agent refers to an object {place!r} that does not come before")
    return made[place]


def _member(cls: type, name: str) -> enum.Enum:
    if not issubclass(cls, enum.Enum):
        raise ConfigError(f"{cls.__name__} is no enumeration")
    return cls[name]


def _dataclass(cls: type | None, record: Mapping[str, Any], made: list[Any]) -> Any:
    if cls is None or not dataclasses.is_dataclass(cls):
        raise ConfigError(f"the description of the agent has a table {sorted(record)[:3]} where none belongs")
    if cls is Spec:
        return Spec.from_json(record)
    fields = {key: _read(entry, None, made) for key, entry in record.items()}
    required = [f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    return cls(**fields) if required else from_json(as_before(cls), fields)
