"""How fast `evaluate` is, and what limits it: ten episodes of BCQ with its 100 candidates, ten environments beside each
other, in one process and in ten, and one at a time.

    python benchmarks/evaluating.py [--env HalfCheetah-v5] [--env-kwargs KEY=VALUE ...] [--steps 300] [--rounds 3]

The policy sees batches of a fixed width W = 10 in any case, so that scores do not depend on the number of environments:
one at a time pays for ten rows a step. An untrained BCQ on a frozen CVAE, one thread; the environments' own share is
timed inside `step`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import gymnasium
import torch
from torch import Tensor

from offline_vi.algorithms.bcq import BCQ
from offline_vi.behavior import CVAE, DecoderMeans
from offline_vi.datasets import task_on
from offline_vi.evaluation.evaluate import WIDTH, evaluate
from offline_vi.factories import kwargs_from
from offline_vi.nn.precision import exact_products, keep_freed_memory, use_products
from offline_vi.types import Spec


class Timed:
    """A policy that notes how long it thinks."""

    def __init__(self, policy: BCQ) -> None:
        self.policy, self.seconds, self.calls = policy, 0.0, 0

    def act(self, obs: Tensor) -> Tensor:
        started = time.perf_counter()
        action = self.policy.act(obs)
        self.seconds += time.perf_counter() - started
        self.calls += 1
        return action


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="HalfCheetah-v5", help="gymnasium id (default: %(default)s)")
    parser.add_argument("--env-kwargs", nargs="*", default=[], help="key=value ..., such as frame_skip=50")
    parser.add_argument("--steps", type=int, default=300, help="of each episode (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    use_products(exact_products())
    with gymnasium.make(options.env) as env:
        shapes: Any = env.observation_space.shape, env.action_space.shape
    spec = Spec(shapes[0], shapes[1][0])
    task = replace(task_on(options.env, None), max_episode_steps=options.steps, kwargs=kwargs_from(options.env_kwargs))
    policy = BCQ(spec, DecoderMeans(CVAE(spec).eval().requires_grad_(False))).eval()
    ten, apart, one = f"{WIDTH}", f"{WIDTH}, in processes", "1"
    how: dict[str, dict[str, Any]] = {ten: {}, apart: {"env_processes": True}, one: {"num_envs": 1}}
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in how}
    for _ in range(options.rounds):
        for name, laps in rows.items():
            timed = Timed(policy)
            started = time.perf_counter()
            evaluation = evaluate(timed, task, WIDTH, **how[name])
            seconds, steps = time.perf_counter() - started, int(evaluation.lengths.sum())
            laps.append((steps / seconds, 1e3 * timed.seconds / timed.calls, 1e3 * (seconds - timed.seconds) / steps))
    print(f"{options.env}, {WIDTH} episodes of {options.steps} steps, 100 candidates, one thread\n")
    print("| environments beside each other | environment steps/s | policy, ms a batch of ten | the rest, ms a step |")
    print("|---|---|---|---|")
    medians = {name: [statistics.median(column) for column in zip(*laps, strict=True)] for name, laps in rows.items()}
    for name, (speed, thinking, rest) in medians.items():
        print(f"| {name} | {speed:.0f} | {thinking:.2f} | {rest:.3f} |")
    print(f"\n{medians[ten][0] / medians[one][0]:.1f} times as fast as one environment at a time")


if __name__ == "__main__":
    main()
