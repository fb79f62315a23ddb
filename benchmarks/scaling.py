"""What a step of BCQ costs as the work grows: batch size, candidates, seeds, rows of the data; and where the time goes.

    python benchmarks/scaling.py [--precision bfloat16]

Hopper's sizes, the published networks, a frozen CVAE whose candidates are drawn ahead ("ahead") or for every batch
("fresh"); one thread.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.behavior import CVAE, DecoderMeans
from offline_vi.behavior.proposals import CandidateCache
from offline_vi.data.samplers import Sampler, StackedSampler
from offline_vi.data.transitions import Transitions
from offline_vi.nn.precision import (
    PRECISIONS,
    exact_products,
    keep_freed_memory,
    precision_of_targets,
    use_products,
)
from offline_vi.types import Spec

SPEC = Spec((11,), 3)
CPU = torch.device("cpu")


def transitions(rows: int) -> Transitions:
    """Synthetic rows."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, 11)).astype(np.float32)
    action = rng.uniform(-1, 1, size=(rows, 3)).astype(np.float32)
    never = np.zeros(rows, np.bool_)
    return Transitions(obs, action, obs[:, 0].copy(), obs, never, never, SPEC)


class Steps:
    """BCQ on synthetic data, as `fit` steps it."""

    def __init__(self, data: Transitions, config: BCQConfig, ahead: bool, seeds: int = 1) -> None:
        fresh = DecoderMeans(CVAE(SPEC).eval().requires_grad_(False))
        self.cache = CandidateCache(fresh, data) if ahead else None
        spec = SPEC.stacked(seeds) if seeds > 1 else SPEC
        self.algorithm = BCQ(spec, self.cache or fresh, config)
        one = Sampler(data, config.batch_size)
        self.sampler = StackedSampler(data, config.batch_size, range(seeds)) if seeds > 1 else one
        self.count = 0

    def take(self, steps: int) -> None:
        for _ in range(steps):
            self.count += 1
            if self.cache is not None:
                self.cache.advance(self.count)
            self.algorithm.update(self.sampler.sample())

    def milliseconds(self) -> float:
        """Of a step: the best of five laps."""
        self.take(60)
        laps = []
        for _ in range(5):
            started = time.perf_counter()
            self.take(30)
            laps.append((time.perf_counter() - started) / 30)
        return 1e3 * min(laps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="bfloat16", choices=list(PRECISIONS), help="of the targets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    use_products(exact_products())
    small = transitions(100_000)
    with precision_of_targets(options.precision, CPU):
        print("| what grows | ms a step, ahead | ms a step, fresh |\n|---|---|---|")
        for label, changes in (
            *((f"batch {size}", {"batch_size": size}) for size in (100, 256, 512, 1024)),
            *((f"{count} candidates in the target", {"num_candidates": count}) for count in (1, 10, 30, 100)),
        ):
            config = replace(BCQConfig(), **changes)
            both = [Steps(small, config, ahead).milliseconds() for ahead in (True, False)]
            print(f"| {label} | {both[0]:.1f} | {both[1]:.1f} |", flush=True)
        for hidden in (BCQConfig().hidden, (64, 64)):
            for seeds in (1, 2, 4, 8, 16):
                config = BCQConfig(hidden=hidden)
                each = [Steps(small, config, ahead, seeds).milliseconds() / seeds for ahead in (True, False)]
                print(f"| {seeds} seeds, {hidden}, a seed | {each[0]:.2f} | {each[1]:.2f} |", flush=True)
        for rows in (100_000, 500_000, 2_000_000):
            print(f"| {rows:,} rows | {Steps(transitions(rows), BCQConfig(), True).milliseconds():.1f} | |", flush=True)
        steps = Steps(small, BCQConfig(), True)
        steps.take(60)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            steps.take(39)  # up to the next piece of the table
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print("\n| operation | % of a step |\n|---|---|")
    for event in events[:12]:
        print(f"| `{event.key}` | {100 * event.self_cpu_time_total / total:.0f} |")


if __name__ == "__main__":
    main()
