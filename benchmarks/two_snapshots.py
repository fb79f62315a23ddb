"""A file in D4RL's layout, half of it by each of two snapshots of a run of `train-online sac --keep-policies`.

    python benchmarks/two_snapshots.py RUN --medium 130000 --expert 430000 --output other.hdf5 [--rows 60000]
    offline-vi train bc --preset recommended --dataset other.hdf5 --rows within_episode --env Hopper-v5 --steps 10000

Data of agents that no shipped recipe knows: for trying a rule that was chosen on the recipes. Both snapshots play with
their own noise. Prints the mean and standard deviation of the returns of each half, and the share of its episodes that
the task ended.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from offline_vi.behavior import DensityModel
from offline_vi.behavior.pretrained import load_behavior
from offline_vi.datasets.locomotion import roll_out
from offline_vi.study.scoring import load_task

KEYS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


def columns_of(episode: Any) -> dict[str, NDArray[Any]]:
    """D4RL's columns of one episode."""
    observations = np.stack(episode.observations).astype(np.float32)
    terminals = np.array(episode.terminations)
    return {
        "observations": observations[:-1],
        "actions": np.stack(episode.actions).astype(np.float32),
        "rewards": np.array(episode.rewards, np.float32),
        "terminals": terminals,
        "timeouts": np.array(episode.truncations) & ~terminals,
        "next_observations": observations[1:],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--medium", type=int, required=True, help="steps of the worse snapshot")
    parser.add_argument("--expert", type=int, required=True, help="steps of the better one")
    parser.add_argument("--rows", type=int, default=60_000, help="of each half")
    parser.add_argument("--seed", type=int, default=100, help="of the first half; the second has the next one")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    task, parts = load_task(options.run), []
    for place, step in enumerate((options.medium, options.expert)):
        policy = load_behavior(options.run / "policies" / f"step_{step:08d}")
        assert isinstance(policy, DensityModel)
        episodes = roll_out(policy.eval(), task, options.rows, options.seed + place)
        returns, ended = [sum(one.rewards) for one in episodes], [one.terminations[-1] for one in episodes]
        print(
            f"{step:,} steps: {np.mean(returns):.0f} +- {np.std(returns):.0f}, {np.mean(ended):.0%} ended by the task"
        )
        parts += [columns_of(one) for one in episodes]
    with h5py.File(options.output, "x") as file:
        for key in KEYS:
            file[key] = np.concatenate([part[key] for part in parts])
    print(options.output)


if __name__ == "__main__":
    main()
