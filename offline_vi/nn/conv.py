"""A pair of convolutional networks: images to features and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from offline_vi.errors import ConfigError


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
