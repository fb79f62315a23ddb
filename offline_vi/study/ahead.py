"""Models that an experiment fits before its own steps, each in a run directory inside its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offline_vi.runs.directory import RunDirectory
from offline_vi.study.run import RunOptions
from offline_vi.training.loop import LoopOptions


@contextmanager
def fitted_ahead(path: Path, run: RunOptions, what: str) -> Iterator[LoopOptions]:
    """Options of `fit` for a fit of ``what`` in the run ``path``, which goes on where it was cut."""
    with RunDirectory.resume(path) if path.is_dir() else RunDirectory.create(path) as directory:
        yield {
            "seed": run.seed,
            "device": run.torch_device(),
            "log_every": run.log_every,
            "run": directory,
            "save_every": run.save_every,
            "resume": directory.has_checkpoint(),
            "progress": not run.quiet,
            "phase": what,
        }
