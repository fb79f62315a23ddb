"""How a policy that learns from data is judged: its returns, its Q next to them, and how far it leaves the data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from offline_vi.behavior.base import DensityModel
from offline_vi.data.transitions import Transitions
from offline_vi.errors import EvaluationWarning
from offline_vi.evaluation.support import measure_support, overestimation_report, some_rows, support_report
from offline_vi.rl.policies import Policy
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.evaluations import EvalOptions, evaluate_into, summary
from offline_vi.study.run import Record
from offline_vi.study.scores import RETURN, SCORE
from offline_vi.types import RewardMap


def data_score(data: Transitions) -> Record:
    """What the policies that made the data earned: the mean over their episodes, undiscounted; the normalized score
    where the task has reference scores."""
    mean, episodes = data.mean_return(), len(data.episode_slices()) - data.source.parts
    scored = data.task is not None and data.task.has_references
    score = {SCORE: float(data.task.normalized(np.array(mean)))} if scored and data.task is not None else {}
    return {**score, RETURN: mean, "episodes": episodes}


def discount_of(settings: object) -> float:
    """The gamma of an algorithm's hyper-parameters, 0.99 where they have none, as those of cloning."""
    return float(getattr(settings, "discount", 0.99))


@dataclass
class Diagnosis:
    """What is known of the data that a policy learned from."""

    data: Transitions
    options: EvalOptions
    device: torch.device
    rewards: RewardMap = field(default_factory=RewardMap)  # that it is trained on, of the environment's
    discount: float = 0.99  # gamma
    density: DensityModel | None = None  # of the data's actions

    def __post_init__(self) -> None:
        self.rows: tuple[Tensor, ...] = tuple(rows.to(self.device) for rows in some_rows(self.data))

    def score(self, run: RunDirectory, step: int, policy: Policy, **whose: int) -> dict[str, float]:
        """Evaluate the policy where an environment is known, and measure its support where a density is; log both in
        the run. Returns numbers to show; ``whose`` are further columns, e.g. the seed of several."""
        task, numbers = self.data.task, dict[str, float]()
        row: dict[str, float] = {"step": step, **whose}
        if task is not None and task.env_id:
            evaluation = evaluate_into(
                run, step, policy, task, self.options, discount=self.discount, device=self.device, **whose
            )
            numbers = evaluation.shown()
            row |= overestimation_report(policy, evaluation, self.device, rewards=self.rewards)
        if self.density is not None:
            obs, action = self.rows
            measured = support_report(policy, self.density.to(self.device), obs, action)
            numbers |= {"% of actions outside the data at its states (usual: 1)": 100.0 * measured["support/outside"]}
            row |= measured
        run.log_support(row)
        return numbers

    def summary(self, run: RunDirectory, steps: int, seeds: Sequence[int] = ()) -> Record:
        """The record of result.json; ``seeds`` of several in parallel."""
        result = summary(run, steps, seeds)
        result["data"] = data_score(self.data)
        if self.density is not None:
            obs, action = self.rows
            support = measure_support(self.density, obs, action)
            result["support"] = support.to_json()
            if support.threshold(0.5) < -action.shape[-1] * math.log(2.0):  # the density of a uniform draw
                warnings.warn(
                    "the behavior model finds most of the data's own actions less likely than a uniform one would, so "
                    "it does not know which actions are outside the data: fit it longer, or to normalized observations",
                    EvaluationWarning,
                    stacklevel=2,
                )
        if diagnostics := run.read_support():
            result["diagnostics"] = diagnostics[-1]
        return result
