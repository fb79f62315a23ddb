"""Named settings of `offline-vi train`, which apply before any other flag."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from offline_vi import registry
from offline_vi.errors import unknown

if TYPE_CHECKING:
    from offline_vi.study.agents import AgentChoice
    from offline_vi.types import Spec


class Own(NamedTuple):
    """Another behavior model for one algorithm, and what belongs to that model."""

    behavior: str  # the name of the model
    options: dict[str, Any]  # of the run
    config: dict[str, Any]  # hyper-parameters
    returns: dict[str, Any]  # which targets critics regress (`study.returns`)
    model: dict[str, Any]  # hyper-parameters of the model, the settings of its fit among them


@dataclass(frozen=True)
class Preset:
    """Defaults that differ from those of the algorithm's paper."""

    behavior: str = ""  # the behavior model of algorithms that use one; empty: the algorithm's published one
    train: dict[str, Any] = field(default_factory=dict)  # options of the run
    frozen: dict[str, Any] = field(default_factory=dict)  # options of a run on a frozen behavior model
    weights: dict[str, Any] = field(default_factory=dict)  # which rows count (`study.weighing`)
    each: dict[str, dict[str, Any]] = field(default_factory=dict)  # algorithm -> options of its run, on any model
    own: dict[str, Own] = field(default_factory=dict)  # algorithm -> what was measured to be better for it

    def behavior_of(self, algorithm: str) -> str:
        """Name of the model, empty for an algorithm that uses none."""
        published = registry.algorithm(algorithm).behavior
        chosen = self.own[algorithm].behavior if algorithm in self.own else self.behavior
        return (chosen or published) if published else ""

    def options(self, algorithm: str, model: str) -> dict[str, Any]:
        """Changed defaults of `TrainOptions`, of an algorithm on that behavior model."""
        frozen = self.frozen if registry.algorithm(algorithm).behavior else {}
        return self.train | frozen | self.each.get(algorithm, {}) | self._own(algorithm, model).options

    def config(self, algorithm: str, model: str) -> dict[str, Any]:
        """Changed hyper-parameters of an algorithm on that behavior model."""
        return self._own(algorithm, model).config

    def model_config(self, algorithm: str, model: str) -> dict[str, Any]:
        """Changed hyper-parameters of that behavior model under an algorithm."""
        return self._own(algorithm, model).model

    def returns(self, algorithm: str, model: str) -> dict[str, Any]:
        """Changed defaults of `ReturnOptions`, of an algorithm on that behavior model."""
        return self._own(algorithm, model).returns

    def left_out(self, algorithm: str, model: str) -> dict[str, Any]:
        """What the preset sets for the algorithm on a model of the preset's own, where the model is another."""
        own = self.own.get(algorithm)
        return {} if own is None or own.behavior == model else own.options | own.config

    def _own(self, algorithm: str, model: str) -> Own:
        own = self.own.get(algorithm)
        return own if own is not None and own.behavior == model else Own(model, {}, {}, {}, {})


# BCQ's ten candidates at acting are the likeliest of a hundred, as docs/why-bcq.md measured them.
PRESETS: dict[str, Preset] = {
    # BCQ and BEAR train their CVAE jointly, a step each. PLAS (main.py and algos.py, commits 39e64f0a and da348520) and
    # SPOT (train_vae.py, commit 26a7de7b) fit theirs first, at a constant rate, and freeze it; so does one-step RL with
    # its Gaussian (onestep-rl, config/train.yaml and config/beta/bc.yaml, commit 99994433).
    "published": Preset(
        each={
            "plas": {"behavior_steps": 500_000},
            "spot": {"behavior_steps": 100_000},
            "onestep": {"behavior_steps": 500_000},
        },
        own={
            "plas": Own("cvae-published", {}, {}, {}, {"lr": 1e-4, "batch_size": 100}),
            "spot": Own("cvae-published", {}, {}, {}, {"lr": 1e-3, "batch_size": 256}),
            "onestep": Own(
                "gaussian",
                {},
                {},
                {},
                {"lr": 1e-4, "batch_size": 512, "hidden": (1024, 1024), "schedule": "constant"},
            ),
        },
    ),
    # The same for all data; docs/recommended.md says what was measured.
    "recommended": Preset(
        behavior="least-squares",
        train={"precision": "auto"},
        frozen={"behavior_steps": 10_000, "bank_period": 10_000},
        weights={"episode_weights": "worthwhile"},
        own={
            "bc": Own(
                "",
                {"steps": 10_000, "normalize": True},
                {"lr": 1e-3, "decay_steps": 10_000, "layer_norm": True, "dropout": 0.05},
                {},
                {},
            ),
            "bcq": Own(  # a perturbed clone: a maximum over candidates follows the critics' errors (docs/why-bcq.md)
                "least-squares",
                {"steps": 2_000, "normalize": True, "proposals": "central"},
                {
                    "discount": 0.997,
                    "phi": 0.02,
                    "num_candidates": 1,
                    "num_acting_candidates": 1,
                    "lr": 3e-4,
                    "hidden": (256, 256),
                    "batch_size": 256,
                },
                {"critic_start_steps": 10_000},
                {},
            ),
            "plas": Own("cvae", {}, {}, {}, {}),  # which acts in latents; least squares has none
        },
    ),
    "fast": Preset(
        behavior="cvae",
        train={"precision": "auto"},
        frozen={"behavior_steps": 10_000, "bank_period": 10_000},
        own={"bcq": Own("gaussian", {"proposals": "most-likely", "keep": 0.1}, {"num_acting_candidates": 10}, {}, {})},
    ),
    "likely": Preset(  # full samples of an exact density, filtered by it (docs/why-bcq.md)
        behavior="mixture",
        train={"precision": "auto"},
        frozen={"behavior_steps": 10_000, "bank_period": 10_000, "proposals": "most-likely", "keep": 0.1},
        own={"bcq": Own("mixture", {}, {"num_acting_candidates": 10}, {}, {})},
    ),
}


def choice(name: str, algorithm: str, spec: Spec, model: str = "") -> AgentChoice:
    """What `offline-vi train ALGORITHM --preset NAME [--behavior MODEL]` builds for data of these shapes.

    Raises UsageError for an unknown name.
    """
    from offline_vi.study.agents import AgentChoice  # here, not above: torch

    chosen = preset(name)
    model = model or chosen.behavior_of(algorithm)
    options = chosen.options(algorithm, model)
    given = {key: options[key] for key in ("proposals", "keep") if key in options}
    return AgentChoice(
        algorithm,
        registry.algorithm(algorithm).config()(**chosen.config(algorithm, model)),
        model,
        replace(registry.behavior_model(model).config(spec), **chosen.model_config(algorithm, model))
        if model
        else None,
        jointly=bool(model) and "behavior_steps" not in options,
        **given,
    )


def note_on(name: str, algorithm: str, model: str, settled: Collection[str] = ()) -> str:
    """A line on what a preset leaves out for an algorithm because its behavior model is another than the preset's;
    empty where that is nothing. ``settled`` are settings that need no mention."""
    left = {key: value for key, value in preset(name).left_out(algorithm, model).items() if key not in settled}
    own, flags = preset(name).behavior_of(algorithm), " ".join(_flag(key, value) for key, value in left.items())
    return f"with {model}, {algorithm} lacks what --preset {name} sets for {own}: {flags}" if left else ""


def _flag(key: str, value: Any) -> str:
    words = [] if value is True else value if isinstance(value, list | tuple) else [value]
    return " ".join([f"--{key.replace('_', '-')}", *map(str, words)])


def preset(name: str) -> Preset:
    """The preset of that name. Raises UsageError for an unknown name."""
    if name not in PRESETS:
        raise unknown(name, PRESETS, "preset")
    return PRESETS[name]
