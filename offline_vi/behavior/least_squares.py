"""A Normal in the box whose mean m(s) is fitted by least squares, and whose scale s(s) is fitted to what is left.

The density is that of a Normal truncated to [-1, 1]^A, so that m(s) is its mode and the action that acts. In a
likelihood an error of the mean counts in proportion to 1 / s(s)^2: states in which the behavior is precise count for
nearly everything, and those in which it is noisy, or where it saturates, for nothing (docs/density.md, "Why a
likelihood is no actor"). Here every error counts alike, and the likelihood fits the scale alone.

Mean and scale are two networks (compare beta-NLL with beta = 1 in `algorithms.bc`: Seitzer et al., ICLR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offline_vi.behavior.base import CentralModel, DensityModel
from offline_vi.behavior.inputs import RunningNormalizer
from offline_vi.distributions.normal import Bounded
from offline_vi.distributions.truncated import TruncatedNormal
from offline_vi.nn.networks import mlp
from offline_vi.nn.optim import Schedule
from offline_vi.types import Metrics, Spec


@dataclass(frozen=True)
class LeastSquaresBehaviorConfig:
    """Hyper-parameters."""

    hidden: tuple[int, ...] = (256, 256)  # units per layer, of each of the two networks
    init_log_scale: float = -1.0  # log s(s) before training, in units of the box
    layer_norm: bool = True  # LayerNorm before each activation
    dropout: float = 0.05  # share of the hidden units left out at each step of training
    batch_size: int = 256  # transitions per step of fit_behavior
    lr: float = 1e-3  # Adam
    eps: float = 1e-8  # Adam
    schedule: Schedule = "cosine"  # of fit_behavior's learning rate: cosine (falling to 0) | constant

    @classmethod
    def default(cls, spec: Spec) -> LeastSquaresBehaviorConfig:
        """The same for all data."""
        return cls()


class LeastSquaresBehavior(CentralModel, DensityModel):
    """One mode, exact density; its central action is the clone that least squares fits."""

    def __init__(self, spec: Spec, config: LeastSquaresBehaviorConfig | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.config = config = config or LeastSquaresBehaviorConfig.default(spec)
        self.inputs = RunningNormalizer(spec)
        sizes = [spec.obs_dim, *config.hidden, spec.action_dim]
        self.mean = mlp(sizes, dropout=config.dropout, stack=spec.stack, layer_norm=config.layer_norm)
        self.scale = mlp(sizes, dropout=config.dropout, stack=spec.stack, layer_norm=config.layer_norm)
        self.bounded = Bounded(config.init_log_scale)

    def center(self, obs: Tensor) -> Tensor:
        """m(s), (B, O) -> (B, A)."""
        return torch.tanh(self.mean(self.inputs(obs)))

    def around(self, center: Tensor, obs: Tensor) -> TruncatedNormal:
        """pi_beta(.|s) about the center (B, A), batch shape (B,)."""
        return TruncatedNormal(center, self.bounded(self.scale(self.inputs(obs))))

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """-log pi_beta(a|s) in nats, mean over the batch, whose gradient in the mean is that of |a - m(s)|^2 / 2."""
        self.inputs.observe(obs)
        center = self.center(obs)
        distribution = self.around(center.detach(), obs)
        log_prob = distribution.log_prob(action)
        squares = 0.5 * (action - center).square().sum(-1)
        return (squares - squares.detach() - log_prob).mean(-1), {
            "behavior/log_prob": log_prob.detach().mean(-1),
            "behavior/scale": distribution.base.stddev.detach().mean((-2, -1)),
            "behavior/squares": squares.detach().mean(-1),
        }

    @torch.no_grad()
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return self.around(self.center(obs), obs).rsample((num_samples,))

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """Exact; ``num_samples`` is ignored."""
        return self.around(self.center(obs), obs).log_prob(action)
