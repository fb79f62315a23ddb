"""One experiment: build an agent, train it, score it on the way, keep everything in a run directory.

Training from data, in an environment, from images, fine-tuning and fitting a behavior model differ in what they build,
where their batches come from and how they are scored. That is an `Experiment`; `conduct` does all the rest, in the same
order for all of them.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from offline_vi.data.samplers import Source
from offline_vi.data.transitions import Transitions
from offline_vi.errors import EnvError, EvaluationError, EvaluationWarning, Interrupted
from offline_vi.nn.allowance import Allowance
from offline_vi.nn.description import describe
from offline_vi.nn.precision import exact_products, use_threads
from offline_vi.rl.algorithm import Algorithm
from offline_vi.runs.checkpoint import saved_bytes
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.ahead import doing
from offline_vi.study.follow_up import command_on
from offline_vi.study.plots import harmless
from offline_vi.study.run import SCHEMA, Record, RunOptions, open_run, plugins_used, recorded
from offline_vi.training.capture import preferred_graph
from offline_vi.training.loop import fit
from offline_vi.training.metrics import History
from offline_vi.training.randomness import seeded

FAILURES = "failures.json"  # step -> why the policy could not be scored there
RESULT = ("normalized_score", "return_mean")  # of result.json, repeated in run.json


class Experiment(abc.ABC):
    """What differs between the verbs that train."""

    verb: str
    name: str  # of the run directory, where none is given
    steps: int  # gradient steps
    eval_every: int | None  # steps between two calls of `score`
    precision: str = "float32"  # of passes without gradient
    batch_size: int | None = None  # transitions a step; None: the algorithm's own

    @abc.abstractmethod
    def record(self) -> Record:
        """What config.json says besides the agent, the steps and the run: the data, the task, the options."""

    @abc.abstractmethod
    def agent(self) -> Algorithm:
        """The agent, freshly built from the seed that is set."""

    @abc.abstractmethod
    def prepare(self, run: RunDirectory, agent: Algorithm) -> None:
        """What happens once before training: statistics of the data, a behavior model fitted ahead."""

    @abc.abstractmethod
    @contextmanager
    def batches(self, agent: Algorithm, device: torch.device) -> Iterator[Transitions | Source]:
        """What the loop draws from; closed afterwards."""
        yield  # type: ignore[misc]

    @abc.abstractmethod
    def score(self, run: RunDirectory, step: int, agent: Algorithm) -> dict[str, float]:
        """Evaluate the agent as it is, log the evaluation in the run; returns numbers to show."""

    @abc.abstractmethod
    def finish(self, run: RunDirectory, agent: Algorithm) -> Record:
        """The record of result.json."""

    @abc.abstractmethod
    def draw(self, run: RunDirectory, agent: Algorithm) -> None:
        """Write the pictures of the run."""


class Outcome(NamedTuple):
    """What came of an experiment."""

    result: Record  # of result.json
    path: Path  # of the run
    history: History  # of this process


def conduct(experiment: Experiment, options: RunOptions, *, extends: bool = False) -> Outcome:
    """Carry out an experiment, or go on with it.

    ``extends`` allows a run that goes on to take more steps than it was begun with. Raises what `open_run`, the
    experiment and `training.fit` raise. An evaluation that fails is recorded and reported; it ends nothing.
    """
    use_threads(options.threads)
    device = options.torch_device()
    saved = saved_bytes(Path(options.output or Path("runs") / experiment.name)) if options.resume else 0
    with seeded(options.seed), Allowance(saved) if saved else nullcontext():
        agent = experiment.agent()
    description = describe(agent)
    config = {
        "schema": SCHEMA,
        "verb": experiment.verb,
        "agent": description,
        **experiment.record(),
        "steps": experiment.steps,
        "seed": options.seed,
        "precision": experiment.precision,
        "graph": preferred_graph(device, experiment.steps) if options.graph == "auto" else options.graph,
        "products": exact_products(),
        "run_options": options.recorded(),
        "plugins": plugins_used(description),
    }
    run, resumes = open_run(options, experiment.name, config, extends=extends)
    if resumes:  # what "auto" stood for where it began
        began = run.read_json("config.json")
        experiment.precision, config["graph"] = (began.get(name, config[name]) for name in ("precision", "graph"))
    facts = {"verb": experiment.verb, "seed": options.seed, "precision": experiment.precision, "graph": config["graph"]}
    phase = str(config.get("algorithm") or config.get("behavior") or experiment.verb)
    what = f"{'fitting the behavior model' if experiment.verb == 'fit-behavior' else 'training'} {phase}"
    with run, _resume_hint(run, config), recorded(run, facts) as status:
        with doing("preparing the data and the models", run):
            experiment.prepare(run, agent)
        with doing(what, run), experiment.batches(agent, device) as source:
            history = fit(
                agent,
                source,
                experiment.steps,
                batch_size=experiment.batch_size,
                seed=options.seed,
                device=device,
                precision=experiment.precision,
                graph=config["graph"],
                log_every=options.log_every,
                eval_every=experiment.eval_every,
                on_eval=lambda step, algorithm: scored(experiment, run, step, algorithm),
                run=run,
                save_every=options.save_every,
                resume=resumes,
                progress=not options.quiet,
                phase=phase,
            )
            with doing("writing the results", run):
                result = experiment.finish(run, agent)
                run.write_json("result.json", result)
                status["result"] = {key: result[key] for key in RESULT if key in result}
                with harmless("the pictures"):
                    experiment.draw(run, agent)
    return Outcome(result, run.path, history)


def scored(experiment: Experiment, run: RunDirectory, step: int, agent: Algorithm) -> dict[str, float]:
    """The experiment's score; an evaluation that fails is recorded in the run's failures.json and reported."""
    before = run.read_json(FAILURES) if (run.path / FAILURES).exists() else {}
    failures, numbers = {name: error for name, error in before.items() if name != str(step)}, dict[str, float]()
    try:
        numbers = experiment.score(run, step, agent)
    except (EnvError, EvaluationError) as error:
        warnings.warn(f"the evaluation at step {step:,} failed: {error}", EvaluationWarning, stacklevel=2)
        failures[str(step)] = f"{type(error).__name__}: {error}"
    if failures != before:
        run.write_json(FAILURES, failures)
    return numbers


@contextmanager
def _resume_hint(run: RunDirectory, config: Record) -> Iterator[None]:
    """An interrupted run says with which command it goes on."""
    try:
        yield
    except Interrupted as error:
        error.hint = command_on("resume", run.path, config=config)
        raise


def options_record(**options: Any) -> Record:
    """The options of a verb for config.json: frozen dataclasses as plain records."""
    return {f"{name}_options": asdict(value) for name, value in options.items()}
