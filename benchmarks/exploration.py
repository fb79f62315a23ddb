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
from offline_vi.algorithms.sac import SAC, SACConfig
from offline_vi.algorithms.vime import VIME, VIMEConfig
from offline_vi.data.transitions import Transitions
from offline_vi.environments import spec_of
from offline_vi.rl.algorithm import Algorithm, OnlineAlgorithm, find_capability, normalizer_of
from offline_vi.rl.policies import Explorer, GaussianNoise
from offline_vi.study.online import standardize
from offline_vi.study.plots import exploration_map
from offline_vi.training.collector import Collection, Collector
from offline_vi.training.randomness import seeds, set_seed, torch_seed

ENV = "MountainCarContinuous-v0"
LEARNING = SACConfig(temperature=0.02, temperature_rate=0.0, lr=1e-3, tau=0.01, hidden=(64, 64), batch_size=128)
BONUS = VIMEConfig(capacity=10_000)


class Still:
    """A policy that does nothing."""

    def act(self, obs: Tensor) -> Tensor:
        return obs.new_zeros(len(obs), 1)


def agent_of(belief: str, seed: int) -> Algorithm:
    """SAC, with the bonus of a belief unless that is "none"."""
    task = datasets.environment(ENV)
    spec = spec_of(task)
    set_seed(seed)
    sac = SAC(spec, config=LEARNING)
    bonus = VIME(sac, spec, replace(BONUS, belief=belief)) if belief != "none" else None
    standardize([normalizer_of(sac), *([bonus.standardizer] if bonus else [])], task)
    torch.manual_seed(torch_seed(seeds(seed)["noise"]))
    return bonus or sac


def collector_of(explorer: Explorer, seed: int) -> Collector:
    """Its first 200 actions are uniform."""
    task = datasets.environment(ENV)
    how = Collection(warmup=200)
    return Collector(explorer, task, spec_of(task), LEARNING.batch_size, how, seed=seeds(seed)["batches"])


def explorer_of(agent: Algorithm) -> OnlineAlgorithm:
    """What explores: SAC within its bonus."""
    found = find_capability(agent, OnlineAlgorithm)
    assert found is not None
    return found


def goal(belief: str, seed: int, limit: int) -> str:
    """One line: steps until the goal."""
    agent = agent_of(belief, seed)
    collector = collector_of(explorer_of(agent), seed)
    started = time.process_time()
    reached = False
    while not reached and collector.replay.count < limit:
        agent.update(collector.sample())
        reached = bool(collector.replay.tensors()["terminated"].any())
    told = f"goal after {collector.replay.count:,} steps" if reached else f"not in {limit:,} steps"
    return f"{belief:<10} seed {seed}: {told} ({time.process_time() - started:.1f} CPU seconds)"


def collected(belief: str, steps: int) -> Transitions:
    """What an agent sees in so many steps; "noise" is N(0, 0.3^2) around doing nothing."""
    agent = None if belief == "noise" else agent_of(belief, 0)
    collector = collector_of(GaussianNoise(Still(), 0.3) if agent is None else explorer_of(agent), 0)
    while collector.replay.count < steps:
        batch = collector.sample()
        if agent is not None:
            agent.update(batch)
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
