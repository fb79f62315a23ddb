"""The plot of a sweep over ways to act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_vi.study.plots import ACCENT, INK, MUTED, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SWEPT = {
    "candidates": "N, candidates per state",
    "phi": "Phi, largest perturbation",
    "noise_clip": "clip of the latent noise",
    "temperature": "temperature of the choice, units of Q",
}
Row = Mapping[str, Any]
"""A setting and its score: the axis, the settings of the policy, "score", "std", and "scores" of the episodes."""


def sweep_plot(rows: Sequence[Row], path: Path, title: str, measure: str = "normalized score") -> None:
    """A panel for each axis of `SWEPT` that was swept; dashed lines are the two ends, computed without the sweep."""
    from matplotlib.figure import Figure

    ends = {row["axis"]: row["score"] for row in rows}
    names = [name for name in SWEPT if any(row["axis"] == name for row in rows)]
    figure = Figure(figsize=(3.4 * len(names), 3.0))
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=True):
        swept_panel(ax, name, [row for row in rows if row["axis"] == name])
        ax.axhline(ends["direct greedy"], color=INK, linestyle="--", linewidth=1, label="greedy")
        ax.axhline(ends["direct cloning"], color=MUTED, linestyle="--", linewidth=1, label="cloning")
    axes[0, 0].set_ylabel(f"{measure}, standard error", fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10, color=INK, parse_math=False)
    figure.tight_layout()
    save_figure(figure, path, dpi=120)


def swept_panel(ax: Axes, name: str, rows: Sequence[Row]) -> None:
    """The scores over one axis, with their standard errors."""
    column = "num_candidates" if name == "candidates" else name
    places = range(len(rows))
    scores, errors = [row["score"] for row in rows], [row["std"] / len(row["scores"]) ** 0.5 for row in rows]
    ax.errorbar(places, scores, yerr=errors, color=ACCENT, marker="o", markersize=4, linewidth=1.4, capsize=2)
    ax.set_xticks(list(places), [f"{row[column]:g}" for row in rows], fontsize=8)
    ax.set_xlabel(SWEPT[name], fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
