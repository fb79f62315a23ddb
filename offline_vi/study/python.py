"""`fit` and its kin as Python users call them: with a path for ``run`` they write what the command writes."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

import torch

from offline_vi.behavior.base import BehaviorModel, DensityModel
from offline_vi.behavior.pretrained import save_behavior
from offline_vi.data.samplers import Source
from offline_vi.data.transitions import Transitions
from offline_vi.environments import check_limit
from offline_vi.errors import Interrupted, InterruptedWarning
from offline_vi.nn.description import describe, spec_of
from offline_vi.rl.algorithm import Algorithm, Wrapper
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.data import DataOptions, check_task
from offline_vi.study.diagnosis import Diagnosis, discount_of
from offline_vi.study.evaluations import EvalOptions, summary
from offline_vi.study.experiment import Experiment, conduct
from offline_vi.study.kept import algorithm_name, behavior_of
from offline_vi.study.online import Collecting, CollectOptions
from offline_vi.study.plots import learning_curve
from offline_vi.study.run import Record, RunOptions, data_record
from offline_vi.training import behavior, loop, online
from offline_vi.training.behavior import BehaviorFit
from offline_vi.training.collector import Collection
from offline_vi.training.loop import LoopOptions, OnEval
from offline_vi.training.metrics import History
from offline_vi.training.online import OnlineOptions
from offline_vi.types import Spec, Task


class RunLoopOptions(LoopOptions, total=False):
    """The options of `fit` and `fit_behavior`: the fields of `training.loop.Loop`, where they are explained. ``run``
    may also be a path."""

    run: str | Path | RunDirectory | None  # type: ignore[misc]


def fit(algorithm: Algorithm, data: Transitions | Source, steps: int, **options: Unpack[RunLoopOptions]) -> History:
    """Train ``algorithm`` for ``steps`` gradient steps on transitions, or on any source of batches.

    The options are those of `training.loop.Loop`. ``run="runs/x"`` makes a run directory as `offline-vi train` does:
    configuration, metrics, checkpoints, result; where the data's environment is known, the policy is scored every
    ``eval_every`` steps and at the end. A path where a run exists is refused with RunExistsError: choose another path,
    delete the folder to replace the run, or pass ``resume=True`` to go on with a run that was interrupted.

    ``seed`` (default 0) seeds the batches and the noise of training. It does not seed the initial weights: call
    `set_seed` before the algorithm is made.

    Ctrl-C ends the training after the step that is under way: the history so far is returned, and the algorithm keeps
    what it learned. Raises what `training.loop.fit` raises; RunExistsError, RunLockedError and OutputDirError for the
    directory.
    """
    return _until_interrupted(lambda: _fit(algorithm, data, steps, options))


def _fit(algorithm: Algorithm, data: Transitions | Source, steps: int, options: RunLoopOptions) -> History:
    run = options.get("run")
    if not isinstance(run, str | Path):
        given: Any = options
        return loop.fit(algorithm, data, steps, **given)
    settings: Any = {name: value for name, value in options.items() if name != "run"}
    how = loop.loop_of(settings)
    chosen = _run_options(run, how)
    return conduct(InMemory(algorithm, data, steps, how, chosen), chosen).history


def _until_interrupted(train: Callable[[], History]) -> History:
    """Ctrl-C in Python is a wish to go on with what there is: a warning says how far the training came. Other signals
    end it as everywhere."""
    try:
        return train()
    except Interrupted as stop:
        if stop.signum != signal.SIGINT or stop.history is None:
            raise
        warnings.warn(f"{stop}: the history so far is returned", InterruptedWarning, stacklevel=3)
        history: History = stop.history
        return history


def _run_options(run: str | Path, how: loop.Loop) -> RunOptions:
    return RunOptions(
        output=str(run),
        seed=how.seed,
        device=str(how.device),
        threads=torch.get_num_threads(),
        graph=how.graph,
        log_every=how.log_every,
        save_every=how.save_every or RunOptions.save_every,
        resume=how.resume,
        quiet=not how.progress,
    )


class InMemory(Experiment):
    """An agent and data that exist already."""

    verb = "train"

    def __init__(
        self, algorithm: Algorithm, data: Transitions | Source, steps: int, how: loop.Loop, options: RunOptions
    ) -> None:
        self.trained, self.data, self.steps, self.how, self.options = algorithm, data, steps, how, options
        self.eval_every, self.precision, self.batch_size = how.eval_every, how.precision, how.batch_size
        self.name = Path(options.output).name
        self.rows = data if isinstance(data, Transitions) else None
        self.diagnosis = diagnosis_of(algorithm, self.rows, options) if self.rows is not None else None
        self.custom: OnEval | None = how.on_eval
        self.limit = check_task(self.rows) if self.rows is not None and self.custom is None else None

    def record(self) -> Record:
        data, description = self.rows, describe(self.trained)
        spec_of(description)
        name = algorithm_name(description)
        if data is None:
            return {"algorithm": name, "data": None, "task": None}
        return {
            "algorithm": name,
            "data": data_record(data) | data.source.reward_map.recorded(),
            "task": data.task.to_json() if data.task else None,
            "max_episode_steps": self.limit,
            "data_options": asdict(DataOptions.of(data)),
        }

    def agent(self) -> Algorithm:
        return self.trained

    def prepare(self, run: RunDirectory, agent: Algorithm) -> None:
        """The agent is what it is."""

    @contextmanager
    def batches(self, agent: Algorithm, device: torch.device) -> Iterator[Transitions | Source]:
        yield self.data

    def score(self, run: RunDirectory, step: int, agent: Algorithm) -> dict[str, float]:
        if self.custom is not None:
            return self.custom(step, agent)
        return self.diagnosis.score(run, step, agent) if self.diagnosis is not None else {}

    def finish(self, run: RunDirectory, agent: Algorithm) -> Record:
        return self.diagnosis.summary(run, self.steps) if self.diagnosis is not None else summary(run, self.steps)

    def draw(self, run: RunDirectory, agent: Algorithm) -> None:
        learning_curve(run.path, self.rows)


def diagnosis_of(algorithm: Algorithm, data: Transitions, options: RunOptions) -> Diagnosis:
    """The diagnosis with the algorithm's own density and discount."""
    behavior = behavior_of(algorithm)
    while isinstance(algorithm, Wrapper):
        algorithm = algorithm.algorithm
    return Diagnosis(
        data,
        EvalOptions(),
        options.torch_device(),
        data.source.reward_map,
        discount=discount_of(vars(algorithm).get("config")),
        density=behavior if isinstance(behavior, DensityModel) else None,
    )


class RunOnlineOptions(OnlineOptions, total=False):
    """The options of `fit_online`: the fields of `training.collector.Collection` and of `training.loop.Loop`, where
    they are explained. ``run`` may also be a path."""

    run: str | Path | RunDirectory | None  # type: ignore[misc]


def fit_online(
    algorithm: Algorithm, task: Task, spec: Spec, steps: int, **options: Unpack[RunOnlineOptions]
) -> tuple[History, Transitions]:
    """Train ``algorithm`` in the task's environment; returns the history and what was collected.

    The options are those of `training.collector.Collection` and of `training.loop.Loop`; see `training.fit_online`.
    ``run="runs/x"`` makes a run directory as `offline-vi train-online` does. Raises what `training.fit_online` raises.
    """
    given: Any = {**options}
    run = given.pop("run", None)
    if not isinstance(run, str | Path):
        return online.fit_online(algorithm, task, spec, steps, run=run, **given)
    how, collection = online.split(given)
    chosen = _run_options(run, how)
    experiment = InMemoryOnline(algorithm, task, spec, steps, how, collection, chosen)
    history = conduct(experiment, chosen).history
    return history, experiment.collected


def fit_behavior(
    model: BehaviorModel,
    data: Transitions | Source,
    steps: int,
    *,
    lr: float | None = None,
    eps: float | None = None,
    **options: Unpack[RunLoopOptions],
) -> History:
    """Fit a behavior model to (s, a) for ``steps`` gradient steps; see `training.fit_behavior`.

    ``run="runs/x"`` makes a run directory as `offline-vi fit-behavior` does, which `load` and ``--behavior-from`` read.
    Ctrl-C returns the history so far, as in `fit`. Raises what `training.fit_behavior` raises.
    """
    return _until_interrupted(lambda: _fit_behavior(model, data, steps, lr, eps, options))


def _fit_behavior(
    model: BehaviorModel,
    data: Transitions | Source,
    steps: int,
    lr: float | None,
    eps: float | None,
    options: RunLoopOptions,
) -> History:
    given: Any = {**options}
    run = given.pop("run", None)
    if not isinstance(run, str | Path):
        return behavior.fit_behavior(model, data, steps, lr=lr, eps=eps, run=run, **given)
    how = loop.loop_of(given)
    experiment = InMemory(BehaviorFit(model, steps, lr=lr, eps=eps), data, steps, how, _run_options(run, how))
    history = conduct(experiment, experiment.options).history
    save_behavior(model, Path(run) / "model", fit={"steps": steps, "seed": how.seed})
    return history


class InMemoryOnline(Collecting):
    """An agent that exists already, in an environment."""

    verb = "train-online"

    def __init__(
        self,
        algorithm: Algorithm,
        task: Task,
        spec: Spec,
        steps: int,
        how: loop.Loop,
        collection: Collection,
        options: RunOptions,
    ) -> None:
        self.trained, self.task, self.spec, self.steps, self.loop = algorithm, task, spec, steps, how
        self.settings, self.run_options = collection, options
        self.collect = CollectOptions(
            steps, warmup=collection.warmup, num_envs=collection.num_envs, capacity=collection.capacity
        )
        self.eval, self.eval_every = EvalOptions(), how.eval_every
        self.precision, self.batch_size = how.precision, how.batch_size
        self.name = Path(options.output).name
        self.limit = check_limit(task) if how.on_eval is None else None

    def record(self) -> Record:
        name = algorithm_name(describe(self.trained))
        return {
            "algorithm": name,
            "data": None,
            "task": self.task.to_json(),
            "max_episode_steps": self.limit,
            "collection": self.collection(),
        }

    def agent(self) -> Algorithm:
        return self.trained

    def prepare(self, run: RunDirectory, agent: Algorithm) -> None:
        """The agent is what it is."""

    def how(self, agent: Algorithm) -> Collection:
        return self.settings

    def score(self, run: RunDirectory, step: int, agent: Algorithm) -> dict[str, float]:
        return self.loop.on_eval(step, agent) if self.loop.on_eval is not None else super().score(run, step, agent)
