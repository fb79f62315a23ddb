"""A tanh-Normal pi_beta(a|s) from one network: a = tanh(m(s) + s(s) * noise) (Haarnoja et al. 2018, appendix C).

One mode, exact density, the cheapest of the models. On the data of one stochastic policy of this very form nothing is
better; between two modes it puts its mass where there are no data.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offline_vi.behavior.base import DensityModel, LatentModel
from offline_vi.behavior.inputs import RunningNormalizer
from offline_vi.distributions.heads import TanhNormalHead
from offline_vi.distributions.squashed import TanhNormal
from offline_vi.nn.networks import mlp
from offline_vi.nn.optim import Schedule
from offline_vi.types import Metrics, Spec


@dataclass(frozen=True)
class GaussianBehaviorConfig:
    """Hyper-parameters."""

    hidden: tuple[int, ...] = (256, 256, 256)  # units per layer
    init_log_scale: float = -1.0  # log s(s) before training, of the action before the tanh
    layer_norm: bool = False  # LayerNorm before each activation
    dropout: float = 0.0  # share of the hidden units left out at each step of training
    batch_size: int = 256  # transitions per step of fit_behavior
    lr: float = 1e-3  # Adam
    eps: float = 1e-8  # Adam
    schedule: Schedule = "cosine"  # of fit_behavior's learning rate: cosine (falling to 0) | constant

    @classmethod
    def default(cls, spec: Spec) -> GaussianBehaviorConfig:
        """The same for all data."""
        return cls()


class GaussianBehavior(LatentModel, DensityModel):
    """A tanh-Normal policy; its latent is the noise, Z = A."""

    def __init__(self, spec: Spec, config: GaussianBehaviorConfig | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.config = config = config or GaussianBehaviorConfig.default(spec)
        self.latent_dim = spec.action_dim
        self.inputs = RunningNormalizer(spec)
        self.head = TanhNormalHead(spec.action_dim, config.init_log_scale)
        sizes = [spec.obs_dim, *config.hidden, self.head.features]
        self.net = mlp(sizes, dropout=config.dropout, stack=spec.stack, layer_norm=config.layer_norm)

    def distribution(self, obs: Tensor) -> TanhNormal:
        """(B, O) -> pi_beta(.|s), batch shape (B,)."""
        distribution: TanhNormal = self.head(self.net(self.inputs(obs)))
        return distribution

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """-log pi_beta(a|s) in nats, mean over the batch."""
        self.inputs.observe(obs)
        distribution = self.distribution(obs)
        log_prob = distribution.log_prob(action)
        return -log_prob.mean(-1), {
            "behavior/log_prob": log_prob.detach().mean(-1),
            "behavior/scale": distribution.base.stddev.detach().mean((-2, -1)),
        }

    @torch.no_grad()
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return self.distribution(obs).rsample((num_samples,))

    @torch.no_grad()
    def sample_and_log_prob(self, obs: Tensor, num_samples: int = 1, bound_samples: int = 64) -> tuple[Tensor, Tensor]:
        distribution = self.distribution(obs)
        u = distribution.base.rsample((num_samples,))
        return torch.tanh(u), distribution.log_prob_before(u)

    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        """tanh(m(s) + s(s) z): standard normal z makes samples, z = 0 the median action."""
        base = self.distribution(obs).base
        return torch.tanh(base.loc + base.stddev * z)

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """Exact; ``num_samples`` is ignored."""
        return self.distribution(obs).log_prob(action)
