"""The variational auto-encoder of data without context: the parts of the conditional one, composed without it.

p(z) = N(0, I), a decoder and a head for p(x|z), an encoder for q(z|x) (Kingma and Welling 2014). Encoder and decoder
are arguments: an MLP for vectors, or the convolutional pair below for images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from offline_vi.inference.bounds import bound_metrics, elbo, iwae
from offline_vi.inference.latent import Conditional, LatentVariableModel, StandardNormalPrior
from offline_vi.inference.posterior import AmortizedPosterior
from offline_vi.types import Metrics


class VAE(nn.Module):
    """x (B, *shape), by default shape = (X,). The encoder maps (B, X) to (B, 2 Z), the decoder (..., Z) to
    (..., head.features); both see images flattened.

    ``model`` is the `LatentVariableModel` and ``posterior`` the `AmortizedPosterior`: hand both to `elbo`, `iwae`,
    `evidence_gap` or `fit_local`, with x flattened to (B, X).
    """

    def __init__(
        self,
        latent_dim: int,
        encoder: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        shape: Sequence[int] | None = None,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        self.latent_dim, self.shape, self.beta = latent_dim, tuple(shape or (-1,)), beta
        self.model = LatentVariableModel(StandardNormalPrior(latent_dim), Conditional(decoder, head))
        self.posterior = AmortizedPosterior(encoder)

    def loss(self, x: Tensor) -> tuple[Tensor, Metrics]:
        """-ELBO in nats, summed over all values of a datum, mean over the batch."""
        bound = elbo(self.model, self.posterior, x.flatten(1), beta=self.beta)
        return -bound.objective.mean(), bound_metrics(bound, "vae")

    def log_prob(self, x: Tensor, num_samples: int = 64) -> Tensor:
        """(B,) nats: a lower bound, IWAE with ``num_samples``."""
        return iwae(self.model, self.posterior, x.flatten(1), num_samples=num_samples).elbo

    @torch.no_grad()
    def sample(self, num_samples: int = 1) -> Tensor:
        """(N, *shape), from p(z) p(x|z)."""
        z = self.model.prior().sample((num_samples,))
        x: Tensor = self.model.likelihood(z).sample().unflatten(-1, self.shape)
        return x

    def encode(self, x: Tensor) -> Tensor:
        """(B, Z): the mean of q(z|x)."""
        loc: Tensor = self.posterior(x.flatten(1)).loc
        return loc

    def decode(self, z: Tensor) -> Tensor:
        """(..., Z) -> the mean of p(x|z), (..., *shape)."""
        mean: Tensor = self.model.likelihood(z).mean.unflatten(-1, self.shape)
        return mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, *shape): the mean of p(x|z) at the mean of q(z|x)."""
        return self.decode(self.encode(x))
