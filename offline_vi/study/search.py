"""Hyper-parameter search on a suite with Optuna. A search can be resumed, and hopeless trials are stopped."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from offline_vi.errors import ConfigError, MissingDependencyError, StudyError, UsageError
from offline_vi.runs.files import write_json, write_text
from offline_vi.runs.ownership import claim
from offline_vi.study.cells import Job, is_done, result, run_job, table, write_table
from offline_vi.study.checks import check_options
from offline_vi.study.engines import LocalEngine
from offline_vi.study.plan import Plan, cannot_be_used, machine_of, read_data
from offline_vi.study.scores import scores_from
from offline_vi.study.suite import Suite
from offline_vi.study.suite_values import Choices, Range, Scalar, SearchSpace

Chosen = Mapping[str, Scalar]
"""Hyper-parameter -> its value in a trial."""


@dataclass(frozen=True)
class SearchOptions:
    """How long a search runs, and how many cells run at once."""

    trials: int = 20  # for each algorithm, those of earlier calls included
    jobs: int = 2  # cells at once, one thread each
    startup: int = 5  # trials before the first one may be cut, and before the search looks at what it has found
    seed: int = 0  # of the search
    quiet: bool = False  # print nothing on the way

    def __post_init__(self) -> None:
        """Raises UsageError for a number below one."""
        if min(self.trials, self.jobs, self.startup) < 1:
            raise UsageError("trials, jobs and startup are at least one", "leave them out for the defaults")


class Trial(Protocol):
    """A running trial, as Optuna has it."""

    number: int

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar: ...
    def suggest_int(self, name: str, low: int | float, high: int | float, *, log: bool) -> int: ...
    def suggest_float(self, name: str, low: int | float, high: int | float, *, log: bool) -> float: ...
    def report(self, value: float, step: int) -> None: ...
    def should_prune(self) -> bool: ...


class State(Protocol):
    """What became of a trial."""

    name: str


class EndedTrial(Protocol):
    """A trial of the journal, as Optuna has it."""

    number: int
    params: dict[str, Scalar]
    value: float
    state: State


def run_search(suite: Suite, folder: Path, options: SearchOptions) -> None:
    """Run a search for each algorithm in the suite's [search.ALGORITHM] tables. Each writes ALGORITHM-trials.csv,
    ALGORITHM-best.toml and ALGORITHM.png into ``folder``.

    Raises ConfigError where there is nothing to search or a range is not valid, MissingDependencyError without Optuna,
    what a plan's checks raise, and StudyError where a run fails.
    """
    if not suite.search:
        raise ConfigError(
            f"the suite {suite.name} has no [search.ALGORITHM] table",
            "e.g. a table [search.bcq] with the line phi = [0.02, 0.05]",
        )
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingDependencyError("tune needs Optuna", "pip install 'offline-vi[optuna]'") from error
    for algorithm, space in suite.search.items():
        for corner in corners(space):
            check_options(variant(suite, algorithm, corner))
    kinds = ("trials.csv", "best.toml")
    names = [f"{algorithm}.{end}" for algorithm in suite.search for end in ("journal", "png")]
    claim(folder, "search", [*names, *(f"{algorithm}-{end}" for algorithm in suite.search for end in kinds)])
    if missing := read_data(suite)[1]:
        raise cannot_be_used(suite, missing)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for algorithm in suite.search:
        Search(suite, algorithm, folder, options).run()


def variant(suite: Suite, algorithm: str, chosen: Chosen) -> Suite:
    """The suite of one algorithm with these hyper-parameters."""
    settings = {**suite.algorithm.get(algorithm, {}), **chosen}
    return replace(suite, algorithms=(algorithm,), algorithm={algorithm: settings}, variant={}, sweep={}, search={})


def corners(space: SearchSpace) -> list[dict[str, Scalar]]:
    """The lowest and the highest of everything, then each choice: what a check tries."""
    lowest = {name: entry.low if isinstance(entry, Range) else entry[0] for name, entry in space.items()}
    highest = {name: entry.high if isinstance(entry, Range) else entry[-1] for name, entry in space.items()}
    choices = [(name, entry) for name, entry in space.items() if not isinstance(entry, Range)]
    return [lowest, highest, *({name: choice} for name, entry in choices for choice in entry)]


class Search:
    """One algorithm's search: its trials are in FOLDER/ALGORITHM.journal, its runs in FOLDER/trials.

    A trial's runs are named after its hyper-parameters: one that was killed is asked for again and goes on from what
    its runs hold.
    """

    def __init__(self, suite: Suite, algorithm: str, folder: Path, options: SearchOptions) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        self.suite, self.algorithm, self.folder, self.options = suite, algorithm, folder, options
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / f"{algorithm}.journal")))
        study = optuna.create_study(storage=storage, study_name=algorithm, direction="maximize", load_if_exists=True)
        seed = options.seed + len(study.trials)  # the journal holds the trials, not the sampler's random state
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=options.startup)
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=options.startup)
        self.study, self.states = study, optuna.trial.TrialState

    def run(self) -> None:
        """Run trials until there are enough, then write the table, the best settings and the plot."""
        for trial in self.study.get_trials(states=(self.states.RUNNING,)):  # of a process that was killed
            self.study.tell(trial.number, state=self.states.FAIL)
            self.study.enqueue_trial(trial.params)
        while len(self.ended()) < self.options.trials:
            self.run_trial(self.study.ask())
        self.write()

    def ended(self) -> list[EndedTrial]:
        """Trials with an outcome, including those that were stopped early."""
        found: list[EndedTrial] = self.study.get_trials(states=(self.states.COMPLETE, self.states.PRUNED))
        return found

    def run_trial(self, trial: Trial) -> None:
        """Run one set of hyper-parameters, or the part of it that is worth running."""
        chosen = {name: suggest(trial, name, entry) for name, entry in self.suite.search[self.algorithm].items()}
        cells, models = self.jobs(chosen)
        for job in models:
            outcome = run_job(job, self.folder / "journal.csv")
            if not outcome.done:
                raise StudyError(f"{job.path.name}: {outcome.error}", "fix it and run the same command again")
        if self.run_cells(trial, cells):
            self.study.tell(trial.number, state=self.states.PRUNED)
        else:
            try:
                self.study.tell(trial.number, final_score(cells))
            except UsageError:
                self.study.tell(trial.number, state=self.states.FAIL)  # or the next call would ask for it again
                raise
        self.print_trial(trial.number, chosen)

    def run_cells(self, trial: Trial, cells: Sequence[Job]) -> bool:
        """Run the cells of a trial; returns whether it was cut. Raises StudyError where one fails."""
        engine = LocalEngine(self.options.jobs, self.folder / "journal.csv")
        reported, left, cut = 0, len(cells), False
        try:
            for job in cells:
                engine.submit(job)
            while left and not cut:
                for job, outcome in engine.finished(timeout=1.0):
                    left -= 1
                    if not outcome.done:
                        self.study.tell(trial.number, state=self.states.FAIL)
                        raise StudyError(f"{job.path.name}: {outcome.error}", "fix it and run the same command again")
                known = prefix(cells)
                for count in range(reported + 1, len(known) + 1):
                    trial.report(sum(known[:count]) / count, count)
                reported = max(reported, len(known))
                cut = left > 0 and trial.should_prune()
        finally:
            engine.stop()
        return cut

    def jobs(self, chosen: Chosen) -> tuple[list[Job], list[Job]]:
        """The jobs of a trial: (cells, shared behavior models)."""
        (self.folder / "behavior").mkdir(exist_ok=True)
        machine = machine_of(self.suite, self.folder)
        write_json(self.folder / "machine.json", machine)
        name = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]
        home = (self.folder / "trials" / f"{self.algorithm}-{name}").resolve()
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / "hyperparameters.json", chosen)
        jobs = Plan(variant(self.suite, self.algorithm, chosen), self.folder, machine, {}).jobs()
        cells = [job._replace(path=home / job.path.name) for job in jobs if job.arguments[0] == "train"]
        return cells, [job for job in jobs if job.arguments[0] != "train"]

    def print_trial(self, number: int, chosen: Chosen) -> None:
        """Print one line for a trial, unless the search is quiet."""
        if self.options.quiet:
            return
        score = score_of(self.study.trials[number])
        settings = [f"{name} {f'{value:.3g}' if type(value) is float else value}" for name, value in chosen.items()]
        outcome = "cut" if score is None else f"{score:.1f}"
        print(f"{self.algorithm} trial {number}: {outcome}   {', '.join(settings)}", flush=True)

    def write(self) -> None:
        """Write ALGORITHM-trials.csv, ALGORITHM-best.toml and ALGORITHM.png."""
        from offline_vi.study.plots import harmless, search_plot

        trials = self.ended()
        rows = [
            {"trial": trial.number, "state": trial.state.name.lower(), "score": score_of(trial), **trial.params}
            for trial in trials
        ]
        write_table(self.folder / f"{self.algorithm}-trials.csv", rows)
        best = self.study.best_trial
        note = f"# mean final score {best.value:.1f} in the search, trial {best.number}: optimistic; use new seeds"
        settings = [f"{name} = {json.dumps(value)}" for name, value in best.params.items()]
        lines = [note, f"[algorithm.{self.algorithm}]", *settings]
        write_text(self.folder / f"{self.algorithm}-best.toml", "\n".join(lines) + "\n")
        whole = [(trial, score) for trial in trials if (score := score_of(trial)) is not None]
        columns = {name: [trial.params[name] for trial, _ in whole] for name in self.suite.search[self.algorithm]}
        with harmless("the plot"):
            search_plot({trial.number: score for trial, score in whole}, columns, self.folder / f"{self.algorithm}.png")
        print("\n".join([*lines, f"written to {self.folder / self.algorithm}-best.toml, -trials.csv and .png"]))


def score_of(trial: EndedTrial) -> float | None:
    """The score of a trial; None for one that was stopped early, for which Optuna keeps the last value that it
    reported."""
    return float(trial.value) if trial.state.name == "COMPLETE" else None


def suggest(trial: Trial, name: str, entry: Range | Choices) -> Scalar:
    """A value for a range of the suite."""
    if not isinstance(entry, Range):
        return trial.suggest_categorical(name, list(entry))
    if entry.whole:
        return trial.suggest_int(name, entry.low, entry.high, log=entry.log)
    return trial.suggest_float(name, entry.low, entry.high, log=entry.log)


def prefix(cells: Sequence[Job]) -> list[float]:
    """Scores of the evaluations so far, cell after cell, up to the first that is missing: the same evaluations of every
    trial, however its cells are dealt to processes."""
    known: list[float] = []
    for job in cells:
        known += evaluations(job.path)
        if not is_done(job.path):
            break
    return known


def evaluations(run: Path) -> list[float]:
    """Mean score of each evaluation that is whole: all but the last one of a run that goes on. Returns stand for scores
    where the task has none; episodes that failed are in no mean."""
    scores: dict[int, list[float]] = {}
    for row in table(run / "episodes.csv"):
        try:
            counted = scores.setdefault(int(row["step"]), [])
            earned, score = float(row["return"]), float(row["normalized"])
        except (TypeError, ValueError, KeyError):
            break  # its last line is half written
        if math.isfinite(earned):
            counted.append(score if math.isfinite(score) else earned)
    steps = sorted(scores)
    whole = steps if is_done(run) else steps[:-1]
    return [sum(scores[step]) / len(scores[step]) for step in whole if scores[step]]


def final_score(cells: Sequence[Job]) -> float:
    """Mean over cells of the final policy's score, or of its return where no task has reference scores.

    Raises UsageError where a cell was not scored, or where some tasks have reference scores and others none.
    """
    scores = [scores_from(result(job.path)) for job in cells]
    known = [score.final for score in scores if score.final is not None]
    if len(known) < len(scores):
        raise UsageError("the final policy of a cell was not scored", "search on data whose environment is known")
    if len({score.measure for score in scores}) > 1:
        raise UsageError("some data sets of the suite have normalized scores, others none", "search on one kind alone")
    return sum(known) / len(known)
