"""The table of docs/guides/deploying.md: algorithms in every format, compared with what they were exported from.

python benchmarks/exports.py --dataset FILE.hdf5        (about three minutes on one core)

Each agent has its published sizes and is trained for a few steps; what is compared is the file and the agent, not how
good it is. Observations are rows of the data.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

import offline_vi as ovi
from offline_vi import registry
from offline_vi.deployment.formats import FORMATS
from offline_vi.nn.precision import use_threads
from offline_vi.study.agents import AgentChoice, build_agent, new_model

ALGORITHMS = ("bc", "bcq", "td3-bc", "iql", "plas")


def trained(name: str, data: ovi.Transitions, steps: int) -> ovi.Algorithm:
    """An agent with the settings of its paper."""
    row = registry.algorithm(name)
    config = registry.behavior_model(row.behavior).config(data.spec) if row.behavior else None
    choice = AgentChoice(name, row.config()(), row.behavior, config, jointly=bool(row.behavior))
    torch.manual_seed(0)
    model = new_model(choice, data.spec) if choice.behavior else None
    agent = build_agent(choice, data.spec, model, lambda proposals: proposals)
    ovi.normalizer_of(agent).fit(data.obs)
    ovi.fit(agent, data, steps, progress=False)
    return agent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--algorithms", nargs="*", default=ALGORITHMS)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    use_threads(1)
    data = ovi.datasets.load(options.dataset)
    rows = data.obs[np.linspace(0, len(data) - 1, 1_000).astype(np.int64)]
    print(
        "| algorithm | format | largest difference | ms, median | ms, fastest | MB |\n|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in options.algorithms:
            agent = trained(name, data, options.steps)
            for to, form in FORMATS.items():
                done = ovi.export(agent, Path(folder) / f"{name}{form.suffix}", observations=rows)
                trial, size = done.trial, done.path.stat().st_size / 1e6
                times = f"{trial.milliseconds:.2f} | {trial.fastest:.2f}"
                print(f"| {name} | {to} | {trial.difference:.1e} | {times} | {size:.1f} |", flush=True)


if __name__ == "__main__":
    main()
