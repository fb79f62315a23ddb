"""The live table of a study: cells done, running, failed, time left."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence, Set as AbstractSet
from pathlib import Path

from offline_vi.console import as_drawn, standard_error
from offline_vi.study.cells import Job, last_step, status

REDRAW = 2.0  # seconds


class Board:
    """Redrawn in place on a terminal; elsewhere a line whenever a cell ends. ``done`` and ``failed`` are the caller's,
    and grow."""

    def __init__(self, jobs: Sequence[Job], done: AbstractSet[Path], failed: Mapping[Path, str], quiet: bool) -> None:
        self.jobs, self.done, self.failed, self.quiet = jobs, done, failed, quiet
        self.console, self.drawing = standard_error(), standard_error(as_drawn)
        self.terminal = not quiet and self.drawing.isatty() and not os.environ.get("NO_COLOR")
        self.started = self.drawn = time.monotonic()
        self.before = self.work_done()
        self.lines = 0

    @staticmethod
    def steps(job: Job) -> int:
        """Gradient steps that the job is to take; the verbs' default where it does not say."""
        words = list(job.arguments)
        default = 50_000 if words[0] == "train" else 20_000
        return int(words[words.index("--steps") + 1]) if "--steps" in words else default

    def running(self) -> list[Job]:
        """The runs that are in progress, by their own records."""
        open_ = [job for job in self.jobs if job.path not in self.done and job.path not in self.failed]
        return [job for job in open_ if status(job.path).get("status") == "running"]

    def work_done(self) -> float:
        """Gradient steps of everything so far."""
        return float(sum(self.steps(job) if job.path in self.done else last_step(job.path) for job in self.jobs))

    def summary(self) -> str:
        """One line."""
        elapsed = time.monotonic() - self.started
        finished = len(self.done) + len(self.failed)
        words = [f"{len(self.done)} of {len(self.jobs)} runs done", f"{len(self.running())} running"]
        words += [f"{len(self.failed)} failed", f"{hours(elapsed)} so far"]
        made = self.work_done() - self.before
        open_ = [job for job in self.jobs if job.path not in self.done and job.path not in self.failed]
        left = sum(self.steps(job) - last_step(job.path) for job in open_)
        if made > 0 and finished < len(self.jobs):
            words.append(f"about {hours(elapsed * left / made)} left")
        return ", ".join(words)

    def ended(self, job: Job, error: str, seconds: float) -> None:
        """A job came to its end."""
        if self.quiet:
            return
        self.erase()
        outcome = f"failed: {error}" if error else hours(seconds)
        print(f"{job.path.name}  {outcome}", file=self.console)
        if not self.terminal:
            print(f"  {self.summary()}", file=self.console, flush=True)

    def draw(self) -> None:
        """Draw the board, at most every two seconds, on a terminal."""
        if not self.terminal or time.monotonic() - self.drawn < REDRAW:
            return
        self.drawn = time.monotonic()
        wide = shutil.get_terminal_size((100, 24)).columns
        rows = [self.summary()]
        for job in self.running()[:8]:
            at, of = last_step(job.path), self.steps(job)
            filled = round(20 * min(at / max(of, 1), 1.0))
            rows.append(f"  {'#' * filled}{'.' * (20 - filled)} {at:>9,}/{of:,}  {job.path.name}")
        self.erase()
        print("\n".join(row[: wide - 1] for row in rows), file=self.console, flush=True)
        self.lines = len(rows)

    def erase(self) -> None:
        """Take back what `draw` drew."""
        if self.lines:
            print(f"\x1b[{self.lines}A\x1b[J", end="", file=self.drawing)
            self.lines = 0

    def close(self) -> None:
        """The last line stays."""
        self.erase()
        if not self.quiet:
            print(self.summary(), file=self.console, flush=True)


def hours(seconds: float) -> str:
    """3:12, 1:20:00."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
