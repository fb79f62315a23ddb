"""Frozen dataclasses as the flags of a verb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from typing import Any

import tyro

from offline_vi.errors import ConfigError
from offline_vi.ranges import check_numbers

Parts = dict[str, Any]
"""Name -> a frozen dataclass with the defaults of its flags."""


PREFIXED = ("behavior", "vime")  # parts whose flags carry their name: --behavior.lr


def parse(
    parts: Parts, arguments: Sequence[str], prog: str, description: str, prefixed: Sequence[str] = PREFIXED
) -> Any:
    """An object with the same names, its dataclasses as the flags say. The flags of the ``prefixed`` parts carry the
    part's name, those of all others do not. Raises ConfigError for a number out of its range, and where two parts have
    a flag of the same name."""
    check_names({name: default for name, default in parts.items() if name not in prefixed})
    omit: Any = tyro.conf.OmitArgPrefixes
    fields = [
        (name, type(default) if name in prefixed else omit[type(default)], field(default=default))
        for name, default in parts.items()
    ]
    options: Any = tyro.cli(
        make_dataclass("Options", fields, frozen=True), args=list(arguments), prog=prog, description=description
    )
    check_numbers(options)
    return options


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
