"""Behaviour models pi_beta(a|s): one density model a file. The table lists them without importing torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from offline_vi.behavior.base import BehaviorModel, DensityModel, LatentModel
    from offline_vi.behavior.cvae import CVAE, CVAEConfig
    from offline_vi.behavior.flow import FlowBehavior, FlowBehaviorConfig
    from offline_vi.behavior.flow_matching import FlowMatchingBehavior, FlowMatchingBehaviorConfig
    from offline_vi.behavior.gaussian import GaussianBehavior, GaussianBehaviorConfig
    from offline_vi.behavior.mixture import MixtureBehavior, MixtureBehaviorConfig
    from offline_vi.behavior.proposals import DecoderMeans, MostLikelySamples
    from offline_vi.behavior.reference import EveryAction, UniformBox


class Entry(NamedTuple):
    """Where a model lives, which of its configurations it is, and what it is in one line."""

    name: str  # of the class; its configuration is called NAMEConfig
    variant: str  # constructor of the configuration, called with the Spec
    summary: str

    def model(self) -> Any:
        return __getattr__(self.name)

    def config(self) -> Any:
        """Spec -> the variant's configuration."""
        return getattr(__getattr__(f"{self.name}Config"), self.variant)


BEHAVIOR_MODELS: dict[str, Entry] = {
    "cvae": Entry("CVAE", "default", "conditional VAE, tanh-Normal likelihood with a predicted scale, learned prior"),
    "cvae-gaussian": Entry("CVAE", "gaussian", "conditional VAE with one learned scale (sigma-VAE)"),
    "cvae-published": Entry("CVAE", "published", "BCQ's conditional VAE: fixed sigma^2 = 1/8"),
    "gaussian": Entry("GaussianBehavior", "default", "tanh-Normal from one network: one mode, exact density"),
    "mixture": Entry("MixtureBehavior", "default", "mixture of tanh-Normals: separate modes, exact density"),
    "flow": Entry("FlowBehavior", "default", "neural spline flow, exact density (needs the extra 'flows')"),
    "flow-matching": Entry("FlowMatchingBehavior", "default", "ODE from noise to action, trained by flow matching"),
}

_HOME = {
    "BehaviorModel": "base",
    "DecoderMeans": "proposals",
    "DensityModel": "base",
    "LatentModel": "base",
    "MostLikelySamples": "proposals",
    "CVAE": "cvae",
    "CVAEConfig": "cvae",
    "FlowBehavior": "flow",
    "FlowBehaviorConfig": "flow",
    "FlowMatchingBehavior": "flow_matching",
    "FlowMatchingBehaviorConfig": "flow_matching",
    "GaussianBehavior": "gaussian",
    "GaussianBehaviorConfig": "gaussian",
    "MixtureBehavior": "mixture",
    "MixtureBehaviorConfig": "mixture",
    "EveryAction": "reference",
    "UniformBox": "reference",
}

__all__ = [
    "BEHAVIOR_MODELS",
    "CVAE",
    "BehaviorModel",
    "CVAEConfig",
    "DecoderMeans",
    "DensityModel",
    "EveryAction",
    "FlowBehavior",
    "FlowBehaviorConfig",
    "FlowMatchingBehavior",
    "FlowMatchingBehaviorConfig",
    "GaussianBehavior",
    "GaussianBehaviorConfig",
    "LatentModel",
    "MixtureBehavior",
    "MixtureBehaviorConfig",
    "MostLikelySamples",
    "UniformBox",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
