"""Fresh interpreters that make runs, and are killed on the way: they share nothing but files.

A worker imports what its works need, says "ready", reads how many runs to make, and then says when it begins a run and
when it is done. So a kill hits the work, and not the imports. The runs of a folder are an endless row, number 0 of each
work, then number 1, and so on; a worker goes on where the one before it was killed.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import itertools
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Work = Callable[[Path], object]  # makes the run in a directory, or goes on with it
ENDLESS = 1_000_000  # runs
LOGS = ("metrics.csv", "episodes.csv", "support.csv")


def main(module: str, folder: str, names: Sequence[str]) -> None:
    """The worker: works of a module, by their names in its table ``WORKS``."""
    gc.disable()  # a million objects are imported to stay: looking through them costs a sixth of the time
    works: Mapping[str, Work] = importlib.import_module(module).WORKS
    gc.freeze()
    gc.enable()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a work prints is no answer
    print("ready", file=answers)
    count = int(sys.stdin.readline())
    row = (Path(folder) / f"{name}-{number}" for number in itertools.count() for name in names)
    for path in itertools.islice((path for path in row if not finished(path).exists()), count):
        print("begin", path.name, file=answers)
        began = time.time()
        works[work_of(path)](path)
        finished(path).touch()
        print("done", path.name, newest_checkpoint(path).stat().st_mtime - began, file=answers)


def finished(path: Path) -> Path:
    """The mark of a run that is done."""
    return path.with_name(f"{path.name}.done")


def work_of(path: Path) -> str:
    """The name of the work that makes this run."""
    return path.name.rpartition("-")[0]


def environment() -> dict[str, str]:
    """What a fresh interpreter needs to import the library and these helpers, and to round as the others do."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "OFFLINE_VI_PRODUCTS": "highest",
    }


class Worker:
    """A fresh interpreter, seen from outside."""

    def __init__(self, module: str, folder: Path, names: Sequence[str]) -> None:
        command = [sys.executable, "-m", "fresh", module, str(folder), *names]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, env=environment())

    def start(self, runs: int) -> None:
        """Wait until everything is imported, then let it make so many runs."""
        assert self.answer() == ["ready"]
        assert self.process.stdin
        self.process.stdin.write(f"{runs}\n".encode())

    def answer(self) -> list[str]:
        """The words of its next line."""
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        assert line, f"the worker ended with code {self.process.wait()}"
        return line.split()

    def is_silent_for(self, seconds: float) -> bool:
        """Whether it says nothing for so long; returns as soon as it does."""
        assert self.process.stdout
        return not select.select([self.process.stdout], [], [], seconds)[0]

    def end(self, signum: signal.Signals) -> tuple[int, bool]:
        """(its exit code after the signal, whether it had said something before that nobody read)."""
        self.process.send_signal(signum)
        rest, _ = self.process.communicate()
        return self.process.returncode, bool(rest)

    def finish(self) -> None:
        """Wait for its end, which is a good one."""
        self.process.communicate()
        assert self.process.returncode == 0


def whole(module: str, folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Make run 0 of every work in one process that nobody kills; returns the seconds from the beginning of each to its
    last checkpoint: what comes afterwards, as its pictures, is no training."""
    worker, seconds = Worker(module, folder, names), {}
    worker.start(len(names))
    for name in names:
        assert worker.answer() == ["begin", f"{name}-0"]
        word, run, figure = worker.answer()
        assert (word, run) == ("done", f"{name}-0")
        seconds[name] = float(figure)
    worker.finish()
    return seconds


def kill_one(worker: Worker, left: Mapping[str, int], seconds: Mapping[str, float], rng: random.Random) -> list[str]:
    """Kill the worker at a random moment of the first run whose work has kills left.

    Returns the name of that work; nothing where the run came to its end first.
    """
    worker.start(ENDLESS)
    while True:
        word, run, *_ = worker.answer()
        name = work_of(Path(run))
        if word == "begin" and left[name] > 0 and worker.is_silent_for(rng.uniform(0.0, seconds[name])):
            code, spoke = worker.end(signal.SIGKILL)
            assert code == -signal.SIGKILL
            return [] if spoke else [name]


def survive(module: str, folder: Path, kills: Mapping[str, int]) -> int:
    """Kill each work so many times, let every run go on, compare all with run 0; returns the kills survived.

    A worker imports while the one before it works. One that was killed leaves one run unfinished: the next worker
    resumes it, to its end or to its next kill, and makes the runs that follow.
    """
    names, left, rng = list(kills), Counter(kills), random.Random(0)
    seconds = whole(module, folder, names)
    waiting = Worker(module, folder, names)
    while left.total():
        worker, waiting = waiting, Worker(module, folder, names)
        left.subtract(kill_one(worker, left, seconds, rng))
    waiting.start(1)
    waiting.finish()
    compare(folder, names)
    return sum(kills.values())


def compare(folder: Path, names: Sequence[str]) -> None:
    """Every run of the folder came to its end, with the bytes of run 0 of its work."""
    expected = {name: bytes_of(folder / f"{name}-0") for name in names}
    runs = [path for path in folder.iterdir() if path.is_dir() and work_of(path) in expected]
    for path in runs:
        assert finished(path).exists(), path.name
        assert bytes_of(path) == expected[work_of(path)], path.name
    assert {work_of(path) for path in runs if not path.name.endswith("-0")}  # something was compared


def newest_checkpoint(run: Path) -> Path:
    return max((run / "checkpoints").glob("step_*"))


def bytes_of(run: Path) -> dict[str, str]:
    """SHA-256 of every file of the newest checkpoint and of the logs."""
    files = [*sorted(newest_checkpoint(run).iterdir()), *(run / name for name in LOGS if (run / name).exists())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
