"""Modules that remember what they were built from, so that they can be described and built again."""

from __future__ import annotations

import inspect
from typing import Any, Self

from torch import nn

from offline_vi.errors import ConfigError
from offline_vi.types import Spec


class Recorded(nn.Module):
    """A module that keeps the arguments of its constructor: see `nn.description`."""

    not_kept: frozenset[str] = frozenset()  # arguments that a description leaves out: data, devices
    transient: frozenset[str] = frozenset()  # attributes that a checkpoint leaves out: memory of running episodes
    _built_from: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        object.__setattr__(self, "_built_from", (args, kwargs))
        return self

    def arguments(self) -> dict[str, Any]:
        """The arguments by name, defaults included, without those that are `not_kept`. A configuration that was left
        out is the one that the object made for itself and keeps as ``config``."""
        args, kwargs = self._built_from
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        if "config" in arguments and arguments["config"] is None:
            arguments["config"] = vars(self).get("config")
        return {name: value for name, value in arguments.items() if name not in self.not_kept}


def spec_in(thing: Recorded) -> Spec:
    """The shapes that an object is of: the first `Spec` among the arguments of its constructor and theirs.

    Raises ConfigError where there is none.
    """
    found = _spec_in(thing)
    if found is None:
        raise ConfigError(
            f"nothing says of which shapes {type(thing).__name__} is", "give its constructor the argument `spec: Spec`"
        )
    return found


def _spec_in(thing: Recorded) -> Spec | None:
    values = list(thing.arguments().values())
    own = next((value for value in values if isinstance(value, Spec)), None)
    inner = (_spec_in(value) for value in values if isinstance(value, Recorded))
    return own or next((spec for spec in inner if spec is not None), None)
