"""offline-vi compare RUN ... --baseline X: compare any runs with a baseline among them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from offline_vi.scripts.arguments import parsed


@dataclass(frozen=True)
class CompareOptions:
    """Compare runs, or the methods of a benchmark, with a baseline: the difference of the IQM with its interval, the
    probability of improvement and a permutation test. Where both sides have the same seeds, seeds are paired. A report
    is written as well."""

    folders: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Run directories, or folders of `offline-vi benchmark`. Runs that differ in more than their seed are methods of
    their own."""
    baseline: str = ""
    """What the others are compared with: an algorithm, a variant, a label of the table, or one of the run directories;
    default: the first method."""
    evaluations: bool = False
    """Compare evaluations that `offline-vi evaluate` kept of the runs, instead of the final ones of their training: on
    each data set the newest that all runs have with the same number of episodes, first seed, environment and
    guards. The policies then began in the same states, and their differences are tested over these, too."""
    output: str = ""
    """Where report.html, report.md and results.csv go; default: a new folder, runs/compare, then runs/compare-2 and
    so on. A folder that is given may hold an earlier report, which is replaced."""
    latex: bool = False
    """Write report.tex as well: the tables for a paper (booktabs)."""


def main(arguments: list[str] | None = None) -> None:
    options = parsed(CompareOptions, arguments, "offline-vi compare")
    from offline_vi.errors import UsageError
    from offline_vi.study.compare import against_baseline, lines
    from offline_vi.study.names import new_folder
    from offline_vi.study.report import LATEX, PAGES, contents, going_on, read_any, write_report
    from offline_vi.study.rescoring import with_kept_scores

    if not options.folders:
        raise UsageError("no run is given", "offline-vi compare runs/A runs/B --baseline runs/A")
    study = read_any(options.folders)
    study = against_baseline(with_kept_scores(study) if options.evaluations else study, options.baseline)
    print("\n".join(lines(contents(study))))
    folder = Path(options.output) if options.output else new_folder(Path("runs") / "compare")
    for path in write_report(study, folder, [*PAGES, *([LATEX] if options.latex else [])]):
        print(path)
    for failure in study.failures:
        print(f"left out: {failure.name}: {failure.error}")
    for command in going_on(study):
        print(f"to go on: {command}")


if __name__ == "__main__":
    main()
