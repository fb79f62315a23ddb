"""Values of the behavior along the data's own trajectories, each episode judged by networks that never saw it.

K value networks regress the lambda-returns of the rows. Network k is trained without the episodes of fold k, and the
advantage of a row is its own lambda-return minus the value that the network without its episode predicts:

    A_t = G_t - V_k(s_t),   both by the k whose fold holds the episode.

A network that has seen an episode knows how it went on, and calls every action of it average; one that has not cannot
(cross-fitting: Chernozhukov et al. 2018). The lambda-returns begin as the discounted returns of the data and are
computed anew from the networks every `refresh` steps; time limits are bootstrapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError, EmptyDatasetError
from offline_vi.nn.networks import EnsembleMLP
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, cosine_, gradient_step
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.returns import lambda_returns
from offline_vi.training.loop import LoopOptions, fit
from offline_vi.training.randomness import seeded
from offline_vi.types import Batch, Metrics

BLOCK = 8192  # rows of which the networks are asked at once


@dataclass(frozen=True)
class TrajectoryValuesConfig:
    """Hyper-parameters."""

    discount: float = 0.997  # gamma: at 0.99 a fall in 300 steps is nearly forgotten
    lam: float = 0.95  # lambda: 1 trusts the returns alone, 0 the networks alone
    folds: int = 3  # K: networks, and parts of the episodes
    steps: int = 4_000  # gradient steps, along which the learning rate falls to 0 as half a cosine
    refresh: int = 800  # steps between two computations of the lambda-returns
    hidden: tuple[int, ...] = (256, 256)  # units per layer
    lr: float = 1e-3  # Adam
    batch_size: int = 256  # transitions per step


class TrajectoryValues(Algorithm):
    """Cross-fitted values of the rows of one data set; its batches are drawn from that very data set.

    Raises ConfigError for a discount outside [0, 1) or a lambda outside [0, 1], and what `folds_of` raises.
    """

    targets: Tensor  # (K, R) lambda-returns in units of `scale`
    fold: Tensor  # (R,) which network has not seen the row's episode

    def __init__(self, data: Transitions, config: TrajectoryValuesConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TrajectoryValuesConfig()
        self.batch_size, self.data = config.batch_size, data
        if not 0.0 <= config.discount < 1.0:
            raise ConfigError(f"a discount of {config.discount}", "at least 0 and below 1")
        if not 0.0 <= config.lam <= 1.0:
            raise ConfigError(f"a lambda of {config.lam}", "from 0 (the networks alone) to 1 (the returns alone)")
        self.scale = (
            max((1.0 - config.discount) / float(np.abs(data.reward).mean()), 1e-12) if data.reward.any() else 1.0
        )
        self.inputs = Normalizer(data.spec).fit(data.obs)
        self.value = EnsembleMLP([data.spec.obs_dim, *config.hidden, 1], config.folds, layer_norm=True)
        self.value_opt = adam(self.value.parameters(), lr=config.lr)
        self.register_buffer("fold", folds_of(data, config.folds))
        self.register_buffer("targets", self.returns(np.zeros((1, len(data)))).expand(config.folds, -1).clone())

    def update(self, batch: Batch) -> Metrics:
        if self.trained_steps and self.trained_steps % self.config.refresh == 0:
            self.targets.copy_(self.returns(self.values(self.data.next_obs)))
        cosine_(self.value_opt, self.config.lr, self.config.steps)
        loss, metrics = self.value_loss(batch)
        gradient_step(self.value_opt, loss)
        return metrics

    def value_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_k mean_B 1[row not in fold k] (V_k(s) - G_k)^2."""
        value = self.value(self.inputs(batch.obs)).squeeze(-1)  # (K, B)
        seen = self.fold[batch.index] != torch.arange(len(value), device=value.device).unsqueeze(-1)
        error = (value - self.targets[:, batch.index]).square()
        loss = (error * seen).mean(-1).sum(0)
        return loss, {"value/loss": loss.detach(), "value/v": value.detach().mean() / self.scale}

    def returns(self, next_value: NDArray[np.float64]) -> Tensor:
        """lambda-returns (K, R) of the values (K, R) of the next observations; both in units of `scale`."""
        data, lam = self.data, self.config.lam if self.trained_steps else 1.0
        reward = self.scale * data.reward.astype(np.float64)
        found = lambda_returns(reward, next_value, data.terminated, data.episode_end, self.config.discount, lam)
        return torch.from_numpy(found.astype(np.float32))

    @without_gradient
    def values(self, obs: NDArray[np.float32]) -> NDArray[np.float64]:
        """V_k(s) of observations (R, O) -> (K, R), in units of `scale`."""
        blocks = [torch.from_numpy(obs[at : at + BLOCK]) for at in range(0, len(obs), BLOCK)]
        found = [self.value(self.inputs(block.to(self.inputs.mean.device))).squeeze(-1) for block in blocks]
        return np.asarray(torch.cat(found, -1).double().cpu().numpy())

    def advantages(self) -> NDArray[np.float64]:
        """(R,) A_t in the units of the rewards."""
        returns = self.returns(self.values(self.data.next_obs)).double().numpy()
        return self.unseen(returns - self.values(self.data.obs))

    def trajectory_returns(self) -> NDArray[np.float64]:
        """(R,) G_t in the units of the rewards."""
        return self.unseen(self.returns(self.values(self.data.next_obs)).double().numpy())

    def unseen(self, every: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, R) in units of `scale` -> (R,) in those of the rewards, by the network that never saw the row."""
        return np.asarray(every[self.fold.cpu().numpy(), np.arange(len(self.data))] / self.scale)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The middle of the box: values alone are no policy."""
        return obs.new_zeros(*obs.shape[:-1], self.data.spec.action_dim)


def folds_of(data: Transitions, folds: int) -> Tensor:
    """(R,) a fold from 0 to ``folds`` - 1 for each row, the same for the rows of an episode, drawn at random. Where
    there are fewer episodes than folds, a fold is a part of the rows, in their order.

    Raises ConfigError for fewer than two folds, EmptyDatasetError where there are fewer rows than folds.
    """
    if folds < 2:
        raise ConfigError(f"{folds} folds", "at least 2: a network judges episodes that it has not seen")
    if len(data) < folds:
        raise EmptyDatasetError(f"{data.source.name}: {len(data)} rows for {folds} folds", "fewer folds")
    episodes = data.episode_slices()
    if len(episodes) < folds:
        return torch.arange(len(data)) * folds // len(data)
    lengths = torch.tensor([rows.stop - rows.start for rows in episodes])
    return (torch.randperm(len(episodes)) % folds).repeat_interleave(lengths)


def fit_advantages(
    data: Transitions, config: TrajectoryValuesConfig | None = None, **options: Unpack[LoopOptions]
) -> NDArray[np.float64]:
    """(R,) advantages of the rows, by `TrajectoryValues` fitted to them; options are those of `fit`.

    Raises what `TrajectoryValues` and `fit` raise.
    """
    return fit_values(data, config, **options).advantages()


def fit_returns(
    data: Transitions, config: TrajectoryValuesConfig | None = None, **options: Unpack[LoopOptions]
) -> NDArray[np.float64]:
    """(R,) lambda-returns of the rows in the units of the rewards, by `TrajectoryValues` fitted to them: the targets of
    critics that do not bootstrap, ``data.with_returns(fit_returns(data, config))``. The discount is to be that of the
    algorithm. Options are those of `fit`.

    Raises what `TrajectoryValues` and `fit` raise.
    """
    return fit_values(data, config, **options).trajectory_returns()


def fit_values(
    data: Transitions, config: TrajectoryValuesConfig | None = None, **options: Unpack[LoopOptions]
) -> TrajectoryValues:
    """`TrajectoryValues` of the rows, fitted to them; options are those of `fit`.

    Raises what `TrajectoryValues` and `fit` raise.
    """
    config = config or TrajectoryValuesConfig()
    with seeded(options.get("seed", 0)):
        values = TrajectoryValues(data, config)
    fit(values, data, config.steps, **options)
    return values
