"""Learning curves of several runs beside each other: a table and a picture.

    python benchmarks/learning_curves.py bcq=runs/bcq-0,runs/bcq-1 bc=runs/bc-0,runs/bc-1 --output docs/results/NAME

Reads each run's episodes.csv. The table holds the mean normalized score over a run's episodes per evaluation, and, over
the evaluations from --from to the end, the mean per run and its mean over runs with a 95 % Student interval (seeds are
the unit: episodes and evaluations of one run are not independent).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from cells import interval

from offline_vi.study.cells import table

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce")


def curve(run: Path) -> dict[int, float]:
    """step -> mean normalized score of its evaluation."""
    scores: dict[int, list[float]] = {}
    for row in table(run / "episodes.csv"):
        scores.setdefault(int(row["step"]), []).append(float(row["normalized"]))
    return {step: float(np.mean(values)) for step, values in sorted(scores.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", metavar="NAME=RUN,RUN", help="run directories under one name")
    parser.add_argument("--from", dest="start", type=int, default=0, help="first step of the summary (gradient steps)")
    parser.add_argument(
        "--points", nargs="*", type=float, default=[], help="a curve to draw beside, one value per step"
    )
    parser.add_argument("--points-label", default="reference")
    parser.add_argument("--output", type=Path, required=True, help="folder of curves.png and curves.md")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    groups = {
        name: [curve(Path(run)) for run in runs.split(",")]
        for name, runs in (group.split("=", 1) for group in options.groups)
    }
    steps = sorted({step for curves in groups.values() for one in curves for step in one})

    figure, axes = plt.subplots(figsize=(7, 4))
    lines = ["| run | " + " | ".join(f"{step // 1000}k" for step in steps) + f" | mean from {options.start // 1000}k |"]
    lines.append("|---" * (len(steps) + 2) + "|")
    for (name, curves), colour in zip(groups.items(), COLOURS, strict=False):
        summaries = []
        for number, one in enumerate(curves):
            axes.plot(list(one), list(one.values()), color=colour, alpha=0.35, linewidth=1)
            summaries.append(float(np.mean([value for step, value in one.items() if step >= options.start])))
            cells = " | ".join(f"{one[step]:.0f}" if step in one else "" for step in steps)
            lines.append(f"| {name}, seed {number} | {cells} | {summaries[-1]:.1f} |")
        mean = [float(np.mean([one[step] for one in curves if step in one])) for step in steps]
        axes.plot(
            steps, mean, color=colour, linewidth=2.2, marker="o", markersize=4, label=f"{name}, mean of {len(curves)}"
        )
        lines.append(f"| **{name}, mean** | {' | '.join(f'{v:.0f}' for v in mean)} | **{interval(summaries)}** |")
    if options.points:
        axes.plot(steps, options.points, color="#6b7280", linestyle="--", linewidth=1.4, label=options.points_label)
        late = [value for step, value in zip(steps, options.points, strict=True) if step >= options.start]
        cells = " | ".join(f"{value:.0f}" for value in options.points)
        lines.append(f"| {options.points_label} | {cells} | {np.mean(late):.1f} |")
    axes.set_xlabel("gradient steps")
    axes.set_ylabel("normalized score")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(options.output / "curves.png", dpi=120)
    (options.output / "curves.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
