"""Plots of a run, a search and a sweep, as PNG files. Matplotlib is imported where something is drawn; no display is
needed."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from offline_vi.errors import ReportWarning
from offline_vi.escaping import one_line
from offline_vi.runs.files import read_text, replace_file, writing
from offline_vi.simulator import reason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from offline_vi.data.transitions import Transitions

INK, ACCENT, MUTED = "#1f2933", "#0b6e99", "#9aa5b1"

Columns: TypeAlias = dict[str, NDArray[np.float64]]
"""Name of a column -> its numbers (n,)."""


def read_csv(path: Path) -> Columns:
    """The columns of a CSV file; text becomes NaN. Empty where there is no such file."""
    rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))

    def number(text: str | None) -> float:
        try:
            return float(text or "nan")
        except ValueError:
            return float("nan")

    return {name: np.array([number(row[name]) for row in rows]) for name in (rows[0] if rows else {})}


def save_figure(figure: Figure, path: Path, **how: Any) -> None:
    """A figure as a PNG file that is whole or absent. Raises CheckpointWriteError, and OutputDirError where something
    that is no regular file is in its place."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", **{"dpi": 110, **how})
    with writing(path.parent, picture.tell()):
        replace_file(path, picture.getvalue())


def learning_curve(run: Path, data: Transitions | None = None) -> Path | None:
    """RUN/learning_curve.png: the evaluations with their spread over episodes, and the losses; None without rows."""
    from matplotlib.figure import Figure

    metrics, episodes = read_csv(run / "metrics.csv"), read_csv(run / "episodes.csv")
    support = mean_by_step(read_csv(run / "support.csv"))
    if not metrics:
        return None
    names = list(dict.fromkeys(base(name) for name in metrics if name != "step"))
    valued = "q/start" in support and not np.isnan(support["q/start"]).all()
    panels = len(names) + bool(episodes) + valued + ("support/outside" in support)
    if panels == 0:
        return None
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    free = iter(axes.flat)
    if episodes:
        score_panel(next(free), episodes, data)
    if valued:
        value_panel(next(free), support)
    if "support/outside" in support:
        outside_panel(next(free), support)
    for name in names:
        metric_panel(next(free), metrics, name)
    for ax in free:
        ax.axis("off")
    for ax in axes.flat:
        decorate_steps(ax)
    figure.suptitle(title_of(run), fontsize=11, color=INK, parse_math=False)
    figure.tight_layout()
    path = run / "learning_curve.png"
    save_figure(figure, path)
    return path


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """What is not worth a run: an error becomes a warning."""
    try:
        yield
    except Exception as error:  # whatever a plot raises
        warnings.warn(f"{what} could not be made: {reason(error)}", ReportWarning, stacklevel=3)


def title_of(path: Path, longest: int = 80) -> str:
    """The name of a folder as a title: on one line, shortened in the middle."""
    name = one_line(path.name)
    return name if len(name) <= longest else f"{name[: longest // 2]} ... {name[-longest // 3 :]}"


def decorate_steps(ax: Axes) -> None:
    """Grid, frame and ticks of a panel over gradient steps."""
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    ax.set_xlabel("gradient steps", fontsize=8)


def metric_panel(ax: Axes, metrics: Columns, name: str) -> None:
    """One metric; of several seeds trained together, a pale line each."""
    for column in (column for column in metrics if base(column) == name):
        alpha = 1.0 if column == name else 0.5
        marker = "o" if np.isfinite(metrics[column]).sum() == 1 else ""  # a line of one point is none
        ax.plot(metrics["step"], metrics[column], color=ACCENT, linewidth=1.2, alpha=alpha, marker=marker, markersize=3)
    ax.set_title(name, fontsize=10, color=INK, parse_math=False)


def value_panel(ax: Axes, support: Columns) -> None:
    """The critic's value of the first states, and the discounted returns that followed."""
    ax.plot(support["step"], support["q/start"], color=ACCENT, marker="o", markersize=3, label="Q believed")
    ax.plot(support["step"], support["q/return"], color=INK, marker="o", markersize=3, label="discounted return")
    ax.legend(fontsize=7, frameon=False)
    ax.set_title("value of the start", fontsize=10, color=INK)
    ax.set_ylabel("discounted return", fontsize=8)


def outside_panel(ax: Axes, support: Columns) -> None:
    """The share of the policy's actions that are outside the data's support."""
    ax.plot(support["step"], 100.0 * support["support/outside"], color=ACCENT, marker="o", markersize=3)
    ax.axhline(1.0, color=MUTED, linestyle="--", linewidth=1, label="data: 1 %")
    ax.legend(fontsize=7, frameon=False)
    ax.set_ylim(bottom=0.0)
    ax.set_title("actions outside the support, at the data's states", fontsize=10, color=INK)
    ax.set_ylabel("% of the policy's actions", fontsize=8)


def score_panel(ax: Axes, episodes: Columns, data: Transitions | None) -> None:
    """The evaluations: mean and standard deviation over episodes, next to the data's mean."""
    kept = ~np.isnan(episodes["return"])  # the others failed
    scored = not np.isnan(episodes["normalized"][kept]).any()
    column = "normalized" if scored else "return"
    steps = np.unique(episodes["step"][kept])
    values = [episodes[column][kept & (episodes["step"] == step)] for step in steps]
    mean, spread = np.array([v.mean() for v in values]), np.array([v.std() for v in values])
    ax.fill_between(steps, mean - spread, mean + spread, color=ACCENT, alpha=0.18, label="std over episodes")
    ax.plot(steps, mean, color=ACCENT, marker="o", markersize=3, label="policy")
    if data is not None and data.task is not None:
        level = float(data.task.normalized(np.array(data.mean_return()))) if scored else data.mean_return()
        ax.axhline(level, color=MUTED, linestyle="--", linewidth=1, label="data")
    ax.legend(fontsize=7, frameon=False)
    ax.set_title("normalized score" if scored else "return", fontsize=10, color=INK)
    ax.set_ylabel("0: random, 100: expert" if scored else "undiscounted sum of rewards", fontsize=8)


def base(name: str) -> str:
    """The metric's name without the number of its seed."""
    return re.sub(r"\.\d+$", "", name)


def mean_by_step(columns: Columns) -> Columns:
    """Rows of the same step, of several seeds, become one."""
    if not columns:
        return columns
    rows = [columns["step"] == step for step in np.unique(columns["step"])]
    return {name: np.array([values[of_step].mean() for of_step in rows]) for name, values in columns.items()}


def exploration_map(path: Path, collected: Mapping[str, Transitions]) -> None:
    """How often the first two numbers of the observation were seen, a panel for each way to explore, on one scale."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    rows = {name: data.obs.reshape(len(data), -1)[:, :2] for name, data in collected.items()}
    rows = {name: values for name, values in rows.items() if values.shape[1] == 2}
    if not rows:
        return
    every = np.concatenate(list(rows.values()))
    edges = [np.linspace(low, high + 1e-9, 41) for low, high in zip(every.min(0), every.max(0), strict=True)]
    figure = Figure(figsize=(4.2 * len(rows), 3.4))
    axes = figure.subplots(1, len(rows), squeeze=False, sharey=True)
    counts = {name: np.histogram2d(values[:, 0], values[:, 1], bins=edges)[0] for name, values in rows.items()}
    norm = LogNorm(1.0, max(2.0, *(float(count.max()) for count in counts.values())))
    for ax, (name, count) in zip(axes.flat, counts.items(), strict=True):
        shown = np.ma.masked_less(count.T, 1.0)
        mesh = ax.pcolormesh(edges[0], edges[1], shown, cmap="viridis_r", norm=norm)
        ax.set_title(f"{name}: {(count > 0).mean():.0%} of cells", fontsize=10, color=INK, parse_math=False)
        ax.set_xlabel("s[0]", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("s[1]", fontsize=8)
    figure.colorbar(mesh, ax=axes, label="visits")
    save_figure(figure, path, bbox_inches="tight")


def search_plot(scores: Mapping[int, float], settings: Mapping[str, Sequence[float | str]], path: Path) -> None:
    """The scores of a search (trial -> score) over its trials with the best so far, and over each hyper-parameter
    (name -> its value in each of these trials)."""
    from matplotlib.figure import Figure

    panels = 1 + len(settings)
    columns = min(panels, 4)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.4 * columns, 2.8 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    free = iter(axes.flat)
    ax, trials, values = next(free), list(scores), np.array(list(scores.values()))
    ax.plot(trials, values, "o", color=ACCENT, markersize=4)
    ax.plot(trials, np.maximum.accumulate(values), color=INK, linewidth=1)
    ax.set_title("mean final score over trials", fontsize=9, color=INK)
    for name, chosen in settings.items():
        setting_panel(next(free), name, chosen, values)
    for ax in free:
        ax.axis("off")
    for ax in axes.flat:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=7)
    figure.tight_layout()
    save_figure(figure, path)


def setting_panel(ax: Axes, name: str, chosen: Sequence[float | str], scores: NDArray[np.float64]) -> None:
    """The scores over one hyper-parameter: numbers on a (logarithmic) scale, anything else as words."""
    numbers = [float(value) for value in chosen if isinstance(value, int | float)]
    numeric = len(numbers) == len(chosen)
    ax.plot(numbers if numeric else list(map(str, chosen)), scores, "o", color=ACCENT, markersize=4)
    if numeric and min(numbers) > 0 and max(numbers) > 20 * min(numbers):
        ax.set_xscale("log")
    ax.set_title(name, fontsize=9, color=INK, parse_math=False)
