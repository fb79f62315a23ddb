"""The picture of the README: scores over minutes, from nothing, of clones and of BCQ.

    python benchmarks/score_over_minutes.py --data hopper-medium.hdf5 hopper-expert.hdf5 --output docs/results/minutes
    python benchmarks/score_over_minutes.py --output docs/results/minutes --figure docs/figures/score_over_minutes.png

The first command trains behavior cloning and the preset `recommended`, each scored every 1,000 steps over 10 episodes,
and writes minutes.json after every seed; seeds that it holds already are not run again. The second draws them next to
BCQ's published and `fast` presets of docs/results/time-to-score (benchmarks/time_to_score.py). Minutes are processor
time of one thread without evaluations; everything that is fitted counts.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from time_to_score import Clock

from offline_vi import datasets
from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.data.transitions import Transitions
from offline_vi.data.weights import weighted
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.rl.algorithm import Algorithm
from offline_vi.training import Worthwhile, fit, set_seed

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STEPS, EVERY = 10_000, 1_000
RECOMMENDED, CLONE, FAST, PUBLISHED = "recommended", "behavior cloning", "BCQ, preset fast", "BCQ as published"
COLORS = {RECOMMENDED: "#c2410c", FAST: "#0b6e99", PUBLISHED: "#7e22ce", CLONE: "#4d7c0f"}
PLACES = {RECOMMENDED: (0.8, 112), FAST: (7.0, 103), PUBLISHED: (7.0, 20), CLONE: (0.16, 7)}  # of the labels
DATA = 63.8  # mean normalized score of the episodes, `offline-vi data info`


def start(name: str, data: Transitions) -> tuple[Algorithm, Transitions]:
    """The agent, and the data that it draws its batches from."""
    if name == CLONE:
        return BC(data.spec), data
    agent = BC(data.spec, BCConfig(lr=1e-3, decay_steps=STEPS, layer_norm=True, dropout=0.05))
    agent.inputs.fit(data.obs)
    return agent, weighted(data, Worthwhile())


def curve(name: str, data: Transitions, seed: int) -> list[dict[str, float]]:
    """One row per evaluation."""
    assert data.task is not None
    task, clock, rows = data.task, Clock(), []
    set_seed(seed)
    agent, rows_drawn = start(name, data)

    def score(step: int, policy: Algorithm) -> dict[str, float]:
        started = time.process_time()
        mean = evaluate(policy, task, 10, 100).mean
        clock.scoring += time.process_time() - started
        rows.append({"step": step, "score": mean, **clock.read()})
        print(f"{name} seed {seed} step {step:,}: {mean:.1f}, {rows[-1]['cpu_training']:.0f} s", flush=True)
        return {}

    fit(agent, rows_drawn, STEPS, seed=seed, eval_every=EVERY, on_eval=score, progress=False)
    return rows


def measure(files: list[str], seeds: list[int], path: Path) -> None:
    """Train what is missing in the file."""
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    data = datasets.load(*files)
    for name in (RECOMMENDED, CLONE):
        for seed in seeds:
            if str(seed) not in found.setdefault(name, {}):
                found[name][str(seed)] = curve(name, data, seed)
                path.write_text(json.dumps(found, indent=1))


def draw(curves: dict[str, dict[str, list[dict[str, float]]]], path: Path) -> None:
    """A thick line for the mean over seeds, a band from the lowest to the highest seed."""
    figure, axis = plt.subplots(figsize=(7.2, 3.4))
    axis.axhline(DATA, color="#6b7280", linestyle=":", linewidth=1.2)
    right = axis.get_yaxis_transform()
    axis.text(1.01, DATA, "mean of\nthe data", color="#6b7280", fontsize=8, va="center", transform=right)
    for name, by_seed in curves.items():
        scores = np.array([[row["score"] for row in rows] for rows in by_seed.values()])
        minutes = np.mean([[row["cpu_training"] / 60 for row in rows] for rows in by_seed.values()], axis=0)
        count = f"{len(scores)} seeds" if len(scores) > 1 else "1 seed"
        axis.plot(minutes, scores.mean(0), color=COLORS[name], linewidth=2)
        axis.text(*PLACES[name], f"{name} ({count})", color=COLORS[name], fontsize=9)
        axis.fill_between(minutes, scores.min(0), scores.max(0), color=COLORS[name], alpha=0.15, linewidth=0)
    axis.set_xscale("log")
    axis.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20], ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20"])
    axis.minorticks_off()
    axis.set_ylim(0, 120)
    axis.set_xlabel("minutes of one CPU thread, from nothing (logarithmic)")
    axis.set_ylabel("normalized score")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[], help="data set names or files; without: train nothing")
    parser.add_argument("--output", type=Path, required=True, help="folder of minutes.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bcq", type=Path, default=Path("docs/results/time-to-score/time_to_score.json"))
    parser.add_argument("--figure", type=Path, help="picture to draw")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "minutes.json"
    if options.data:
        measure(options.data, options.seeds, file)
    if options.figure:
        found, bcq = json.loads(file.read_text()), json.loads(options.bcq.read_text())
        draw({**found, FAST: bcq["fast"], PUBLISHED: bcq["published"]}, options.figure)


if __name__ == "__main__":
    main()
