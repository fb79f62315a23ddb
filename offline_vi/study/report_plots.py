"""The plots of a report, as SVG texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from offline_vi.study import svg
from offline_vi.study.scores import RETURN, SCORE

if TYPE_CHECKING:
    from offline_vi.study.results import Study
    from offline_vi.study.tables import AggregateRow

BAND_LEVELS = 61  # thresholds of a performance profile


@dataclass(frozen=True)
class ReportPlots:
    """SVG texts; empty where there is nothing to draw."""

    legend: str  # HTML
    aggregate: str  # IQM over all data sets, with its interval
    profiles: str  # performance profiles
    curves: dict[str, str]  # data set -> learning curves


def report_plots(study: Study, rows: list[AggregateRow]) -> ReportPlots:
    """All plots of a study; ``rows`` are its aggregates."""
    legend = svg.legend({method.label: method.color for method in study.methods})
    curves = {dataset: learning_curves(study, dataset) for dataset in study.suite.datasets}
    return ReportPlots(
        legend,
        aggregate_plot(rows) if rows else "",
        profiles_plot(study, rows) if rows else "",
        {dataset: drawn for dataset, drawn in curves.items() if drawn},
    )


def aggregate_plot(rows: list[AggregateRow]) -> str:
    """The IQM of each method, with its interval where each data set has several runs, as in the table."""
    bars = []
    for row in rows:
        iqm = row.aggregates["IQM"]
        low, high = (iqm.low, iqm.high) if row.fewest > 1 else (iqm.value, iqm.value)
        bars.append(svg.Bar(row.method.label, iqm.value, low, high, row.method.color))
    return svg.intervals(bars, "IQM of the final normalized score, 95 % interval")


def profiles_plot(study: Study, rows: list[AggregateRow]) -> str:
    """The share of runs above each score."""
    import numpy as np

    from offline_vi.evaluation.statistics import performance_profile
    from offline_vi.study import tables

    scores = {row.method: tables.tasks(study, row.method) for row in rows}
    highest = max(value for one in scores.values() for task in one for value in task)
    thresholds = np.linspace(0.0, max(100.0, 10.0 * np.ceil(highest / 10.0)), BAND_LEVELS)
    lines = []
    for method, one in scores.items():
        x, y, low, high = (column.tolist() for column in performance_profile(one, thresholds))
        lines.append(svg.Line(x, y, low, high, method.color))
    return svg.curves(lines, "normalized score", "share of runs above it", size=(520, 300), y_range=(0.0, 1.0))


def learning_curves(study: Study, dataset: str) -> str:
    """IQM over seeds at each evaluation, of returns where the task has no reference scores; empty where nothing was
    scored."""
    from offline_vi.study import tables

    kinds = ((tables.score_curve, "normalized score", SCORE), (tables.return_curve, "return", RETURN))
    for curve_of, name, measure in kinds:
        lines = []
        for curve in tables.learning_curves(study, dataset, curve_of):
            y, low, high = (list(column) for column in zip(*curve.points, strict=True))
            lines.append(svg.Line(curve.steps, y, low, high, curve.method.color, dots=True))
        if lines:
            level = tables.mean_of([run.scores.data.get(measure) for run in study.runs if run.cell.dataset == dataset])
            levels = {} if level is None else {"the data": level}
            return svg.curves(lines, "gradient steps", f"IQM of the {name}", levels=levels)
    return ""
