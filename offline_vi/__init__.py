"""offline_vi: offline reinforcement learning centred on a generative behaviour model.

Everything public is importable from here, lazily: ``import offline_vi`` imports neither torch nor gymnasium.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Batch": "types",
    "Metrics": "types",
    "Spec": "types",
    "Task": "types",
    "OfflineVIError": "errors",
    "Normalized": "algorithm",
    "Rescaled": "algorithm",
    "Frames": "data",
    "Normalizer": "data",
    "Provenance": "data",
    "Sampler": "data",
    "SequenceSampler": "data",
    "Transitions": "data",
    "Algorithm": "algorithm",
    "Jointly": "algorithm",
    "OnlineAlgorithm": "algorithm",
    "Policy": "algorithm",
    "StatefulPolicy": "algorithm",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "History": "training",
    "fit": "training",
    "fit_behavior": "training",
    "fit_online": "training",
    "set_seed": "training",
    "RunDirectory": "checkpoint",
    "load": "algorithms.build",
    "CandidateBank": "bank",
    "load_behavior": "share",
    "save_behavior": "share",
}
_MODULES = (
    "algorithm",
    "algorithms",
    "bank",
    "bayes",
    "behavior",
    "bounds",
    "checkpoint",
    "data",
    "datasets",
    "distributions",
    "equations",
    "errors",
    "evaluation",
    "latent",
    "machine",
    "nets",
    "ope",
    "planning",
    "posterior",
    "sequence",
    "share",
    "statistics",
    "training",
    "types",
)

__all__ = [
    "Algorithm",
    "Batch",
    "CandidateBank",
    "Evaluation",
    "Frames",
    "History",
    "Jointly",
    "Metrics",
    "Normalized",
    "Normalizer",
    "OfflineVIError",
    "OnlineAlgorithm",
    "Policy",
    "Provenance",
    "Rescaled",
    "RunDirectory",
    "Sampler",
    "SequenceSampler",
    "Spec",
    "StatefulPolicy",
    "Task",
    "Transitions",
    "__version__",
    "algorithm",
    "algorithms",
    "bank",
    "bayes",
    "behavior",
    "bounds",
    "checkpoint",
    "data",
    "datasets",
    "distributions",
    "equations",
    "errors",
    "evaluate",
    "evaluation",
    "fit",
    "fit_behavior",
    "fit_online",
    "latent",
    "load",
    "load_behavior",
    "machine",
    "nets",
    "ope",
    "planning",
    "posterior",
    "save_behavior",
    "sequence",
    "set_seed",
    "share",
    "statistics",
    "training",
    "types",
]

if TYPE_CHECKING:
    from offline_vi import (
        algorithm,
        algorithms,
        bank,
        bayes,
        behavior,
        bounds,
        checkpoint,
        data,
        datasets,
        distributions,
        equations,
        errors,
        evaluation,
        latent,
        machine,
        nets,
        ope,
        planning,
        posterior,
        sequence,
        share,
        statistics,
        training,
        types,
    )
    from offline_vi.algorithm import Algorithm, Jointly, Normalized, OnlineAlgorithm, Policy, Rescaled, StatefulPolicy
    from offline_vi.algorithms.build import load
    from offline_vi.bank import CandidateBank
    from offline_vi.checkpoint import RunDirectory
    from offline_vi.data import Frames, Normalizer, Provenance, Sampler, SequenceSampler, Transitions
    from offline_vi.errors import OfflineVIError
    from offline_vi.evaluation import Evaluation, evaluate
    from offline_vi.share import load_behavior, save_behavior
    from offline_vi.training import History, fit, fit_behavior, fit_online, set_seed
    from offline_vi.types import Batch, Metrics, Spec, Task


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"offline_vi.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"offline_vi.{name}")
    raise AttributeError(f"module 'offline_vi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
