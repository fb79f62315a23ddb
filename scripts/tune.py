"""offline-vi tune SUITE.toml: search hyper-parameters on a suite with Optuna; resumable, hopeless trials are cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from offline_vi.scripts.arguments import parsed


@dataclass(frozen=True)
class TuneOptions:
    """Search what the suite's [search.ALGORITHM] tables name: the mean of the final normalized scores over the suite's
    data sets and seeds is maximized. The tuned score of the best trial is optimistic: score it again on new seeds."""

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE.toml")]
    """A suite with [search.ALGORITHM] tables."""
    output: str = ""
    """Folder of the search; default runs/tune-NAME."""
    trials: int = 20
    """Trials for each algorithm, those of earlier calls included."""
    jobs: int = 2
    """Cells at once, one thread each."""
    env: str = ""
    """Allow the environment that the suite names, where it is code: module:Id."""
    startup: int = 5
    """Trials before the first one may be cut, and before the search looks at what it has found."""
    seed: int = 0
    """Of the search."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Print nothing on the way."""


def main(arguments: list[str] | None = None) -> None:
    tune(parsed(TuneOptions, arguments, "offline-vi tune"))


def tune(options: TuneOptions) -> None:
    """A search per algorithm."""
    from offline_vi.study.search import SearchOptions, run_search
    from offline_vi.study.suite import read_suite

    suite = read_suite(options.suite)
    folder = Path(options.output or Path("runs") / f"tune-{suite.name}")
    run_search(suite, folder, SearchOptions(options.trials, options.jobs, options.startup, options.seed, options.quiet))


if __name__ == "__main__":
    main()
