"""The values of a suite's file, each checked where it is read; every refusal says what to write instead."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import TypeAlias

from offline_vi.datasets.finding import HDF5, TABLES
from offline_vi.errors import ConfigError

Scalar: TypeAlias = bool | int | float | str
Option: TypeAlias = Scalar | list[Scalar]
"""The value of a flag."""
Axis: TypeAlias = Option | list[list[Scalar]]
"""The values of a flag that a sweep goes through, or its one value."""

PRODUCTS = ("highest", "medium")
PRECISIONS = ("float32", "bfloat16")
RESERVED = (
    "behavior-from",
    "dataset",
    "seed",
    "seeds",
    "seeds-at-once",
    "preset",
    "plugin",
    "output",
    "resume",
    "overwrite",
    "quiet",
    "json",
    "threads",
)


@dataclass(frozen=True)
class Range:
    """The values that a search may give to a hyper-parameter: integers where both ends are integers."""

    low: int | float
    high: int | float
    log: bool = False  # whether the search is uniform in the logarithm

    @property
    def whole(self) -> bool:
        """Whether it stands for integers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Choices: TypeAlias = tuple[Scalar, ...]
SearchSpace: TypeAlias = Mapping[str, Range | Choices]
"""Hyper-parameter -> what a search may give it."""


def file_name(name: str, kind: str) -> str:
    """A name that a folder can have. Raises ConfigError for any other name, such as one that leads out of the
    folder."""
    if not re.fullmatch(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,199}", name):
        raise ConfigError(
            f"{kind} is {name[:60]!r}", "at most 200 letters, no slash among them, no dot at the beginning"
        )
    return name


def unknown_key(key: str, known: Sequence[str], kind: str) -> ConfigError:
    """The error for an unknown key, which names the nearest valid one."""
    close = get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return ConfigError(f"unknown {kind}: {key!r}", hint)


def flag(value: object, where: str) -> bool:
    """True or False. Raises ConfigError for anything else."""
    if isinstance(value, bool):
        return value
    raise ConfigError(f"{where} = {value!r} is neither true nor false", f"{where} = true")


def listed(value: object) -> Sequence[object]:
    """The entries of a list; a value that is no list is a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def strings(value: object, where: str) -> tuple[str, ...]:
    """Names: a list that is not empty, or one name. Raises ConfigError."""
    entries = listed(value)
    found = tuple(entry for entry in entries if isinstance(entry, str) and entry)
    if found and len(found) == len(entries):
        return found
    raise ConfigError(f"{where} = {value!r} is neither a name nor a list of names", f'e.g. {where} = ["..."]')


def datasets(value: object) -> dict[str, tuple[str, ...]]:
    """label -> names or files that are joined, from a table, a list or one name. Raises ConfigError."""
    if isinstance(value, Mapping):
        return {label: strings(files, f"datasets.{label}") for label, files in value.items()}
    names = strings(value, "datasets")
    if len(set(names)) != len(names):
        raise ConfigError(f"the data set {Counter(names).most_common(1)[0][0]} is there twice", "name each once")
    return {Path(name).stem if name.endswith((*HDF5, *TABLES)) else name: (name,) for name in names}


def seeds(value: object) -> tuple[int, ...]:
    """Whole numbers from 0: a list that is not empty, or one number. Raises ConfigError."""
    entries = listed(value)
    found = tuple(seed for seed in entries if type(seed) is int and seed >= 0)
    if found and len(found) == len(entries):
        return found
    raise ConfigError(f"seeds = {value!r} is neither a number from 0 nor a list of them", "e.g. seeds = [0, 1, 2]")


def plugins(value: object, folder: Path) -> tuple[str, ...]:
    """Modules by name, and files by absolute path; relative paths begin at ``folder``. Raises ConfigError."""
    if value == [] or value == ():
        return ()
    return tuple(plugin(name, folder) for name in strings(value, "plugins"))


def plugin(name: str, folder: Path) -> str:
    """A module by its name, a file by its absolute path."""
    return str((folder / name).resolve()) if name.endswith(".py") or "/" in name else name


def table(record: Mapping[str, object], key: str) -> Mapping[str, object]:
    """A table of tables; empty where the suite has none. Raises ConfigError."""
    value = record.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} = {value!r} is no table", f"write [{key}.NAME]")
    return value


def options(value: object, where: str) -> dict[str, Option]:
    """Options under the names of their flags: "eval_every" and "eval-every" are one. Raises ConfigError."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} = {value!r} is no table", f"write {where}, then lines like steps = 1000")
    found: dict[str, Option] = {}
    for name, entry in ((name.replace("_", "-"), entry) for name, entry in value.items()):
        if name in RESERVED:
            raise ConfigError(f"{where}: {name} is the suite's to decide", "leave it out")
        if isinstance(entry, Mapping):
            hint = f'write {name} = ["key=value"] where the flag takes such words, else "{name}.KEY" = VALUE'
            raise ConfigError(f"{where}: {name} is a table", hint)
        scalars = _scalars(listed(entry))
        if scalars is None:
            raise ConfigError(f"{where}: {name} = {entry!r} is no value of a flag", "a number, a text, or a list")
        found[name] = scalars if isinstance(entry, list | tuple) else scalars[0]
    return found


def variant(value: object, where: str) -> dict[str, Option]:
    """The "algorithm", the "preset" if it has one of its own, and the options in [variant.NAME]. Raises ConfigError."""
    if not isinstance(value, Mapping) or not isinstance(value.get("algorithm"), str):
        raise ConfigError(f"{where} names no algorithm", f'write {where}, then algorithm = "bcq"')
    own = value.get("preset", "published")
    if not isinstance(own, str):
        raise ConfigError(f"{where}: preset = {own!r} is no name", 'preset = "fast"; [sweep.NAME] takes a list')
    named = {"preset": own} if "preset" in value else {}
    return {**options({key: entry for key, entry in value.items() if key != "preset"}, where), **named}


def sweep(value: object, where: str) -> dict[str, Axis]:
    """The "algorithm", and the options or lists of options, in [sweep.NAME]. Raises ConfigError."""
    entries = value if isinstance(value, Mapping) else {}
    lists: dict[str, Axis] = {}
    for key, entry in entries.items():
        if several := _lists(entry):
            lists[key.replace("_", "-")] = several
        elif key == "preset" and isinstance(entry, list):
            names: list[Scalar] = [*strings(entry, f"{where}: preset")]
            lists[key] = names
    rest = {key: entry for key, entry in entries.items() if key.replace("_", "-") not in lists}
    found: dict[str, Axis] = {**variant(rest, where), **lists}
    if not any(isinstance(entry, list) and entry for entry in found.values()):
        raise ConfigError(f"{where} lists no values", "e.g. phi = [0.0, 0.05, 0.1]")
    return found


def _lists(value: object) -> list[list[Scalar]]:
    """Several values of a flag that takes a list; empty where it is anything else."""
    entries = value if isinstance(value, list) else []
    found = [scalars for entry in entries if isinstance(entry, list) and (scalars := _scalars(entry))]
    return found if len(found) == len(entries) else []


def grid(name: str, axes: Mapping[str, Axis]) -> dict[str, dict[str, Option]]:
    """The points of a sweep: name -> "algorithm" and options. A list is an axis; any other value is the same for all
    points.

    Raises ConfigError where two points have the same name.
    """
    same = {key: value for key, value in axes.items() if not isinstance(value, list)}
    varied = {key: value for key, value in axes.items() if isinstance(value, list)}
    points: dict[str, dict[str, Option]] = {}
    for chosen in product(*varied.values()):
        label = "_".join([name, *(f"{key}={_shown(value)}" for key, value in zip(varied, chosen, strict=True))])
        if label in points:
            raise ConfigError(f"the point {label} of a sweep is there twice", "list each value once")
        points[label] = {**same, **dict(zip(varied, chosen, strict=True))}
    return points


def _shown(value: Option) -> str:
    """A value within a name: the entries of a list joined by x, as in 256x256."""
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _scalars(entries: Sequence[object]) -> list[Scalar] | None:
    """The entries, if each is a number, a text or a truth value; else None."""
    found = [entry for entry in entries if isinstance(entry, bool | int | float | str)]
    return found if len(found) == len(entries) else None


def machine(value: object) -> dict[str, str]:
    """The choices in [machine]. Raises ConfigError."""
    choices = {"precision": PRECISIONS, "products": PRODUCTS}
    found = {}
    for name, chosen in options(value, "[machine]").items():
        if name not in choices:
            raise unknown_key(name, list(choices), "key of [machine]")
        if chosen not in choices[name]:
            raise ConfigError(f"{name} = {chosen!r}", f"one of {', '.join(choices[name])}")
        found[name] = str(chosen)
    return found


def search_space(value: object, algorithm: str) -> dict[str, Range | Choices]:
    """The ranges in [search.ALGORITHM], and lists of at least two choices. Raises ConfigError."""
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"[search.{algorithm}] names nothing", "e.g. lr = { low = 1e-4, high = 1e-3, log = true }")
    return {
        name.replace("_", "-"): _searched(entry, f"search.{algorithm}.{name.replace('_', '-')}")
        for name, entry in value.items()
    }


def _searched(entry: object, where: str) -> Range | Choices:
    if isinstance(entry, list | tuple) and len(entry) > 1 and (choices := _scalars(entry)):
        return tuple(choices)
    if isinstance(entry, Mapping) and {"low", "high"} <= set(entry) <= {"low", "high", "log"}:
        low, high, log = entry["low"], entry["high"], bool(entry.get("log", False))
        numbers = all(type(end) in (int, float) for end in (low, high))
        if numbers and low < high and (low > 0 or not log):
            return Range(low, high, log)
    raise ConfigError(
        f"{where} = {entry!r} is no range", "{ low = 1e-4, high = 1e-3, log = true }, or a list of choices"
    )
