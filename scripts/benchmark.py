"""offline-vi benchmark SUITE: algorithms x data sets x seeds, a run directory each; skips what is done, resumes what
was cut."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from offline_vi.errors import (
    ConfigError,
    DataError,
    MissingInputError,
    OfflineVIError,
    OutputDirError,
    StudyError,
    UsageError,
)
from offline_vi.study.suite import Cell, Suite, check_options, fit_arguments, read_suite, shipped, train_arguments

SCHEMA = 1  # of suite.json
VARIABLES = ("OFFLINE_VI_DATA", "D4RL_DATASET_DIR", "MINARI_DATASETS_PATH", "MUJOCO_GL", "PYTHONPATH")


@dataclass(frozen=True)
class BenchmarkOptions:
    """Run a suite: every cell that is not done, each in a process of its own."""

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE.toml|NAME")] = ""
    """A suite's file, or the name of one that is shipped; without it the shipped ones are listed."""
    output: str = ""
    """Folder of the study; default runs/benchmark-NAME."""
    jobs: int = 2
    """Cells at once, one thread each (engine local)."""
    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine; ray: tasks of a Ray cluster, the folder on storage that its nodes share."""
    address: str = ""
    """Of the Ray cluster, e.g. auto or ray://HOST:10001; default: one on this machine."""
    gpus: float = 0.0
    """Of one GPU, the share that a cell is given (engine ray)."""
    retries: int = 3
    """How often a cell is started again because its node died (engine ray)."""
    skip_missing: bool = False
    """Leave out the data sets that cannot be had, instead of stopping before anything starts."""
    check: bool = False
    """Check everything, list the cells with their commands, run nothing."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """No progress on stderr."""


def main(arguments: list[str] | None = None) -> None:
    options = tyro.cli(BenchmarkOptions, args=arguments, prog="offline-vi benchmark")
    if not options.suite:
        for name in shipped():
            print(f"{name:<18}{read_suite(name).description}")
        raise UsageError("no suite is given", "offline-vi benchmark NAME, or a file SUITE.toml")
    run_suite(read_suite(options.suite), options)


def run_suite(suite: Suite, options: BenchmarkOptions) -> None:
    """Check, run, tell. Raises what the checks raise before anything runs, StudyError at the end where cells failed."""
    if options.jobs < 1 or options.retries < 0 or options.gpus < 0.0:
        raise UsageError("--jobs, --retries and --gpus cannot be negative, and one job is the least", "")
    folder = writable(Path(options.output or Path("runs") / f"benchmark-{suite.name}"))
    check_options(suite)
    suite = with_data(suite, options)
    machine = decided(suite, folder)
    commands = {cell.name: command(suite, cell, folder, machine) for cell in suite.cells()}
    check_unchanged(folder, commands, machine)
    if options.check:
        print("\n".join(" ".join(words) for words in commands.values()))
        print(f"{len(commands)} cells; everything that can be checked ahead is right", file=sys.stderr)
        return
    remember(folder, suite, commands, machine)
    failed = run_jobs(jobs_of(suite, folder, machine), folder, options)
    write_results(folder)
    if failed:
        names = "; ".join(f"{path.name}: {error}" for path, error in failed.items())
        raise StudyError(f"{len(failed)} runs are not done: {names}", "mend it and run the same command again")


# ------------------------------------------------------------------ before anything runs


def writable(folder: Path) -> Path:
    """The folder, made where it is missing. Raises OutputDirError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OutputDirError(f"{folder} cannot be written ({error.strerror})", "choose another --output") from error


def with_data(suite: Suite, options: BenchmarkOptions) -> Suite:
    """The suite on the data sets that can be had: each is found, collected or downloaded, read once, and its spaces
    compared with the environment's. All that is wrong is told at once.

    Raises UsageError for an unknown name, DataError, MissingInputError.
    """
    from offline_vi import datasets
    from offline_vi.scripts.common import DataOptions, check_task

    reading = {
        name.replace("-", "_"): value
        for name, value in suite.train.items()
        if name in ("env", "rows", "action-range", "on-nonfinite")
    }
    wrong: dict[str, OfflineVIError] = {}
    for label, files in suite.datasets.items():
        try:
            for file in files:
                datasets.ensure(file)
            check_task(DataOptions(dataset=files, **reading).load())
        except UsageError:
            raise
        except OfflineVIError as error:
            wrong[label] = error
    kept = {label: files for label, files in suite.datasets.items() if label not in wrong}
    for label, problem in wrong.items():
        print(f"{label}: {problem} ({problem.hint})", file=sys.stderr)
    if wrong and not (options.skip_missing and kept):
        kind = DataError if all(isinstance(error, DataError) for error in wrong.values()) else MissingInputError
        raise kind(
            f"{len(wrong)} of {len(suite.datasets)} data sets cannot be used: {', '.join(wrong)}",
            next(iter(wrong.values())).hint + (", or --skip-missing" if kept else ""),
        )
    return replace(suite, datasets=kept)


def command(suite: Suite, cell: Cell, folder: Path, machine: Mapping[str, str]) -> list[str]:
    """What a reader types to make the cell's row again, but for the output."""
    return ["offline-vi", "train", *_train(suite, cell, folder, machine)]


def decided(suite: Suite, folder: Path) -> dict[str, str]:
    """Precision and path of matrix products of all cells: as the suite says, as the study began, or by a trial."""
    from offline_vi.runs.files import read_json

    if (folder / "machine.json").exists():
        return {**read_json(folder / "machine.json"), **suite.machine}
    import torch

    from offline_vi.nn.precision import exact_products, preferred_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"precision": preferred_precision(device), "products": exact_products(), **suite.machine}


def check_unchanged(folder: Path, commands: Mapping[str, Sequence[str]], machine: Mapping[str, str]) -> None:
    """A study may grow, but a cell stays what it is. Raises ConfigError."""
    from offline_vi.runs.files import read_json

    if not (folder / "suite.json").exists():
        return
    if read_json(folder / "machine.json") != machine:
        raise ConfigError(f"{folder} was begun with another [machine]", "choose another --output")
    before = read_json(folder / "suite.json")["commands"]
    for name, words in commands.items():
        if name in before and before[name] != list(words) and (folder / "runs" / name).exists():
            raise ConfigError(
                f"{folder} holds the cell {name} with other options: {' '.join(before[name])}",
                "choose another --output, or remove that run",
            )


def remember(folder: Path, suite: Suite, commands: Mapping[str, Sequence[str]], machine: Mapping[str, str]) -> None:
    """suite.json, machine.json, environment.txt."""
    from offline_vi.runs.files import read_json, write_json
    from offline_vi.scripts.common import git_revision
    from offline_vi.scripts.info import versions
    from offline_vi.study.cells import JOURNAL, note

    write_json(folder / "machine.json", machine)
    known = read_json(folder / "suite.json")["commands"] if (folder / "suite.json").exists() else {}
    known |= {name: list(words) for name, words in commands.items()}
    write_json(folder / "suite.json", {"schema": SCHEMA, "suite": asdict(suite), "commands": known})
    facts = {**versions(), "platform": platform.platform(), "revision": git_revision(), **machine}
    (folder / "environment.txt").write_text("".join(f"{name} {value}\n" for name, value in facts.items()))
    if not (folder / "journal.csv").exists():
        note(folder / "journal.csv", *JOURNAL)


# ------------------------------------------------------------------ the work


def jobs_of(suite: Suite, folder: Path, machine: Mapping[str, str]) -> list[Any]:
    """The behaviour models that are shared, then the cells on them."""
    from offline_vi.study.cells import Job

    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    environment = tuple({**variables, "OFFLINE_VI_PRODUCTS": machine["products"]}.items())
    fits, cells = {}, []
    for cell in suite.cells():
        model = suite.models(cell)
        after = (model_path(folder, cell, model).resolve(),) if model else ()
        for path in after:
            arguments = ("fit-behavior", *fit_arguments(suite, cell.dataset, model, cell.seed))
            fits[path] = Job(path, arguments, (), environment, os.getcwd())
        arguments = ("train", *_train(suite, cell, folder, machine))
        cells.append(Job((folder / "runs" / cell.name).resolve(), arguments, after, environment, os.getcwd()))
    return [*fits.values(), *cells]


def model_path(folder: Path, cell: Cell, model: str) -> Path:
    """The run directory of a shared behaviour model."""
    from offline_vi.study.results import model_name

    return folder / "behavior" / model_name(cell, model)


def _train(suite: Suite, cell: Cell, folder: Path, machine: Mapping[str, str]) -> list[str]:
    from offline_vi.study.presets import preset
    from offline_vi.study.suite import train_options

    words = train_arguments(suite, cell)
    given = train_options(suite, cell)
    if {**preset(cell.preset).options(cell.algorithm, suite.model(cell)), **given}.get("precision") == "auto":
        words += ["--precision", machine["precision"]]
    if suite.model(cell):
        words += ["--behavior-from", str(model_path(folder, cell, suite.model(cell)))]
    elif suite.yardstick(cell):
        words += ["--support-from", str(model_path(folder, cell, suite.yardstick(cell)))]
    return words


def run_jobs(jobs: Sequence[Any], folder: Path, options: BenchmarkOptions) -> dict[Path, str]:
    """All of them, each when what it needs is done; returns the errors of those that are not done."""
    from offline_vi.study.board import Board
    from offline_vi.study.cells import is_done
    from offline_vi.study.engines import Engine, LocalEngine, RayEngine

    for part in ("runs", "behavior"):
        (folder / part).mkdir(exist_ok=True)
    done = {job.path for job in jobs if is_done(job.path)}
    waiting = {job.path: job for job in jobs if job.path not in done}
    failed: dict[Path, str] = {}
    board = Board(jobs, done, failed, options.quiet)
    if not waiting:
        board.close()
        return failed
    journal = folder / "journal.csv"
    engine: Engine
    if options.engine == "ray":
        variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        engine = RayEngine(options.address, options.gpus, options.retries, journal, variables)
    else:
        engine = LocalEngine(options.jobs, journal)
    under_way: set[Path] = set()
    try:
        while waiting or under_way:
            for path, job in list(waiting.items()):
                broken = [other for other in job.after if other in failed]
                if broken:
                    failed[waiting.pop(path).path] = f"its behaviour model {broken[0].name} is not done"
                    board.ended(job, failed[path], 0.0)
                elif all(other in done for other in job.after):
                    engine.submit(waiting.pop(path))
                    under_way.add(path)
            for job, outcome in engine.finished(timeout=1.0):
                under_way.discard(job.path)
                if outcome.done:
                    done.add(job.path)
                else:
                    failed[job.path] = outcome.error
                board.ended(job, outcome.error, outcome.seconds)
            board.draw()
    finally:
        engine.stop()
        board.close()
    return failed


# ------------------------------------------------------------------ what came of it


def write_results(folder: Path) -> None:
    """results.csv: a row per cell, done or not."""
    from offline_vi.study.cells import write_table
    from offline_vi.study.results import read_study, row_of

    write_table(folder / "results.csv", [row_of(run) for run in read_study(folder).runs])
    print(folder / "results.csv")


if __name__ == "__main__":
    main()
