"""offline-vi report DIR: show a benchmark or single runs in tables and plots, next to published scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from offline_vi.scripts.arguments import parsed


@dataclass(frozen=True)
class ReportOptions:
    """Write report.html (one self-contained file), report.md and results.csv for a benchmark, a run, or several
    runs."""

    folders: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="DIR [RUN ...]")]
    """Folder of `offline-vi benchmark`, or run directories, e.g. several seeds of one command."""
    output: str = ""
    """Where the files go; default: the folder itself, for several folders a new one: runs/report, then runs/report-2
    and so on. A folder that is given may hold an earlier report, which is replaced."""
    html: bool = True
    """Write report.html."""
    markdown: bool = True
    """Write report.md."""
    latex: bool = False
    """Write report.tex: the tables for a paper (booktabs)."""


def main(arguments: list[str] | None = None) -> None:
    report(parsed(ReportOptions, arguments, "offline-vi report"))


def report(options: ReportOptions) -> None:
    """Read, write, print what was written and what was left out."""
    from offline_vi.errors import UsageError
    from offline_vi.study.names import new_folder
    from offline_vi.study.report import LATEX, going_on, read_any, write_report

    if not options.folders:
        raise UsageError("no folder is given", "offline-vi report runs/NAME")
    study = read_any(options.folders)
    own = Path(options.folders[0]) if len(options.folders) == 1 else new_folder(Path("runs") / "report")
    wanted = ((options.html, "report.html"), (options.markdown, "report.md"), (options.latex, LATEX))
    for path in write_report(
        study, Path(options.output) if options.output else own, [name for asked, name in wanted if asked]
    ):
        print(path)
    for failure in study.failures:
        print(f"left out: {failure.name}: {failure.error}")
    for command in going_on(study):
        print(f"to go on: {command}")


if __name__ == "__main__":
    main()
