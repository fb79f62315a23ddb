"""Runs of `offline-vi train` and `fit-behavior` as the cells of a study, each in a process of its own with one thread.
Finished runs are skipped, interrupted ones resumed, failed ones reported.

`python -m offline_vi.scripts.cell VERB ...` is that process: the command, but it ends with whoever started it.
"""

from __future__ import annotations

import csv
import ctypes
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from offline_vi.errors import RunLockedError
from offline_vi.escaping import csv_cell
from offline_vi.runs.files import append, parse_json, read_file, read_json, read_text, write_text

JOURNAL = ("run", "host", "pid", "started", "exit_code", "seconds")  # columns: a row per process that worked on a run
PARENT = "OFFLINE_VI_PARENT"  # variable with the process number of whoever started a cell
LOCKED = RunLockedError.exit_code
PATIENCE = 600.0  # seconds to wait for a run that another process still holds
VARIABLES = ("OFFLINE_VI_DATA", "D4RL_DATASET_DIR", "MINARI_DATASETS_PATH", "MUJOCO_GL", "PYTHONPATH")


Started = Callable[[subprocess.Popen[str]], None]
"""Called with the process of a cell."""


class Job(NamedTuple):
    """One run directory and the command that makes it."""

    path: Path  # its directory
    arguments: tuple[str, ...]  # the verb and its flags, without --output and --resume
    after: tuple[Path, ...] = ()  # runs that have to be done before
    environment: tuple[tuple[str, str], ...] = ()  # variables that differ
    folder: str = ""  # to work in; empty: where the starter works


class Outcome(NamedTuple):
    """The outcome of a job."""

    done: bool  # whether it came to its end
    error: str  # its one line; empty where it is done
    seconds: float  # this time


def is_done(run: Path) -> bool:
    """Whether the run has come to its end."""
    return (run / "result.json").exists() and status(run).get("status") == "done"


def status(run: Path) -> dict[str, object]:
    """The run's run.json; empty where there is none."""
    with suppress(OSError, ValueError):
        return parse_json(read_file(run / "run.json"))
    return {}


def result(run: Path) -> dict[str, object]:
    """The run's result.json."""
    return read_json(run / "result.json")


def inherited() -> dict[str, str]:
    """The environment variables of this process that say where data are and how a cell renders."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def run_job(job: Job, journal: Path | None = None, started: Started | None = None) -> Outcome:
    """Bring one run to its end, from wherever it is. Never raises for what goes wrong inside the cell.

    Where another process holds the run (one whose starter has died, or that works on the same study), it is waited for,
    and its result is taken.
    """
    waited = 0.0
    while not is_done(job.path):
        clock, began = time.time(), time.monotonic()
        ended, error = _process(job, started)
        if ended == LOCKED and waited < PATIENCE:
            time.sleep(1.0)
            waited += time.monotonic() - began
            continue
        outcome = Outcome(ended == 0 and is_done(job.path), error, time.monotonic() - began)
        if journal is not None:
            note(journal, job.path.name, socket.gethostname(), os.getpid(), f"{clock:.0f}", ended, outcome.seconds)
        return outcome
    return Outcome(True, "", 0.0)


def note(journal: Path, *cells: object) -> None:
    """Append a row to a CSV file to which other processes append at the same time: one line in one system call."""
    line = ",".join(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells) + "\n"
    append(journal, line.encode())


def _process(job: Job, started: Started | None) -> tuple[int, str]:
    """(exit code, its error in one line or empty)."""
    started_before = (job.path / "config.json").exists()  # else it may have been killed before it had written anything
    flags = ["--resume" if started_before else "--overwrite"]
    cell = [sys.executable, "-m", "offline_vi.scripts.cell", *job.arguments, "--output", str(job.path), "-q"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", PARENT: str(os.getpid()), **dict(job.environment)}
    with subprocess.Popen(
        [*cell, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        cwd=job.folder or None,
    ) as process:
        if started is not None:
            started(process)
        _, output = process.communicate()
    if process.returncode == 0:
        return 0, ""
    if process.returncode < 0:
        return process.returncode, f"killed by {signal_name(-process.returncode)}"
    lines = [line for line in output.strip().splitlines() if line]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return process.returncode, (errors or lines[-1:] or [f"exit code {process.returncode}"])[0]


def signal_name(number: int) -> str:
    """The name of a signal, e.g. "SIGKILL"; real-time signals have none."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def run_cells(cells: Mapping[Path, Sequence[str]], jobs: int = 1) -> None:
    """run directory -> arguments of `offline-vi train` (without --output); ``jobs`` at once; a line for each."""

    def one(cell: tuple[Path, Sequence[str]]) -> None:
        path, arguments = cell
        if not is_done(path):
            outcome = run_job(Job(path, ("train", *arguments)))
            print(f"{path.name}: {f'{outcome.seconds:.0f} s' if outcome.done else outcome.error}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, cells.items()))


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that can be read; none if there is no such file."""
    rows: list[dict[str, str]] = []
    with suppress(csv.Error):
        rows.extend(csv.DictReader(io.StringIO(read_text(path), newline="")))
    return rows


def last_step(run: Path) -> int:
    """How far a run is, in gradient steps, from its metrics.csv."""
    rows = table(run / "metrics.csv")
    with suppress(ValueError, TypeError, KeyError, IndexError):  # its last line may be half written
        return int(float(rows[-1]["step"]))
    return 0


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the rows as CSV, with every column that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when whoever started this process dies, SIGKILL included: the step is finished, the
    checkpoint written, the lock released. Where the kernel cannot do that (it is Linux's), the cell goes on alone."""
    set_death_signal = 1
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(set_death_signal, int(signal.SIGTERM), 0, 0, 0)
    if str(os.getppid()) != os.environ.get(PARENT):  # whoever started it is gone already
        sys.exit(128 + signal.SIGTERM)
