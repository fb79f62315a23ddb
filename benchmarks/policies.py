"""The learning curve of a run of `train-online sac --keep-policies`, and the snapshots that a recipe collects with.

    python benchmarks/policies.py RUN --output FOLDER [--medium 205000 --expert 220000 --replay 20000 200000]

Writes curve.csv (return of the policy's median action by environment steps), curve.png with the chosen snapshots in it,
and, with --ship FOLDER, copies these snapshots under the names by which `datasets.locomotion` finds them.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from offline_vi.study.cells import table

ACCENT, CHOSEN, INK = "#0b6e99", "#c2410c", "#1f2933"
REPLAYED = 10  # snapshots on the way to medium


def curve(run: Path) -> dict[int, list[float]]:
    """step -> returns of its evaluation."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for row in table(run / "episodes.csv"):
        by_step[int(row["step"])].append(float(row["return"]))
    return dict(sorted(by_step.items()))


def picture(returns: dict[int, list[float]], named: dict[str, int], path: Path) -> None:
    """Mean and spread over episodes; the snapshots by their names, those of the replay as ticks."""
    steps = np.array(list(returns))
    mean, std = (np.array([function(values) for values in returns.values()]) for function in (np.mean, np.std))
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    axes.fill_between(steps, mean - std, mean + std, color=ACCENT, alpha=0.18, label="std over the episodes")
    axes.plot(steps, mean, color=ACCENT)
    level = dict(zip(steps.tolist(), mean.tolist(), strict=True))
    for name in ("medium", "expert"):
        at = named[name], level[named[name]]
        axes.plot(*at, "o", color=CHOSEN)
        axes.annotate(name, at, textcoords="offset points", xytext=(-46, 4), fontsize=9, color=CHOSEN)
    replayed = [step for name, step in named.items() if name.startswith("replay")]
    axes.plot(
        replayed, [level[step] for step in replayed], "|", color=INK, markersize=9, label="medium-replay's policies"
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return, policy's median action")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--output", type=Path, required=True, help="folder of the curve")
    parser.add_argument("--medium", type=int, default=205_000, help="environment steps (default: %(default)s)")
    parser.add_argument("--expert", type=int, default=220_000, help="environment steps (default: %(default)s)")
    parser.add_argument("--replay", type=int, nargs=2, default=(20_000, 200_000), help="first and last of ten")
    parser.add_argument("--ship", type=Path, help="folder that the snapshots are copied to")
    options = parser.parse_args()
    replayed = np.linspace(*options.replay, REPLAYED).astype(int).tolist()
    named = {"medium": options.medium, "expert": options.expert}
    named |= {f"replay-{number}": step for number, step in enumerate(replayed)}
    returns = curve(options.run)
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "curve.csv").open("w", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("step", "return_mean", "return_std", "episodes"))
        for step, values in returns.items():
            rows.writerow((step, f"{np.mean(values):.1f}", f"{np.std(values):.1f}", len(values)))
    picture(returns, named, options.output / "curve.png")
    for name, step in named.items() if options.ship else ():
        shutil.copytree(options.run / "policies" / f"step_{step:08d}", options.ship / name, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
