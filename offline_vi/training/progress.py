"""What a person sees of a training run: a bar on a terminal, lines elsewhere. Nothing that fails here ends a run."""

from __future__ import annotations

import time
from contextlib import suppress

from tqdm import tqdm

from offline_vi.console import as_drawn, standard_error
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import append
from offline_vi.training.metrics import over_seeds

SOON = 10.0  # seconds until people want to know how long it will take


class Progress:
    """A bar on a terminal; elsewhere a line per log interval, and one after ten seconds. Those per interval go into the
    run's log.txt in any case."""

    def __init__(self, start: int, steps: int, enabled: bool, run: RunDirectory | None, phase: str = "") -> None:
        self.steps, self.enabled, self.head = steps, enabled, f"{phase}: " if phase else ""
        self.log = run.path / "log.txt" if run is not None else None
        self.console, drawing = standard_error(), standard_error(as_drawn)
        self.terminal = enabled and drawing.isatty()
        self.bar = tqdm(
            desc=phase or None,
            total=steps,
            initial=start,
            unit="step",
            disable=not self.terminal,
            dynamic_ncols=True,
            file=drawing,
        )
        self.started, self.start, self.done, self.silent = time.monotonic(), start, start, True

    def advance(self, steps: int) -> None:
        self.done += steps
        if self.terminal:
            self.bar.update(steps)
        elif self.enabled and self.silent and time.monotonic() - self.started > SOON:
            print(self.speed(self.done), file=self.console, flush=True)
            self.silent = False

    def show(self, step: int, row: dict[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in over_seeds(row).items() if name != "step")
        line, self.silent = self.speed(step) + text, False
        self.write(line)
        if self.terminal:
            self.bar.set_postfix_str(text[:100], refresh=False)
        elif self.enabled:
            print(line, file=self.console, flush=True)

    def evaluated(self, step: int, numbers: dict[str, float]) -> None:
        if not numbers:
            return
        text = "  ".join(f"{name} {value:.1f}" for name, value in numbers.items())
        line = f"{self.head}step {step:>9,}/{self.steps:,}  {self.left(step)}evaluation: {text}"
        self.write(line)
        if self.enabled:
            self.bar.clear()
            print(line, file=self.console, flush=True)

    def speed(self, step: int) -> str:
        """How far it is, how fast, and how long it will take."""
        return f"{self.head}step {step:>9,}/{self.steps:,}  {self.rate(step):6.1f} steps/s  {self.left(step)}"

    def rate(self, step: int) -> float:
        """Gradient steps a second since this process began, evaluations and checkpoints included."""
        return (step - self.start) / max(time.monotonic() - self.started, 1e-9)

    def left(self, step: int) -> str:
        """The time that the other steps will take; empty where nothing is known about it yet."""
        rate = self.rate(step)
        return f"{clock((self.steps - step) / rate)} left  " if rate else ""

    def write(self, line: str) -> None:
        """Into log.txt: what it says is in the CSV files, too, so that a full disk costs nothing here."""
        if self.log is not None:
            with suppress(OSError):
                append(self.log, f"{line}\n".encode())

    def close(self) -> None:
        self.bar.close()


def clock(seconds: float) -> str:
    """E.g. "4 s", "3 min", "2 h 05 min"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
