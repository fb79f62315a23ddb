"""A mixture of K tanh-Normals whose weights, locations and scales depend on s (Bishop 1994, mixture density networks).

The discrete latent is summed out, so the density is exact, and modes are kept apart without a bridge of mass between
them, which every decoder of a continuous latent has. It is not a `LatentModel`: no map of Gaussian noise is continuous
and yields separate modes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offline_vi.behavior.base import CentralModel, DensityModel, one_seed
from offline_vi.behavior.inputs import RunningNormalizer
from offline_vi.distributions.squashed import TanhNormal, log_dtanh
from offline_vi.inference.latent import ConditionalMixtureParameters, Mixture
from offline_vi.nn.networks import mlp
from offline_vi.nn.optim import Schedule
from offline_vi.types import Metrics, Spec


@dataclass(frozen=True)
class MixtureBehaviorConfig:
    """Hyper-parameters."""

    hidden: tuple[int, ...] = (256, 256, 256)  # units per layer
    num_components: int = 4  # K
    init_log_scale: float = -1.0  # of every component before training, before the tanh
    spread: float = 0.5  # standard deviation of the components' first locations, before the tanh
    layer_norm: bool = False  # LayerNorm before each activation
    dropout: float = 0.0  # share of the hidden units left out at each step of training
    batch_size: int = 256  # transitions per step of fit_behavior
    lr: float = 1e-3  # Adam
    eps: float = 1e-8  # Adam
    schedule: Schedule = "cosine"  # of fit_behavior's learning rate: cosine (falling to 0) | constant

    @classmethod
    def default(cls, spec: Spec) -> MixtureBehaviorConfig:
        """The same for all data."""
        return cls()


class MixtureBehavior(CentralModel, DensityModel):
    """A mixture in the space before the tanh; the tanh of it is the mixture of tanh-Normals."""

    def __init__(self, spec: Spec, config: MixtureBehaviorConfig | None = None) -> None:
        super().__init__()
        self.spec = one_seed(spec, "a mixture")
        self.config = config = config or MixtureBehaviorConfig.default(spec)
        features = ConditionalMixtureParameters.features(config.num_components, spec.action_dim)
        self.inputs = RunningNormalizer(spec)
        sizes = [spec.obs_dim, *config.hidden, features]
        net = mlp(sizes, dropout=config.dropout, layer_norm=config.layer_norm)
        parameters = ConditionalMixtureParameters(
            net, config.num_components, spec.action_dim, config.init_log_scale, config.spread
        )
        self.mixture = Mixture(parameters)

    def log_joint(self, obs: Tensor, action: Tensor) -> Tensor:
        """(B, O), (B, A) -> log p(a, z = k|s), (B, K) nats."""
        return self._log_joint(obs, torch.atanh(action.clamp(-1.0 + TanhNormal.margin, 1.0 - TanhNormal.margin)))

    def _log_joint(self, obs: Tensor, u: Tensor) -> Tensor:
        """log p(a = tanh(u), z = k|s), (B, K) nats."""
        return self.mixture.log_joint(u, self.inputs(obs)) - log_dtanh(u).sum(-1, keepdim=True)

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """-log pi_beta(a|s) in nats, exact, mean over the batch."""
        self.inputs.observe(obs)
        log_joint = self.log_joint(obs, action)
        log_prob = log_joint.logsumexp(-1)
        return -log_prob.mean(-1), {
            "behavior/log_prob": log_prob.detach().mean(),
            **responsibility_metrics(log_joint.detach().softmax(-1)),
        }

    @torch.no_grad()
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return torch.tanh(self.mixture.sample(num_samples, self.inputs(obs)))

    @torch.no_grad()
    def sample_and_log_prob(self, obs: Tensor, num_samples: int = 1, bound_samples: int = 64) -> tuple[Tensor, Tensor]:
        u = self.mixture.sample(num_samples, self.inputs(obs))
        return torch.tanh(u), self._log_joint(obs, u.clamp(-TanhNormal.edge, TanhNormal.edge)).logsumexp(-1)

    def center(self, obs: Tensor) -> Tensor:
        """tanh of the location of the component that weighs most, (B, O) -> (B, A)."""
        logits, loc, _ = self.mixture.parameters_of(self.inputs(obs))
        return torch.tanh(loc[torch.arange(loc.shape[0], device=obs.device), logits.argmax(-1)])

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """Exact; ``num_samples`` is ignored."""
        return self.log_joint(obs, action).logsumexp(-1)


def responsibility_metrics(responsibilities: Tensor) -> Metrics:
    """What the components are used for, from p(z = k|s, a) (B, K).

    "entropy" is the mean entropy of the responsibilities in nats: 0 where every action belongs to one component, log K
    where the components lie on top of each other. "active" counts the components that explain more than a hundredth of
    the batch.
    """
    entropy = torch.special.entr(responsibilities).sum(-1).mean()
    active = (responsibilities.mean(0) > 0.01).sum()
    return {"behavior/entropy": entropy, "behavior/active": active}
