"""BC: regress the data's action. The baseline that any offline algorithm has to beat.

A deterministic tanh policy minimises the squared error, so it learns E[a|s]: exactly what cannot represent behaviour
with several modes. Settings as in CORL (tinkoff-ai/CORL, algorithms/offline/any_percent_bc.py, commit fc6baf18).

Differences from the reference code
-----------------------------------
- Actions live in [-1, 1]; observations are as they are until `BC.inputs` is fitted (CORL normalizes: ``--normalize``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offline_vi.nn.networks import DeterministicPolicy
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, cosine_, gradient_step
from offline_vi.rl.algorithm import Algorithm
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class BCConfig:
    """Hyper-parameters."""

    lr: float = 3e-4  # Adam
    decay_steps: int = 0  # the learning rate falls to 0 over so many steps, as half a cosine; 0: it stays
    hidden: tuple[int, ...] = (256, 256)  # units per layer
    layer_norm: bool = False  # LayerNorm before each rectifier
    dropout: float = 0.0  # share of the hidden units left out at each step of training
    batch_size: int = 256  # transitions per step


class BC(Algorithm):
    """Behaviour cloning with a deterministic policy."""

    def __init__(self, spec: Spec, config: BCConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BCConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.actor = DeterministicPolicy(
            spec, config.hidden, config.dropout, layer_norm=config.layer_norm, inputs=self.inputs
        )
        self.actor_opt = adam(self.actor.parameters(), lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        if self.config.decay_steps:
            cosine_(self.actor_opt, self.config.lr, self.config.decay_steps)
        loss, metrics = self.actor_loss(batch)
        gradient_step(self.actor_opt, loss)
        return metrics

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """mean_{B, A} (pi(s) - a)^2."""
        loss = (self.actor(batch.obs) - batch.action).square().mean(-1).mean(-1)
        return loss, {"actor/loss": loss.detach()}

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        action: Tensor = self.actor(obs)
        return action
