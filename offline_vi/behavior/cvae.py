"""The conditional VAE of pi_beta(a|s): prior p(z|s) x likelihood p(a|s, z), fitted with q(z|s, a) by the ELBO in nats.

Three variants are the same parts composed differently (`CVAEConfig`):

- the default: a tanh-Normal likelihood whose scale the decoder predicts and a learned prior p(z|s). On the data of one
  policy the likelihood carries that policy's noise and the latent is left for the modes.
- ``CVAEConfig.gaussian(spec)``: the sigma-VAE (Rybkin, Daniilidis, Levine: Simple and Effective VAE Training with
  Calibrated Decoders, ICML 2021), one learned scale, initialized at log sigma = -3: from a larger one it stays
  collapsed, because two modes +-d cannot be told apart while d <= sigma.
- ``CVAEConfig.published(spec)``: BCQ's model (Fujimoto et al. 2019; sfujim/BCQ, continuous_BCQ/BCQ.py, commit
  c43a5b1b). Its loss mean((a - mu)^2) + 0.5 mean(KL) with Z = 2A is the negative ELBO in nats with sigma^2 = 1/8, times
  2 sigma^2 / A = 1 / (4A), up to a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from offline_vi.behavior.base import DensityModel, LatentModel
from offline_vi.behavior.inputs import RawInputs, RunningNormalizer
from offline_vi.distributions.heads import FixedScale, GaussianHead, LearnedScale, TanhNormalHead
from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.inference.bounds import KLWarmup, bound_metrics, elbo, iwae
from offline_vi.inference.latent import Conditional, ConditionalNormalPrior, LatentVariableModel, StandardNormalPrior
from offline_vi.inference.posterior import AmortizedPosterior
from offline_vi.nn.networks import join, mlp
from offline_vi.nn.optim import Schedule
from offline_vi.types import Metrics, Spec

PUBLISHED_VARIANCE = 1.0 / 8.0  # sigma^2 = beta A / (2 Z) with beta = 1/2, Z = 2A


@dataclass(frozen=True)
class CVAEConfig:
    """Hyper-parameters."""

    hidden: tuple[int, ...] = (256, 256)  # units per layer, of encoder, decoder and prior; published: 750
    latent_dim: int | None = None  # Z; None: 2A
    likelihood: str = "tanh_normal"  # p(a|s, z): tanh_normal | gaussian | published
    prior: str = "conditional"  # p(z|s): conditional | standard
    inputs: str = "normalized"  # observations: normalized (by the mean and spread of those seen) | raw
    encoder: str = "smooth"  # how log sigma_q is bounded: smooth | published
    kl_warmup: int = 1_000  # steps over which beta, the weight of the KL divergence, rises from 0 to 1; 0: none
    layer_norm: bool = False  # LayerNorm before each activation
    dropout: float = 0.0  # share of the hidden units left out at each step of training
    batch_size: int = 256  # transitions per step of fit_behavior
    lr: float = 1e-3  # Adam
    eps: float = 1e-8  # Adam; the published loss is 1/(4A) of ours: multiply its 1e-8 by 4A for the same steps
    schedule: Schedule = "cosine"  # of fit_behavior's learning rate: cosine (falling to 0) | constant

    @classmethod
    def default(cls, spec: Spec) -> CVAEConfig:
        """The learned model of choice."""
        return cls()

    @classmethod
    def gaussian(cls, spec: Spec) -> CVAEConfig:
        """The sigma-VAE: one learned scale, standard prior."""
        return cls(likelihood="gaussian", prior="standard", kl_warmup=0)

    @classmethod
    def published(cls, spec: Spec) -> CVAEConfig:
        """BCQ's model and its optimizer, step for step. PLAS changes the learning rate, SPOT the batch size."""
        return cls(
            hidden=(750, 750),
            likelihood="published",
            prior="standard",
            inputs="raw",
            encoder="published",
            kl_warmup=0,
            batch_size=100,
            schedule="constant",
            eps=1e-8 * spec.action_dim / (2.0 * PUBLISHED_VARIANCE),
        )


class PublishedPosterior(nn.Module):
    """q(z|s, a) with BCQ's hard clamp of log sigma to [-4, 15]; `AmortizedPosterior` has a smooth one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, action: Tensor, obs: Tensor) -> DiagonalNormal:
        loc, log_scale = self.net(join(obs, action)).chunk(2, dim=-1)
        return DiagonalNormal(loc, log_scale.clamp(-4.0, 15.0))


LIKELIHOODS: dict[str, Callable[[Spec], nn.Module]] = {
    # from log sigma = -3 a predicted scale first runs up to the spread of all modes, and the latent dies there
    "tanh_normal": lambda spec: TanhNormalHead(spec.action_dim, init_log_scale=-1.0),
    "gaussian": lambda spec: GaussianHead(spec.action_dim, LearnedScale(stack=spec.stack), torch.tanh),
    "published": lambda spec: GaussianHead(spec.action_dim, FixedScale(math.sqrt(PUBLISHED_VARIANCE)), torch.tanh),
}
PRIORS: dict[str, Callable[[int, Callable[[], nn.Module]], nn.Module]] = {  # Z, and what makes a net (B, O) -> (B, 2 Z)
    "standard": lambda latent_dim, net: StandardNormalPrior(latent_dim),
    "conditional": lambda latent_dim, net: ConditionalNormalPrior(net()),
}
INPUTS: dict[str, Callable[[Spec], RunningNormalizer | RawInputs]] = {
    "normalized": RunningNormalizer,
    "raw": RawInputs,
}
POSTERIORS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "smooth": AmortizedPosterior,
    "published": PublishedPosterior,
}


class CVAE(LatentModel, DensityModel):
    """A conditional VAE of actions given observations."""

    def __init__(self, spec: Spec, config: CVAEConfig | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.config = config = config or CVAEConfig()
        self.latent_dim = config.latent_dim or 2 * spec.action_dim
        head: Any = LIKELIHOODS[config.likelihood](spec)

        def net(inputs: int, outputs: int) -> nn.Module:
            sizes = [inputs, *config.hidden, outputs]
            return mlp(sizes, dropout=config.dropout, stack=spec.stack, layer_norm=config.layer_norm)

        decoder = net(spec.obs_dim + self.latent_dim, head.features)
        encoder = net(spec.obs_dim + spec.action_dim, 2 * self.latent_dim)
        prior = PRIORS[config.prior](self.latent_dim, lambda: net(spec.obs_dim, 2 * self.latent_dim))
        self.model = LatentVariableModel(prior, Conditional(decoder, head))
        self.posterior = POSTERIORS[config.encoder](encoder)
        self.inputs = INPUTS[config.inputs](spec)
        self.kl_warmup = KLWarmup(config.kl_warmup)

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """-ELBO in nats, mean over the batch; one latent sample each, KL in closed form, weighed in the warm-up."""
        self.inputs.observe(obs)
        bound = elbo(self.model, self.posterior, action, self.inputs(obs), beta=self.kl_warmup())
        return -bound.objective.mean(-1), bound_metrics(bound, "behavior")

    @torch.no_grad()
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        obs = self.inputs(obs)
        z = self.model.prior(obs).rsample((num_samples,))  # (N, B, Z)
        action: Tensor = self.model.likelihood(z, obs).rsample()
        return action

    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        """The decoder's mean action: tanh of its location."""
        obs = self.inputs(obs)
        prior = self.model.prior(obs)
        action: Tensor = self.model.likelihood(prior.loc + prior.stddev * z, obs).mode
        return action

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """A lower bound: the ELBO with its KL divergence in closed form for one sample, IWAE (Burda et al. 2016) for
        more. Its gradient is that of this very number."""
        if num_samples == 1:
            return elbo(self.model, self.posterior, action, self.inputs(obs)).objective
        bound = iwae(self.model, self.posterior, action, self.inputs(obs), num_samples=num_samples, estimator="reparam")
        return bound.objective
