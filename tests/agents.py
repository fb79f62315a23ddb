"""Small agents for tests, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from offline_vi import registry
from offline_vi.behavior.base import BehaviorModel, Proposals
from offline_vi.rl.algorithm import Algorithm
from offline_vi.study.agents import AgentChoice, Cache, build_agent, new_model
from offline_vi.types import Spec

QUICK: dict[str, dict[str, Any]] = {"flow-matching": {"ode_steps": 3}, "flow": {"transforms": 1}}
"""What makes a model quick besides its width."""


def small_choice(
    name: str,
    spec: Spec,
    *,
    jointly: bool | None = None,
    hidden: tuple[int, ...] = (8, 8),
    batch_size: int = 16,
    behavior: str = "",
    **changed: Any,
) -> AgentChoice:
    """An algorithm with networks of 8 units, on its default behavior model, trained jointly unless said otherwise."""
    row = registry.algorithm(name)
    config = replace(row.config()(), hidden=hidden, batch_size=batch_size)
    model = behavior or row.behavior
    settings = small_settings(model, spec, hidden) if model else None
    together = bool(model) and jointly is not False
    return replace(AgentChoice(name, config, model, settings, jointly=together), **changed)


def small_settings(model: str, spec: Spec, hidden: tuple[int, ...] = (8, 8), *, quick: bool = False) -> Any:
    """The configuration of a behavior model with networks of 8 units."""
    return replace(registry.behavior_model(model).config(spec), hidden=hidden, **QUICK.get(model, {}) if quick else {})


def small_model(model: str, spec: Spec, hidden: tuple[int, ...] = (8, 8), *, quick: bool = False) -> Any:
    """A behavior model of networks of 8 units, initialized from torch's default generator as it is."""
    cls: Any = registry.behavior_model(model).load()
    return cls(spec, small_settings(model, spec, hidden, quick=quick))


def built(choice: AgentChoice, spec: Spec, model: BehaviorModel | None = None, cache: Cache | None = None) -> Algorithm:
    """The agent, initialized from torch's default generator as it is."""
    if choice.behavior and model is None:
        model = new_model(choice, spec)
    return build_agent(choice, spec, model, cache or _as_they_are)


def _as_they_are(proposals: Proposals) -> Proposals:
    return proposals
