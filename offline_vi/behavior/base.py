"""What proposes actions and what a behavior model can do, as types. The type of an algorithm's ``proposals`` or
``behavior`` argument says what plugs in.

A model never clips its latents: BCQ's 0.5 belongs to `DecoderMeans`, so that one fitted model serves BCQ (clipped),
EMaQ (not) and SPOT (density) at once.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, fields, is_dataclass
from typing import TypeVar

import torch
from torch import Tensor

from offline_vi.errors import CapabilityError, ConfigError
from offline_vi.nn.optim import Schedule
from offline_vi.nn.recorded import Recorded
from offline_vi.types import Batch, Metrics, Spec

C = TypeVar("C")


class Proposals(Recorded, abc.ABC):
    """Where an algorithm's candidate actions come from: a class of one's own needs ``sample`` alone."""

    spec: Spec

    @abc.abstractmethod
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        """(B, O) -> (N, B, A), drawn now."""

    def at_obs(self, batch: Batch, num_samples: int) -> Tensor:
        """(N, B, A) for ``batch.obs``."""
        return self.sample(batch.obs, num_samples)

    def at_next_obs(self, batch: Batch, num_samples: int) -> Tensor:
        """(N, B, A) for ``batch.next_obs``."""
        return self.sample(batch.next_obs, num_samples)


class BehaviorModel(Proposals):
    """pi_beta(a|s) fitted to data: can be trained, and samples the very density that ``log_prob`` describes where there
    is one. It sees observations as the data have them, whatever the algorithm does to its own."""

    trained_steps: int = 0  # gradient steps that `fit_behavior` has taken so far

    @abc.abstractmethod
    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """(B, O), (B, A) -> a scalar in nats, ready for backward, and detached metrics."""


class CentralModel(BehaviorModel):
    """A model with one action that stands for the others."""

    @abc.abstractmethod
    def center(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A): the action to act by where the behavior's noise is left out; differentiable."""


class LatentModel(CentralModel):
    """A model that decodes noise into an action."""

    latent_dim: int

    def center(self, obs: Tensor) -> Tensor:
        """What the noise 0 is decoded to, (B, O) -> (B, A)."""
        return self.decode(obs, obs.new_zeros(*obs.shape[:-1], self.latent_dim))

    @abc.abstractmethod
    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        """(B, O), (..., B, Z) -> (..., B, A); z in noise coordinates, standard normal a priori; differentiable."""


class DensityModel(BehaviorModel):
    """A model with a log-density of actions."""

    @abc.abstractmethod
    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """(B, O), (..., B, A) -> (..., B) nats, of actions in [-1, 1]; exact where possible, else a lower bound (IWAE
        with ``num_samples``); differentiable in the action."""

    @torch.no_grad()
    def sample_and_log_prob(self, obs: Tensor, num_samples: int = 1, bound_samples: int = 64) -> tuple[Tensor, Tensor]:
        """`sample` and the `log_prob` of each sample, (B, O) -> (N, B, A), (N, B). A model that draws u and returns
        tanh(u) computes both from u: from a rounded tanh(u) near 1, u is known to few digits."""
        action = self.sample(obs, num_samples)
        return action, self.log_prob(obs, action, bound_samples)


def training_loss(model: BehaviorModel, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
    """The loss as a step of training takes it, in training mode; the model is left in evaluation mode, in which it is
    asked for actions and densities: dropout belongs to the fit alone."""
    model.train()
    try:
        return model.loss(obs, action)
    finally:
        model.eval()


def one_seed(spec: Spec, model: str) -> Spec:
    """``spec``, if it is of one seed. Raises ConfigError: the model has no weights for several side by side."""
    if spec.stack:
        raise ConfigError(f"{model} is fitted for one seed at a time", "fit it once, freeze it, and share it")
    return spec


@dataclass(frozen=True)
class FitSettings:
    """How a behavior model is fitted."""

    batch_size: int = 256  # transitions per step
    lr: float = 1e-3  # Adam
    eps: float = 1e-8  # Adam
    schedule: Schedule = "cosine"  # of the learning rate in `fit_behavior`


def fit_settings(model: BehaviorModel) -> FitSettings:
    """The settings of the model's own configuration, ``model.config``; the defaults for what it does not have."""
    config = vars(model).get("config")
    if not is_dataclass(config):
        return FitSettings()
    names = {field.name for field in fields(FitSettings)} & {field.name for field in fields(config)}
    return FitSettings(**{name: getattr(config, name) for name in names})


CAPABILITIES: dict[type, str] = {
    Proposals: "can be sampled",
    BehaviorModel: "can be fitted and sampled",
    CentralModel: "has a central action",
    LatentModel: "decodes latents",
    DensityModel: "has a log-density",
}


def require_capability(model: object, needed: type[C], asker: str) -> C:
    """``model``, if it is of the type that ``asker`` needs, one of `CAPABILITIES`.

    Raises CapabilityError, so that a mismatch is reported where an algorithm is made and not in the middle of its
    training.
    """
    if not isinstance(model, needed):
        raise CapabilityError(
            f"{asker} needs a behavior model that {CAPABILITIES[needed]}, {type(model).__name__} is none",
            f"a {needed.__name__} is one",
        )
    return model
