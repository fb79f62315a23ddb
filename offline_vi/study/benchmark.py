"""A study from its plan to its table. Every cell that is not done runs in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offline_vi.errors import StudyError, counted
from offline_vi.runs.files import writing
from offline_vi.study.board import Board
from offline_vi.study.cells import Job, is_done
from offline_vi.study.engines import EngineOptions, LocalOptions
from offline_vi.study.plan import Plan, write_plan
from offline_vi.study.results import read_study, write_results

LOCAL = LocalOptions()


def run_study(plan: Plan, engine: EngineOptions = LOCAL, *, quiet: bool = False) -> Path:
    """Run the cells that are not done, and resume those that were interrupted. Returns results.csv, which has a row per
    cell. ``engine`` is by default `LocalOptions()`, which runs two cells at once on this machine.

    Raises StudyError at the end where runs failed, and what the engine raises when it starts.
    """
    write_plan(plan)
    failed = run_jobs(plan.jobs(), plan.folder, engine, quiet=quiet)
    results = write_results(read_study(plan.folder), plan.folder)
    if failed:
        names = "; ".join(f"{path.name}: {error}" for path, error in failed.items())
        raise StudyError(f"{counted(len(failed), 'run')} not done: {names}", "fix it and run the same command again")
    return results


def run_jobs(jobs: Sequence[Job], folder: Path, options: EngineOptions, *, quiet: bool = False) -> dict[Path, str]:
    """Run all jobs, each when what it needs is done. Returns the errors of those that are not done."""
    with writing(folder, 0):
        for part in ("runs", "behavior"):
            (folder / part).mkdir(exist_ok=True)
    done = {job.path for job in jobs if is_done(job.path)}
    waiting = {job.path: job for job in jobs if job.path not in done}
    failed: dict[Path, str] = {}
    board = Board(jobs, done, failed, quiet)
    if not waiting:
        board.close()
        return failed
    engine = options.start(folder / "journal.csv")
    running: set[Path] = set()
    try:
        while waiting or running:
            for path, job in list(waiting.items()):
                broken = [other for other in job.after if other in failed]
                if broken:
                    failed[waiting.pop(path).path] = f"its behavior model {broken[0].name} is not done"
                    board.ended(job, failed[path], 0.0)
                elif all(other in done for other in job.after):
                    engine.submit(waiting.pop(path))
                    running.add(path)
            for job, outcome in engine.finished(timeout=1.0):
                running.discard(job.path)
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
