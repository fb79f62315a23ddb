"""Policies: what maps observations to actions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from offline_vi.behavior.base import DensityModel, Proposals
from offline_vi.distributions.squashed import TanhNormal
from offline_vi.errors import CapabilityError, ConfigError
from offline_vi.rl.algorithm import Policy as Policy, StatefulPolicy as StatefulPolicy, find_capability
from offline_vi.rl.fixed_noise import FixedNoise
from offline_vi.rl.prediction import held_fixed
from offline_vi.rl.states import KnownStates

Perturb = Callable[[Tensor, Tensor, float], Tensor]
"""(B, O), (N, B, A), phi -> (N, B, A), each action moved by at most phi."""
Value = Callable[[Tensor, Tensor], Tensor]
"""(B, O), (N, B, A) -> (N, B)."""


def one_of_each(candidates: Tensor, chosen: Tensor) -> Tensor:
    """The chosen candidate of each state: (N, B, A), indices (B,) -> (B, A)."""
    return candidates[chosen, torch.arange(chosen.shape[0], device=chosen.device)]


@dataclass(frozen=True)
class CandidatePolicy:
    """Draw N candidates, move them, choose one: with probability softmax(Q / T).

    T = 0 is the best of N (BCQ's eq. 14), T = inf any of them: with the number of candidates and the perturbation this
    spans everything between cloning the behavior (N = 1) and acting greedily, for one trained critic. Other ways to
    act are ``dataclasses.replace(policy, num_candidates=1, phi=0.0)``.
    """

    proposals: Proposals  # where the candidates come from
    value: Value  # what ranks them
    num_candidates: int  # N
    temperature: float = 0.0  # T of the choice, in units of the value
    perturb: Perturb | None = None  # what moves them
    phi: float | None = None  # by how much at most, in units of the action box; None: not at all

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        action = self.candidates(obs)  # (N, B, A)
        value = self.value(obs, action)  # (N, B)
        if self.temperature == 0.0:
            chosen = value.argmax(0)  # (B,)
        else:
            weight = torch.softmax((value - value.amax(0)) / self.temperature, 0)
            chosen = torch.multinomial(weight.mT, 1).squeeze(-1)
        return one_of_each(action, chosen)

    def candidates(self, obs: Tensor) -> Tensor:
        """(B, O) -> (N, B, A), moved; those that nothing moves are kept in the box, which samples of a Gaussian
        likelihood may leave."""
        drawn = self.proposals.sample(obs, self.num_candidates)
        if self.perturb is None or self.phi is None:
            return drawn.clamp(-1.0, 1.0)
        return self.perturb(obs, drawn, self.phi)


@runtime_checkable
class Ranks(Protocol):
    """An algorithm that acts by ranking candidates."""

    def policy(self) -> CandidatePolicy:
        """How it acts; see `CandidatePolicy` for other ways."""


@runtime_checkable
class Valued(Protocol):
    """An algorithm with a critic."""

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q_1(s, a) of the online critic, in units of the rewards that it was trained on: (B, O), (..., B, A) ->
        (..., B)."""


def q_value(policy: Policy, obs: Tensor, action: Tensor) -> Tensor:
    """The estimate of Q(s, a) of the policy, or of the algorithm that it wraps, in units of the rewards that it was
    trained on: (B, O), (..., B, A) -> (..., B). NaN where there is no critic."""
    valued = find_capability(policy, Valued)
    if valued is not None:
        return valued.q_value(obs, action)
    return torch.full(action.shape[:-1], torch.nan, device=action.device)


class BehaviorPolicy:
    """A behavior model, or other proposals, as a policy: one sample for each state."""

    def __init__(self, model: Proposals) -> None:
        self.model = model

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        return self.model.sample(obs)[0]


class Explorer(Protocol):
    """What collects: an `OnlineAlgorithm`, or a policy with noise."""

    def explore(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""


class GaussianNoise:
    """A policy that explores by noise of standard deviation ``sigma``, in units of the action box [-1, 1]."""

    def __init__(self, policy: Policy, sigma: float = 0.1) -> None:
        self.policy, self.sigma = policy, sigma

    @torch.no_grad()
    def explore(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        action = self.policy.act(obs)
        return (action + self.sigma * torch.randn_like(action)).clamp(-1.0, 1.0)


class Verdict(NamedTuple):
    """What a guard says of the states of a batch and of the actions that the policy chose for them."""

    action: Tensor  # (B, A), the policy's
    unknown_state: Tensor  # (B,), bool: the state is unlike those of the data
    unlikely_action: Tensor  # (B,), bool: the state is known, the action is outside the support


class GuardedPolicy:
    """A policy that is not followed away from the data, neither in states that they do not have nor to actions.

    In a state whose score is below the quantile ``level`` of ``states`` it takes ``safe_action``, by default the middle
    of the action box. Elsewhere, where log pi_beta(a|s) < ``threshold`` (nats, e.g. `Support.threshold`), it takes that
    of N candidates in the support which ``value`` (a Q-function, (B, O), (N, B, A) -> (N, B)) ranks first; with no
    candidate in the support, or without a value, the most likely one. Either guard may be left out.

    ``states``, ``unknown_states`` and ``fallbacks`` count states: all, those of the first guard, those of the second.
    ``culprits`` counts, of the unknown states, the entry of the observation that is most unlike the data's.
    ``act`` takes and returns what every policy does, actions in [-1, 1]: `Task.to_env` gives the environment's.

    Raises ConfigError where ``safe_action`` (A,) is outside [-1, 1].
    """

    def __init__(
        self,
        policy: Policy,
        behavior: DensityModel | None,
        threshold: float = -math.inf,
        *,
        value: Callable[[Tensor, Tensor], Tensor] | None = None,
        num_candidates: int = 32,
        num_samples: int = 16,
        states: KnownStates | None = None,
        level: float = 0.01,
        safe_action: Tensor | None = None,
    ) -> None:
        if safe_action is not None and not bool((safe_action.abs() <= 1.0).all()):
            raise ConfigError("the safe action is outside [-1, 1]", "task.from_env(action) has it in these units")
        self.policy, self.behavior, self.threshold = policy, behavior, threshold
        self.value, self.num_candidates, self.num_samples = value, num_candidates, num_samples
        self.known, self.level, self.safe_action = states, level, safe_action
        self.lowest_score = states.threshold(level) if states is not None else None
        self.states = self.fallbacks = self.unknown_states = 0
        self.culprits: Counter[int] = Counter()
        self.counted: Tensor | None = None  # (B,), bool: the rows of a batch that are counted; None: all

    @property
    def share(self) -> float:
        """The share of the states so far where the policy's action was outside the support."""
        return self.fallbacks / max(self.states, 1)

    @property
    def share_unknown(self) -> float:
        """The share of the states so far that was unknown."""
        return self.unknown_states / max(self.states, 1)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        verdict = self.judge(obs)
        rows = torch.ones_like(verdict.unknown_state) if self.counted is None else self.counted
        self.states += int(rows.sum())
        self.unknown_states += int((verdict.unknown_state & rows).sum())
        self.fallbacks += int((verdict.unlikely_action & rows).sum())
        if self.known is not None and (unknown := verdict.unknown_state & rows).any():
            self.culprits.update(self.known.culprit(obs[unknown]).tolist())
        spoke = verdict.unknown_state.any() or verdict.unlikely_action.any()
        return self.replaced(obs, verdict) if spoke else verdict.action

    def count_only(self, rows: Tensor | None) -> None:
        """Count only these rows (B,) of a batch from here on; None: all."""
        self.counted = rows

    def judge(self, obs: Tensor) -> Verdict:
        """(B, O) -> what the policy does, and whether either guard objects."""
        action = self.policy.act(obs)
        unknown = unlikely = torch.zeros_like(obs[..., 0], dtype=torch.bool)
        if self.known is not None and self.lowest_score is not None:
            unknown = ~(self.known.score(obs) >= self.lowest_score)  # NaN is unknown
        if self.behavior is not None:
            unlikely = ~unknown & ~(self.behavior.log_prob(obs, action, self.num_samples) >= self.threshold)
        return Verdict(action, unknown, unlikely)

    def replaced(self, obs: Tensor, verdict: Verdict) -> Tensor:
        """(B, O) -> (B, A), what is done instead where a guard objects."""
        action = verdict.action
        if self.behavior is not None:
            action = torch.where(verdict.unlikely_action.unsqueeze(-1), self.best_candidate(obs), action)
        safe = torch.zeros_like(action) if self.safe_action is None else self.safe_action.to(action)
        return torch.where(verdict.unknown_state.unsqueeze(-1), safe, action)

    def best_candidate(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        assert self.behavior is not None
        candidates = self.behavior.sample(obs, self.num_candidates)  # (N, B, A)
        likely = torch.stack([self.behavior.log_prob(obs, a, self.num_samples) for a in candidates])  # (N, B)
        score = likely
        if self.value is not None:
            inside = likely >= self.threshold
            value = self.value(obs, candidates).masked_fill(~inside, -torch.inf)
            score = torch.where(inside.any(0), value, likely)
        return one_of_each(candidates, score.argmax(0))


@runtime_checkable
class Counting(Policy, Protocol):
    """A policy that counts states, of which a batch may hold some that are none: those of episodes that have ended."""

    def count_only(self, rows: Tensor | None) -> None:
        """Count only the rows (B,) that are True from here on; None: all."""


@runtime_checkable
class StochasticPolicy(Policy, Protocol):
    """A policy with a density."""

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """(B, O), (B, A) -> (B,) nats, of actions in [-1, 1]."""


class DeterministicPolicy:
    """A policy whose random numbers are drawn once: it acts as `Algorithm.predict` and exported files do, the same
    action for the same observation.

    Raises CapabilityError for a policy that remembers its episode.
    """

    def __init__(self, policy: Policy) -> None:
        if find_capability(policy, StatefulPolicy) is not None:
            raise CapabilityError(
                "a policy that remembers its episode has no action of an observation alone", "evaluate it as it is"
            )
        self.policy, self.noise = policy, FixedNoise()

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        return held_fixed(self.policy.act, obs, self.noise)

    def count_only(self, rows: Tensor | None) -> None:
        """As `Counting`, where the policy counts."""
        if isinstance(self.policy, Counting):
            self.policy.count_only(rows)


class NoisyPolicy:
    """A deterministic policy under tanh-Normal noise, so that it has a density: tanh(N(atanh(pi(s)), sigma^2)).

    It is another policy than the one without noise: the smaller ``sigma`` (before the tanh), the nearer the two, and
    the fewer episodes count.
    """

    def __init__(self, policy: Policy, sigma: float = 0.1) -> None:
        self.policy, self.sigma = policy, sigma

    def at(self, obs: Tensor) -> TanhNormal:
        """(B, O) -> the law of the action, batch shape (B,)."""
        loc = torch.atanh(self.policy.act(obs).clamp(-0.999, 0.999))
        return TanhNormal(loc, torch.full_like(loc, self.sigma).log())

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        return self.at(obs).sample()

    @torch.no_grad()
    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """Exact."""
        return self.at(obs).log_prob(action)
