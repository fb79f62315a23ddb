"""From plain records to networks and back: what a run's config.json says becomes an algorithm again."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import torch

from offline_vi.algorithm import Algorithm, Jointly, Normalized
from offline_vi.algorithms import ALGORITHMS, Entry
from offline_vi.behavior import BEHAVIOR_MODELS, BehaviorModel, Decoded, DensityModel, LatentModel, UnsquashedModel
from offline_vi.checkpoint import load_checkpoint, read_json
from offline_vi.data import Normalizer
from offline_vi.errors import CapabilityError, ConfigError, unknown
from offline_vi.types import Spec


def entry(algorithm: str) -> Entry:
    """The table's row. Raises UsageError for an unknown algorithm."""
    if algorithm not in ALGORITHMS:
        raise unknown(algorithm, ALGORITHMS, "algorithm")
    return ALGORITHMS[algorithm]


def algorithm_class(algorithm: str) -> type[Algorithm]:
    row = entry(algorithm)
    found: type[Algorithm] = getattr(importlib.import_module(f"offline_vi.algorithms.{row.module}"), row.name)
    return found


def config_class(algorithm: str) -> type[Any]:
    """The algorithm's frozen dataclass of hyper-parameters."""
    row = entry(algorithm)
    found: type[Any] = getattr(importlib.import_module(f"offline_vi.algorithms.{row.module}"), f"{row.name}Config")
    return found


def behavior_config(model: str, spec: Spec) -> Any:
    """The default hyper-parameters of a named behaviour model. Raises UsageError for an unknown one."""
    if model not in BEHAVIOR_MODELS:
        raise unknown(model, BEHAVIOR_MODELS, "behaviour model")
    return BEHAVIOR_MODELS[model].config()(spec)


@dataclass(frozen=True)
class Recipe:
    """Everything that an algorithm is built from; JSON-ready."""

    algorithm: str
    spec: Spec
    config: Any  # the algorithm's hyper-parameters
    behavior: str = ""  # name of the behaviour model; empty where the algorithm uses none
    behavior_config: Any = None
    jointly: bool = False  # train the behaviour model beside the algorithm, a step each
    noise_clip: float = 0.5  # candidates: decoder means at prior noise clipped to this
    normalize: bool = False  # whether the algorithm sees normalised observations

    def to_json(self) -> dict[str, Any]:
        return {
            "algorithm": self.algorithm,
            "spec": self.spec.to_json(),
            "config": asdict(self.config),
            "behavior": self.behavior,
            "behavior_config": asdict(self.behavior_config) if self.behavior else None,
            "jointly": self.jointly,
            "noise_clip": self.noise_clip,
            "normalize": self.normalize,
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
                record["noise_clip"],
                record["normalize"],
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(f"the configuration lacks or misuses {error}", "is it a run of this library?") from None


def from_json(default: Any, record: Mapping[str, Any]) -> Any:
    """A frozen dataclass like ``default`` with the record's values; lists become tuples.

    Raises ConfigError for an unknown name or a value of another type.
    """
    assert is_dataclass(default)
    known = {field.name: getattr(default, field.name) for field in fields(default)}
    values = dict(known)
    for name, value in record.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise ConfigError(f"unknown hyper-parameter {name!r}", f"did you mean {close[0]!r}?" if close else "")
        value = tuple(value) if isinstance(value, list) else value
        if known[name] is not None and not isinstance(value, (type(known[name]), int)):
            raise ConfigError(f"{name} = {value!r} is not a {type(known[name]).__name__}", "look at --help")
        values[name] = value
    cls: Any = type(default)
    return cls(**values)


def build_behavior(name: str, spec: Spec, config: Any) -> BehaviorModel:
    """A behaviour model by name."""
    if name not in BEHAVIOR_MODELS:
        raise unknown(name, BEHAVIOR_MODELS, "behaviour model")
    model: BehaviorModel = BEHAVIOR_MODELS[name].model()(spec, config)
    return model


def build(recipe: Recipe, behavior: BehaviorModel | None = None) -> Algorithm:
    """The algorithm of a recipe, freshly initialised from torch's default generator; ``behavior`` may be a fitted
    model to share. A `Normalized` one still has to be given its statistics."""
    algorithm = _build(recipe, behavior)
    return Normalized(Normalizer(recipe.spec.obs_dim), algorithm) if recipe.normalize else algorithm


def _build(recipe: Recipe, behavior: BehaviorModel | None) -> Algorithm:
    cls: Any = algorithm_class(recipe.algorithm)
    if not recipe.behavior:
        algorithm: Algorithm = cls(recipe.spec, config=recipe.config)
        return algorithm
    model = behavior or build_behavior(recipe.behavior, recipe.spec, recipe.behavior_config)
    proposals = propose(model, recipe)
    require(recipe.algorithm, proposals)
    inner: Algorithm = cls(recipe.spec, proposals, config=recipe.config)
    if not recipe.jointly:
        model.requires_grad_(False)
        return inner
    return Jointly(model, inner, lr=recipe.behavior_config.lr, eps=recipe.behavior_config.eps)


def propose(model: BehaviorModel, recipe: Recipe) -> BehaviorModel:
    """What the algorithm is given for its behaviour model: the model, or its decoder means at clipped noise where the
    table says "decoded" and the model can decode; the samples of one that cannot are proposals as they are."""
    if entry(recipe.algorithm).proposals == "decoded" and isinstance(model, LatentModel):
        return Decoded(model, recipe.noise_clip)
    return model


CAPABILITIES: dict[type, str] = {
    BehaviorModel: "can be sampled",
    LatentModel: "decodes latents",
    DensityModel: "has a log-density",
    UnsquashedModel: "samples before the tanh",
}


def require(algorithm: str, model: BehaviorModel) -> None:
    """Check a behaviour model against the type of the algorithm's ``behavior`` argument.

    Raises CapabilityError where the model is not of that type, or where the algorithm takes none.
    """
    hints = get_type_hints(algorithm_class(algorithm).__init__)
    if "behavior" not in hints:
        raise CapabilityError(f"{algorithm} uses no behaviour model", "leave --behavior out")
    if not isinstance(model, hints["behavior"]):
        needed = CAPABILITIES[hints["behavior"]]
        raise CapabilityError(
            f"{algorithm} needs a behaviour model that {needed}, {type(model).__name__} is none",
            f"{entry(algorithm).behavior} is one",
        )


def load(run_directory: str | Path) -> Algorithm | BehaviorModel:
    """The trained algorithm, or the fitted behaviour model, of a run directory.

    Raises MissingInputError, CheckpointCorruptError or ConfigError.
    """
    record = read_json(Path(run_directory) / "config.json")
    if "recipe" not in record:
        raise ConfigError(f"{run_directory}: config.json has no recipe", "is it a run of this library?")
    checkpoint = load_checkpoint(run_directory)
    with torch.random.fork_rng():
        if record["recipe"].get("algorithm") == "":
            return _load_behavior(record["recipe"], checkpoint.model)
        algorithm = build(Recipe.from_json(record["recipe"]))
    algorithm.restore({**checkpoint.model})
    return algorithm.eval()


def _load_behavior(record: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> BehaviorModel:
    spec = Spec.from_json(record["spec"])
    config = from_json(behavior_config(record["behavior"], spec), record["behavior_config"])
    model = build_behavior(record["behavior"], spec, config)
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    return model.eval()
