"""Why does BCQ work? One setting at a time, on frozen behavior models, scored with Q and the support beside it.

    python benchmarks/why_bcq.py --data hopper-medium.hdf5 hopper-expert.hdf5 --models FOLDER --output FOLDER

``--models`` holds fitted models (`offline-vi fit-behavior`), a folder each: cvae, cvae-published, cvae-gaussian,
mixture, flow, gaussian; the cells of one that is missing are left out. Every cell is a run of `offline-vi train bcq`;
done cells are skipped and cut ones resumed, so the command may be repeated until the study is whole. Writes study.csv,
study.md and study.png: the mean over the second half of the evaluations, so that no single one decides.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

from offline_vi.study.cells import is_done, result, run_cells, table, write_table

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ACCENT, INK, MUTED, WARN = "#0b6e99", "#1f2933", "#9aa5b1", "#c2410c"


class Cell(NamedTuple):
    """One setting: a group of the figure, what differs in it, the model it is on, the flags."""

    group: str
    label: str
    model: str
    flags: tuple[str, ...] = ()


DECODED = ("--proposals", "decoded")
LIKELY = ("--proposals", "likely", "--keep", "0.1", "--num-acting-candidates", "10")  # a hundred are drawn for ten
CAUTIOUS = ("--proposals", "samples", "--lmbda", "1", "--ensemble", "4")
HEAD = ("setting", "score", "over evaluations", "Q of the start", "discounted return", "% outside")
CELLS = [
    Cell("model", "published, clip 0.5", "cvae-published", DECODED),
    Cell("model", "one learned scale, clip 0.5", "cvae-gaussian", DECODED),
    Cell("model", "predicted scale, clip 0.5", "cvae", DECODED),
    Cell("model", "tanh-Normal, clip 0.5", "gaussian", DECODED),
    Cell("model", "flow, clip 0.5", "flow", DECODED),
    Cell("model", "mixture, samples", "mixture", ("--proposals", "samples")),
    Cell("noise", "no noise", "cvae", (*DECODED, "--noise-clip", "0")),
    Cell("noise", "clip 0.5", "cvae", DECODED),
    Cell("noise", "no clip", "cvae", (*DECODED, "--noise-clip", "inf")),
    Cell("noise", "samples", "cvae", ("--proposals", "samples")),
    Cell("noise", "tanh-Normal, likeliest tenth", "gaussian", LIKELY),
    Cell("noise", "mixture, likeliest tenth", "mixture", LIKELY),
    Cell("candidates", "1 in the target", "cvae", (*DECODED, "--num-candidates", "1")),
    Cell("candidates", "10 and 100", "cvae", DECODED),
    Cell("candidates", "1 at acting", "cvae", (*DECODED, "--num-acting-candidates", "1")),
    Cell("Phi", "0", "cvae", (*DECODED, "--phi", "0")),
    Cell("Phi", "0.05", "cvae", DECODED),
    Cell("Phi", "0.2", "cvae", (*DECODED, "--phi", "0.2")),
    Cell("ensemble", "lambda 0.75", "cvae", DECODED),
    Cell("ensemble", "lambda 1", "cvae", (*DECODED, "--lmbda", "1")),
    Cell("ensemble", "4 critics, lambda 1, samples", "cvae", CAUTIOUS),
]


def name(cell: Cell) -> str:
    """The folder of a cell; equal settings share one."""
    return "_".join([cell.model, *(flag.removeprefix("--") for flag in cell.flags)])


def arguments(cell: Cell, options: argparse.Namespace) -> list[str]:
    """Of `offline-vi train`."""
    given = ["bcq", "--dataset", *options.data, "--seed", str(options.seed), *cell.flags]
    given += ["--behavior-from", str(options.models / cell.model), "--bank-period", "10000", "--precision", "auto"]
    return [*given, "--steps", str(options.steps), "--eval-every", str(options.eval_every)]


def run_of(cell: Cell, options: argparse.Namespace) -> Path:
    """The cell's run directory."""
    path: Path = options.output / "runs" / f"{name(cell)}-seed{options.seed}"
    return path


def summary(cell: Cell, options: argparse.Namespace) -> dict[str, float | str] | None:
    """Means over the second half of the evaluations; None where the cell is not done."""
    run = run_of(cell, options)
    if not is_done(run):
        return None
    curve = {int(step): float(score) for step, score in result(run)["curve"].items()}
    late = [step for step in curve if 2 * step > max(curve)]
    rows = [row for row in table(run / "support.csv") if int(row["step"]) in late]

    def mean(column: str) -> float:
        values = [float(row[column]) for row in rows if row.get(column)]
        return float(np.mean(values)) if values else float("nan")

    return {
        "group": cell.group,
        "setting": cell.label,
        "model": cell.model,
        "score": float(np.mean([curve[step] for step in late])),
        "low": min(curve[step] for step in late),
        "high": max(curve[step] for step in late),
        "q_start": mean("q/start"),
        "q_return": mean("q/return"),
        "outside": mean("support/outside"),
    }


def picture(rows: list[dict[str, float | str]], path: Path) -> None:
    """Score with its range over the evaluations; Q believed and what followed; share of actions outside the support."""
    figure, (scores, beliefs, outside) = plt.subplots(
        1, 3, figsize=(12, 0.34 * len(rows) + 1.4), sharey=True, width_ratios=[1.5, 1.2, 1]
    )
    where = np.arange(len(rows))[::-1]
    column = {
        key: np.array([float(row[key]) for row in rows])
        for key in ("score", "low", "high", "q_start", "q_return", "outside")
    }
    scores.barh(where, column["score"], color=ACCENT, height=0.6)
    scores.hlines(where, column["low"], column["high"], color=INK, linewidth=1)
    beliefs.plot(column["q_start"], where, "o", color=WARN, label="Q believed")
    beliefs.plot(column["q_return"], where, "o", color=INK, label="discounted return", markersize=4)
    beliefs.set_xlim(0, min(1.1 * max(np.nanmax(column["q_start"]), np.nanmax(column["q_return"])), 1000))
    outside.barh(where, 100 * column["outside"], color=MUTED, height=0.6)
    outside.axvline(1.0, color=INK, linewidth=0.8, linestyle="--")
    scores.set_yticks(where, [f"{row['group']}: {row['setting']}" for row in rows], fontsize=8)
    titles = ("normalized score, range of evaluations", "value of the start", "% of actions outside the support")
    for place, title in zip((scores, beliefs, outside), titles, strict=True):
        place.set_title(title, fontsize=9)
        place.grid(axis="x", alpha=0.25)
        place.spines[["top", "right"]].set_visible(False)
    beliefs.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="data set names or files")
    parser.add_argument("--models", type=Path, required=True, help="folder of fitted behavior models")
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--steps", type=int, default=10_000, help="gradient steps (default: %(default)s)")
    parser.add_argument("--eval-every", type=int, default=2_000, help="steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="cells at once (default: %(default)s)")
    groups = list(dict.fromkeys(cell.group for cell in CELLS))
    parser.add_argument("--groups", nargs="+", default=groups, choices=groups, help="which settings to vary")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    cells = [cell for cell in CELLS if cell.group in options.groups and (options.models / cell.model).is_dir()]
    if not options.report_only:
        run_cells({run_of(cell, options): arguments(cell, options) for cell in cells}, options.jobs)
    rows = [row for cell in cells if (row := summary(cell, options)) is not None]
    if not rows:
        sys.exit("no cell is done")
    write_table(options.output / "study.csv", rows)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for row in rows:
        score, low, high, believed, happened, outside = (float(value) for value in list(row.values())[3:])
        told = (f"{row['group']}: {row['setting']}", f"{score:.0f}", f"{low:.0f} to {high:.0f}")
        lines.append(f"| {' | '.join(told)} | {believed:.0f} | {happened:.0f} | {100 * outside:.1f} |")
    (options.output / "study.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    picture(rows, options.output / "study.png")


if __name__ == "__main__":
    main()
