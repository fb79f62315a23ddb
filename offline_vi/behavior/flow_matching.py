"""A continuous flow from Gaussian noise to actions before the tanh, trained by conditional flow matching.

Lipman, Chen, Ben-Hamu, Nickel, Le: Flow Matching for Generative Modeling, ICLR 2023. Along the straight path
u_t = (1 - (1 - sigma_min) t) u_0 + t u_1 from noise u_0 to the data u_1 = atanh(a), the field v(u, t, s) is regressed
on du_t/dt; its ODE carries noise to actions, t from 0 to 1. Training needs no ODE. The density follows from the
instantaneous change of variables (Chen et al. 2018, Neural Ordinary Differential Equations, theorem 1),

    log p(u_1) = log N(u_0; 0, I) - int_0^1 trace(dv/du) dt,

up to the error of the integrator, which falls as 1 / ode_steps^2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from offline_vi.behavior.base import DensityModel, LatentModel
from offline_vi.behavior.inputs import RunningNormalizer
from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.distributions.squashed import TanhNormal, log_dtanh
from offline_vi.nn.networks import join, mlp
from offline_vi.nn.optim import Schedule
from offline_vi.types import Metrics, Spec

Field = Callable[[Tensor], Tensor]
"""u (..., B, A) -> du/dt (..., B, A), at one time and given observations."""

EXACT_TRACE_DIM = 8  # up to this A the trace is computed exactly, however few samples are asked for


@dataclass(frozen=True)
class FlowMatchingBehaviorConfig:
    """Hyper-parameters."""

    hidden: tuple[int, ...] = (256, 256, 256)  # units per layer of the field
    ode_steps: int = 20  # of the midpoint rule from noise to action, two network calls each
    sigma_min: float = 1e-3  # width of the path's end about a datum, before the tanh
    layer_norm: bool = False  # LayerNorm before each activation
    dropout: float = 0.0  # share of the hidden units left out at each step of training
    batch_size: int = 256  # transitions per step of fit_behavior
    lr: float = 1e-3  # Adam
    eps: float = 1e-8  # Adam
    schedule: Schedule = "cosine"  # of fit_behavior's learning rate: cosine (falling to 0) | constant

    @classmethod
    def default(cls, spec: Spec) -> FlowMatchingBehaviorConfig:
        """The same for all data."""
        return cls()


def exact_directions(u: Tensor, count: int) -> Tensor:
    """The A coordinate directions times sqrt(A), (A, ..., A), whatever ``count`` is: with them `trace` is exact."""
    dim = u.shape[-1]
    basis = torch.eye(dim, dtype=u.dtype, device=u.device) * dim**0.5
    directions: Tensor = basis.reshape(dim, *[1] * (u.ndim - 1), dim).expand(dim, *u.shape).contiguous()
    return directions


def hutchinson_directions(u: Tensor, count: int) -> Tensor:
    """``count`` random signs, (count, ..., A): with them `trace` is unbiased (Hutchinson 1989)."""
    return torch.randint(0, 2, (count, *u.shape), device=u.device).to(u.dtype) * 2.0 - 1.0


def trace(field: Field, u: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Velocity (..., A) and trace of its Jacobian (...), both at u (..., A): the mean of e' J e over directions
    (K, ..., A) whose e e' has the identity for its mean. Differentiable."""
    pair: Any = torch.func.jvp(field, (u.expand_as(directions).contiguous(),), (directions,))
    velocity, pushed = pair
    return velocity[0], (directions * pushed).sum(-1).mean(0)


class VelocityField(nn.Module):
    """v(u, t, s), smooth in u, so that its divergence has a gradient."""

    def __init__(self, spec: Spec, config: FlowMatchingBehaviorConfig) -> None:
        super().__init__()
        self.inputs = RunningNormalizer(spec)
        sizes = [spec.obs_dim + spec.action_dim + 1, *config.hidden, spec.action_dim]
        self.net = mlp(sizes, nn.SiLU, config.dropout, spec.stack, config.layer_norm)

    def forward(self, obs: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """(B, O), (..., B, A), times that broadcast to (..., B, 1) -> (..., B, A)."""
        velocity: Tensor = self.net(join(self.inputs(obs), torch.cat([u, t.expand(*u.shape[:-1], 1)], dim=-1)))
        return velocity


class FlowMatchingBehavior(LatentModel, DensityModel):
    """An ODE from noise to action; its latent is the noise, Z = A."""

    def __init__(self, spec: Spec, config: FlowMatchingBehaviorConfig | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.config = config = config or FlowMatchingBehaviorConfig.default(spec)
        self.latent_dim = spec.action_dim
        self.field = VelocityField(spec, config)

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        """Half the squared error of the velocity, summed over A, mean over the batch.

        It is the negative log-likelihood of the velocity under a Normal of scale 1, in nats without the constant; of
        the action's likelihood it says nothing, which ``log_prob`` computes.
        """
        self.field.inputs.observe(obs)
        data = _unsquash(action)
        noise = torch.randn_like(data)
        t = torch.rand_like(data[..., :1])
        shrink = 1.0 - self.config.sigma_min
        velocity = self.field(obs, (1.0 - shrink * t) * noise + t * data, t)
        loss = 0.5 * (velocity - (data - shrink * noise)).square().sum(-1).mean(-1)
        return loss, {"behavior/flow_matching": loss.detach()}

    @torch.no_grad()
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        noise = torch.randn((num_samples, *obs.shape[:-1], self.latent_dim), dtype=obs.dtype, device=obs.device)
        return torch.tanh(self.unsquashed(obs, noise))

    def unsquashed(self, obs: Tensor, z: Tensor) -> Tensor:
        """(B, O), (..., B, A) noise -> (..., B, A), the action before the tanh: the midpoint rule from t = 0 to 1."""
        step = 1.0 / self.config.ode_steps
        u = z
        for number in range(self.config.ode_steps):
            t = z.new_tensor(number * step)
            middle = u + 0.5 * step * self.field(obs, u, t)
            u = u + step * self.field(obs, middle, t + 0.5 * step)
        return u

    def decode(self, obs: Tensor, z: Tensor) -> Tensor:
        """Standard normal z makes samples."""
        return torch.tanh(self.unsquashed(obs, z))

    def log_prob(self, obs: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
        """The log-density, by the ODE from action to noise. The trace is exact where A <= max(8, ``num_samples``),
        where that is cheaper too; else it is Hutchinson's with ``num_samples`` random directions, which are kept along
        the path."""
        data = _unsquash(action)
        exact = self.latent_dim <= max(EXACT_TRACE_DIM, num_samples)
        directions = (exact_directions if exact else hutchinson_directions)(data, num_samples)
        step = 1.0 / self.config.ode_steps
        u, gain = data, torch.zeros_like(data[..., 0])
        for number in range(self.config.ode_steps):
            t = data.new_tensor(1.0 - number * step)
            middle = u - 0.5 * step * self.field(obs, u, t)
            velocity, divergence = trace(partial(self.field, obs, t=t - 0.5 * step), middle, directions)
            u, gain = u - step * velocity, gain + step * divergence
        noise = DiagonalNormal(torch.zeros_like(u), torch.zeros_like(u))
        log_prob: Tensor = noise.log_prob(u) - gain - log_dtanh(data).sum(-1)
        return log_prob


def _unsquash(action: Tensor) -> Tensor:
    """atanh, of actions on the border too."""
    return torch.atanh(action.clamp(-1.0 + TanhNormal.margin, 1.0 - TanhNormal.margin))
