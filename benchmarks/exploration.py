"""VIME on MountainCarContinuous-v0: steps until the goal for each belief, and the map of what was seen beside noise.

    python benchmarks/exploration.py --goal conjugate mean-field none --seeds 5       # one line a run
    python benchmarks/exploration.py --figure docs/figures/exploration.png            # 3,000 steps each

SAC with alpha = 0.02 fixed, 64 x 64, Adam 1e-3, gamma 0.99, tau 0.01, batches of 128, a gradient step for every step
after 200 uniform ones; observations standardised by the environment's box. The bonus is gain / running median. Runs
stop at the goal, or after 5,000 steps with the bonus and 4,000 without.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from offline_vi import datasets
from offline_vi.algorithms.build import Recipe, build
from offline_vi.algorithms.sac import SACConfig
from offline_vi.algorithms.vime import VIMEConfig
from offline_vi.data.transitions import Transitions
from offline_vi.rl.algorithm import OnlineAlgorithm
from offline_vi.rl.policies import NoisyPolicy
from offline_vi.scripts.train_online_job import spec_of, standardize
from offline_vi.study.plots import exploration_map
from offline_vi.training.collector import Collector
from offline_vi.training.randomness import seeds, set_seed, torch_seed

ENV = "MountainCarContinuous-v0"
SAC = SACConfig(temperature=0.02, temperature_rate=0.0, lr=1e-3, tau=0.01, hidden=(64, 64), batch_size=128)
VIME = VIMEConfig(capacity=10_000)


class Still:
    """A policy that does nothing."""

    def act(self, obs: Tensor) -> Tensor:
        return obs.new_zeros(len(obs), 1)


def agent_of(belief: str, seed: int) -> OnlineAlgorithm:
    """SAC, with the bonus of a belief unless that is "none"."""
    task = datasets.environment(ENV)
    bonus = {"bonus": "vime", "bonus_config": replace(VIME, belief=belief)} if belief != "none" else {}
    set_seed(seed)
    agent = build(Recipe("sac", spec_of(task), SAC, normalize=True, **bonus))
    standardize(agent, task)
    assert isinstance(agent, OnlineAlgorithm)
    torch.manual_seed(torch_seed(seeds(seed)["noise"]))
    return agent


def goal(belief: str, seed: int, limit: int) -> str:
    """One line: steps until the goal."""
    agent = agent_of(belief, seed)
    task = datasets.environment(ENV)
    collector = Collector(agent, task, spec_of(task), SAC.batch_size, warmup=200, seed=seeds(seed)["batches"])
    started = time.process_time()
    reached = False
    while not reached and collector.replay.count < limit:
        agent.update(collector.sample())
        reached = bool(collector.replay.tensors()["terminated"].any())
    told = f"goal after {collector.replay.count:,} steps" if reached else f"not in {limit:,} steps"
    return f"{belief:<10} seed {seed}: {told} ({time.process_time() - started:.1f} CPU seconds)"


def collected(belief: str, steps: int) -> Transitions:
    """What an agent sees in so many steps; "noise" is N(0, 0.3^2) around doing nothing."""
    task = datasets.environment(ENV)
    explorer = NoisyPolicy(Still(), 0.3) if belief == "noise" else agent_of(belief, 0)
    collector = Collector(explorer, task, spec_of(task), SAC.batch_size, warmup=200, seed=seeds(0)["batches"])
    while collector.replay.count < steps:
        batch = collector.sample()
        if isinstance(explorer, OnlineAlgorithm):
            explorer.update(batch)
    return collector.transitions()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goal", nargs="*", default=[], choices=["conjugate", "mean-field", "none"])
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--figure", type=Path, help="draw the map to this file")
    parser.add_argument("--steps", type=int, default=3_000, help="of the map (default 3,000)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for belief in options.goal:
        for seed in range(options.seeds):
            print(goal(belief, seed, 4_000 if belief == "none" else 5_000), flush=True)
    if options.figure is not None:
        names = {"noise N(0, 0.3)": "noise", "SAC": "none", "SAC + VIME": "conjugate"}
        exploration_map(options.figure, {name: collected(belief, options.steps) for name, belief in names.items()})


if __name__ == "__main__":
    main()
