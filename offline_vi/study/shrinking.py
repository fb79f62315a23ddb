"""A suite made smaller, or larger: other numbers of gradient steps and of seeds, everything else as it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from offline_vi.study.suite import Suite

INTERVALS = ("eval-every", "log-every", "save-every")
TRAIN_STEPS, FIT_STEPS = 50_000, 20_000  # of an algorithm and of a shared model where a suite does not say how many


def shrunk(suite: Suite, steps: int | None = None, seeds: int | None = None) -> Suite:
    """The suite with ``steps`` gradient steps of every algorithm and shared model, and with ``seeds`` seeds, counted
    from its first; None: as the suite says. The intervals between evaluations, rows and checkpoints change in
    proportion, so that curves keep their points. The name says what was changed."""
    words = [suite.name, *([f"{steps}-steps"] if steps else []), *([f"{seeds}-seeds"] if seeds else [])]
    chosen = tuple(range(suite.seeds[0], suite.seeds[0] + seeds)) if seeds else suite.seeds
    suite = replace(suite, name="-".join(words), seeds=chosen)
    if not steps:
        return suite
    return replace(
        suite,
        train=with_steps({"steps": TRAIN_STEPS, **suite.train}, steps),
        algorithm={name: with_steps(options, steps) for name, options in suite.algorithm.items()},
        variant={name: with_steps(options, steps) for name, options in suite.variant.items()},
        sweep={name: with_steps(options, steps) for name, options in suite.sweep.items()},
        behavior=with_steps({"steps": FIT_STEPS, **suite.behavior}, steps) if suite.behavior else {},
    )


def with_steps(options: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Options that say how many steps to take, with so many and with their intervals in proportion; others as they
    are."""
    before = options.get("steps")
    if not isinstance(before, int):
        return dict(options)
    every = {name: max(1, int(options[name]) * steps // before) for name in INTERVALS if options.get(name)}
    return {**options, **every, "steps": steps}
