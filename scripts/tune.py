"""offline-vi tune SUITE.toml: search hyper-parameters on a suite with Optuna. A search can be resumed, and hopeless
trials are stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from offline_vi.scripts.arguments import parsed


@dataclass(frozen=True)
class TuneOptions:
    """Search the hyper-parameters that the suite's [search.ALGORITHM] tables name. The search maximizes the mean of the
    final normalized scores over the suite's data sets and seeds. The score of the best trial is optimistic: score its
    settings again on new seeds. It needs the extra 'optuna'."""

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE.toml")]
    """A suite's file with [search.ALGORITHM] tables."""
    output: str = ""
    """Folder of the search; default: runs/tune-NAME."""
    trials: int = 20
    """Trials for each algorithm, including those of earlier calls."""
    jobs: int = 2
    """Cells at once, one thread each."""
    env: str = ""
    """Allow the suite's environment to be imported, where it is code of yours: module:Id."""
    startup: int = 5
    """Trials that run to their end before any may be stopped, and before the search uses what it has found."""
    seed: int = 0
    """Seed of the search."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Print no trials along the way."""


def main(arguments: list[str] | None = None) -> None:
    tune(parsed(TuneOptions, arguments, "offline-vi tune"))


def tune(options: TuneOptions) -> None:
    """Run one search for each algorithm."""
    from offline_vi.study.ahead import same_command_goes_on
    from offline_vi.study.search import SearchOptions, run_search
    from offline_vi.study.suite import read_suite

    suite = read_suite(options.suite)
    folder = Path(options.output or Path("runs") / f"tune-{suite.name}")
    search = SearchOptions(options.trials, options.jobs, options.startup, options.seed, options.quiet)
    with same_command_goes_on(f"searching on the suite {suite.name}"):
        run_search(suite, folder, search)


if __name__ == "__main__":
    main()
