"""The algorithms: one paper, one file. The table lists them without importing torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from offline_vi.algorithms.bc import BC
    from offline_vi.algorithms.bcq import BCQ


class Entry(NamedTuple):
    """Where an algorithm lives and what it is, in one line."""

    module: str
    name: str
    summary: str
    behavior: str = ""  # its default behaviour model; empty where it uses none


ALGORITHMS: dict[str, Entry] = {
    "bc": Entry("bc", "BC", "behaviour cloning: regress the data's action"),
    "bcq": Entry(
        "bcq", "BCQ", "batch-constrained Q-learning: perturb and rank a behaviour model's samples", "cvae-published"
    ),
}

__all__ = ["ALGORITHMS", "BC", "BCQ", "Entry"]


def __getattr__(name: str) -> Any:
    for entry in ALGORITHMS.values():
        if entry.name == name:
            return getattr(importlib.import_module(f"{__name__}.{entry.module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
