"""Which states a data set has: their density by a VAE, and the value below which a state is unknown.

The threshold is a conformal quantile (V. Vovk, A. Gammerman, G. Shafer: Algorithmic Learning in a Random World, 2005)
over episodes that the density was not fitted to: of states like those of the data, the share ``level`` is called
unknown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from offline_vi.distributions.heads import GaussianHead, PredictedScale
from offline_vi.errors import ConfigError
from offline_vi.inference.vae import VAE
from offline_vi.nn.networks import mlp
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.recorded import Recorded
from offline_vi.types import Metrics, Spec


@dataclass(frozen=True)
class KnownStatesConfig:
    """Hyper-parameters; our own choices, see docs/support.md."""

    hidden: tuple[int, ...] = (256, 256)  # units per layer, of encoder and decoder
    latent_dim: int | None = None  # Z; None: O
    init_log_scale: float = -1.0  # of the likelihood, in standard deviations of the observations
    batch_size: int = 256  # states per step
    lr: float = 1e-3  # Adam


class KnownStates(Recorded):
    """A density of states and its quantiles over states of the data that it has not seen.

    The score of a state s is log p(s|z) + log p(z) - log q(z|s) in nats at the mean z of q(z|s): a point of the bound
    that the VAE is trained with, so that it needs no random numbers.
    """

    LEVELS = (0.001, 0.01, 0.05, 0.5)
    quantiles: Tensor  # (4,), of the score at `LEVELS`; -inf until they are known

    def __init__(self, spec: Spec, config: KnownStatesConfig | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.config = config = config or KnownStatesConfig()
        dim = spec.obs_dim
        latent_dim = config.latent_dim or dim
        head = GaussianHead(dim, PredictedScale(config.init_log_scale))
        encoder = mlp([dim, *config.hidden, 2 * latent_dim])
        self.inputs = Normalizer(spec)
        self.vae = VAE(latent_dim, encoder, mlp([latent_dim, *config.hidden, head.features]), head)
        self.register_buffer("quantiles", torch.full((len(self.LEVELS),), -torch.inf))

    def loss(self, obs: Tensor) -> tuple[Tensor, Metrics]:
        """-ELBO in nats of the normalized states (B, O)."""
        return self.vae.loss(self.inputs(obs))

    def score(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B,) nats."""
        x = self.inputs(obs)
        posterior, prior = self.vae.posterior(x), self.vae.model.prior(x)
        z = posterior.loc
        likelihood = self.vae.model.likelihood(z)
        score: Tensor = likelihood.log_prob(x) + prior.log_prob(z) - posterior.log_prob(z)
        return score

    @torch.no_grad()
    def culprit(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B,), the number of the entry that makes each state most unlike the data's: with the data's mean in
        its place, the score would be highest. An entry that is not finite comes first."""
        dim = self.spec.obs_dim
        diagonal = torch.eye(dim, dtype=torch.bool, device=obs.device)
        replaced = torch.where(
            diagonal, self.inputs.mean, obs.unsqueeze(-2)
        )  # (B, O, O), row k has the mean at entry k
        scores = self.score(replaced.nan_to_num().flatten(0, 1)).unflatten(0, replaced.shape[:2])  # (B, O)
        broken = ~obs.isfinite()
        return torch.where(broken.any(-1, keepdim=True), broken.to(scores), scores).argmax(-1)

    @torch.no_grad()
    def calibrate(self, obs: Tensor) -> None:
        """Take the quantiles over states (R, O) of episodes that the density was not fitted to: of R scores the one
        at place floor(level (R + 1)) from below, -inf where that is 0."""
        scores = self.score(obs).sort().values
        for number, level in enumerate(self.LEVELS):
            place = math.floor(level * (len(scores) + 1))
            self.quantiles[number] = scores[place - 1] if place else -torch.inf

    def threshold(self, level: float) -> Tensor:
        """The score below which a state is unknown, 0-d. Raises ConfigError for a level that is not kept."""
        if level not in self.LEVELS:
            raise ConfigError(
                f"no quantile of the data is kept for the level {level:g}", f"one of {', '.join(map(str, self.LEVELS))}"
            )
        return self.quantiles[self.LEVELS.index(level)]
