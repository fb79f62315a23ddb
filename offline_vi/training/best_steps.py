"""The best steps of each state, by the part of their advantages that their actions explain.

Most of an advantage is luck in the steps that follow. Two networks for each of K folds of the episodes find the rest:

    D_k(s, a) ~ E[A | s, a],   W_k(s) ~ the (1 - kept)-quantile of D_k(s, a) over the data's actions a in s.

D_k is trained without the episodes of fold k, and a row of that fold is among the best steps of its state where
D_k(s, a) > W_k(s). As many are kept in every state: a threshold that is the same everywhere, or weights that grow with
the advantage, leave states out in which every action is worth about the same, and a clone has nothing to imitate there.
For the same reason the other steps of the same episodes keep a small weight (`improving_rows`).

Advantages are those of `TrajectoryValues`. Cloning what exceeds a baseline is the "binary" rule of Wang et al. 2020,
Critic Regularized Regression (eq. 4), whose baseline is the mean and whose critic has seen the row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.data.transitions import Transitions
from offline_vi.data.weights import Best, agreeing_share
from offline_vi.errors import ConfigError
from offline_vi.nn.networks import EnsembleMLP, join
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, cosine_, gradient_step
from offline_vi.nn.precision import without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.training.loop import LoopOptions, fit
from offline_vi.training.randomness import seeded
from offline_vi.training.trajectory_values import TrajectoryValuesConfig, fit_advantages, folds_of
from offline_vi.types import Batch, Metrics

BLOCK = 8192  # rows of which the networks are asked at once


@dataclass(frozen=True)
class BestStepsConfig:
    """Hyper-parameters."""

    kept: float = 0.3  # share of the steps of each state
    folds: int = 3  # K: pairs of networks, and parts of the episodes
    steps: int = 4_000  # gradient steps, along which the learning rate falls to 0 as half a cosine
    hidden: tuple[int, ...] = (256, 256)  # units per layer
    lr: float = 1e-3  # Adam
    batch_size: int = 256  # transitions per step


class BestSteps(Algorithm):
    """Which rows of one data set are among the best of their state, given the advantages (R,) of all; its batches are
    drawn from that very data set.

    Raises ConfigError for a share outside (0, 1), and what `folds_of` raises.
    """

    fold: Tensor  # (R,) which networks have not seen the row's episode
    advantages: Tensor  # (R,) in units of their standard deviation

    def __init__(
        self, data: Transitions, advantages: NDArray[np.float64], config: BestStepsConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or BestStepsConfig()
        self.batch_size, self.data = config.batch_size, data
        if not 0.0 < config.kept < 1.0:
            raise ConfigError(f"{config.kept} of the steps kept", "a share above 0 and below 1")
        self.scale = float(advantages.std()) or 1.0
        self.inputs = Normalizer(data.spec).fit(data.obs)
        sizes = [*config.hidden, 1]
        both = data.spec.obs_dim + data.spec.action_dim
        self.explained = EnsembleMLP([both, *sizes], config.folds, layer_norm=True)
        self.quantile = EnsembleMLP([data.spec.obs_dim, *sizes], config.folds, layer_norm=True)
        self.opt = adam([*self.explained.parameters(), *self.quantile.parameters()], lr=config.lr)
        self.register_buffer("fold", folds_of(data, config.folds))
        self.register_buffer("advantages", torch.from_numpy((advantages / self.scale).astype(np.float32)))

    def update(self, batch: Batch) -> Metrics:
        cosine_(self.opt, self.config.lr, self.config.steps)
        loss, metrics = self.loss(batch)
        gradient_step(self.opt, loss)
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """sum_k mean_B (1[row not in fold k] (D_k(s, a) - A)^2 + rho(D_k(s, a) - W_k(s))), in whose second term D_k is
        a constant and rho(u) = max((1 - kept) u, -kept u)."""
        explained, quantile = self.both(batch.obs, batch.action)  # (K, B)
        seen = self.fold[batch.index] != torch.arange(len(explained), device=explained.device).unsqueeze(-1)
        error = (explained - self.advantages[batch.index]).square() * seen
        above, kept = explained.detach() - quantile, self.config.kept
        check = torch.maximum((1.0 - kept) * above, -kept * above)
        loss = (error + check).mean(-1).sum(0)
        return loss, {
            "steps/unexplained": error.detach().sum() / seen.sum(),
            "steps/kept": (above.detach() > 0.0).float().mean(),
        }

    def both(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """D_k(s, a) and W_k(s), in units of the advantages' standard deviation: (B, O), (B, A) -> (K, B) twice."""
        seen = self.inputs(obs)
        return self.explained(join(seen, action)).squeeze(-1), self.quantile(seen).squeeze(-1)

    @without_gradient
    def gains(self) -> NDArray[np.float64]:
        """(R,) D_k(s, a) - W_k(s) in the units of the rewards, by the networks that never saw the row: positive for the
        best steps of each state."""
        device, found = self.inputs.mean.device, []
        for at in range(0, len(self.data), BLOCK):
            columns = (self.data.obs[at : at + BLOCK], self.data.action[at : at + BLOCK])
            explained, quantile = self.both(*(torch.from_numpy(column).to(device) for column in columns))
            fold = self.fold[at : at + BLOCK].unsqueeze(0)
            found.append((explained - quantile).gather(0, fold).squeeze(0))
        return np.asarray(torch.cat(found).double().cpu().numpy() * self.scale)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """The middle of the box: gains alone are no policy."""
        return obs.new_zeros(*obs.shape[:-1], self.data.spec.action_dim)


def fit_gains(
    data: Transitions,
    advantages: NDArray[np.float64],
    config: BestStepsConfig | None = None,
    **options: Unpack[LoopOptions],
) -> NDArray[np.float64]:
    """(R,) `BestSteps.gains` of the rows, fitted to their advantages; options are those of `fit`.

    Raises what `BestSteps` and `fit` raise.
    """
    config = config or BestStepsConfig()
    with seeded(options.get("seed", 0)):
        steps = BestSteps(data, advantages, config)
    fit(steps, data, config.steps, **options)
    return steps.gains()


def improving_rows(
    data: Transitions, gains: NDArray[np.float64], share: float = 0.25, others: float = 0.1
) -> NDArray[np.float64]:
    """(R,) 1 for the best steps of each state in the best episodes, by return, ``others`` for the other steps of these
    episodes, 0 for the rest.

    ``share`` of the rows lie in the best episodes. Where no gain is positive there, their steps count alike.
    """
    best = Best(share)(data) > 0.0
    return np.asarray(np.where(gains > 0.0, 1.0, others) * best)


def worthwhile_rows(
    data: Transitions, gains: Callable[[], NDArray[np.float64]], share: float = 0.25
) -> NDArray[np.float64]:
    """(R,) weights of what is worth imitating, chosen from the data alone. Where the best episodes agree
    (`agreeing_share`), all of theirs, and all of the best ``share`` of the rows at least; elsewhere `improving_rows`,
    and only then are the gains computed.

    An expert that falls in some of its episodes may agree in less than ``share`` of the rows. Its steps are not to be
    chosen among either: a part of them makes a worse clone than all.
    """
    agreeing = agreeing_share(data)
    return Best(max(agreeing, share))(data) if agreeing else improving_rows(data, gains(), share)


@dataclass(frozen=True)
class Worthwhile:
    """The rule of `worthwhile_rows` for `weighted`. Values and gains, where needed, take two minutes on a core."""

    share: float = 0.25  # of the rows: the best episodes hold at least so many
    values: TrajectoryValuesConfig = field(default_factory=TrajectoryValuesConfig)  # of the value networks
    steps: BestStepsConfig = field(default_factory=BestStepsConfig)  # of the networks that predict gains
    seed: int = 0  # of their initialization, batches and shares of the episodes

    def __call__(self, data: Transitions) -> NDArray[np.float64]:
        """(R,) weights of the rows."""
        return worthwhile_rows(data, lambda: self.gains(data), self.share)

    def gains(self, data: Transitions) -> NDArray[np.float64]:
        """(R,) gains of the rows."""
        return fit_gains(data, fit_advantages(data, self.values, seed=self.seed), self.steps, seed=self.seed)
