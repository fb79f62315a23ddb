"""What a person sees of a training run: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import append
from offline_vi.training.metrics import over_seeds


class Progress:
    """A bar on a terminal, a line per log interval elsewhere; the lines go into the run's log.txt in any case."""

    def __init__(self, start: int, steps: int, enabled: bool, run: RunDirectory | None) -> None:
        self.steps, self.enabled = steps, enabled
        self.log = run.path / "log.txt" if run is not None else None
        self.terminal = enabled and sys.stderr.isatty()
        self.bar = tqdm(total=steps, initial=start, unit="step", disable=not self.terminal, dynamic_ncols=True)
        self.started, self.start = time.monotonic(), start

    def advance(self) -> None:
        if self.terminal:
            self.bar.update()

    def show(self, step: int, row: dict[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in over_seeds(row).items() if name != "step")
        rate = (step - self.start) / max(time.monotonic() - self.started, 1e-9)
        left = clock((self.steps - step) / max(rate, 1e-9))
        line = f"step {step:>9,}/{self.steps:,}  {rate:6.1f} steps/s  {left} left  {text}"
        self.write(line)
        if self.terminal:
            self.bar.set_postfix_str(text[:100], refresh=False)
        elif self.enabled:
            print(line, file=sys.stderr, flush=True)

    def evaluated(self, step: int, numbers: dict[str, float]) -> None:
        line = f"step {step:>9,}  evaluation: " + "  ".join(f"{name} {value:.1f}" for name, value in numbers.items())
        self.write(line)
        if self.enabled and numbers:
            tqdm.write(line, file=sys.stderr)

    def write(self, line: str) -> None:
        if self.log is not None:
            append(self.log, f"{line}\n".encode())

    def close(self) -> None:
        self.bar.close()


def clock(seconds: float) -> str:
    """E.g. "4 s", "3 min", "2 h 05 min"."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
