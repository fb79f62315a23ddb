"""BC: regress the data's action. The baseline that any offline algorithm has to beat.

A deterministic tanh policy minimizes the squared error, so it learns E[a|s]: exactly what cannot represent behavior
with several modes. Settings as in CORL (tinkoff-ai/CORL, algorithms/offline/any_percent_bc.py, commit fc6baf18).

With ``beta`` below 1 a second network predicts the spread sigma of each action around the policy's, and errors count in
proportion to sigma^(2 beta - 2): where the behavior is precise, precision matters. beta = 0 is the likelihood of a
Normal, which all but ignores states in which the behavior is noisy; beta = 1/2 is the compromise of M. Seitzer, A.
Tavakoli, D. Antic, G. Martius: On the Pitfalls of Heteroscedastic Uncertainty Estimation with Probabilistic Neural
Networks, ICLR 2022 (beta-NLL, eq. 5).

Differences from the reference code
-----------------------------------
- Actions live in [-1, 1]; observations are as they are until `BC.inputs` is fitted (CORL normalizes: ``--normalize``).
- CORL has no spread, no layer normalization, no dropout, and a constant learning rate: nor has this by default.
- Mean and spread are two networks, two heads of one in Seitzer et al.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from offline_vi.distributions.normal import Bounded
from offline_vi.nn.networks import DeterministicPolicy, mlp
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, cosine_, gradient_step
from offline_vi.rl.algorithm import Algorithm
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class BCConfig:
    """Hyper-parameters."""

    beta: float = 1.0  # beta of beta-NLL: 1 is least squares, without a spread; 0 the likelihood
    lr: float = 3e-4  # Adam
    decay_steps: int = 0  # the learning rate falls to 0 over so many steps, as half a cosine; 0: it stays
    hidden: tuple[int, ...] = (256, 256)  # units per layer
    layer_norm: bool = False  # LayerNorm before each rectifier
    dropout: float = 0.0  # share of the hidden units left out at each step of training
    batch_size: int = 256  # transitions per step


class BC(Algorithm):
    """Behavior cloning with a deterministic policy."""

    def __init__(self, spec: Spec, config: BCConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BCConfig()
        self.batch_size = config.batch_size
        self.inputs = Normalizer(spec)
        self.actor = DeterministicPolicy(
            spec, config.hidden, config.dropout, layer_norm=config.layer_norm, inputs=self.inputs
        )
        sizes = [spec.obs_dim, *config.hidden, spec.action_dim]
        self.spread = mlp(sizes, stack=spec.stack, layer_norm=config.layer_norm) if config.beta < 1.0 else None
        self.bounded = Bounded(init=-1.0)
        parameters = [*self.actor.parameters(), *(self.spread.parameters() if self.spread else ())]
        self.actor_opt = adam(parameters, lr=config.lr)

    def update(self, batch: Batch) -> Metrics:
        if self.config.decay_steps:
            cosine_(self.actor_opt, self.config.lr, self.config.decay_steps)
        loss, metrics = self.actor_loss(batch)
        gradient_step(self.actor_opt, loss)
        return metrics

    def capture_phase(self) -> Hashable:
        return "every step"

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """mean_{B, A} (pi(s) - a)^2; with a spread mean_{B, A} sigma^(2 beta) ((pi(s) - a)^2 / (2 sigma^2) +
        log sigma), the factor a constant."""
        error = (self.actor(batch.obs) - batch.action).square()
        metrics = {"actor/loss": error.detach().mean((-2, -1))}
        if self.spread is None:
            return error.mean(-1).mean(-1), metrics
        log_scale = self.log_scale(batch.obs)
        nll = 0.5 * error * (-2.0 * log_scale).exp() + log_scale
        loss = (2.0 * self.config.beta * log_scale).exp().detach() * nll
        return loss.mean(-1).mean(-1), metrics | {"actor/spread": log_scale.detach().exp().mean((-2, -1))}

    def log_scale(self, obs: Tensor) -> Tensor:
        """log sigma(s) in [-5, 2], (B, O) -> (B, A)."""
        assert self.spread is not None
        return self.bounded(self.spread(self.inputs(obs)))

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        action: Tensor = self.actor(obs)
        return action
