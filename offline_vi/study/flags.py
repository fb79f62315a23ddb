"""Frozen dataclasses as the flags of a verb."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from functools import partial
from typing import Annotated, Any, TypeVar, get_type_hints

import docstring_parser
import tyro

from offline_vi.errors import ConfigError
from offline_vi.ranges import check_numbers

Parts = dict[str, Any]
"""Name -> a frozen dataclass with the defaults of its flags."""


PREFIXED = ("behavior", "vime")  # parts whose flags carry their name: --behavior.lr


def parse(
    parts: Parts, arguments: Sequence[str], prog: str, description: str, prefixed: Sequence[str] = PREFIXED
) -> Any:
    """An object with the same names, the dataclasses as the flags say. The flags of the ``prefixed`` parts carry the
    part's name, those of all others do not. Raises ConfigError for a number out of its range, and where two parts have
    a flag of the same name."""
    check_names({name: default for name, default in parts.items() if name not in prefixed})
    omit: Any = tyro.conf.OmitArgPrefixes
    shown: list[Any] = [
        (name, one if name in prefixed else omit[one], field(default_factory=partial(one, **values_of(default))))
        for name, default in parts.items()
        for one in [described(type(default))]
    ]
    options: Any = make_dataclass("Options", shown, frozen=True)
    found = tyro.cli(options, args=list(arguments), prog=prog, description=description)
    check_numbers(found)
    chosen = {name: plain(getattr(found, name), type(default)) for name, default in parts.items()}
    return make_dataclass("Options", [(name, Any) for name in chosen], frozen=True)(**chosen)


Kind = TypeVar("Kind")


def one_part(kind: type[Kind], arguments: Sequence[str] | None, prog: str) -> Kind:
    """A dataclass as the flags say. Raises ConfigError for a number out of its range."""
    found = plain(tyro.cli(described(kind), args=arguments, prog=prog), kind)
    check_numbers(found)
    return found


def plain(options: Any, kind: type[Kind]) -> Kind:
    """Options of the kind that `described` makes of another, as that one."""
    values = values_of(options)
    nested = {one.name: type(one.default) for one in fields(kind) if is_dataclass(one.default)}  # type: ignore[arg-type]
    return kind(**values | {name: plain(values[name], inner) for name, inner in nested.items()})


def values_of(options: Any) -> dict[str, Any]:
    """The fields of a dataclass that its constructor takes, and their values as they are."""
    return {one.name: getattr(options, one.name) for one in fields(options) if one.init}


def described(kind: type) -> Any:
    """The dataclass as its help shows it: the docstring of a field is one paragraph, where tyro would keep the line
    breaks of the source, and an empty default goes without saying."""
    documented = {
        one.arg_name: one.description or ""
        for base in reversed(kind.__mro__)
        if is_dataclass(base)
        for one in docstring_parser.parse_from_object(base).params
    }
    hints, shown = get_type_hints(kind, include_extras=True), list[Any]()
    for one in fields(kind):
        if not one.init:
            continue
        kept = field(default=one.default, default_factory=one.default_factory, kw_only=one.kw_only)
        if is_dataclass(one.default):
            inner = described(type(one.default))
            metadata = getattr(hints[one.name], "__metadata__", ())
            shown.append((one.name, Annotated[(inner, *metadata)], field(default=inner(**values_of(one.default)))))
        else:
            text = inspect.cleandoc(documented.get(one.name, "")).replace("\n", " ")
            told = tyro.conf.arg(help=text or None, help_behavior_hint=hint)  # None: tyro takes a comment
            shown.append((one.name, Annotated[hints[one.name], told], kept))
    same = {name: getattr(kind, name) for name in ("__doc__", "__module__", "__qualname__")}  # tyro finds the source
    frozen = kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return make_dataclass(kind.__name__, shown, bases=(kind,), namespace=same, frozen=frozen)


def hint(default: str) -> str:
    """What the help says of a default: nothing where it is empty or None, which the docstring explains."""
    return f"(default: {default})" if default.strip("'\"") not in ("", "None") else ""


def check_names(parts: Parts) -> None:
    """Raises ConfigError where a field of one part would be the same flag as that of another."""
    taken: dict[str, str] = {}
    for default in parts.values():
        kind = type(default).__name__
        for one in fields(default):
            if one.name in taken:
                raise ConfigError(
                    f"{kind}.{one.name} would be the flag --{one.name.replace('_', '-')}, which {taken[one.name]} has",
                    "rename the field",
                )
            taken[one.name] = kind


def value_of(arguments: Sequence[str], name: str) -> str:
    """The value of a flag that decides which other flags there are; empty where it is not given."""
    for at, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name and at + 1 < len(arguments):
            return arguments[at + 1]
    return ""
