"""offline-vi benchmark SUITE: run algorithms x data sets x seeds, each in a run directory. Finished runs are skipped,
interrupted ones resumed."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from offline_vi.errors import UsageError
from offline_vi.scripts.arguments import parsed


@dataclass(frozen=True)
class BenchmarkOptions:
    """Run every cell of a suite that is not done yet, each in a process of its own."""

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE.toml|NAME")] = ""
    """A suite's file, or the name of a suite that comes with the library. Without it, those names are listed."""
    output: str = ""
    """Folder of the study; default: runs/benchmark-NAME, with --steps and --seeds in the name where they are given."""
    steps: int | None = None
    """Gradient steps of every algorithm and shared model, to shrink a suite; default: as the suite says. Intervals
    between evaluations shrink in proportion."""
    seeds: int | None = None
    """Number of seeds, counted from the suite's first; default: those of the suite."""
    jobs: int = 2
    """Cells at once, one thread each (engine local)."""
    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine; ray: tasks of a Ray cluster, the folder on storage that its nodes share."""
    address: str = ""
    """Address of the Ray cluster, e.g. auto or ray://HOST:10001; default: Ray starts on this machine."""
    gpus: float = 0.0
    """Share of one GPU that each cell gets (engine ray)."""
    env: str = ""
    """Allow the suite's environment to be imported, where it is code of yours: module:Id."""
    retries: int = 3
    """How often a cell is started again after its node died (engine ray)."""
    skip_missing: bool = False
    """Leave out data sets that are not available, instead of stopping before anything starts."""
    check: bool = False
    """Check everything and list the commands of the cells, but run nothing."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Show no progress on stderr."""


def main(arguments: list[str] | None = None) -> None:
    options = parsed(BenchmarkOptions, arguments, "offline-vi benchmark")
    from offline_vi.study.suite import read_suite, shipped

    if not options.suite:
        for name in shipped():
            print(f"{name:<18}{read_suite(name).description}")
        raise UsageError("no suite is given", "offline-vi benchmark NAME, or a file SUITE.toml")
    benchmark(options)


def benchmark(options: BenchmarkOptions) -> None:
    """Check, run, print where the table is."""
    from offline_vi.study.ahead import same_command_goes_on
    from offline_vi.study.benchmark import run_study
    from offline_vi.study.checks import notes
    from offline_vi.study.engines import LocalOptions, RayOptions
    from offline_vi.study.plan import plan_study
    from offline_vi.study.shrinking import shrunk
    from offline_vi.study.suite import read_suite

    local = LocalOptions(options.jobs)
    engine = local if options.engine == "local" else RayOptions(options.address, options.gpus, options.retries)
    suite = shrunk(read_suite(options.suite), options.steps, options.seeds)
    folder = Path(options.output or Path("runs") / f"benchmark-{suite.name}")
    new = not folder.exists()
    plan = plan_study(suite, folder, skip_missing=options.skip_missing)
    for label, error in plan.missing.items():
        print(f"{label} is left out: {error} ({error.hint})", file=sys.stderr)
    for note in notes(suite) if not options.quiet else []:
        print(f"note: {note}", file=sys.stderr)
    if options.check:
        jobs = plan.jobs()
        here = Path.cwd()
        for job in jobs:
            path = job.path.relative_to(here) if job.path.is_relative_to(here) else job.path
            print(shlex.join(["offline-vi", *job.arguments, "--output", str(path)]))
        fits = sum(job.arguments[0] == "fit-behavior" for job in jobs)
        first = f", after {fits} fits of behavior models" if fits else ""
        print(f"{len(jobs) - fits} cells{first}; all checks passed", file=sys.stderr)
        if new:
            folder.rmdir()  # it was made to see whether it can be
        return
    with same_command_goes_on(f"running the suite {suite.name}"):
        print(run_study(plan, engine, quiet=options.quiet))
    if not options.quiet:
        print(f"the scores: {shlex.join(['offline-vi', 'report', str(folder)])}", file=sys.stderr)


if __name__ == "__main__":
    main()
