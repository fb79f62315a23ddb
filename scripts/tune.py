"""offline-vi tune SUITE.toml: search hyper-parameters on a suite with Optuna; resumable, hopeless trials are cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from offline_vi.errors import ConfigError, MissingDependencyError, StudyError, UsageError
from offline_vi.study.suite import Suite, check_options, read_suite


@dataclass(frozen=True)
class TuneOptions:
    """Search what the suite's [search.ALGORITHM] tables name: the mean of the final normalised scores over the suite's
    data sets and seeds is maximised. The tuned score of the best trial is optimistic: score it again on new seeds."""

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE.toml")]
    """A suite with [search.ALGORITHM] tables."""
    output: str = ""
    """Folder of the search; default runs/tune-NAME."""
    trials: int = 20
    """Trials for each algorithm, those of earlier calls included."""
    jobs: int = 2
    """Cells at once, one thread each."""
    startup: int = 5
    """Trials before the first one may be cut, and before the search looks at what it has found."""
    seed: int = 0
    """Of the search."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Say nothing on the way."""


def main(arguments: list[str] | None = None) -> None:
    options = tyro.cli(TuneOptions, args=arguments, prog="offline-vi tune")
    tune(read_suite(options.suite), options)


def tune(suite: Suite, options: TuneOptions) -> None:
    """A study per algorithm. Raises ConfigError where there is nothing to search or a range is not valid."""
    from offline_vi.scripts.benchmark import BenchmarkOptions, with_data, writable

    if not suite.search:
        raise ConfigError(
            f"the suite {suite.name} has no [search.ALGORITHM] table", "e.g. [search.bcq] phi = [0.02, 0.05]"
        )
    if options.trials < 1 or options.jobs < 1 or options.startup < 1:
        raise UsageError("--trials, --jobs and --startup are at least one", "")
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingDependencyError("tune needs Optuna", "pip install 'offline-vi[optuna]'") from error
    for algorithm, ranges in suite.search.items():
        for corner in corners(ranges):
            check_options(variant(suite, algorithm, corner))
    folder = writable(Path(options.output or Path("runs") / f"tune-{suite.name}"))
    suite = with_data(suite, BenchmarkOptions())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for algorithm in suite.search:
        Search(suite, algorithm, folder, options).run()


def variant(suite: Suite, algorithm: str, chosen: Mapping[str, Any]) -> Suite:
    """The suite of one algorithm with these hyper-parameters."""
    settings = {**suite.algorithm.get(algorithm, {}), **chosen}
    return replace(suite, algorithms=(algorithm,), algorithm={algorithm: settings}, search={})


def corners(ranges: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lowest and the highest of everything, then each choice: what a check tries."""
    ends = [{name: _end(entry, end) for name, entry in ranges.items()} for end in ("low", "high")]
    choices = [{name: choice} for name, entry in ranges.items() if isinstance(entry, list) for choice in entry]
    return [*ends, *choices]


def _end(entry: Any, end: str) -> Any:
    return entry[0 if end == "low" else -1] if isinstance(entry, list) else entry[end]


class Search:
    """One algorithm's study: its trials are in FOLDER/ALGORITHM.journal, its runs in FOLDER/trials.

    A trial's runs are named after its hyper-parameters: one that was killed is asked for again and goes on from what
    its runs hold.
    """

    def __init__(self, suite: Suite, algorithm: str, folder: Path, options: TuneOptions) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        self.optuna, self.suite, self.algorithm = optuna, suite, algorithm
        self.folder, self.options = folder, options
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / f"{algorithm}.journal")))
        study = optuna.create_study(storage=storage, study_name=algorithm, direction="maximize", load_if_exists=True)
        seed = options.seed + len(study.trials)  # the journal holds the trials, not the sampler's random state
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=options.startup)
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=options.startup)
        self.study: Any = study

    def run(self) -> None:
        """Trials until there are enough; then trials.csv, best.toml and the plot."""
        states = self.optuna.trial.TrialState
        for trial in self.study.get_trials(states=(states.RUNNING,)):  # of a process that was killed
            self.study.tell(trial.number, state=states.FAIL)
            self.study.enqueue_trial(trial.params)
        while len(self.finished()) < self.options.trials:
            self.trial(self.study.ask())
        self.write()

    def finished(self) -> list[Any]:
        """Trials with an outcome, the cut ones among them."""
        states = self.optuna.trial.TrialState
        found: list[Any] = self.study.get_trials(states=(states.COMPLETE, states.PRUNED))
        return found

    def trial(self, trial: Any) -> None:
        """Run one set of hyper-parameters, or the part of it that is worth running."""
        from offline_vi.study.engines import LocalEngine

        chosen = {name: suggest(trial, name, entry) for name, entry in self.suite.search[self.algorithm].items()}
        cells, models = self.jobs(chosen)
        states = self.optuna.trial.TrialState
        self.finish(models)
        engine = LocalEngine(self.options.jobs, self.folder / "journal.csv")
        reported, cut = 0, False
        try:
            for job in cells:
                engine.submit(job)
            left = len(cells)
            while left and not cut:
                for job, outcome in engine.finished(timeout=1.0):
                    left -= 1
                    if not outcome.done:
                        self.study.tell(trial.number, state=states.FAIL)
                        raise StudyError(f"{job.path.name}: {outcome.error}", "mend it and run the same command again")
                known = prefix(cells)
                for count in range(reported + 1, len(known) + 1):
                    trial.report(sum(known[:count]) / count, count)
                reported = max(reported, len(known))
                cut = left > 0 and trial.should_prune()
        finally:
            engine.stop()
        if cut:
            self.study.tell(trial.number, state=states.PRUNED)
        else:
            self.study.tell(trial.number, final_score(cells))
        self.say(trial.number, chosen)

    def jobs(self, chosen: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        """(cells, shared behaviour models) of a trial."""
        from offline_vi.runs.files import write_json
        from offline_vi.scripts.benchmark import decided, jobs_of

        (self.folder / "behavior").mkdir(exist_ok=True)
        machine = decided(self.suite, self.folder)
        write_json(self.folder / "machine.json", machine)
        name = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]
        home = (self.folder / "trials" / f"{self.algorithm}-{name}").resolve()
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / "hyperparameters.json", chosen)
        jobs = jobs_of(variant(self.suite, self.algorithm, chosen), self.folder, machine)
        cells = [job._replace(path=home / job.path.name) for job in jobs if job.arguments[0] == "train"]
        return cells, [job for job in jobs if job.arguments[0] != "train"]

    def finish(self, jobs: Sequence[Any]) -> None:
        """All of them; raises StudyError where one fails."""
        from offline_vi.study.cells import run_job

        for job in jobs:
            outcome = run_job(job, self.folder / "journal.csv")
            if not outcome.done:
                raise StudyError(f"{job.path.name}: {outcome.error}", "mend it and run the same command again")

    def say(self, number: int, chosen: Mapping[str, Any]) -> None:
        if self.options.quiet:
            return
        done = self.study.trials[number]
        told = f"{done.value:.1f}" if done.state.name == "COMPLETE" else "cut"
        settings = [f"{name} {f'{value:.3g}' if type(value) is float else value}" for name, value in chosen.items()]
        print(f"{self.algorithm} trial {number}: {told}   {', '.join(settings)}", flush=True)

    def write(self) -> None:
        """ALGORITHM-trials.csv, ALGORITHM-best.toml, ALGORITHM.png."""
        from offline_vi.study.cells import write_table
        from offline_vi.study.plots import search_plot

        trials = self.finished()
        rows = [
            {"trial": trial.number, "state": trial.state.name.lower(), "score": score_of(trial), **trial.params}
            for trial in trials
        ]
        write_table(self.folder / f"{self.algorithm}-trials.csv", rows)
        best = self.study.best_trial
        note = f"# mean final score {best.value:.1f} in the search, trial {best.number}: optimistic; use new seeds"
        settings = [f"{name} = {json.dumps(value)}" for name, value in best.params.items()]
        lines = [note, f"[algorithm.{self.algorithm}]", *settings]
        (self.folder / f"{self.algorithm}-best.toml").write_text("\n".join(lines) + "\n")
        search_plot(rows, list(self.suite.search[self.algorithm]), self.folder / f"{self.algorithm}.png")
        print("\n".join(lines))


def score_of(trial: Any) -> float | None:
    """None for a trial that was cut: Optuna gives it the last value that it reported."""
    return float(trial.value) if trial.state.name == "COMPLETE" else None


def suggest(trial: Any, name: str, entry: Any) -> Any:
    """A value for a range of the suite."""
    if isinstance(entry, list):
        return trial.suggest_categorical(name, entry)
    whole = isinstance(entry["low"], int) and isinstance(entry["high"], int)
    kind = trial.suggest_int if whole else trial.suggest_float
    return kind(name, entry["low"], entry["high"], log=bool(entry.get("log", False)))


def prefix(cells: Sequence[Any]) -> list[float]:
    """Scores of the evaluations so far, cell after cell, up to the first that is missing: the same evaluations of every
    trial, however its cells are dealt to processes."""
    from offline_vi.study.cells import is_done

    known: list[float] = []
    for job in cells:
        known += evaluations(job.path)
        if not is_done(job.path):
            break
    return known


def evaluations(run: Path) -> list[float]:
    """Mean normalised score of each evaluation that is whole: all but the last one of a run that goes on."""
    from offline_vi.study.cells import is_done, table

    scores: dict[int, list[float]] = {}
    for row in table(run / "episodes.csv"):
        try:
            scores.setdefault(int(row["step"]), []).append(float(row["normalized"]))
        except (TypeError, ValueError, KeyError):
            break  # its last line is half written
    steps = sorted(scores)
    whole = steps if is_done(run) else steps[:-1]
    return [sum(scores[step]) / len(scores[step]) for step in whole]


def final_score(cells: Sequence[Any]) -> float:
    """Mean over cells of the final policy's score. Raises UsageError where nothing was scored."""
    from offline_vi.study.cells import result

    scores = [result(job.path).get("normalized_score") for job in cells]
    known = [float(score) for score in scores if score is not None]
    if len(known) < len(scores):
        raise UsageError("a data set of the suite has no normalised scores", "search on one that has")
    return sum(known) / len(known)


if __name__ == "__main__":
    main()
