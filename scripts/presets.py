"""Named settings of `offline-vi train`: what a preset changes before any other flag is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from offline_vi.algorithms import ALGORITHMS
from offline_vi.errors import unknown


@dataclass(frozen=True)
class Preset:
    """Defaults that differ from those of the algorithm's paper."""

    behavior: str = ""  # the behaviour model of algorithms that use one; empty: the algorithm's published one
    train: dict[str, Any] = field(default_factory=dict)  # options of the run
    frozen: dict[str, Any] = field(default_factory=dict)  # options of a run on a frozen behaviour model

    def behavior_of(self, algorithm: str) -> str:
        """Name of the model, empty for an algorithm that uses none."""
        published = ALGORITHMS[algorithm].behavior
        return (self.behavior or published) if published else ""

    def options(self, algorithm: str) -> dict[str, Any]:
        """Changed defaults of `TrainOptions`."""
        return self.train | (self.frozen if ALGORITHMS[algorithm].behavior else {})


PRESETS: dict[str, Preset] = {
    "published": Preset(),
    "fast": Preset(
        behavior="cvae",
        train={"precision": "auto"},
        frozen={"behavior_steps": 10_000, "bank_period": 10_000},
    ),
    "likely": Preset(  # full samples of an exact density, filtered by it (docs/why-bcq.md)
        behavior="mixture",
        train={"precision": "auto"},
        frozen={"behavior_steps": 10_000, "bank_period": 10_000, "proposals": "likely", "keep": 0.1},
    ),
}


def preset(name: str) -> Preset:
    """Raises UsageError for an unknown name."""
    if name not in PRESETS:
        raise unknown(name, PRESETS, "preset")
    return PRESETS[name]
