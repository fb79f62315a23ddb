"""Fitting a behavior model alone: the experiment of `offline-vi fit-behavior`, and of every model that is fitted before
its algorithm trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from offline_vi import registry
from offline_vi.behavior.base import BehaviorModel
from offline_vi.behavior.pretrained import save_behavior
from offline_vi.data.samplers import Source
from offline_vi.data.transitions import Transitions
from offline_vi.renamed import as_before
from offline_vi.rl.algorithm import Algorithm
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.agents import AgentChoice, new_model, resolved
from offline_vi.study.data import DataOptions
from offline_vi.study.density import density_report, find_policy, support_report
from offline_vi.study.experiment import Experiment, conduct, options_record
from offline_vi.study.flags import parse
from offline_vi.study.names import run_name
from offline_vi.study.plots import learning_curve
from offline_vi.study.run import Record, RunOptions, data_record
from offline_vi.study.versions import versions
from offline_vi.study.weighing import WeightOptions, with_weights
from offline_vi.training.behavior import BehaviorFit
from offline_vi.types import Spec, from_json


@dataclass(frozen=True)
class FitOptions:
    """How long to fit a model, and how the fit is judged."""

    steps: int = 20_000
    """Gradient steps."""
    held_out: float = 0.1
    """Share of the episodes, taken from the end, that the model never sees and on which it is judged."""
    iwae_samples: int = 64
    """K of the importance-weighted bound."""
    max_rows: int = 10_000
    """Number of held-out rows in the report, evenly spread; 0: all of them."""
    policy_from: Annotated[str, tyro.conf.arg(metavar="FILE.hdf5")] = ""
    """File that holds the policy which made the data (`metadata/policy`), to judge the model's samples by the true
    density; default: the data set's own file, where it holds one."""


Report = Callable[[BehaviorModel], Record]
"""Judges a fitted model, for result.json and its card."""


class BehaviorFitting(Experiment):
    """One behavior model on a static data set."""

    verb = "fit-behavior"
    eval_every = None

    def __init__(
        self,
        variant: str,
        build: Callable[[], BehaviorModel],
        rows: Transitions,
        steps: int,
        *,
        seed: int,
        report: Report,
        weights: tuple[WeightOptions, RunOptions] | None = None,
        **about: Any,
    ) -> None:
        self.variant, self.build, self.rows, self.steps = variant, build, rows, steps
        self.weighted = rows
        self.seed, self.report, self.weights, self.about = seed, report, weights, about
        self.name = run_name(variant, rows.source.name, [seed])
        self.model: BehaviorModel

    def record(self) -> Record:
        return {"behavior": self.variant, "task": self.rows.task.to_json() if self.rows.task else None, **self.about}

    def agent(self) -> Algorithm:
        self.model = self.build()
        return BehaviorFit(self.model, self.steps)

    def prepare(self, run: RunDirectory, agent: Algorithm) -> None:
        """Weigh the rows."""
        if self.weights is not None:
            options, own = self.weights
            self.weighted = with_weights(self.rows, options, run, own)

    @contextmanager
    def batches(self, agent: Algorithm, device: torch.device) -> Iterator[Transitions | Source]:
        yield self.weighted

    def score(self, run: RunDirectory, step: int, agent: Algorithm) -> dict[str, float]:
        return {}

    def finish(self, run: RunDirectory, agent: Algorithm) -> Record:
        fit = {"steps": self.steps, "seed": self.seed, **self.about.get("fit", {})}
        about = {"data": self.about.get("data"), "fit": fit, "versions": versions()}
        save_behavior(self.model, run.inner("model"), name=self.variant, **about)  # whatever becomes of the report
        judged = self.report(deepcopy(self.model))  # a loss may change what a model remembers
        result = {"parameters": sum(p.numel() for p in self.model.parameters()), **judged}
        save_behavior(self.model, run.inner("model"), name=self.variant, **result, **about)
        return {"steps": self.steps, **result}

    def draw(self, run: RunDirectory, agent: Algorithm) -> None:
        learning_curve(run.path)


def fitting(variant: str, options: Any) -> BehaviorFitting:
    """The experiment that the flags of `offline-vi fit-behavior` describe."""
    data, chosen = options.data.load(), options.fit
    training, held_out = data.split_episodes(chosen.held_out)
    policy = find_policy(chosen.policy_from, options.data.dataset)
    choice = resolved(AgentChoice("", None, variant, options.behavior), data.spec)

    def report(model: BehaviorModel) -> Record:
        parts = {"held_out": held_out, "training": training}
        result: Record = {
            part: density_report(model, rows, chosen.iwae_samples, chosen.max_rows) for part, rows in parts.items()
        }
        if policy is not None:
            result["off_support"] = support_report(model, held_out, policy, chosen.max_rows)
        return result

    return BehaviorFitting(
        variant,
        lambda: new_model(choice, data.spec),
        training,
        chosen.steps,
        report=report,
        weights=(options.weights, options.run),
        seed=options.run.seed,
        data=data_record(data) | options.weights.recorded(),
        fit={"held_out": chosen.held_out},
        **options_record(data=options.data, weights=options.weights, fit=chosen, behavior=choice.behavior_config),
    )


def fit_ahead(
    model: BehaviorModel, data: Transitions, steps: int, path: Path, options: RunOptions, about: Record
) -> None:
    """Fit the model of an algorithm before it is frozen, in a run of its own that resumes like any other."""
    resumes = (path / "config.json").exists()
    own = replace(options, output=str(path), resume=resumes, overwrite=path.exists() and not resumes, log=("csv",))
    model.requires_grad_(True)
    experiment = BehaviorFitting(
        str(about["name"]), lambda: model, data, steps, report=lambda _: {}, seed=options.seed, data=about["data"]
    )
    conduct(experiment, own)
    model.eval().requires_grad_(False)


def parse_options(variant: str, saved: Record, arguments: Sequence[str]) -> Any:
    """Defaults < --config < flags; the model's hyper-parameters are flags too."""
    row = registry.behavior_model(variant)
    default = row.config(Spec((1,), 1))
    default = as_before(type(default)) if "agent" in saved else default
    parts = {
        "data": DataOptions.from_record(saved.get("data_options", {})),
        "weights": from_json(WeightOptions(), saved.get("weights_options", {})),
        "fit": from_json(FitOptions(), saved.get("fit_options", {})),
        "run": from_json(RunOptions(), saved.get("run_options", {})),
        "behavior": from_json(default, saved.get("behavior_options", {})),
    }
    return parse(parts, arguments, f"offline-vi fit-behavior {variant}", row.summary, prefixed=())
