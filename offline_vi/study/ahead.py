"""Models that an experiment fits before its own steps, each in a run directory inside its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offline_vi.errors import Interrupted
from offline_vi.runs.checkpoint import published
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.ownership import CHECKPOINTS
from offline_vi.stopping import Stop
from offline_vi.study.run import RunOptions
from offline_vi.training.loop import LoopOptions


@contextmanager
def same_command_goes_on(what: str) -> Iterator[None]:
    """A request to stop within it says what was going on, and that the same command goes on with it."""
    try:
        yield
    except Stop as stop:
        error = Interrupted(stop.signum)
        error.during(what)
        error.hint = "what was done is saved: the same command goes on where it stopped"
        raise error from None


@contextmanager
def doing(what: str, run: RunDirectory) -> Iterator[None]:
    """A request to stop within it says what was going on, and what the run keeps."""
    try:
        yield
    except Stop as stop:
        error = Interrupted(stop.signum, saved=run.newest_step())
        error.during(what, ahead=_has_parts(run.path))
        raise error from None
    except Interrupted as error:
        error.during(what, ahead=_has_parts(run.path))
        raise


def _has_parts(path: Path) -> bool:
    """Whether a run holds gradient steps of something that was fitted ahead."""
    return any(published(folder) for folder in path.glob(f"*/{CHECKPOINTS}"))


@contextmanager
def fitted_ahead(path: Path, run: RunOptions, what: str) -> Iterator[LoopOptions]:
    """Options of `fit` for a fit of ``what`` in the run ``path``, which goes on where it was cut."""
    with (
        RunDirectory.resume(path) if path.is_dir() else RunDirectory.create(path) as directory,
        doing(f"fitting the {what}", directory),
    ):
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
