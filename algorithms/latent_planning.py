"""Offline planning from pixels: a latent dynamics model, a behavior model of actions given its states, and at every
step the plan of the highest imagined return among those that the behavior model proposes.

The model is a chain of conditional VAE steps (`sequence`), fitted by the library's one bound; planning is its reduction
over imagined returns (`planning`). D. Hafner et al.: Learning Latent Dynamics for Planning from Pixels, ICML 2019
(PlaNet); A. Argenson, G. Dulac-Arnold: Model-Based Offline Planning, ICLR 2021 (MBOP: proposals of a behavior model,
an ensemble, a value at the horizon); W. Zhou, S. Bajracharya, D. Held: PLAS, CoRL 2020 (noise of the behavior's
decoder within a box); R. Rafailov et al.: Offline RL from Images with Latent Space Models, L4DC 2021 (LOMPO: a price on
the ensemble's disagreement).

Differences from the papers
---------------------------
- PlaNet plans Gaussian actions, online; here a plan is noise that a CVAE on latents decodes (``proposal``).
- MBOP works on states, samples its behavior model forward and reweighs; here CEM or MPPI search its noise.
- The disagreement's price is in nats of what an observation would tell about the members, in units of their own noise;
  LOMPO takes the spread of the members' log-likelihoods.
- The value at the horizon is an expectile of one-step targets of the data's states (Kostrikov et al. 2022, IQL, without
  its Q); MBOP regresses truncated returns.
- Batches are sequences (L, B, ...) of a `SequenceSampler`, frames uint8 until the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from offline_vi.behavior import CVAE, CVAEConfig
from offline_vi.data.frames import Frames, SequenceSampler
from offline_vi.inference.bounds import Bound, bound_metrics
from offline_vi.nn.networks import EnsembleMLP, target_of
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step, polyak_
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.equations import bellman_target, expectile_loss
from offline_vi.types import Batch, Metrics, Spec
from offline_vi.world_model.dynamics import DynamicsConfig, latent_dynamics, sequence_elbo
from offline_vi.world_model.planning import BehaviorProposal, GaussianProposal, PlanConfig, Proposal, plan


@dataclass(frozen=True)
class LatentPlanningConfig(DynamicsConfig, PlanConfig):
    """Hyper-parameters, in addition to those of the networks and of the search."""

    stack: int = 1  # K, frames that make an observation; velocities need two where the posterior sees frames only
    length: int = 8  # L, steps of a training sequence
    batch_size: int = 32  # sequences per step
    lr: float = 1e-3  # Adam
    beta: float = 1.0  # weight of the KL divergence in the objective: more makes latents that are easier to predict
    free_bits: float = 0.0  # nats for every latent and step below which the KL divergence is free, on the objective
    kl_balance: float = 0.8  # share of the KL divergence's gradient that trains the prior
    proposal: str = "behavior"  # what makes actions of a plan's noise: behavior | gaussian
    box: float = 2.0  # largest noise that the behavior model decodes, standard deviations
    penalty: float = 0.0  # lambda: reward per nat of the ensemble's disagreement
    discount: float = 0.99  # gamma
    expectile: float = 0.7  # tau of the value at the horizon; 1/2: the behavior's own
    tau: float = 0.01  # rate of the target value


class Memory(NamedTuple):
    """What the policy knows of the running episodes."""

    frames: Tensor  # (B, K C, H, W), the newest last
    state: Tensor  # (B, S)
    action: Tensor  # (B, A), the last one
    plan: Tensor  # (H, B, D), the rest of the last plan's noise


class LatentPlanning(Algorithm):
    """A planner in latent space. ``spec`` is that of single frames; a `StatefulPolicy`."""

    transient = frozenset({"memory", "first"})  # of running episodes
    bounds: Tensor  # (2,), of values, from the data's rewards

    def __init__(self, spec: Spec, config: LatentPlanningConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LatentPlanningConfig()
        self.batch_size = config.batch_size
        self.frame_shape = spec.obs_shape  # (C, H, W)
        channels, *sides = spec.obs_shape
        self.model = latent_dynamics(replace(spec, obs_shape=(config.stack * channels, *sides)), config)
        state_dim = self.model.dynamics.state_dim
        self.behavior = CVAE(Spec((state_dim,), spec.action_dim), CVAEConfig(config.hidden, likelihood="gaussian"))
        self.value = EnsembleMLP([state_dim, *config.hidden, 1], 2)
        self.value_target = target_of(self.value)
        self.register_buffer("bounds", torch.tensor([-torch.inf, torch.inf]))
        self.proposal = self.proposals()[config.proposal]
        self.model_opt = adam(self.model.parameters(), lr=config.lr)
        self.behavior_opt = adam(self.behavior.parameters(), lr=config.lr)
        self.value_opt = adam(self.value.parameters(), lr=config.lr)
        self.memory: Memory | None = None
        self.first = torch.ones(0, dtype=torch.bool)

    def proposals(self) -> dict[str, Proposal]:
        """The proposals, by their names in the configuration."""
        behavior = BehaviorProposal(self.behavior, self.config.box)
        return {"behavior": behavior, "gaussian": GaussianProposal(self.behavior.spec.action_dim)}

    def source(self, data: Frames, seed: int | np.random.SeedSequence, device: str | torch.device) -> SequenceSampler:
        """The batches that ``update`` wants; takes the units and bounds of the reward from the data."""
        self.units.fit(data.reward[:, None])
        for bound, reward in zip(self.bounds, (data.reward.min(), data.reward.max()), strict=True):
            bound.fill_(float(reward) / (1.0 - self.config.discount))
        self.bounds[0].clamp_(max=0.0)
        self.bounds[1].clamp_(min=0.0)
        return SequenceSampler(data, self.batch_size, self.config.length, seed, device, self.config.stack)

    @property
    def units(self) -> Normalizer:
        """Mean and standard deviation of the data's rewards."""
        units: Any = self.model.outcome.reward_units
        assert isinstance(units, Normalizer)
        return units

    # ------------------------------------------------------------------ training

    def update(self, batch: Batch) -> Metrics:
        config = self.config
        bound, inferred = sequence_elbo(
            self.model, batch, beta=config.beta, free_bits=config.free_bits, kl_balance=config.kl_balance
        )
        model_loss, model_metrics = self.model_loss(bound)
        gradient_step(self.model_opt, model_loss)

        steps = self.steps(inferred.state.detach(), batch)
        behavior_loss, behavior_metrics = self.behavior.loss(steps.obs, steps.action)
        gradient_step(self.behavior_opt, behavior_loss)

        value_loss, value_metrics = self.value_loss(steps)
        gradient_step(self.value_opt, value_loss)
        polyak_(self.value_target, self.value, config.tau)
        return model_metrics | behavior_metrics | value_metrics

    def model_loss(self, bound: Bound) -> tuple[Tensor, Metrics]:
        """-ELBO of a sequence in nats, mean over the batch."""
        return -bound.objective.mean(), bound_metrics(bound, "model")

    @staticmethod
    def steps(state: Tensor, batch: Batch) -> Batch:
        """States (L + 1, B, S) and a batch of sequences -> its steps as transitions of states."""
        known = batch.index >= 0
        columns = (state[:-1], batch.action, batch.reward, state[1:], batch.terminated, batch.index)
        return Batch(*(column[known] for column in columns))

    def values(self, net: EnsembleMLP, state: Tensor) -> Tensor:
        """V_e(z), (..., S) -> (E, ...), in units of reward: the network says how far it is from earning the data's mean
        for ever, in standard deviations."""
        normalized: Tensor = net(state).squeeze(-1)
        return self.units.mean / (1.0 - self.config.discount) + self.units.std * normalized

    def least_value(self, net: EnsembleMLP, state: Tensor) -> Tensor:
        """min_e V_e(z), (..., S) -> (...), kept between what the data's smallest and largest reward, or 0, earn for
        ever: a planner looks for the states at which a network says more."""
        low, high = self.bounds
        return self.values(net, state).amin(0).clamp(low, high)

    @without_gradient
    def target(self, batch: Batch) -> Tensor:
        """r + gamma (1 - terminated) min_e V'_e(z'), (B,), within the bounds."""
        return bellman_target(batch, self.least_value(self.value_target, batch.next_obs), self.config.discount)

    def value_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_e mean_B L_tau(y - V_e(z)) in squared standard deviations of the reward."""
        value = self.values(self.value, batch.obs)
        error = (self.target(batch) - value) / self.units.std
        loss = expectile_loss(error, self.config.expectile).mean(-1).sum(0)
        return loss, {"value/loss": loss.detach(), "value/mean": value.detach().mean()}

    # ------------------------------------------------------------------ acting

    def reset(self, first: Tensor) -> None:
        """Forget the rows where ``first`` (B,) is True."""
        self.first = first.clone()
        if self.memory is not None and len(self.memory.action) != len(first):
            self.memory = None

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, A): the first action of the best plan from what was seen of each episode."""
        frames, state, start = self._seen(obs)
        action, found = plan(
            self.model,
            state,
            self.proposal,
            self.config,
            start=start,
            discount=self.config.discount,
            penalty=self.config.penalty,
            value=lambda state: self.least_value(self.value, state).unsqueeze(0),
        )
        self.memory = Memory(frames, state, action, found.shifted())
        self.first = torch.zeros_like(self.first)
        return action

    def _seen(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames (B, K C, H, W), state (B, S) and where to begin the search (H, B, D), now that ``obs`` was seen."""
        frames = obs.repeat(1, self.config.stack, 1, 1)
        state = self.model.observe_first(frames)
        start = state.new_zeros(self.config.horizon, len(obs), self.proposal.noise_dim)
        if self.memory is None or len(self.memory.action) != len(obs):
            return frames, state, start
        first, before = self.first, self.memory
        later = torch.cat([before.frames[:, obs.shape[1] :], obs], 1)
        frames = torch.where(first[:, None, None, None], frames, later)
        state = torch.where(first[:, None], state, self.model.observe(before.state, before.action, frames))
        return frames, state, torch.where(first[:, None], start, before.plan)
