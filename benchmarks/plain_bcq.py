"""The step of the reference code of BCQ as PyTorch runs it by default: the stand-in that `compare_speed` times.

The reference code itself is not a package. This restates its step (sfujim/BCQ, continuous_BCQ/BCQ.py, commit
c43a5b1b5889f7ca41c842a9c32bed96f494e83b) operation for operation: one module per network and critic, candidates as
repeated rows, `torch.optim.Adam` as it comes, moving averages one parameter after the other, batches gathered by NumPy
and copied. It imports nothing of the library.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Columns = dict[str, Any]  # of the data set, float32 arrays


def layers(*sizes: int) -> nn.Sequential:
    """Linear layers with rectifiers between them."""
    parts: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        parts += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class Actor(nn.Module):
    def __init__(self, obs: int, action: int) -> None:
        super().__init__()
        self.net = layers(obs + action, 400, 300, action)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        moved = action + 0.05 * torch.tanh(self.net(torch.cat([state, action], 1)))
        return moved.clamp(-1, 1)


class Critic(nn.Module):
    def __init__(self, obs: int, action: int) -> None:
        super().__init__()
        self.first, self.second = (layers(obs + action, 400, 300, 1) for _ in range(2))

    def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([state, action], 1)
        return self.first(both), self.second(both)

    def q1(self, state: Tensor, action: Tensor) -> Tensor:
        return self.first(torch.cat([state, action], 1))  # type: ignore[no-any-return]


class VAE(nn.Module):
    def __init__(self, obs: int, action: int) -> None:
        super().__init__()
        self.latent = 2 * action
        self.encoder, self.mean, self.log_std = (
            layers(obs + action, 750, 750),
            nn.Linear(750, self.latent),
            nn.Linear(750, self.latent),
        )
        self.decoder = layers(obs + self.latent, 750, 750, action)

    def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = torch.relu(self.encoder(torch.cat([state, action], 1)))
        mean, std = self.mean(hidden), torch.exp(self.log_std(hidden).clamp(-4, 15))
        return self.decode(state, mean + std * torch.randn_like(std)), mean, std

    def decode(self, state: Tensor, z: Tensor | None = None) -> Tensor:
        if z is None:
            z = torch.randn((state.shape[0], self.latent)).clamp(-0.5, 0.5)
        return torch.tanh(self.decoder(torch.cat([state, z], 1)))


class PlainBCQ:
    """Published hyper-parameters."""

    def __init__(self, obs: int, action: int, batch: int = 100, candidates: int = 10) -> None:
        self.batch, self.candidates = batch, candidates
        self.actor, self.critic, self.vae = Actor(obs, action), Critic(obs, action), VAE(obs, action)
        self.actor_target, self.critic_target = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.actor_opt, self.critic_opt = (
            torch.optim.Adam(net.parameters(), lr=1e-3) for net in (self.actor, self.critic)
        )
        self.vae_opt = torch.optim.Adam(self.vae.parameters())

    def step(self, columns: Columns, rng: np.random.Generator) -> None:
        index = rng.integers(len(columns["rewards"]) - 1, size=self.batch)
        state, action, next_state, reward, not_done = (
            torch.tensor(values)
            for values in (
                columns["observations"][index],
                columns["actions"][index],
                columns["observations"][index + 1],
                columns["rewards"][index, None],
                1.0 - columns["terminals"][index, None].astype(np.float32),
            )
        )
        recon, mean, std = self.vae(state, action)
        kl = -0.5 * (1 + torch.log(std.pow(2)) - mean.pow(2) - std.pow(2)).mean()
        self._descend(self.vae_opt, F.mse_loss(recon, action) + 0.5 * kl)

        with torch.no_grad():
            repeated = torch.repeat_interleave(next_state, self.candidates, 0)
            first, second = self.critic_target(repeated, self.actor_target(repeated, self.vae.decode(repeated)))
            value = 0.75 * torch.min(first, second) + 0.25 * torch.max(first, second)
            value = value.reshape(self.batch, -1).max(1)[0].reshape(-1, 1)
            target = reward + not_done * 0.99 * value
        first, second = self.critic(state, action)
        self._descend(self.critic_opt, F.mse_loss(first, target) + F.mse_loss(second, target))

        moved = self.actor(state, self.vae.decode(state))
        self._descend(self.actor_opt, -self.critic.q1(state, moved).mean())
        for net, average in ((self.critic, self.critic_target), (self.actor, self.actor_target)):
            for new, old in zip(net.parameters(), average.parameters(), strict=True):
                old.data.copy_(0.005 * new.data + 0.995 * old.data)

    @staticmethod
    def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
