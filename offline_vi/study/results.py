"""Reading a benchmark directory: a record per cell, from the files of its run. A cell whose files cannot be read is
listed with the reason and left out of every number."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from offline_vi.errors import ConfigError, Interrupted, MissingInputError, OfflineVIError
from offline_vi.runs.files import read_json, read_text
from offline_vi.study.cells import is_done, status, table as csv_rows, write_table
from offline_vi.study.plan import model_name
from offline_vi.study.scores import LARGEST, Scores, integer, number, numbers, scores_from, table, text
from offline_vi.study.suite import Cell, Suite, check_folders, parse_suite

DONE, FAILED, INTERRUPTED, NOT_STARTED = "done", "failed", "interrupted", "not started"


class Method(NamedTuple):
    """What is compared: in a suite, an algorithm under a preset."""

    algorithm: str  # its name
    preset: str  # its name
    label: str  # what tables call it
    color: int  # number of the series in plots
    variant: str = ""  # of a suite: its name; empty for the algorithm as it is


@dataclass(frozen=True)
class Run:
    """A cell and what its files say."""

    cell: Cell  # its place in the suite
    method: Method  # what it is a run of
    path: Path  # its directory
    state: str  # done | failed | interrupted | not started
    error: str = ""  # one line; empty where it is done
    command: str = ""  # that makes it again
    scores: Scores = field(default_factory=Scores)  # its final score and its curve
    facts: Mapping[str, str] = field(default_factory=dict)  # of run.json: versions, revision, precision, products
    note: str = ""  # what a reader of the scores has to know about the task
    seconds: float = 0.0  # wall clock over all processes that worked on it
    returns: Mapping[int, float] = field(default_factory=dict)  # step -> mean return

    @property
    def done(self) -> bool:
        """Whether it came to its end."""
        return self.state == DONE


@dataclass(frozen=True)
class FittedModel:
    """A shared behavior model and how it was judged, in nats per action."""

    dataset: str  # label
    model: str  # its name in the registry
    seed: int  # of the fit
    seconds: float  # wall clock
    steps: int | None  # gradient steps
    held_out: Mapping[str, float | None]  # "elbo", "iwae_64", "truth", "gap"
    command: str = ""  # that makes it again


class Failure(NamedTuple):
    """A run that is left out of every number."""

    name: str  # of its directory
    error: str  # one line


class Study(NamedTuple):
    """A benchmark directory, or runs that are reported together."""

    folder: Path  # where it is
    suite: Suite  # what was to be run
    methods: list[Method]  # what is compared
    runs: list[Run]  # one for each cell
    models: list[FittedModel]  # shared behavior models
    broken_models: list[Failure]  # models that are not done
    environment: Mapping[str, str]  # of environment.txt

    @property
    def failures(self) -> list[Failure]:
        """Everything that is left out of every number: each run that began, and how many of a method did not."""
        waiting = Counter(run.method.label for run in self.runs if run.state == NOT_STARTED)
        begun = [run for run in self.runs if not run.done and run.state != NOT_STARTED]
        return [
            *(Failure(run.path.name, run.error) for run in begun),
            *(
                Failure(f"{label}, {count} run{'s' if count > 1 else ''}", NOT_STARTED)
                for label, count in waiting.items()
            ),
            *self.broken_models,
        ]


def read_study(folder: str | Path) -> Study:
    """Read a benchmark directory. Raises MissingInputError and ConfigError if the folder is none."""
    folder = Path(folder)
    if not is_study(folder):
        raise MissingInputError(
            f"{folder} is no benchmark directory", "`offline-vi benchmark SUITE --output DIR` makes one"
        )
    record = read_json(folder / "suite.json")
    suite, commands = written_suite(record), table(record, "commands")
    methods = {(method.algorithm, method.variant, method.preset): method for method in methods_of(suite)}
    seconds = seconds_of(folder)
    runs = []
    for cell in suite.cells():
        words, path = commands.get(cell.name), folder / "runs" / cell.name
        command = shlex.join(map(str, words)) if isinstance(words, list) else ""
        runs.append(
            read_run(path, cell, methods[cell.algorithm, cell.variant, cell.preset], command, seconds.get(cell.name))
        )
    models: list[FittedModel] = []
    broken: list[Failure] = []
    for name, (dataset, model, seed) in written_models(record, suite).items():
        path = folder / "behavior" / name
        if is_done(path):
            try:
                fitted = read_model(path, dataset, model, seed, seconds.get(name, 0.0))
                models.append(replace(fitted, command=command_of_model(record, name)))
            except OfflineVIError as error:
                broken.append(Failure(name, str(error)))
    return Study(folder, suite, list(methods.values()), runs, models, broken, read_environment(folder))


def is_study(folder: Path) -> bool:
    """Whether it is a benchmark directory."""
    return (folder / "suite.json").exists()


def written_suite(record: Mapping[str, object]) -> Suite:
    """The suite in suite.json; no plug-in is loaded. Raises ConfigError."""
    said = table(record, "suite")
    suite = parse_suite({key: value for key, value in said.items() if value not in ({}, "")}, text(said, "name"))
    check_folders(suite)
    return suite


def written_models(record: Mapping[str, object], suite: Suite) -> dict[str, tuple[str, str, int]]:
    """Run directory -> (data set, model, seed) of the shared behavior models, of suite.json; of one that does not name
    them, as the suite says."""
    if "models" not in record:
        pairs = [(cell, suite.models(cell)) for cell in suite.cells()]
        return {model_name(cell, model): (cell.dataset, model, cell.seed) for cell, model in pairs if model}
    models = table(record, "models")
    abouts = {name: table(models, name) for name in models}
    return {
        name: (text(about, "dataset"), text(about, "model"), integer(about, "seed") or 0)
        for name, about in abouts.items()
    }


def command_of_model(record: Mapping[str, object], name: str) -> str:
    """The command that fits a shared behavior model again, of suite.json; empty where it does not say it."""
    words = table(table(record, "models"), name).get("command") if "models" in record else None
    return shlex.join(map(str, words)) if isinstance(words, list) else ""


def methods_of(suite: Suite) -> list[Method]:
    """The methods in the suite's order."""
    kinds = [
        (algorithm, variant, preset) for algorithm, variant in suite.methods() for preset in suite.presets_of(variant)
    ]
    labels = [
        f"{variant or algorithm}, {preset}" if len(suite.presets_of(variant)) > 1 else variant or algorithm
        for algorithm, variant, preset in kinds
    ]
    return [
        Method(algorithm, preset, label, place, variant)
        for place, (label, (algorithm, variant, preset)) in enumerate(zip(labels, kinds, strict=True))
    ]


def read_run(path: Path, cell: Cell, method: Method, command: str, seconds: float | None = None) -> Run:
    """What is known of a cell, done or not; ``seconds`` is its wall clock where a journal knows it. A run whose files
    cannot be read is not done, with the reason."""
    record = status(path)
    try:
        spent = number(record, "wall_seconds") if seconds is None else seconds
        if not is_done(path):
            why = why_not_done(path, record)
            return Run(cell, method, path, state_of(path, record), why, command, seconds=spent or 0.0)
        scores, facts = scores_from(read_json(path / "result.json")), facts_of(record)
        task = table(read_json(path / "config.json"), "task") if (path / "config.json").exists() else {}
        note, returns = text(task, "note"), read_returns(path)
        return Run(cell, method, path, DONE, "", command, scores, facts, note, spent or 0.0, returns)
    except OfflineVIError as error:
        return Run(cell, method, path, FAILED, f"cannot be read: {error}", command)


def state_of(path: Path, record: Mapping[str, object]) -> str:
    """What became of a run that is not done; ``record`` is the content of its run.json. One whose process was killed
    is interrupted, as one that was asked to stop."""
    if record:
        return FAILED if record.get("status") == "failed" else INTERRUPTED
    return FAILED if (path / "run.json").exists() else NOT_STARTED


def why_not_done(path: Path, record: Mapping[str, object]) -> str:
    """Why a run is not done, in a few words; ``record`` is the content of its run.json."""
    if record:
        return str(record.get("error") or "cut").removeprefix(f"{Interrupted.__name__}: ")
    return "run.json cannot be read" if (path / "run.json").exists() else "not started"


def read_returns(path: Path, seed: int | None = None) -> dict[int, float]:
    """Step -> mean return, of episodes.csv; ``seed`` chooses one of several that were trained in parallel. Episodes
    that failed are in no mean."""
    values: dict[int, list[float]] = {}
    for row in csv_rows(path / "episodes.csv"):
        with suppress(ValueError, TypeError, KeyError):  # its last line may be half written
            if seed is None or int(row["training_seed"]) == seed:
                values.setdefault(int(row["step"]), []).append(float(row["return"]))
    known = {step: [value for value in returns if abs(value) < LARGEST] for step, returns in values.items()}
    return {step: sum(returns) / len(returns) for step, returns in known.items() if returns}


def facts_of(record: Mapping[str, object]) -> dict[str, str]:
    """The facts in run.json: versions of packages, "revision", "precision", "products". Raises ConfigError."""
    versions = table(record, "versions")
    facts = {name: text(versions, name) for name in versions}
    named = {"revision": "git_revision", "precision": "precision", "products": "products", "platform": "platform"}
    return facts | {name: text(record, key) for name, key in named.items() if record.get(key)}


def read_model(path: Path, dataset: str, model: str, seed: int, seconds: float) -> FittedModel:
    """A fitted behavior model. Raises MissingInputError and ConfigError where its result.json cannot be read."""
    result = read_json(path / "result.json")
    held_out = numbers(table(result, "held_out"))
    if not held_out:
        raise ConfigError(f"{path / 'result.json'} holds no densities of held-out actions")
    return FittedModel(dataset, model, seed, seconds, integer(result, "steps"), held_out)


def read_environment(folder: Path) -> dict[str, str]:
    """The names and values in environment.txt; empty if there is no such file."""
    lines = read_text(folder / "environment.txt").splitlines()
    return {name: value for name, _, value in (line.partition(" ") for line in lines) if value}


def seconds_of(folder: Path) -> dict[str, float]:
    """Run -> wall clock of all processes that worked on it, from the journal."""
    total: dict[str, float] = {}
    for row in csv_rows(folder / "journal.csv"):
        with suppress(ValueError, TypeError, KeyError):
            total[row["run"]] = total.get(row["run"], 0.0) + float(row["seconds"])
    return total


def write_results(study: Study, folder: Path) -> Path:
    """FOLDER/results.csv: a row for each run, done or not."""
    write_table(folder / "results.csv", [result_row(run) for run in study.runs])
    return folder / "results.csv"


def result_row(run: Run) -> dict[str, str | int | float | None]:
    """The row of a run in results.csv."""
    scores, facts = run.scores, run.facts
    return {
        "algorithm": run.cell.algorithm,
        "variant": run.cell.variant,
        "preset": run.cell.preset,
        "dataset": run.cell.dataset,
        "seed": run.cell.seed,
        "status": run.state,
        "measure": "" if scores.final is None else scores.measure,
        "final": scores.final,
        "best": scores.best,
        "best_step": scores.best_step,
        "return": scores.mean_return,
        "episodes": scores.episodes,
        "failed_episodes": scores.failed_episodes,
        "ended_by_task": scores.ended,
        "length": scores.length,
        "steps": scores.steps,
        "outside": scores.diagnostics.get("support/outside"),
        "q_start": scores.diagnostics.get("q/start"),
        "q_return": scores.diagnostics.get("q/return"),
        "seconds": round(run.seconds, 1),
        "env_id": scores.env_id,
        "mujoco": scores.mujoco,
        "offline_vi": facts.get("offline_vi"),
        "torch": facts.get("torch"),
        "revision": facts.get("revision"),
        "precision": facts.get("precision"),
        "products": facts.get("products"),
        "error": run.error,
        "command": run.command,
    }
