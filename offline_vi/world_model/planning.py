"""Planning: the return is a log-likelihood of a plan, the plan's posterior is refined by the library's one reduction.

    value of N plans     log_mean_exp(R, temperature=T),   its gradient w_i = softmax(R / T) weighs them
    MPPI                 T > 0: mean and spread of the plans under w      (Williams et al. 2017)
    CEM                  the best k weigh 1 / k, the others nothing       (Rubinstein 1997; T -> 0: the best alone)

A plan is a sequence of *noise*; a proposal turns it into actions at the states that are reached: a Gaussian takes it as
it is, a behavior model decodes it, a ~ pi_beta(.|z), so that plans stay where the data were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from offline_vi.behavior.base import LatentModel
from offline_vi.distributions.reduction import log_mean_exp
from offline_vi.world_model.dynamics import Choice, Imagined, LatentDynamicsModel, averaged

Weighing = Callable[[Tensor], Tensor]
"""Returns (N, B) -> weights (N, B) that sum to 1 over N."""


def exponential(temperature: float) -> Weighing:
    """softmax(R / T): the gradient of log_mean_exp(R, temperature=T) with respect to R."""

    def weigh(returns: Tensor) -> Tensor:
        with torch.enable_grad():
            returns = returns.detach().requires_grad_()
            (weights,) = torch.autograd.grad(log_mean_exp(returns, 0, temperature).sum(), returns)
        return weights

    return weigh


def elites(count: int) -> Weighing:
    """1 / k for the k best plans: the same at T = inf among them."""

    def weigh(returns: Tensor) -> Tensor:
        best = returns.topk(count, dim=0).indices
        return torch.zeros_like(returns).scatter_(0, best, 1.0 / count)

    return weigh


class Proposal(Protocol):
    """How noise becomes an action."""

    noise_dim: int

    def action(self, state: Tensor, noise: Tensor) -> Tensor:
        """(N, B, S), (N, B, D) -> (N, B, A) in [-1, 1]."""


class GaussianProposal:
    """a = noise, kept in the box: plans may go anywhere."""

    def __init__(self, action_dim: int) -> None:
        self.noise_dim = action_dim

    def action(self, state: Tensor, noise: Tensor) -> Tensor:
        return noise.clamp(-1.0, 1.0)


class BehaviorProposal:
    """a = decoder of a behavior model on latents, at noise within ``box`` (Zhou et al. 2020, PLAS): its support."""

    def __init__(self, behavior: LatentModel, box: float = 2.0) -> None:
        self.behavior, self.box, self.noise_dim = behavior, box, behavior.latent_dim

    def action(self, state: Tensor, noise: Tensor) -> Tensor:
        flat = state.flatten(0, -2)
        noise = noise.clamp(-self.box, self.box).flatten(0, -2)
        return self.behavior.decode(flat, noise).clamp(-1.0, 1.0).reshape(*state.shape[:-1], -1)


Value = Callable[[Tensor], Tensor]
"""(..., S) -> V_e(state) of each member, (E, ...)."""


def discounted_return(
    imagined: Imagined, discount: float = 1.0, penalty: float = 0.0, value: Value | None = None
) -> Tensor:
    """sum_h gamma^h c_h (r_h - penalty * gain_h) + gamma^H c_H min_e V_e(z_H), (H, N, B) -> (N, B).

    c_h is the probability that nothing ended before; ``penalty`` is a price in reward per nat of `disagreement`.
    """
    alive = torch.cumprod(1.0 - imagined.terminal, 0)
    before = torch.cat([torch.ones_like(alive[:1]), alive[:-1]])
    horizon = len(alive)
    powers = discount ** torch.arange(horizon + 1, dtype=alive.dtype, device=alive.device).reshape(-1, 1, 1)
    total = (powers[:-1] * before * (imagined.reward - penalty * imagined.gain)).sum(0)
    if value is None:
        return total
    return total + powers[-1] * alive[-1] * value(imagined.state[-1]).amin(0)


@dataclass(frozen=True)
class PlanConfig:
    """Hyper-parameters of the search."""

    horizon: int = 12  # H, steps
    num_samples: int = 200  # N, plans per iteration
    iterations: int = 4  # refinements of the plans' mean and spread
    elite: int = 20  # k of CEM
    temperature: float = 0.0  # T of MPPI, in units of return; 0: CEM
    init_scale: float = 1.0  # standard deviation of the noise at the first iteration
    min_scale: float = 0.05  # its floor later

    def weighing(self) -> Weighing:
        """CEM's weights, or at a temperature MPPI's."""
        return exponential(self.temperature) if self.temperature > 0.0 else elites(self.elite)


class Plan(NamedTuple):
    """What a search found."""

    noise: Tensor  # (H, B, D), the best plan
    value: Tensor  # (B,), its return as imagined

    def shifted(self) -> Tensor:
        """(H, B, D): the rest of the plan, with nothing planned for the last step: where the next search begins."""
        return torch.cat([self.noise[1:], torch.zeros_like(self.noise[:1])])


def search(returns: Callable[[Tensor], Tensor], start: Tensor, config: PlanConfig) -> Plan:
    """Maximise ``returns``: noise (H, N, B, D) -> (N, B), from the mean ``start`` (H, B, D).

    Every iteration draws N plans, adds the mean and the best one so far, and moves mean and spread to those of the
    weighed plans.
    """
    weigh = config.weighing()
    mean, scale, best = start, torch.full_like(start, config.init_scale), start
    value = torch.full(start.shape[1:2], -torch.inf, dtype=start.dtype, device=start.device)
    for _ in range(config.iterations):
        drawn = mean.unsqueeze(1) + scale.unsqueeze(1) * torch.randn(
            len(start), config.num_samples, *start.shape[1:], dtype=start.dtype, device=start.device
        )
        noise = torch.cat([drawn, mean.unsqueeze(1), best.unsqueeze(1)], 1)  # (H, N + 2, B, D)
        found = returns(noise)
        top, index = found.max(0)
        best = torch.where((top > value).unsqueeze(-1), _pick(noise, index), best)
        value = torch.maximum(top, value)
        weights = weigh(found).unsqueeze(-1)  # (N + 2, B, 1)
        mean = (weights * noise).sum(1)
        variance = (weights * (noise - mean.unsqueeze(1)).square()).sum(1)
        scale = variance.sqrt().clamp(min=config.min_scale)
    final = returns(mean.unsqueeze(1))[0]
    best = torch.where((final > value).unsqueeze(-1), mean, best)
    return Plan(best, torch.maximum(final, value))


def _pick(noise: Tensor, index: Tensor) -> Tensor:
    """(H, N, B, D), (B,) -> the plan of each row, (H, B, D)."""
    where = index.reshape(1, 1, -1, 1).expand(len(noise), 1, -1, noise.shape[-1])
    return noise.gather(1, where).squeeze(1)


@torch.no_grad()
def plan(
    model: LatentDynamicsModel,
    state: Tensor,
    proposal: Proposal,
    config: PlanConfig,
    *,
    start: Tensor | None = None,
    discount: float = 1.0,
    penalty: float = 0.0,
    value: Value | None = None,
    choice: Choice = averaged,
) -> tuple[Tensor, Plan]:
    """The first action (B, A) of the best plan from states (B, S), and the plan; ``start`` is a shifted one."""

    def roll_out(noise: Tensor) -> Imagined:
        states = state.expand(noise.shape[1], *state.shape)
        return model.roll_out(states, lambda z, h: proposal.action(z, noise[h]), config.horizon, choice)

    if start is None:
        start = state.new_zeros(config.horizon, len(state), proposal.noise_dim)
    found = search(lambda noise: discounted_return(roll_out(noise), discount, penalty, value), start, config)
    return proposal.action(state.unsqueeze(0), found.noise[:1])[0], found
