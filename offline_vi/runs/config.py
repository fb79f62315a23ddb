"""Frozen dataclasses from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from offline_vi.errors import ConfigError


def from_json(default: Any, record: Mapping[str, Any]) -> Any:
    """A frozen dataclass like ``default`` with the record's values; lists become tuples.

    Raises ConfigError for an unknown name or a value of another type.
    """
    assert is_dataclass(default)
    if not isinstance(record, Mapping):
        raise ConfigError(f"{str(record)[:60]!r} is no table of settings", "look at a run's config.json")
    known = {field.name: getattr(default, field.name) for field in fields(default)}
    values = dict(known)
    for name, value in record.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise ConfigError(f"unknown hyper-parameter {name!r}", f"did you mean {close[0]!r}?" if close else "")
        value = tuple(value) if isinstance(value, list) else value
        if known[name] is not None and not _alike(value, known[name]):
            raise ConfigError(f"{name} = {str(value)[:60]!r} is not a {type(known[name]).__name__}", "look at --help")
        values[name] = value
    cls: Any = type(default)
    return cls(**values)


def _alike(value: Any, known: Any) -> bool:
    """Whether a value is of the known one's type: whole numbers pass for real ones, and tuples go by their entries."""
    if isinstance(known, tuple):
        return isinstance(value, tuple) and (not known or all(_alike(entry, known[0]) for entry in value))
    if isinstance(known, float):
        return isinstance(value, float | int)
    return isinstance(value, type(known))
