"""A conditional normalizing flow of actions before the tanh: neural splines (Durkan et al. 2019) on top of a Normal.

a = tanh(m(s) + s(s) * T_s^-1(noise)). T_s is autoregressive over the action's dimensions with monotonic
rational-quadratic splines, the identity outside [-5, 5], where a standardized action hardly ever is; m and s do the
standardizing, so that with T_s = identity the model is a tanh-Normal. The density is exact, the sampler a smooth
bijection of Gaussian noise.

The splines are zuko's (extra ``flows``), which is imported when a model is built and not before.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from offline_vi.behavior.base import DensityModel, LatentModel, one_seed
from offline_vi.behavior.inputs import RunningNormalizer
from offline_vi.distributions.heads import PredictedScale
from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.distributions.squashed import TanhNormal, log_dtanh
from offline_vi.errors import MissingDependencyError
from offline_vi.nn.networks import mlp
from offline_vi.nn.optim import Schedule
from offline_vi.types import Metrics, Spec


@dataclass(frozen=True)
class FlowBehaviorConfig:
    """Hyper-parameters."""

    hidden: tuple[int, ...] = (256, 256)  # units per layer, of the standardizing network and of every transform
    transforms: int = 2  # autoregressive spline layers
    bins: int = 8  # of each spline
    passes: int = 0  # network calls that invert a transform; 0: A (autoregressive); 2: coupling, faster for large A
    init_log_scale: float = -1.0  # log s(s) before training, before the tanh
    layer_norm: bool = False  # LayerNorm in the standardizing network; in a transform it would mix what is kept apart
    dropout: float = 0.0  # share of the hidden units left out at each step of training
    batch_size: int = 256  # transitions per step of fit_behavior
    lr: float = 1e-3  # Adam
    eps: float = 1e-8  # Adam
    schedule: Schedule = "cosine"  # of fit_behavior's learning rate: cosine (falling to 0) | constant

    @classmethod
    def default(cls, spec: Spec) -> FlowBehaviorConfig:
        """The same for all data."""
        return cls()


def load_zuko() -> Any:
    """The package. Raises MissingDependencyError where it is not installed."""
    try:
        return importlib.import_module("zuko")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"a normalizing flow needs the package zuko ({error})", "pip install 'offline-vi[flows]'"
        ) from error


class FlowBehavior(LatentModel, DensityModel):
    """A spline flow; its latent is the noise, Z = A. Raises MissingDependencyError without zuko."""

    def __init__(self, spec: Spec, config: FlowBehaviorConfig | None = None) -> None:
        super().__init__()
        zuko = load_zuko()
        self.spec = one_seed(spec, "a flow")
        self.config = config = config or FlowBehaviorConfig.default(spec)
        self.latent_dim = spec.action_dim
        self.inputs = RunningNormalizer(spec)
        sizes = [spec.obs_dim, *config.hidden, 2 * spec.action_dim]
        self.standard = mlp(sizes, dropout=config.dropout, layer_norm=config.layer_norm)
        self.scale = PredictedScale(config.init_log_scale)
        self.flow = zuko.flows.NSF(
            features=spec.action_dim,
            context=spec.obs_dim,
            transforms=config.transforms,
            bins=config.bins,
            passes=config.passes or spec.action_dim,
            hidden_features=config.hidden,
            activation=lambda: nn.Sequential(nn.ReLU(), nn.Dropout(config.dropout)),
        )

    def parts(self, obs: Tensor) -> tuple[DiagonalNormal, Any]:
        """(B, O) -> N(m(s), s(s)^2), which standardizes the action before the tanh, and the flow of what comes out."""
        features = self.inputs(obs)
        return self.scale(*self.standard(features).chunk(2, dim=-1)), self.flow(features)

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """-log pi_beta(a|s) in nats, mean over the batch."""
        self.inputs.observe(obs)
        log_prob = self.log_prob(obs, action)
        return -log_prob.mean(-1), {"behavior/log_prob": log_prob.detach().mean(-1)}

    @torch.no_grad()
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        noise = torch.randn((num_samples, *obs.shape[:-1], self.latent_dim), dtype=obs.dtype, device=obs.device)
        return torch.tanh(self.unsquashed(obs, noise))

    def unsquashed(self, obs: Tensor, z: Tensor) -> Tensor:
        """(B, O), (..., B, A) noise -> (..., B, A), the action before the tanh."""
        normal, flow = self.parts(obs)
        standardized: Tensor = flow.transform.inv(z)
        return normal.loc + normal.stddev * standardized

    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        """Standard normal z makes samples."""
        return torch.tanh(self.unsquashed(obs, z))

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """Exact; ``num_samples`` is ignored."""
        u = torch.atanh(action.clamp(-1.0 + TanhNormal.margin, 1.0 - TanhNormal.margin))
        normal, flow = self.parts(obs)
        standardized = (u - normal.loc) * torch.exp(-normal.log_scale)
        log_prob: Tensor = flow.log_prob(standardized)
        return log_prob - normal.log_scale.sum(-1) - log_dtanh(u).sum(-1)
