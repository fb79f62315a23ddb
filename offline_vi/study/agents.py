"""Agents from names and settings, as the command and suites give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_type_hints

from offline_vi import registry
from offline_vi.behavior.base import (
    BehaviorModel,
    CentralModel,
    DensityModel,
    LatentModel,
    Proposals,
    require_capability,
)
from offline_vi.behavior.proposals import CentralActions, DecoderMeans, MostLikelySamples
from offline_vi.errors import CapabilityError
from offline_vi.nn.stack import stack_, unstack_
from offline_vi.rl.algorithm import Algorithm, Jointly
from offline_vi.training.randomness import set_seed
from offline_vi.types import Spec

Cache = Callable[[Proposals], Proposals]
"""What makes of proposals a cache of them, or leaves them as they are."""


@dataclass(frozen=True)
class AgentChoice:
    """Which agent is built."""

    algorithm: str  # name in the registry
    config: Any  # its hyper-parameters
    behavior: str = ""  # name of the behavior model; empty where the algorithm uses none
    behavior_config: Any = None
    jointly: bool = False  # train the behavior model together with the algorithm, a step each
    proposals: Literal["", "samples", "decoder-means", "most-likely", "central"] = ""  # empty: as the registry says
    noise_clip: float = 0.5  # of decoder means: standard deviations of the prior noise
    keep: float = 0.25  # of the most likely samples: the share that is kept


class Agents(NamedTuple):
    """What is trained, and one seed of it: the same object, unless several train in parallel."""

    algorithm: Algorithm
    one: Algorithm
    behavior: BehaviorModel | None  # of the one
    seeds: tuple[int, ...]

    def each(self) -> Iterator[tuple[int, Algorithm]]:
        """(seed, its policy as it is), one after the other, without those that diverged."""
        for place, seed in enumerate(self.seeds):
            if len(self.seeds) > 1:
                unstack_(self.one, self.algorithm, place)
            if all(bool(parameter.isfinite().all()) for parameter in self.one.parameters()):
                yield seed, self.one.eval()


def build_agents(
    choice: AgentChoice, spec: Spec, seeds: tuple[int, ...], model: BehaviorModel | None, cache: Cache
) -> Agents:
    """The agents of some seeds, each initialized from its own; ``model`` is a fitted behavior model that they share.

    Raises CapabilityError where the algorithm cannot use the model.
    """
    if model is None and choice.behavior and not choice.jointly:
        set_seed(seeds[0])
        model = new_model(choice, spec)
    singles: list[tuple[Algorithm, BehaviorModel | None]] = []
    for seed in seeds:
        set_seed(seed)
        own = new_model(choice, spec) if choice.behavior and model is None else model
        singles.append((build_agent(choice, spec, own, cache if len(seeds) == 1 else _uncached), own))
    first, behavior = singles[0]
    if len(seeds) == 1:
        return Agents(first, first, behavior, seeds)
    stacked = spec.stacked(len(seeds))
    shared = new_model(choice, stacked) if choice.jointly else model
    together = build_agent(choice, stacked, shared, cache)
    stack_(together, [single for single, _ in singles])
    return Agents(together, first, behavior, seeds)


def build_agent(choice: AgentChoice, spec: Spec, model: BehaviorModel | None, cache: Cache) -> Algorithm:
    """One agent, freshly initialized from torch's default generator."""
    cls: Any = registry.algorithm(choice.algorithm).load()
    argument = registry.proposals_argument(cls)
    if not argument:
        if choice.behavior:
            raise CapabilityError(f"{choice.algorithm} uses no behavior model", "leave --behavior out")
        alone: Algorithm = cls(spec, config=choice.config)
        return alone
    if model is None:
        raise CapabilityError(f"{choice.algorithm} needs a behavior model", "name one: --behavior MODEL")
    proposals = propose(model, choice)
    if choice.jointly:
        return Jointly(model, cls(spec, proposals, config=choice.config))
    model.requires_grad_(False)
    if get_type_hints(cls.__init__)[argument] is Proposals:
        proposals = cache(proposals)
    agent: Algorithm = cls(spec, proposals, config=choice.config)
    return agent


def new_model(choice: AgentChoice, spec: Spec) -> BehaviorModel:
    """The behavior model that is chosen, freshly initialized."""
    cls: Any = registry.behavior_model(choice.behavior).load()
    model: BehaviorModel = cls(spec, choice.behavior_config)
    return model


def propose(model: BehaviorModel, choice: AgentChoice) -> Proposals:
    """What the algorithm is given of its behavior model. Where the registry says "decoder-means" and the model cannot
    decode, that is the model itself.

    Raises CapabilityError where what was asked for is more than the model can.
    """
    kind = choice.proposals or registry.algorithm(choice.algorithm).proposals
    if kind == "decoder-means" and (choice.proposals or isinstance(model, LatentModel)):
        return DecoderMeans(require_capability(model, LatentModel, "decoding"), choice.noise_clip)
    if kind == "most-likely":
        return MostLikelySamples(require_capability(model, DensityModel, "choosing likely samples"), choice.keep)
    if kind == "central":
        return CentralActions(require_capability(model, CentralModel, "one action that stands for the others"))
    return model


def resolved(choice: AgentChoice, spec: Spec) -> AgentChoice:
    """The choice with the model's hyper-parameters for these shapes: flags are parsed before the shapes are known, so
    that what nobody changed takes the value that the shapes give."""
    if not choice.behavior:
        return choice
    row, given = registry.behavior_model(choice.behavior), vars(choice.behavior_config)
    unknown, known = vars(row.config(Spec((1,), 1))), vars(row.config(spec))
    changed = {name: value for name, value in given.items() if value != unknown[name]}
    return replace(choice, behavior_config=type(choice.behavior_config)(**{**known, **changed}))


def _uncached(proposals: Proposals) -> Proposals:
    return proposals
