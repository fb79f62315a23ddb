"""Time to score: how long from nothing, the behavior model's fitting included, until BCQ keeps a score.

    python benchmarks/time_to_score.py --data hopper-medium.hdf5 hopper-expert.hdf5 --output FOLDER [--presets fast]

The first evaluation at which the mean of five consecutive ones (every 2,000 steps, 10 episodes each) reaches a level.
One thread; both the wall clock and the process's own processor time are told, with what evaluation took left in and
apart: on a machine that does other work, processor time is the one that counts. Writes time_to_score.json after every
seed; seeds that it holds already are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offline_vi import datasets
from offline_vi.behavior.proposals import CandidateCache, Proposals
from offline_vi.data.transitions import Transitions
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.nn.precision import preferred_precision
from offline_vi.rl.algorithm import Algorithm
from offline_vi.study.agents import build_agent, new_model
from offline_vi.study.presets import choice, preset
from offline_vi.training.behavior import fit_behavior
from offline_vi.training.loop import fit
from offline_vi.training.randomness import set_seed

LEVELS, WINDOW, EVERY = (60.0, 100.0), 5, 2_000


@dataclass
class Clock:
    """Seconds since it was made, and those spent scoring."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)
    scoring: float = 0.0  # processor time

    def read(self) -> dict[str, float]:
        cpu = time.process_time() - self.cpu
        return {"wall": time.perf_counter() - self.wall, "cpu": cpu, "cpu_training": cpu - self.scoring}


def start_agent(preset_name: str, data: Transitions, seed: int, model: str) -> tuple[Algorithm, str]:
    """What `offline-vi train bcq --preset NAME` trains, its frozen behavior model fitted; the precision."""
    chosen = choice(preset_name, "bcq", data.spec, model)
    options = preset(preset_name).options("bcq", chosen.behavior)
    behavior = new_model(chosen, data.spec)

    def cache(proposals: Proposals) -> CandidateCache:
        return CandidateCache(proposals, data, period=options["bank_period"], seed=seed)

    if chosen.jointly:
        return build_agent(chosen, data.spec, behavior, cache), "float32"
    fit_behavior(behavior, data, options["behavior_steps"], seed=seed, progress=False)
    return build_agent(chosen, data.spec, behavior, cache), preferred_precision(torch.device("cpu"))


def curve(which: str, data: Transitions, seed: int, steps: int, model: str) -> list[dict[str, float]]:
    """One row per evaluation."""
    assert data.task is not None
    task, clock, rows = data.task, Clock(), []
    set_seed(seed)
    algorithm, precision = start_agent(which, data, seed, model)

    def score(step: int, policy: Algorithm) -> dict[str, float]:
        started = time.process_time()
        mean = evaluate(policy, task, 10, 100).mean
        clock.scoring += time.process_time() - started
        rows.append({"step": step, "score": mean, **clock.read()})
        print(f"{which} seed {seed} step {step:,}: {mean:.1f}, {rows[-1]['cpu']:.0f} s", flush=True)
        return {}

    fit(algorithm, data, steps, seed=seed, precision=precision, eval_every=EVERY, on_eval=score, progress=False)
    return rows


def reached(rows: list[dict[str, float]], level: float) -> dict[str, float] | None:
    """The row at which the mean of the last five scores is first at least ``level``."""
    for last in range(WINDOW - 1, len(rows)):
        if np.mean([row["score"] for row in rows[last - WINDOW + 1 : last + 1]]) >= level:
            return rows[last]
    return None


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| preset | seed | level | steps | processor time, s | without evaluation, s |", "|---" * 6 + "|"]
    for which, by_seed in found.items():
        for seed, rows in by_seed.items():
            for level in LEVELS:
                row = reached(rows, level)
                told = f"not within {rows[-1]['step']:,} | {rows[-1]['cpu']:.0f} | {rows[-1]['cpu_training']:.0f}"
                if row is not None:
                    told = f"{row['step']:,} | {row['cpu']:.0f} | {row['cpu_training']:.0f}"
                lines.append(f"| {which} | {seed} | {level:g} | {told} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="data set names or files")
    parser.add_argument("--output", type=Path, required=True, help="folder of time_to_score.json and .md")
    parser.add_argument("--presets", nargs="+", default=["fast"], choices=["fast", "published"])
    parser.add_argument("--behavior", default="", metavar="MODEL", help="behavior model (default: the preset's)")
    parser.add_argument("--steps", type=int, default=20_000, help="gradient steps (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "time_to_score.json"
    found: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    data = datasets.load(*options.data)
    for which in options.presets:
        for seed in options.seeds:
            if str(seed) not in found.setdefault(which, {}):
                found[which][str(seed)] = curve(which, data, seed, options.steps, options.behavior)
                file.write_text(json.dumps(found, indent=1))
    lines = table(found)
    (options.output / "time_to_score.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
