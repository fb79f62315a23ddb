"""What a behaviour model can do, as types. The type of an algorithm's ``behavior`` argument says what plugs in.

A model never clips its latents: BCQ's 0.5 belongs to `DecoderMeans`, so that one fitted model serves BCQ (clipped),
EMaQ (not) and SPOT (density) at once.
"""

from __future__ import annotations

import abc
from typing import Any, TypeVar

from torch import Tensor, nn

from offline_vi.errors import CapabilityError, ConfigError
from offline_vi.types import Metrics, Spec

M = TypeVar("M")


class BehaviorModel(nn.Module, abc.ABC):
    """pi_beta(a|s) fitted to data: can be trained and sampled."""

    spec: Spec

    @abc.abstractmethod
    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """(B, O), (B, A) -> a scalar in nats, ready for backward, and detached metrics."""

    @abc.abstractmethod
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        """(B, O) -> (N, B, A) in [-1, 1], from the very density that ``log_prob`` describes where there is one."""


class LatentModel(BehaviorModel):
    """Noise in, action out."""

    latent_dim: int

    @abc.abstractmethod
    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        """(B, O), (..., B, Z) -> (..., B, A); z in noise coordinates, standard normal a priori; differentiable."""


class DensityModel(BehaviorModel):
    """A log-density of actions."""

    @abc.abstractmethod
    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """(B, O), (..., B, A) -> (..., B) nats, of actions in [-1, 1]; exact where possible, else a lower bound (IWAE
        with ``num_samples``); differentiable in the action."""


def one_seed(spec: Spec, model: str) -> Spec:
    """``spec``, if it is of one seed. Raises ConfigError: the model has no weights for several side by side."""
    if spec.stack:
        raise ConfigError(f"{model} is fitted for one seed at a time", "fit it once, freeze it, and share it")
    return spec


CAPABILITIES: dict[type, str] = {
    BehaviorModel: "can be sampled",
    LatentModel: "decodes latents",
    DensityModel: "has a log-density",
}


def require_capability(model: M, needed: Any, asker: str) -> M:
    """``model``, if it is of the type that ``asker`` needs, one of `CAPABILITIES`.

    Raises CapabilityError, so that a mismatch is told where an algorithm is made and not in the middle of its training.
    """
    if not isinstance(model, needed):
        raise CapabilityError(
            f"{asker} needs a behaviour model that {CAPABILITIES[needed]}, {type(model).__name__} is none",
            f"a {needed.__name__} is one",
        )
    return model
