"""The family of algorithms at one budget: scores with their spread, beside BC and the data.

    python benchmarks/family.py --data hopper-medium.hdf5 hopper-expert.hdf5 --models FOLDER --output FOLDER

Every algorithm with the published values of its hyper-parameters and the same number of gradient steps, on frozen
behavior models of ``--models`` (`offline-vi fit-behavior`; folders cvae, cvae-published) where it uses one. Warm-ups
that are longer than the budget (BEAR 100,000 steps, CQL 40,000) are cut to a fifth of it. Done cells are skipped, cut
ones resumed. Writes family.csv and family.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cells import interval

from offline_vi import datasets, registry
from offline_vi.study.cells import is_done, result, run_cells, table, write_table

ALGORITHMS, WARMUP = list(registry.trainable()), ("bear", "cql")


def arguments(name: str, seed: int, options: argparse.Namespace) -> list[str]:
    """Of `offline-vi train`."""
    given = [name, "--dataset", *options.data, "--seed", str(seed), "--steps", str(options.steps)]
    given += ["--eval-every", str(options.steps), "--eval-episodes", str(options.episodes)]
    given += ["--support-from", str(options.models / "cvae")]
    if model := registry.algorithm(name).behavior:
        given += ["--behavior-from", str(options.models / model)]
    if name in WARMUP:
        given += ["--warmup", str(options.steps // 5)]
    return given


def mean(rows: list[dict[str, str]], column: str) -> float:
    """Over the rows; an empty cell is NaN."""
    return float(np.mean([float(row.get(column) or "nan") for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="data set names or files")
    parser.add_argument("--models", type=Path, required=True, help="folder of fitted behavior models")
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--steps", type=int, default=5_000, help="gradient steps (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=20, help="of the final evaluation (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, choices=ALGORITHMS)
    parser.add_argument("--jobs", type=int, default=1, help="cells at once (default: %(default)s)")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    runs = {
        (name, seed): options.output / "runs" / f"{name}-seed{seed}"
        for seed in options.seeds
        for name in options.algorithms
    }
    if not options.report_only:
        run_cells({path: arguments(*cell, options) for cell, path in runs.items()}, options.jobs)
    head = ("algorithm", f"score after {options.steps:,} steps", "per seed", "Q of the start", "discounted return")
    rows: list[dict[str, Any]] = []
    lines = [f"| {' | '.join(head)} | % outside |", "|---" * 6 + "|"]
    for name in options.algorithms:
        done = {seed: runs[name, seed] for seed in options.seeds if is_done(runs[name, seed])}
        if not done:
            continue
        scores = [float(result(run)["normalized_score"]) for run in done.values()]
        support = [table(run / "support.csv")[-1] for run in done.values()]
        q, value, outside = (mean(support, column) for column in ("q/start", "q/return", "support/outside"))
        rows += [{"algorithm": name, "seed": seed, "score": score} for seed, score in zip(done, scores, strict=True)]
        told = (name, interval(scores), ", ".join(f"{score:.0f}" for score in scores), f"{q:.0f}", f"{value:.0f}")
        lines.append(f"| {' | '.join(told)} | {100 * outside:.0f} |".replace(" nan ", " "))
    if not rows:
        sys.exit("no cell is done")
    data = datasets.load(*options.data)
    assert data.task is not None
    lines.append(f"| the data | {data.task.normalized(data.episode_returns()).mean():.1f} | | | | 1 |")
    write_table(options.output / "family.csv", rows)
    (options.output / "family.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
