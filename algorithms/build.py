"""From plain records to networks and back: what a run's config.json says becomes an algorithm again."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch

from offline_vi.algorithms import ALGORITHMS, OTHERS, Entry
from offline_vi.behavior import BehaviorModel, DecoderMeans, DensityModel, LatentModel, MostLikelySamples
from offline_vi.behavior.base import require_capability
from offline_vi.behavior.pretrained import behavior_config, build_behavior, load_behavior
from offline_vi.behavior.proposals import CandidateCache
from offline_vi.errors import CapabilityError, ConfigError, unknown
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.stack import unstack_
from offline_vi.rl.algorithm import Algorithm, Jointly, Normalized, NormalizedOnline, OnlineAlgorithm, Rescaled
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.config import from_json
from offline_vi.runs.files import read_json
from offline_vi.types import Spec


def entry(algorithm: str) -> Entry:
    """The table's row. Raises UsageError for an unknown algorithm."""
    table = ALGORITHMS | OTHERS
    if algorithm not in table:
        raise unknown(algorithm, table, "algorithm")
    return table[algorithm]


def algorithm_class(algorithm: str) -> type[Algorithm]:
    row = entry(algorithm)
    found: type[Algorithm] = getattr(importlib.import_module(f"offline_vi.algorithms.{row.module}"), row.name)
    return found


def config_class(algorithm: str) -> type[Any]:
    """The algorithm's frozen dataclass of hyper-parameters."""
    row = entry(algorithm)
    found: type[Any] = getattr(importlib.import_module(f"offline_vi.algorithms.{row.module}"), f"{row.name}Config")
    return found


@dataclass(frozen=True)
class Recipe:
    """Everything that an algorithm is built from; JSON-ready."""

    algorithm: str
    spec: Spec
    config: Any  # the algorithm's hyper-parameters
    behavior: str = ""  # name of the behaviour model; empty where the algorithm uses none
    behavior_config: Any = None
    jointly: bool = False  # train the behaviour model beside the algorithm, a step each
    proposals: str = ""  # PROPOSALS; empty: what the table says
    noise_clip: float = 0.5  # "decoded" candidates: decoder means at prior noise clipped to this
    keep: float = 0.25  # "likely" candidates: the likeliest of so many samples
    normalize: bool = False  # whether the algorithm sees normalised observations
    bonus: str = ""  # the algorithm of OTHERS that wraps this one and pays it for exploring
    bonus_config: Any = None
    reward_scale: float = 0.0  # c: the algorithm is paid c times the reward; 0: the reward

    def of_one_seed(self) -> Recipe:
        """The recipe of one of the seeds that train side by side."""
        return replace(self, spec=replace(self.spec, stack=()))

    def to_json(self) -> dict[str, Any]:
        return {
            "algorithm": self.algorithm,
            "spec": self.spec.to_json(),
            "config": asdict(self.config),
            "behavior": self.behavior,
            "behavior_config": asdict(self.behavior_config) if self.behavior else None,
            "jointly": self.jointly,
            "proposals": self.proposals,
            "noise_clip": self.noise_clip,
            "keep": self.keep,
            "normalize": self.normalize,
            "bonus": self.bonus,
            "bonus_config": asdict(self.bonus_config) if self.bonus else None,
            "reward_scale": self.reward_scale,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Recipe:
        """Raises ConfigError where a field is missing or unknown."""
        try:
            spec = Spec.from_json(record["spec"])
            behavior = record["behavior"]
            return cls(
                record["algorithm"],
                spec,
                from_json(config_class(record["algorithm"])(), record["config"]),
                behavior,
                from_json(behavior_config(behavior, spec), record["behavior_config"]) if behavior else None,
                record["jointly"],
                record.get("proposals", ""),
                record["noise_clip"],
                record.get("keep", 0.25),
                record["normalize"],
                record.get("bonus", ""),
                from_json(config_class(record["bonus"])(), record["bonus_config"]) if record.get("bonus") else None,
                float(record.get("reward_scale", 0.0)),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the configuration lacks or misuses {error}", "is it a run of this library?") from None


Bank = Callable[[BehaviorModel], CandidateCache]
"""What an algorithm proposes from -> its candidates, drawn ahead."""


def build(recipe: Recipe, behavior: BehaviorModel | None = None, bank: Bank | None = None) -> Algorithm:
    """The algorithm of a recipe, freshly initialised from torch's default generator; ``behavior`` may be a fitted
    model to share, ``bank`` make the candidates of algorithms that rank them. A `Normalized` one still has to be given
    its statistics.

    Raises CapabilityError where the algorithm cannot use the model.
    """
    algorithm = _build(recipe, behavior, bank)
    if recipe.reward_scale:
        algorithm = Rescaled(recipe.reward_scale, algorithm)
    if recipe.normalize:
        normalizer = Normalizer(recipe.spec.obs_dim)
        if isinstance(algorithm, OnlineAlgorithm):
            algorithm = NormalizedOnline(normalizer, algorithm)
        else:
            algorithm = Normalized(normalizer, algorithm)
    if recipe.bonus:
        wrapper: Any = algorithm_class(recipe.bonus)
        wrapped: Algorithm = wrapper(algorithm, recipe.spec, recipe.bonus_config)
        return wrapped
    return algorithm


def _build(recipe: Recipe, behavior: BehaviorModel | None, bank: Bank | None) -> Algorithm:
    cls: Any = algorithm_class(recipe.algorithm)
    if not recipe.behavior:
        algorithm: Algorithm = cls(recipe.spec, config=recipe.config)
        return algorithm
    model = behavior or build_behavior(recipe.behavior, recipe.spec, recipe.behavior_config)
    proposals = propose(model, recipe)
    require(recipe.algorithm, proposals)
    if not recipe.jointly:
        model.requires_grad_(False)
        ahead = {"bank": bank(proposals)} if bank is not None and ranks_candidates(recipe.algorithm) else {}
        frozen: Algorithm = cls(recipe.spec, proposals, config=recipe.config, **ahead)
        return frozen
    inner: Algorithm = cls(recipe.spec, proposals, config=recipe.config)
    return Jointly(model, inner, lr=recipe.behavior_config.lr, eps=recipe.behavior_config.eps)


def propose(model: BehaviorModel, recipe: Recipe) -> BehaviorModel:
    """What the algorithm is given for its behaviour model: the model, its decoder means at clipped noise ("decoded"),
    or the likelier ones of its samples ("likely"). Where the table says "decoded" and the model cannot decode, the
    samples are proposals as they are.

    Raises CapabilityError where a recipe asks for what the model cannot do.
    """
    if recipe.proposals == "decoded":
        decoder: Any = require_capability(model, LatentModel, "decoding")
        return DecoderMeans(decoder, recipe.noise_clip)
    if recipe.proposals == "likely":
        density: Any = require_capability(model, DensityModel, "choosing the likelier samples")
        return MostLikelySamples(density, recipe.keep)
    if not recipe.proposals and entry(recipe.algorithm).proposals == "decoded" and isinstance(model, LatentModel):
        return DecoderMeans(model, recipe.noise_clip)
    return model


PROPOSALS = ("samples", "decoded", "likely")


def ranks_candidates(algorithm: str) -> bool:
    """Whether the algorithm takes a `CandidateCache`."""
    return "bank" in get_type_hints(algorithm_class(algorithm).__init__)


def require(algorithm: str, model: BehaviorModel) -> None:
    """Check a behaviour model against the type of the algorithm's ``behavior`` argument.

    Raises CapabilityError where the model is not of that type, or where the algorithm takes none.
    """
    hints = get_type_hints(algorithm_class(algorithm).__init__)
    if "behavior" not in hints:
        raise CapabilityError(f"{algorithm} uses no behaviour model", "leave --behavior out")
    require_capability(model, hints["behavior"], algorithm)


def load(run_directory: str | Path, member: int = 0) -> Algorithm | BehaviorModel:
    """The trained algorithm, or the fitted behaviour model, of a run directory; ``member`` says which of several seeds
    that were trained side by side, counted from 0.

    Raises MissingInputError, CheckpointCorruptError or ConfigError.
    """
    record = read_json(Path(run_directory) / "config.json")
    if "recipe" not in record:
        raise ConfigError(f"{run_directory}: config.json has no recipe", "is it a run of this library?")
    if record["recipe"].get("algorithm") == "":
        with torch.random.fork_rng():
            return _load_behavior(record["recipe"], load_checkpoint(run_directory).model)
    return _load_algorithm(record["recipe"], run_directory, member)[0]


def load_with_density(run_directory: str | Path, member: int = 0) -> tuple[Algorithm, DensityModel | None]:
    """The trained algorithm of a run (`load`) and the density that its support was measured with, None without one.

    Raises MissingInputError, CheckpointCorruptError or ConfigError.
    """
    record = read_json(Path(run_directory) / "config.json")
    algorithm, behavior = _load_algorithm(record["recipe"], run_directory, member)
    directory = record.get("train_options", {}).get("support_from")
    if directory:
        behavior = load_behavior(directory)
    elif record["recipe"].get("normalize"):
        behavior = None
    return algorithm, behavior if isinstance(behavior, DensityModel) else None


def _load_algorithm(
    record: Mapping[str, Any], run_directory: str | Path, member: int
) -> tuple[Algorithm, BehaviorModel | None]:
    checkpoint, recipe = load_checkpoint(run_directory), Recipe.from_json(record)
    seeds = recipe.spec.stack[0] if recipe.spec.stack else 1
    if not 0 <= member < seeds:
        raise ConfigError(f"{run_directory} has no seed number {member}", f"there are {seeds}, counted from 0")
    with torch.random.fork_rng():
        one = recipe.of_one_seed()
        behavior = build_behavior(one.behavior, one.spec, one.behavior_config) if one.behavior else None
        algorithm = build(one, behavior)
        if recipe.spec.stack:
            stacked = build(recipe, None if recipe.jointly else behavior)
            stacked.restore({**checkpoint.model})
            unstack_(algorithm, stacked, member)
        else:
            algorithm.restore({**checkpoint.model})
    return algorithm.eval(), behavior


def _load_behavior(record: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> BehaviorModel:
    spec = Spec.from_json(record["spec"])
    config = from_json(behavior_config(record["behavior"], spec), record["behavior_config"])
    model = build_behavior(record["behavior"], spec, config)
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    return model.eval()
