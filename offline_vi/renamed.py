"""Names of earlier versions: each works for one version more, and a DeprecationWarning says what it is called now."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)
Settings = TypeVar("Settings")

FORMER = {
    "offline_vi": {
        "CandidateBank": "offline_vi.behavior.proposals:CandidateCache",
        "algorithm": "offline_vi.rl.algorithm",
        "bank": "offline_vi.behavior.proposals",
        "bayes": "offline_vi.inference.bayesian",
        "bounds": "offline_vi.inference.bounds",
        "checkpoint": "offline_vi.runs.directory",
        "control": "offline_vi.inference.optimality",
        "equations": "offline_vi.rl.equations",
        "experience": "offline_vi.training.collector",
        "latent": "offline_vi.inference.latent",
        "machine": "offline_vi.nn.precision",
        "nets": "offline_vi.nn.networks",
        "ope": "offline_vi.evaluation.off_policy",
        "planning": "offline_vi.world_model.planning",
        "posterior": "offline_vi.inference.posterior",
        "sequence": "offline_vi.world_model.dynamics",
        "share": "offline_vi.behavior.pretrained",
        "stack": "offline_vi.nn.stack",
        "statistics": "offline_vi.evaluation.statistics",
        "support": "offline_vi.evaluation.support",
        "vae": "offline_vi.inference.vae",
    },
    "offline_vi.behavior": {
        "BEHAVIOR_MODELS": "offline_vi.registry:BEHAVIOR_MODELS",
        "Decoded": "offline_vi.behavior.proposals:DecoderMeans",
        "Likely": "offline_vi.behavior.proposals:MostLikelySamples",
    },
    "offline_vi.algorithms": {"ALGORITHMS": "offline_vi.registry:ALGORITHMS"},
}
"""Package -> former name -> "module" or "module:name" of today."""


UNSAID: dict[str, dict[str, Any]] = {"ReBRACConfig": {"order": "td3"}}
"""Class of settings -> the values of fields that earlier versions had no name for, where they are not the defaults of
today."""


def as_before(settings: type[Settings]) -> Settings:
    """Settings of which nothing is said, as earlier versions had them: what a record of such a version is read over."""
    return settings(**UNSAID.get(settings.__name__, {}))


def with_former_names(package: str, find: Callable[[str], object]) -> Callable[[str], object]:
    """A module's ``__getattr__`` that knows the former names of its package, too."""

    def find_either(name: str) -> object:
        if name not in FORMER[package]:
            return find(name)
        target = FORMER[package][name]
        warnings.warn(f"{package}.{name} is now {target.replace(':', '.')}", DeprecationWarning, stacklevel=2)
        module, _, attribute = target.partition(":")
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found

    return find_either


def with_former_argument(former: str, name: str, convert: Callable[[Any], Any]) -> Callable[[Class], Class]:
    """A class whose constructor knows a former argument, too; ``convert`` makes its value that of the present one."""

    def decorate(cls: Class) -> Class:
        init: Any = cls.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def either(self: Any, *args: Any, **options: Any) -> None:
            if former in options:
                warnings.warn(f"{cls.__name__}({former}=) is now {name}=", DeprecationWarning, stacklevel=2)
                options[name] = convert(options.pop(former))
            init(self, *args, **options)

        cls.__init__ = either  # type: ignore[misc]
        return cls

    return decorate
