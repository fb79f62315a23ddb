"""The table of docs/support.md, "A guard of states": what the density of states notices, and how often without cause.

python benchmarks/state_guard.py --dataset FILE.hdf5 --others OTHER.hdf5        (about a minute on one core)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import offline_vi as ovi
from offline_vi.evaluation.states import STEPS, fit_states, share_unknown
from offline_vi.nn.precision import use_threads
from offline_vi.types import FloatArray

LEVEL = 0.01
ROWS = 4_000


def damaged(obs: FloatArray, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Observations (R, O) of the data in which something is wrong: what -> (R, O)."""
    rows, features = obs.shape
    one = obs.copy()
    one[np.arange(rows), rng.integers(features, size=rows)] = 0.0
    half = obs.copy()
    half[:, : features // 2] = 0.0
    noise = rng.standard_normal(obs.shape).astype(np.float32)
    return {
        "all multiplied by 100": 100.0 * obs,
        "all multiplied by 2": 2.0 * obs,
        "noise of one standard deviation": obs + obs.std(0) * noise,
        "noise of 0.3 standard deviations": obs + np.float32(0.3) * obs.std(0) * noise,
        "all sensors at zero": np.zeros_like(obs),
        "half of the sensors at zero": half,
        "one sensor at zero": one,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--others", nargs="*", default=(), help="data sets of other policies on the same robot")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    use_threads(1)
    data, rng = ovi.datasets.load(options.dataset), np.random.default_rng(1)
    found = fit_states(data, options.steps)
    chosen = rng.permutation(len(data))[:ROWS]
    cases = damaged(np.asarray(data.obs[np.sort(chosen)]), rng)
    for other in options.others:
        rows = ovi.datasets.load(other).obs
        cases[f"states of {Path(other).stem}"] = rows[np.linspace(0, len(rows) - 1, ROWS).astype(np.int64)]
    print(f"| {Path(options.dataset).stem}, {options.steps:,} steps | called unknown |\n|---|---|")
    print(f"| {found.episodes} episodes of the data that it has not seen | {100 * found.false_alarms[LEVEL]:.1f} % |")
    for what, obs in cases.items():
        print(f"| {what} | {100 * share_unknown(found.states, torch.from_numpy(obs), LEVEL):.1f} % |")


if __name__ == "__main__":
    main()
