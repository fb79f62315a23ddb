"""Latent dynamics: a chain of conditional VAE steps with context (z_{t-1}, a_{t-1}), fitted by the same bound.

    prior       p_e(z_t|z_{t-1}, a_{t-1})          the dynamics, e = 1..E members; p(z_0) = N(0, I)
    likelihood  p(o_t|z_t) p(r_{t-1}|z_t) p(terminated_{t-1}|z_t)
    posterior   q(z_t|o_t)  or  q(z_t|z_{t-1}, a_{t-1}, o_t)

    sequence ELBO = sum over t of bounds.elbo(step, q, x_t, context = (z_{t-1}, a_{t-1})),  z_{t-1} ~ q

Alignment: a_t is the action taken *at* o_t and r_t its reward; both are explained by the state they lead to, z_{t+1}.
A `Batch` of sequences has a time axis first: obs (L, B, O), action (L, B, A), next_obs (L, B, O); next_obs[t] is
obs[t + 1] within a sequence; ``index`` is -1 where a sequence has ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from offline_vi.distributions.heads import GaussianHead, LearnedScale
from offline_vi.distributions.normal import Bounded, DiagonalNormal
from offline_vi.inference.bayesian import expected_gain
from offline_vi.inference.bounds import Bound, elbo
from offline_vi.inference.latent import StandardNormalPrior
from offline_vi.inference.posterior import AmortizedPosterior
from offline_vi.nn.conv import ConvDecoder, ConvEncoder
from offline_vi.nn.networks import EnsembleMLP, mlp
from offline_vi.nn.normalizer import Normalizer
from offline_vi.types import Batch, Spec


def values(obs: Tensor, obs_dims: int) -> Tensor:
    """(..., *O) -> (..., X): flattened; images leave uint8 here, for [0, 1]."""
    flat = obs.flatten(-obs_dims)
    return flat.float() / 255.0 if flat.dtype == torch.uint8 else flat


class Emission(Distribution):
    """p(o, r, terminated|state) of x = (o, r, terminated, known), (..., X + 3); ``known`` is 0 where nothing was
    received yet: a first observation has no reward."""

    def __init__(self, obs: Distribution, reward: DiagonalNormal, terminal_logit: Tensor) -> None:
        self.obs, self.reward, self.terminal_logit = obs, reward, terminal_logit
        super().__init__(obs.batch_shape, torch.Size([obs.event_shape[0] + 3]), validate_args=False)

    @staticmethod
    def join(obs: Tensor, reward: Tensor, terminated: Tensor, known: Tensor) -> Tensor:
        """(..., X), (...), (...), (...) -> (..., X + 3)."""
        return torch.cat([obs, torch.stack([reward, terminated, known], -1)], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., X + 3) -> (...) nats."""
        reward, terminated, known = value[..., -3:].unbind(-1)
        received = self.reward.log_prob(reward.unsqueeze(-1))
        received = received - F.binary_cross_entropy_with_logits(
            self.terminal_logit, terminated.expand_as(self.terminal_logit), reduction="none"
        )
        log_prob: Tensor = self.obs.log_prob(value[..., :-3]) + known * received
        return log_prob


class Outcome(nn.Module):
    """Reward and end, as emitted by the state that an action led to: state (..., S) -> p(r|state), a logit (...).

    The reward's Normal is in the data's units; the network sees it standardized (``reward_units``).
    """

    def __init__(self, state_dim: int, hidden: tuple[int, ...], init_log_scale: float = -1.0) -> None:
        super().__init__()
        self.net = mlp([state_dim, *hidden, 2])
        self.scale = LearnedScale(init_log_scale)
        self.reward_units = Normalizer(Spec((1,), 0))  # of one number

    def forward(self, state: Tensor) -> tuple[DiagonalNormal, Tensor]:
        reward, terminal = self.net(state).split(1, dim=-1)
        units = self.reward_units
        normal = DiagonalNormal(units.mean + units.std * reward, units.std.log() + self.scale.log_scale)
        return normal, terminal.squeeze(-1)


class Dynamics(Protocol):
    """How a state and an action become the context of the next latent. A state is (..., S)."""

    @property
    def first_state(self) -> Callable[[Tensor], Tensor]:
        """z_0 (..., Z) -> the state."""

    @property
    def context(self) -> Callable[[Tensor, Tensor], Tensor]:
        """state, action (..., A) -> (..., C)."""

    @property
    def prior(self) -> Callable[[Tensor], DiagonalNormal]:
        """(..., C) -> p_e(z_t|context) of each member, batch shape (E, ...)."""

    @property
    def state(self) -> Callable[[Tensor, Tensor], Tensor]:
        """context, z_t -> the state."""


class MarkovDynamics(nn.Module):
    """p_e(z'|z, a) = N(z + f_e(z, a), diag(s_e(z, a))^2): the latent is the whole state."""

    def __init__(self, latent_dim: int, action_dim: int, hidden: tuple[int, ...], ensemble: int, belief: int) -> None:
        super().__init__()
        self.latent_dim, self.state_dim, self.context_dim = latent_dim, latent_dim, latent_dim + action_dim
        self.net = EnsembleMLP([self.context_dim, *hidden, 2 * latent_dim], ensemble)
        self.bounded = Bounded(-1.0)

    def first_state(self, z: Tensor) -> Tensor:
        return z

    def context(self, state: Tensor, action: Tensor) -> Tensor:
        return torch.cat([state, action], -1)

    def prior(self, context: Tensor) -> DiagonalNormal:
        change, raw = self.net(context).chunk(2, dim=-1)
        return DiagonalNormal(context[..., : self.latent_dim] + change, self.bounded(raw))

    def state(self, context: Tensor, z: Tensor) -> Tensor:
        return z


class RecurrentDynamics(nn.Module):
    """h_t = GRU(h_{t-1}, (z_{t-1}, a_{t-1})), p_e(z_t|h_t); the state is (h_t, z_t): a recurrent state-space model
    (Hafner et al. 2019, PlaNet) whose members share the recurrence."""

    def __init__(self, latent_dim: int, action_dim: int, hidden: tuple[int, ...], ensemble: int, belief: int) -> None:
        super().__init__()
        self.latent_dim, self.state_dim, self.context_dim = latent_dim, belief + latent_dim, belief
        self.cell = nn.GRUCell(latent_dim + action_dim, belief)
        self.net = EnsembleMLP([belief, *hidden, 2 * latent_dim], ensemble)
        self.bounded = Bounded(-1.0)

    def first_state(self, z: Tensor) -> Tensor:
        return torch.cat([z.new_zeros(*z.shape[:-1], self.context_dim), z], -1)

    def context(self, state: Tensor, action: Tensor) -> Tensor:
        belief, z = state.split([self.context_dim, self.latent_dim], dim=-1)
        flat = torch.cat([z, action], -1).flatten(0, -2)
        context: Tensor = self.cell(flat, belief.flatten(0, -2)).reshape(belief.shape)
        return context

    def prior(self, context: Tensor) -> DiagonalNormal:
        loc, raw = self.net(context).chunk(2, dim=-1)
        return DiagonalNormal(loc, self.bounded(raw))

    def state(self, context: Tensor, z: Tensor) -> Tensor:
        return torch.cat([context.expand(*z.shape[:-1], -1), z], -1)


def drawn(prior: DiagonalNormal) -> Tensor:
    """A sample of a member drawn for each row, (E, ..., Z) -> (..., Z)."""
    z = prior.rsample()
    member = torch.randint(len(z), (1, *z.shape[1:-1], 1), device=z.device)
    return z.gather(0, member.expand(1, *z.shape[1:])).squeeze(0)


def averaged(prior: DiagonalNormal) -> Tensor:
    """The mean of the members' means, (E, ..., Z) -> (..., Z): no noise, for comparing plans."""
    return prior.loc.mean(0)


def disagreement(prior: DiagonalNormal) -> Tensor:
    """What the next latent would tell about which member is right, (E, ..., Z) -> (...) nats: `expected_gain` with the
    variance of the members' means in units of their own noise, so that it does not depend on the latent's scale."""
    return expected_gain(prior.loc.var(0, correction=0), prior.variance.mean(0))


class FramePosterior(nn.Module):
    """q(z_t|o_t): velocities are in it only where o_t is a stack of frames. features (..., F) -> Normal."""

    def __init__(self, features: int, context_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.posterior = AmortizedPosterior(nn.Linear(features, 2 * latent_dim))

    def forward(self, features: Tensor, context: Tensor | None = None) -> DiagonalNormal:
        q: DiagonalNormal = self.posterior(features)
        return q


class FilteringPosterior(nn.Module):
    """q(z_t|z_{t-1}, a_{t-1}, o_t): remembers what one observation does not show."""

    def __init__(self, features: int, context_dim: int, latent_dim: int) -> None:
        super().__init__()
        net = mlp([context_dim + features, features, 2 * latent_dim])
        self.posterior = AmortizedPosterior(net)

    def forward(self, features: Tensor, context: Tensor | None = None) -> DiagonalNormal:
        q: DiagonalNormal = self.posterior(features, context)
        return q


class Step(NamedTuple):
    """One link of the chain, as `bounds.elbo` sees it."""

    prior: Callable[[Tensor | None], Distribution]  # context -> p(z | context)
    likelihood: Callable[[Tensor, Tensor | None], Distribution]  # (z, context) -> p(observation | z, context)


class Inferred(NamedTuple):
    """The chain's posterior along a sequence of T = L + 1 observations."""

    posterior: DiagonalNormal  # q(z_t|...), batch shape (T, B)
    context: Tensor  # (T - 1, B, C), of z_1 .. z_{T-1}
    state: Tensor  # (T, B, S), sampled


class Imagined(NamedTuple):
    """H steps into the future of N plans."""

    state: Tensor  # (H, N, B, S), the states that the actions lead to
    action: Tensor  # (H, N, B, A)
    reward: Tensor  # (H, N, B), means
    terminal: Tensor  # (H, N, B), probabilities
    gain: Tensor  # (H, N, B), `disagreement` in nats


Choice = Callable[[DiagonalNormal], Tensor]
"""The members' p_e(z'|.), (E, ..., Z) -> the latent to go on from: `drawn` or `averaged`."""


class LatentDynamicsModel(nn.Module):
    """Encoder, posterior, dynamics and what the state emits. ``first`` is q(z_0|o_0), ``decoder`` maps states
    (..., S) to p(o|state), ``obs_dims`` is the number of axes of an observation."""

    def __init__(
        self,
        encoder: nn.Module,
        first: nn.Module,
        posterior: nn.Module,
        dynamics: Any,
        decoder: nn.Module,
        outcome: nn.Module,
        latent_dim: int,
        obs_dims: int = 1,
    ) -> None:
        super().__init__()
        self.encoder, self.first, self.posterior = encoder, first, posterior
        self.dynamics: Any = dynamics
        self.decoder, self.outcome = decoder, outcome
        self.latent_dim, self.obs_dims = latent_dim, obs_dims
        self.start = StandardNormalPrior(latent_dim)

    @property
    def initial(self) -> Step:
        """z_0 ~ N(0, I) and what it emits."""
        return Step(self.start, lambda z, _: self.emission(self.dynamics.first_state(z)))

    @property
    def transition(self) -> Step:
        """z_t given the context of z_{t-1} and a_{t-1}, and what it emits."""
        return Step(self.dynamics.prior, lambda z, context: self.emission(self.dynamics.state(context, z)))

    def emission(self, state: Tensor) -> Emission:
        """(..., S) -> p(o, r, terminated|state)."""
        return Emission(self.decoder(state), *self.outcome(state))

    def infer(self, obs: Tensor, action: Tensor) -> Inferred:
        """(T, B, *O), (T - 1, B, A) -> the posterior along the sequence; its latents are sampled."""
        features = self.encoder(values(obs, self.obs_dims).flatten(0, 1)).unflatten(0, obs.shape[:2])
        posteriors = [self.first(features[0])]
        contexts, states = [], [self.dynamics.first_state(posteriors[0].rsample())]
        for t in range(1, len(obs)):
            contexts.append(self.dynamics.context(states[-1], action[t - 1]))
            posteriors.append(self.posterior(features[t], contexts[-1]))
            states.append(self.dynamics.state(contexts[-1], posteriors[-1].rsample()))
        q = DiagonalNormal(torch.stack([q.loc for q in posteriors]), torch.stack([q.log_scale for q in posteriors]))
        return Inferred(q, torch.stack(contexts), torch.stack(states))

    @torch.no_grad()
    def observe_first(self, obs: Tensor) -> Tensor:
        """(B, *O) -> (B, S): the mean state at the beginning of an episode."""
        state: Tensor = self.dynamics.first_state(self.first(self.encoder(values(obs, self.obs_dims))).loc)
        return state

    @torch.no_grad()
    def observe(self, state: Tensor, action: Tensor, obs: Tensor) -> Tensor:
        """(B, S), (B, A), (B, *O) -> (B, S): the mean state after taking the action and seeing what came."""
        context = self.dynamics.context(state, action)
        state = self.dynamics.state(context, self.posterior(self.encoder(values(obs, self.obs_dims)), context).loc)
        return state

    @torch.no_grad()
    def roll_out(
        self, state: Tensor, policy: Callable[[Tensor, int], Tensor], horizon: int, choice: Choice = drawn
    ) -> Imagined:
        """Imagine ``horizon`` steps from states (N, B, S); ``policy``: (state (N, B, S), step) -> actions (N, B, A)."""
        steps = []
        for h in range(horizon):
            action = policy(state, h)
            context = self.dynamics.context(state, action)
            prior = self.dynamics.prior(context)
            state = self.dynamics.state(context, choice(prior))
            reward, terminal = self.outcome(state)
            steps.append((state, action, reward.loc.squeeze(-1), torch.sigmoid(terminal), disagreement(prior)))
        return Imagined(*(torch.stack(column) for column in zip(*steps, strict=True)))

    def imagine(self, state: Tensor, action: Tensor, choice: Choice = drawn) -> Imagined:
        """(B, S), (H, N, B, A) -> where the actions lead from there."""
        start = state.expand(action.shape[1], *state.shape)
        return self.roll_out(start, lambda _, h: action[h], len(action), choice)


def sequence_elbo(
    model: LatentDynamicsModel,
    batch: Batch,
    *,
    beta: float | Tensor = 1.0,
    free_bits: float = 0.0,
    kl_balance: float | None = None,
) -> tuple[Bound, Inferred]:
    """The ELBO of sequences (L, B, ...), in nats for each sequence (B,), and the inferred states.

    It is the sum over t of `bounds.elbo`; with E members the mean over theirs. ``beta``, ``free_bits`` (for every
    latent and step) and ``kl_balance`` change the objective only. Steps whose ``index`` is -1 count nothing.
    """
    obs = torch.cat([batch.obs, batch.next_obs[-1:]])
    inferred = model.infer(obs, batch.action)
    q, flat = inferred.posterior, values(obs, model.obs_dims)
    nothing = torch.zeros_like(batch.reward[0])
    known = (batch.index >= 0).to(flat.dtype)  # (L, B)
    options: dict[str, Any] = {"beta": beta, "free_bits": free_bits, "kl_balance": kl_balance}
    begin = _of(q, 0)
    start: Any = model.initial
    first = elbo(start, lambda *_: begin, Emission.join(flat[0], nothing, nothing, nothing), None, **options)
    later = _of(q, slice(1, None))
    x = Emission.join(flat[1:], batch.reward, batch.terminated, known)
    link: Any = model.transition
    rest = elbo(link, lambda *_: later, x, inferred.context, **options)
    assert first.kl_per_dim is not None and rest.kl_per_dim is not None
    per_dim = (_members(rest.kl_per_dim, 4) * known.unsqueeze(-1)).sum(0)

    def total(at_first: Tensor, later: Tensor) -> Tensor:
        return at_first + (_members(later, 3) * known).sum(0)

    bound = Bound(
        total(first.elbo, rest.elbo),
        total(first.log_likelihood, rest.log_likelihood),
        total(first.kl, rest.kl),
        total(first.objective, rest.objective),
        first.kl_per_dim + per_dim,
    )
    return bound, inferred


def _of(q: DiagonalNormal, steps: int | slice) -> DiagonalNormal:
    return DiagonalNormal(q.loc[steps], q.log_scale[steps])


def _members(value: Tensor, axes: int) -> Tensor:
    """The mean over the ensemble, where there is one."""
    return value.mean(0) if value.ndim == axes else value


@dataclass(frozen=True)
class DynamicsConfig:
    """Hyper-parameters of the networks."""

    latent_dim: int = 8  # Z
    hidden: tuple[int, ...] = (128, 128)  # units per layer of dynamics, reward head and MLP encoders
    features: int = 128  # F, of the encoder
    channels: tuple[int, ...] = (16, 32)  # of convolutions, each of which halves the image
    ensemble: int = 3  # E, members of the dynamics
    belief: int = 64  # units of the GRU (recurrent)
    encoder: str = "conv"  # conv | mlp
    dynamics: str = "markov"  # markov | recurrent
    posterior: str = "frames"  # frames: q(z|o) | filter: q(z|z, a, o)
    init_log_scale: float = -2.0  # log sigma of the decoder, in units of [0, 1] for pixels


DYNAMICS: dict[str, Any] = {"markov": MarkovDynamics, "recurrent": RecurrentDynamics}
POSTERIORS: dict[str, Any] = {"frames": FramePosterior, "filter": FilteringPosterior}


def _convolutions(shape: tuple[int, ...], config: DynamicsConfig, state_dim: int) -> tuple[nn.Module, nn.Module]:
    image: Any = shape
    encoder = ConvEncoder(image, config.features, config.channels)
    return encoder, ConvDecoder(state_dim, image, math.prod(shape), config.channels[::-1])


def _mlps(shape: tuple[int, ...], config: DynamicsConfig, state_dim: int) -> tuple[nn.Module, nn.Module]:
    size = math.prod(shape)
    return mlp([size, *config.hidden, config.features]), mlp([state_dim, *config.hidden, size])


ENCODERS: dict[str, Any] = {"conv": _convolutions, "mlp": _mlps}


def latent_dynamics(spec: Spec, config: DynamicsConfig) -> LatentDynamicsModel:
    """The model of a configuration, freshly initialized from torch's default generator."""
    dynamics = DYNAMICS[config.dynamics](
        config.latent_dim, spec.action_dim, config.hidden, config.ensemble, config.belief
    )
    encoder, decoder = ENCODERS[config.encoder](spec.obs_shape, config, dynamics.state_dim)
    head = GaussianHead(math.prod(spec.obs_shape), LearnedScale(config.init_log_scale))
    posterior = POSTERIORS[config.posterior](config.features, dynamics.context_dim, config.latent_dim)
    return LatentDynamicsModel(
        encoder=nn.Sequential(encoder, nn.ReLU()),
        first=FramePosterior(config.features, 0, config.latent_dim),
        posterior=posterior,
        dynamics=dynamics,
        decoder=nn.Sequential(decoder, head),
        outcome=Outcome(dynamics.state_dim, config.hidden),
        latent_dim=config.latent_dim,
        obs_dims=len(spec.obs_shape),
    )
