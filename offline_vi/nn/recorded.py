"""Modules that remember what they were built from, so that they can be described and built again."""

from __future__ import annotations

import inspect
from typing import Any, Self

from torch import nn


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
