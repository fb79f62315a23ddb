"""The variational auto-encoder of data without context: the parts of the conditional one, composed without it.

p(z) = N(0, I), a decoder and a head for p(x|z), an encoder for q(z|x) (Kingma and Welling 2014). Encoder and decoder
are arguments: an MLP for vectors, or the convolutional pair below for images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from offline_vi.bounds import bound_metrics, elbo, iwae
from offline_vi.errors import ConfigError
from offline_vi.latent import Conditional, LatentVariableModel, StandardNormalPrior
from offline_vi.posterior import AmortizedPosterior
from offline_vi.types import Metrics


class VAE(nn.Module):
    """x (B, *shape), by default shape = (X,). The encoder maps (B, X) to (B, 2 Z), the decoder (..., Z) to
    (..., head.features); both see images flattened."""

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


class ConvEncoder(nn.Sequential):
    """Flattened images (B, C H W) -> (B, features); every layer halves height and width.

    Raises ConfigError where they cannot be halved that often.
    """

    def __init__(self, shape: tuple[int, int, int], features: int, channels: Sequence[int] = (32, 64)) -> None:
        height, width = _halved(shape, len(channels))
        layers: list[nn.Module] = [nn.Unflatten(-1, shape)]
        for fan_in, fan_out in pairwise([shape[0], *channels]):
            layers += [nn.Conv2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1), nn.ReLU()]
        super().__init__(*layers, nn.Flatten(-3), nn.Linear(channels[-1] * height * width, features))


class ConvDecoder(nn.Module):
    """(..., Z) -> (..., features), where features is a multiple of C H W: the mirror image of `ConvEncoder`.

    Raises ConfigError where height or width cannot be halved that often, or ``features`` is no such multiple.
    """

    def __init__(
        self, latent_dim: int, shape: tuple[int, int, int], features: int, channels: Sequence[int] = (64, 32)
    ) -> None:
        super().__init__()
        height, width = _halved(shape, len(channels))
        maps, rest = divmod(features, shape[1] * shape[2])
        if rest or maps % shape[0]:
            raise ConfigError(f"{features} features are no multiple of an image of shape {shape}")
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, channels[0] * height * width),
            nn.Unflatten(-1, (channels[0], height, width)),
        ]
        for fan_in, fan_out in pairwise([*channels, maps]):
            layers += [nn.ReLU(), nn.ConvTranspose2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1)]
        self.net = nn.Sequential(*layers, nn.Flatten(-3))

    def forward(self, z: Tensor) -> Tensor:
        flat: Tensor = self.net(z.reshape(-1, z.shape[-1]))
        return flat.reshape(*z.shape[:-1], -1)


def _halved(shape: tuple[int, int, int], times: int) -> tuple[int, int]:
    _, height, width = shape
    if math.gcd(height, width) % 2**times:
        raise ConfigError(f"images of {height} x {width} cannot be halved {times} times", "fewer channels, or pad them")
    return height // 2**times, width // 2**times
