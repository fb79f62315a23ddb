"""The learning curve of a run of `train-online sac --keep-policies`, and the snapshots that a recipe collects with.

    python benchmarks/policies.py RUN --output FOLDER [--ship FOLDER] [--medium 205000 --expert 220000]

The snapshots are chosen as D4RL chose its own. "expert" is the end; "medium" is the first one with a third of the
expert's score; "replay-0", "replay-1", ... lead from the first one to medium: at most ten, which share a recipe's rows.
`--expert` and `--medium` name other steps.

Writes curve.csv (return of the policy's median action by environment steps), curve.png with the chosen snapshots in it,
and, with --ship, copies these snapshots under the names by which `datasets.locomotion` finds them. Every one of them
then plays with its own noise, and its card keeps what it earned: returns, falls, discounted values of the start.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import gymnasium
import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from offline_vi.behavior import DensityModel
from offline_vi.behavior.pretrained import CARD, load_behavior
from offline_vi.datasets import environment
from offline_vi.datasets.locomotion import ROWS as COLLECTED, SLOTS, roll_out
from offline_vi.runs.files import write_json
from offline_vi.study.cells import table
from offline_vi.types import Task

ACCENT, CHOSEN, INK = "#0b6e99", "#c2410c", "#1f2933"
REPLAYED = 10  # snapshots on the way to medium, at most
ROWS = 40_000  # steps in which a snapshot shows what it earns
DISCOUNTS = (0.99, 0.997)


def curve(run: Path) -> dict[int, list[float]]:
    """step -> returns of its evaluation."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for row in table(run / "episodes.csv"):
        by_step[int(row["step"])].append(float(row["return"]))
    return dict(sorted(by_step.items()))


def chosen(returns: dict[int, list[float]], task: Task, options: argparse.Namespace) -> dict[str, int]:
    """Name -> step of the snapshots of a recipe."""
    score = {step: float(task.normalized(np.mean(values))) for step, values in returns.items()}
    expert = options.expert or max(score)
    medium = options.medium or next(step for step in score if score[step] >= score[expert] / 3)
    way = [step for step in score if step <= medium]
    parts = [count for count in range(1, min(REPLAYED, len(way)) + 1) if COLLECTED // SLOTS % count == 0]
    replayed = [way[place] for place in np.linspace(0, len(way) - 1, parts[-1]).astype(int)]
    return {"medium": medium, "expert": expert, **{f"replay-{place}": step for place, step in enumerate(replayed)}}


def earned(policy: DensityModel, task: Task) -> dict[str, Any]:
    """What a policy earns with its own noise in ROWS steps; episodes that the last step cut off do not count."""
    limit = gymnasium.spec(task.env_id).max_episode_steps
    episodes = [
        episode
        for episode in roll_out(policy, task, ROWS, seed=0)
        if episode.terminations[-1] or len(episode.rewards) == limit
    ]
    rewards = [np.array(episode.rewards) for episode in episodes]
    returns = [values.sum() for values in rewards]
    return {
        "steps": ROWS,
        "episodes": len(episodes),
        "return_mean": round(float(np.mean(returns)), 1),
        "return_std": round(float(np.std(returns)), 1),
        "fallen": round(float(np.mean([episode.terminations[-1] for episode in episodes])), 3),
        "start_value": {
            str(gamma): round(float(np.mean([values @ gamma ** np.arange(len(values)) for values in rewards])), 1)
            for gamma in DISCOUNTS
        },
    }


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


def ship(snapshot: Path, folder: Path, task: Task) -> dict[str, Any]:
    """Copy a snapshot, and write on its card what it earns."""
    shutil.copytree(snapshot, folder, dirs_exist_ok=True)
    policy = load_behavior(folder)
    assert isinstance(policy, DensityModel)
    found = earned(policy, task)
    write_json(folder / CARD, json.loads((folder / CARD).read_text()) | {"earned": found})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--output", type=Path, required=True, help="folder of the curve")
    parser.add_argument("--medium", type=int, help="environment steps (default: by the rule)")
    parser.add_argument("--expert", type=int, help="environment steps (default: the last)")
    parser.add_argument("--ship", type=Path, help="folder that the snapshots are copied to")
    options = parser.parse_args()
    task = environment(json.loads((options.run / "config.json").read_text())["task"]["env_id"])
    returns = curve(options.run)
    named = chosen(returns, task, options)
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "curve.csv").open("w", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("step", "return_mean", "return_std", "episodes"))
        for step, values in returns.items():
            rows.writerow((step, f"{np.mean(values):.1f}", f"{np.std(values):.1f}", len(values)))
    picture(returns, named, options.output / "curve.png")
    for name, step in named.items():
        found = ship(options.run / "policies" / f"step_{step:08d}", options.ship / name, task) if options.ship else {}
        print(f"{name}: step {step:,} {json.dumps(found)}")


if __name__ == "__main__":
    main()
