"""What a behaviour model can do, as types. The type of an algorithm's ``behavior`` argument says what plugs in.

A model never clips its latents: BCQ's 0.5 belongs to `Decoded`, so that one fitted model serves BCQ (clipped), EMaQ
(not) and SPOT (density) at once.
"""

from __future__ import annotations

import abc
import math
from typing import Any, TypeVar

import torch
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


class UnsquashedModel(BehaviorModel):
    """Samples before the tanh (BEAR's MMD compares those)."""

    @abc.abstractmethod
    def sample_unsquashed(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        """(B, O) -> (N, B, A), unbounded."""


class Decoded(BehaviorModel):
    """Decoder means at clipped prior noise: what BCQ and BEAR call sampling (Fujimoto et al. 2019, z ~ N(0, 1) clipped
    to [-0.5, 0.5]). ``noise_clip=float("inf")`` decodes unclipped noise."""

    def __init__(self, model: LatentModel, noise_clip: float = 0.5) -> None:
        super().__init__()
        self.model = model
        self.noise_clip = noise_clip
        self.spec = model.spec

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        return self.model.loss(obs, action)

    def with_noise_clip(self, noise_clip: float) -> Decoded:
        """The same model under another clip."""
        return Decoded(self.model, noise_clip)

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        shape = (num_samples, *obs.shape[:-1], self.model.latent_dim)
        noise = torch.randn(shape, device=obs.device, dtype=obs.dtype).clamp(-self.noise_clip, self.noise_clip)
        return self.model.decode(obs, noise)


class Likely(BehaviorModel):
    """The likelier samples of a density: of ``num_samples / keep`` drawn for a state, the ``num_samples`` with the
    highest log pi_beta.

    Full samples carry the tails of the behaviour's noise into a maximum over Q; these do not, and unlike decoder means
    they keep every mode. ``keep=1`` is the model itself.
    """

    def __init__(self, model: DensityModel, keep: float = 0.25, num_samples: int = 8) -> None:
        super().__init__()
        if not 0.0 < keep <= 1.0:
            raise ConfigError(f"keep = {keep} is no share of the samples", "in (0, 1]")
        self.model, self.keep, self.num_samples, self.spec = model, keep, num_samples, model.spec

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        return self.model.loss(obs, action)

    @torch.no_grad()
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        drawn = self.model.sample(obs, math.ceil(num_samples / self.keep))  # (M, B, A)
        likely = self.model.log_prob(obs, drawn, self.num_samples)  # (M, B)
        best = likely.topk(num_samples, dim=0).indices  # (N, B)
        return drawn.gather(0, best.unsqueeze(-1).expand(-1, -1, drawn.shape[-1]))


def one_seed(spec: Spec, model: str) -> Spec:
    """``spec``, if it is of one seed. Raises ConfigError: the model has no weights for several side by side."""
    if spec.stack:
        raise ConfigError(f"{model} is fitted for one seed at a time", "fit it once, freeze it, and share it")
    return spec


CAPABILITIES: dict[type, str] = {
    BehaviorModel: "can be sampled",
    LatentModel: "decodes latents",
    DensityModel: "has a log-density",
    UnsquashedModel: "samples before the tanh",
}


def capable(model: M, needed: Any, asker: str) -> M:
    """``model``, if it is of the type that ``asker`` needs, one of `CAPABILITIES`.

    Raises CapabilityError, so that a mismatch is told where an algorithm is made and not in the middle of its training.
    """
    if not isinstance(model, needed):
        raise CapabilityError(
            f"{asker} needs a behaviour model that {CAPABILITIES[needed]}, {type(model).__name__} is none",
            f"a {needed.__name__} is one",
        )
    return model
