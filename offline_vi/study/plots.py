"""Pictures of a run, drawn without a display."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from offline_vi.data.transitions import Transitions

matplotlib.use("Agg")

INK, ACCENT, MUTED = "#1f2933", "#0b6e99", "#9aa5b1"


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """Columns of a CSV file as float64; text becomes NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))

    def number(text: str | None) -> float:
        try:
            return float(text or "nan")
        except ValueError:
            return float("nan")

    return {name: np.array([number(row[name]) for row in rows]) for name in (rows[0] if rows else {})}


def learning_curve(run: Path, data: Transitions | None = None) -> Path | None:
    """RUN/learning_curve.png: the evaluations with their spread over episodes, and the losses; None without rows."""
    metrics = read_csv(run / "metrics.csv") if (run / "metrics.csv").exists() else {}
    episodes = read_csv(run / "episodes.csv") if (run / "episodes.csv").exists() else {}
    support = read_csv(run / "support.csv") if (run / "support.csv").exists() else {}
    if not metrics:
        return None
    support = mean_by_step(support)
    names = list(dict.fromkeys(base(name) for name in metrics if name != "step"))
    beliefs = "q/start" in support and not np.isnan(support["q/start"]).all()
    panels = len(names) + bool(episodes) + beliefs + ("support/outside" in support)
    columns = min(panels, 3)
    figure, axes = plt.subplots(
        -(-panels // columns), columns, figsize=(4.2 * columns, 2.9 * -(-panels // columns)), squeeze=False
    )
    places = iter(axes.flat)
    if episodes:
        score_panel(next(places), episodes, data)
    if beliefs:
        belief_panel(next(places), support)
    if "support/outside" in support:
        outside_panel(next(places), support)
    for name in names:
        place = next(places)
        for column in (column for column in metrics if base(column) == name):
            alpha = 1.0 if column == name else 0.5
            place.plot(metrics["step"], metrics[column], color=ACCENT, linewidth=1.2, alpha=alpha)
        place.set_title(name, fontsize=10, color=INK)
    for place in places:
        place.axis("off")
    for place in axes.flat:
        place.grid(alpha=0.25)
        place.spines[["top", "right"]].set_visible(False)
        place.tick_params(labelsize=8)
        place.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
        place.set_xlabel("gradient steps", fontsize=8)
    figure.suptitle(run.name, fontsize=11, color=INK)
    figure.tight_layout()
    path = run / "learning_curve.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def exploration_map(path: Path, collected: dict[str, Transitions]) -> None:
    """How often the first two numbers of the observation were seen, a panel for each way to explore, on one scale."""
    rows = {name: data.obs.reshape(len(data), -1)[:, :2] for name, data in collected.items()}
    rows = {name: values for name, values in rows.items() if values.shape[1] == 2}
    if not rows:
        return
    every = np.concatenate(list(rows.values()))
    edges: Any = [np.linspace(low, high + 1e-9, 41) for low, high in zip(every.min(0), every.max(0), strict=True)]
    figure, axes = plt.subplots(1, len(rows), figsize=(4.2 * len(rows), 3.4), squeeze=False, sharey=True)
    counts = {name: np.histogram2d(values[:, 0], values[:, 1], bins=edges)[0] for name, values in rows.items()}
    norm = LogNorm(1.0, max(2.0, *(float(count.max()) for count in counts.values())))
    for place, (name, count) in zip(axes.flat, counts.items(), strict=True):
        shown = np.ma.masked_less(count.T, 1.0)
        picture = place.pcolormesh(*edges, shown, cmap="viridis_r", norm=norm)
        place.set_title(f"{name}: {(count > 0).mean():.0%} of cells", fontsize=10, color=INK)
        place.set_xlabel("s[0]", fontsize=8)
        place.tick_params(labelsize=8)
        place.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("s[1]", fontsize=8)
    figure.colorbar(picture, ax=axes, label="visits")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def base(name: str) -> str:
    """The metric's name without the number of the seed it is of."""
    return re.sub(r"\.\d+$", "", name)


def mean_by_step(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of the same step, of several seeds, become one."""
    if not columns:
        return columns
    rows = [columns["step"] == step for step in np.unique(columns["step"])]
    return {name: np.array([values[of_step].mean() for of_step in rows]) for name, values in columns.items()}


def belief_panel(place: Axes, support: dict[str, np.ndarray]) -> None:
    place.plot(support["step"], support["q/start"], color=ACCENT, marker="o", markersize=3, label="Q believed")
    place.plot(support["step"], support["q/return"], color=INK, marker="o", markersize=3, label="discounted return")
    place.legend(fontsize=7, frameon=False)
    place.set_title("value of the start", fontsize=10, color=INK)


def outside_panel(place: Axes, support: dict[str, np.ndarray]) -> None:
    place.plot(support["step"], 100.0 * support["support/outside"], color=ACCENT, marker="o", markersize=3)
    place.axhline(1.0, color=MUTED, linestyle="--", linewidth=1, label="data")
    place.legend(fontsize=7, frameon=False)
    place.set_ylim(bottom=0.0)
    place.set_title("% of actions outside the support", fontsize=10, color=INK)


def score_panel(place: Axes, episodes: dict[str, np.ndarray], data: Transitions | None) -> None:
    scored = not np.isnan(episodes["normalized"]).all()
    column = "normalized" if scored else "return"
    steps = np.unique(episodes["step"])
    values = [episodes[column][episodes["step"] == step] for step in steps]
    mean, spread = np.array([np.nanmean(v) for v in values]), np.array([np.nanstd(v) for v in values])
    place.fill_between(steps, mean - spread, mean + spread, color=ACCENT, alpha=0.18, label="std over episodes")
    place.plot(steps, mean, color=ACCENT, marker="o", markersize=3, label="policy")
    if data is not None and data.task is not None:
        returns = data.episode_returns()
        level = data.task.normalized(returns).mean() if scored else returns.mean()
        place.axhline(level, color=MUTED, linestyle="--", linewidth=1, label="data")
    place.legend(fontsize=7, frameon=False)
    place.set_title("normalised score" if scored else "return", fontsize=10, color=INK)


def search_plot(rows: list[dict[str, Any]], names: list[str], path: Path) -> None:
    """The scores of a search over its trials, with the best so far, and over each hyper-parameter; cut trials are left
    out."""
    done = [row for row in rows if row["score"] is not None]
    columns = min(1 + len(names), 4)
    deep = -(-(1 + len(names)) // columns)
    figure, axes = plt.subplots(deep, columns, figsize=(3.4 * columns, 2.8 * deep), squeeze=False)
    places = iter(axes.flat)
    place = next(places)
    scores = np.array([row["score"] for row in done])
    place.plot([row["trial"] for row in done], scores, "o", color=ACCENT, markersize=4)
    place.plot([row["trial"] for row in done], np.maximum.accumulate(scores), color=INK, linewidth=1)
    place.set_title("mean final score over trials", fontsize=9, color=INK)
    for name in names:
        place = next(places)
        values = [row[name] for row in done]
        numeric = all(isinstance(value, int | float) for value in values)
        place.plot(values if numeric else [str(value) for value in values], scores, "o", color=ACCENT, markersize=4)
        if numeric and min(values) > 0 and max(values) > 20 * min(values):
            place.set_xscale("log")
        place.set_title(name, fontsize=9, color=INK)
    for place in places:
        place.axis("off")
    for place in axes.flat:
        place.grid(alpha=0.25)
        place.spines[["top", "right"]].set_visible(False)
        place.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
