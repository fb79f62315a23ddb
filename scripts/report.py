"""offline-vi report DIR: tables and plots of a benchmark, beside the published numbers, as a page, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from offline_vi.errors import MissingDependencyError

if TYPE_CHECKING:
    from offline_vi.evaluation.statistics import Interval
    from offline_vi.study.results import Study

TEMPLATES = Path(__file__).resolve().parent / "templates"
BAND_LEVELS = 61  # thresholds of a performance profile


@dataclass(frozen=True)
class ReportOptions:
    """Write report.html (self-contained), report.md and results.csv into a benchmark's folder."""

    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """Folder of `offline-vi benchmark`."""
    html: bool = True
    """Write report.html."""
    markdown: bool = True
    """Write report.md."""


def main(arguments: list[str] | None = None) -> None:
    report(tyro.cli(ReportOptions, args=arguments, prog="offline-vi report"))


def report(options: ReportOptions) -> None:
    """Raises MissingInputError where the folder is no benchmark, MissingDependencyError without jinja2."""
    from offline_vi.study.cells import write_table
    from offline_vi.study.results import read_study, row_of

    study = read_study(options.folder)
    write_table(study.folder / "results.csv", [row_of(run) for run in study.runs])
    print(study.folder / "results.csv")
    content = contents(study)
    for wanted, name in ((options.html, "report.html"), (options.markdown, "report.md")):
        if wanted:
            (study.folder / name).write_text(render(name, content), encoding="utf-8")
            print(study.folder / name)


def render(name: str, content: dict[str, Any]) -> str:
    """A template filled in; what comes from files is escaped in HTML."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise MissingDependencyError("a report needs jinja2", "pip install 'offline-vi[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    return environment.get_template(name).render(content)


def contents(study: Study) -> dict[str, Any]:
    """Everything that the templates show."""
    from offline_vi.study import tables

    scores, aggregates = tables.score_rows(study), tables.aggregate_rows(study)
    return {
        "suite": study.suite,
        "environment": study.environment,
        "methods": tables.methods(study.suite),
        "done": sum(run.done for run in study.runs),
        "runs": study.runs,
        "failed": [run for run in study.runs if not run.done],
        "scores": scores,
        "scored": any(row["mean"] is not None for row in scores),
        "sources": sorted({source for row in scores for _, source in row["published"]}),
        "aggregates": aggregates,
        "fewest": min((row["fewest"] for row in aggregates), default=0),
        "aggregate_coverage": tables.aggregate_coverage(study),
        "comparable": tables.comparable(study),
        "comparisons": tables.comparisons(study),
        "densities": tables.density_rows(study),
        "supports": tables.support_rows(study),
        "hours": sum(run.seconds for run in study.runs) / 3600.0,
        "model_hours": sum(model["seconds"] for model in study.models) / 3600.0,
        "notes": sorted({f"{run.cell.dataset}: {note}" for run in study.runs if (note := note_of(run.path))}),
        "plots": plots(study),
    }


def note_of(path: Path) -> str:
    """What a reader of the run's scores has to know."""
    from offline_vi.runs.files import read_json

    if not (path / "config.json").exists():
        return ""
    return str((read_json(path / "config.json").get("task") or {}).get("note", ""))


def plots(study: Study) -> dict[str, Any]:
    """SVG texts: the aggregate IQM, the performance profiles, a learning curve per data set."""
    import numpy as np

    from offline_vi.evaluation.statistics import performance_profile
    from offline_vi.study import svg, tables

    rows = tables.aggregate_rows(study)
    drawn: dict[str, Any] = {
        "curves": {},
        "legend": svg.legend({m.label: m.colour for m in tables.methods(study.suite)}),
    }
    if rows:
        bars = [
            svg.Bar(row["method"].label, row["IQM"].value, row["IQM"].low, row["IQM"].high, row["method"].colour)
            for row in rows
        ]
        drawn["aggregate"] = svg.intervals(bars, "IQM of the final normalised score, 95 % interval")
        scores = {row["method"]: tables.tasks(study, row["method"]) for row in rows}
        highest = max(value for one in scores.values() for task in one for value in task)
        thresholds = np.linspace(0.0, max(100.0, 10.0 * np.ceil(highest / 10.0)), BAND_LEVELS)
        lines = []
        for method, one in scores.items():
            x, y, low, high = (column.tolist() for column in performance_profile(one, thresholds))
            lines.append(svg.Line(x, y, low, high, method.colour))
        drawn["profiles"] = svg.curves(
            lines, "normalised score", "share of runs above it", size=(520, 300), y_range=(0.0, 1.0)
        )
    for dataset in study.suite.datasets:
        lines = []
        for curve in tables.learning_curves(study, dataset):
            y, low, high = (list(column) for column in zip(*curve.points, strict=True))
            lines.append(svg.Line(curve.steps, y, low, high, curve.method.colour, dots=True))
        if lines:
            drawn["curves"][dataset] = svg.curves(lines, "gradient steps", "IQM of the normalised score")
    return drawn


# ------------------------------------------------------------------ how numbers look


def number(value: float | None, digits: int = 1) -> str:
    """One decimal, as scores are given; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def span(interval: Interval | None, digits: int = 1) -> str:
    """The bounds of an interval."""
    return "–" if interval is None else f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100.0 * value:.{digits}f} %"


def clock(seconds: float | None) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if seconds is None:
        return "–"
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.1f} h"


def thousands(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


FILTERS: dict[str, Callable[..., str]] = {
    "number": number,
    "span": span,
    "percent": percent,
    "clock": clock,
    "thousands": thousands,
}

if __name__ == "__main__":
    main()
