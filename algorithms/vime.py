"""VIME: any online algorithm, paid for what its observations teach. The weights of a network that predicts the next
observation are a latent variable; the bonus is the information that a transition brings about them, in nats.

R. Houthooft, X. Chen, Y. Duan, J. Schulman, F. De Turck, P. Abbeel: VIME, NeurIPS 2016; code: openai/vime.

Differences from the reference code
-----------------------------------
- The bonus is computed anew for every batch, by the posterior as it is now; the code stores the one of the time of
  collection, and copies the last one of a path from the step before.
- Two beliefs: "conjugate", Bayesian regression on random Fourier features, whose posterior and whose expected gain
  I(w; s'|s, a) are exact; "mean-field", the paper's network, trained by the library's ELBO with the weight N / B (the
  code divides the KL divergence by a constant 5). Its gain is that of a Normal with its moments; the code takes one
  Newton step on each transition and drops a factor 1/2.
- Targets are standardized, in fitting and in the bonus, as in the code; s_y^2 is 0.05 of their variance, there s_y is
  5.0.
- Gains are divided by a running median over batches; the code takes the median over each iteration's paths and averages
  it over the last ten iterations.
- A transition is (s, a, s') as it happened; the code pairs rows across the ends of episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from offline_vi.inference.bayesian import BayesianLinear, BayesianMLP, RandomFourierFeatures, information_gain
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step
from offline_vi.rl.algorithm import Algorithm, Wrapper
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class VIMEConfig:
    """Hyper-parameters."""

    eta: float = 1.0  # eta: the bonus of a transition of median gain, in units of reward
    belief: str = "conjugate"  # conjugate | mean-field
    noise: float = 0.05  # s_y^2, of standardized next observations
    features: int = 100  # of the conjugate belief
    frequency: float = 1.5  # their standard deviation: 1 / width of the kernel, in standard deviations of (s, a)
    belief_hidden: tuple[int, ...] = (32, 32)  # units per layer of the mean-field network
    belief_lr: float = 3e-3  # Adam, of the mean-field network
    median_rate: float = 0.01  # of the running median of gains
    capacity: int = 1_000_000  # rows that can be told apart: at least as many as the replay buffer keeps


class Belief(Protocol):
    """What is known about the dynamics."""

    def learn(self, x: Tensor, y: Tensor, fresh: Tensor, total: Tensor) -> Metrics:
        """(B, X), (B, Y); ``fresh`` are the places of rows that were never learned from, ``total`` counts all rows."""

    def gain(self, x: Tensor) -> Tensor:
        """(B, X) -> (B,) nats."""


class ConjugateBelief(nn.Module):
    """Exact: every row is learned from once."""

    def __init__(self, inputs: int, outputs: int, config: VIMEConfig) -> None:
        super().__init__()
        features = RandomFourierFeatures(inputs, config.features, config.frequency)
        self.model = BayesianLinear(features, config.features, outputs, config.noise)

    def learn(self, x: Tensor, y: Tensor, fresh: Tensor, total: Tensor) -> Metrics:
        self.model.observe(x[fresh], y[fresh])
        return {}

    def gain(self, x: Tensor) -> Tensor:
        return information_gain(self.model, x).to(x.dtype)


class MeanFieldBelief(nn.Module):
    """The paper's network: a gradient step for every batch."""

    def __init__(self, inputs: int, outputs: int, config: VIMEConfig) -> None:
        super().__init__()
        self.model = BayesianMLP.of_sizes((inputs, *config.belief_hidden, outputs), config.noise)
        self.model_opt = adam(self.model.parameters(), lr=config.belief_lr)

    def learn(self, x: Tensor, y: Tensor, fresh: Tensor, total: Tensor) -> Metrics:
        loss, metrics = self.model.loss(x, y, float(total))
        gradient_step(self.model_opt, loss)
        return metrics

    def gain(self, x: Tensor) -> Tensor:
        return information_gain(self.model, x)


BELIEFS: dict[str, Any] = {"conjugate": ConjugateBelief, "mean-field": MeanFieldBelief}


class VIME(Wrapper):
    """``algorithm`` on rewards r + eta gain / median. ``standardizer`` is the normalizer of (s, a), the identity where
    none is given: `normalizer_of_pairs`."""

    seen: Tensor  # (capacity,), rows that were learned from
    median: Tensor  # 0-d, running median of gains, nats

    def __init__(
        self,
        algorithm: Algorithm,
        spec: Spec,
        config: VIMEConfig | None = None,
        standardizer: Normalizer | None = None,
    ) -> None:
        super().__init__(algorithm)
        self.config, self.obs_dim = config or VIMEConfig(), spec.obs_dim
        self.standardizer = standardizer or normalizer_of_pairs(spec)
        self.belief: Belief = BELIEFS[self.config.belief](spec.obs_dim + spec.action_dim, spec.obs_dim, self.config)
        self.register_buffer("seen", torch.zeros(self.config.capacity, dtype=torch.bool))
        self.register_buffer("median", torch.zeros(()))

    def update(self, batch: Batch) -> Metrics:
        belief_metrics = self.learn(batch)
        bonus, bonus_metrics = self.bonus(batch)
        return belief_metrics | bonus_metrics | self.algorithm.update(batch._replace(reward=batch.reward + bonus))

    def standardized(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """x = (s, a) (B, X) and y = s' (B, Y)."""
        x = self.standardizer(torch.cat([batch.obs, batch.action], -1))
        mean, std = self.standardizer.mean[: self.obs_dim], self.standardizer.std[: self.obs_dim]
        return x, (batch.next_obs - mean) / std

    def learn(self, batch: Batch) -> Metrics:
        """Take in the rows that are new."""
        x, y = self.standardized(batch)
        places = torch.arange(len(x), device=x.device)
        last = torch.full_like(self.seen, -1, dtype=torch.long).scatter_(0, batch.index, places)  # of equal rows one
        fresh = places[(last[batch.index] == places) & ~self.seen[batch.index]]
        self.seen[batch.index] = True
        return self.belief.learn(x, y, fresh, batch.index.amax() + 1)

    @torch.no_grad()
    def bonus(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """eta I(w; s'|s, a) / running median, (B,)."""
        gain = self.belief.gain(self.standardized(batch)[0])
        middle = gain.median()
        self.median.copy_(torch.where(self.median == 0.0, middle, self.median.lerp(middle, self.config.median_rate)))
        bonus = self.config.eta * gain / self.median.clamp(min=1e-12)
        return bonus, {"vime/gain": gain.mean(), "vime/median": self.median.clone(), "vime/bonus": bonus.mean()}


def normalizer_of_pairs(spec: Spec) -> Normalizer:
    """A normalizer of (s, a), (B, O + A), with an entry for each dimension of both."""
    return Normalizer(replace(spec, obs_shape=(spec.obs_dim + spec.action_dim,)))
