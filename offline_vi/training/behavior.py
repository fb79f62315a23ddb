"""Fitting a behavior model: maximum likelihood of the data's actions."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from offline_vi.behavior.base import BehaviorModel, fit_settings, training_loss
from offline_vi.data.samplers import Source
from offline_vi.data.transitions import Transitions
from offline_vi.nn.optim import adam, follow_, gradient_step
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.policies import BehaviorPolicy
from offline_vi.training.loop import LoopOptions, fit
from offline_vi.training.metrics import History
from offline_vi.types import Batch, Metrics


class BehaviorFit(Algorithm):
    """The fit of a behavior model as an algorithm, whose policy samples the model.

    The learning rate follows the ``schedule`` of the model's configuration. A cosine, which falls to 0 over ``steps``,
    keeps the density of unseen episodes improving to the end, where a constant rate over-fits; the papers that fit a
    CVAE first keep theirs constant.
    """

    def __init__(self, model: BehaviorModel, steps: int, *, lr: float | None = None, eps: float | None = None) -> None:
        super().__init__()
        own = fit_settings(model)
        self.model, self.steps = model, steps
        self.batch_size, self.schedule = own.batch_size, own.schedule
        self.lr = own.lr if lr is None else lr
        self.model_opt: torch.optim.Optimizer = adam(model.parameters(), self.lr, eps=own.eps if eps is None else eps)
        self.trained_steps = model.trained_steps

    def update(self, batch: Batch) -> Metrics:
        follow_(self.schedule, self.model_opt, self.lr, self.steps)
        loss, metrics = training_loss(self.model, batch.obs, batch.action)
        gradient_step(self.model_opt, loss)
        self.model.trained_steps += 1
        return metrics

    def act(self, obs: Tensor) -> Tensor:
        return BehaviorPolicy(self.model).act(obs)


def fit_behavior(
    model: BehaviorModel,
    data: Transitions | Source,
    steps: int,
    *,
    lr: float | None = None,
    eps: float | None = None,
    **options: Unpack[LoopOptions],
) -> History:
    """Fit a behavior model to (s, a) for ``steps`` gradient steps with Adam.

    Batch size, learning rate, its schedule and eps are those of the model's own configuration where they are not given;
    see `BehaviorFit`. The other options are those of `fit`, and so are the errors.
    """
    return fit(BehaviorFit(model, steps, lr=lr, eps=eps), data, steps, **options)
