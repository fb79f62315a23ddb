"""Write tests/data/rliable.json: what rliable says about fixed scores. Not a test; run once, by hand:

    python -m venv RLIABLE && RLIABLE/bin/pip install rliable==1.2.0 'pandas<3'
    RLIABLE/bin/python tests/rliable_values.py > tests/data/rliable.json

(rliable 1.2.0 does not import with pandas 3.)
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any

import numpy as np

COMMAND = "pip install rliable==1.2.0 'pandas<3'; python tests/rliable_values.py > tests/data/rliable.json"
RUNS = {"a": 10, "b": 10, "few": 3}
REPS = 50_000


def scores() -> dict[str, Any]:
    """Three algorithms on five tasks of different difficulty, (runs, tasks), one decimal."""
    rng = np.random.default_rng(20210830)
    centre, spread = np.array([10.0, 45.0, 60.0, 95.0, 110.0]), np.array([3.0, 12.0, 20.0, 5.0, 1.5])
    shift = {"a": 0.0, "b": 6.0, "few": 2.0}
    return {
        name: np.round(centre + shift[name] + spread * rng.standard_normal((runs, 5)), 1) for name, runs in RUNS.items()
    }


def main() -> None:
    from rliable import (
        library as rly,  # not installed beside the library
        metrics,
    )

    table = scores()

    def aggregates(x: Any) -> Any:
        return np.array(
            [
                metrics.aggregate_iqm(x),
                metrics.aggregate_mean(x),
                metrics.aggregate_median(x),
                metrics.aggregate_optimality_gap(x, 100.0),
            ]
        )

    points, intervals = rly.get_interval_estimates(table, aggregates, reps=REPS)
    pairs = {"a,b": (table["a"], table["b"]), "few,a": (table["few"], table["a"])}
    chance, chance_intervals = rly.get_interval_estimates(pairs, metrics.probability_of_improvement, reps=REPS)
    taus = np.linspace(0.0, 120.0, 13)
    profiles, bands = rly.create_performance_profile(table, taus, reps=5_000)
    record = {
        "command": COMMAND,
        "versions": {name: importlib.metadata.version(name) for name in ("rliable", "arch", "numpy", "pandas")},
        "reps": REPS,
        "aggregates": ["IQM", "mean", "median", "optimality gap"],
        "scores": {name: x.tolist() for name, x in table.items()},
        "points": {name: np.ravel(x).tolist() for name, x in points.items()},
        "intervals": {name: x.tolist() for name, x in intervals.items()},
        "improvement": {name: float(np.ravel(x)[0]) for name, x in chance.items()},
        "improvement_intervals": {name: np.ravel(x).tolist() for name, x in chance_intervals.items()},
        "taus": taus.tolist(),
        "profiles": {name: x.tolist() for name, x in profiles.items()},
        "bands": {name: np.asarray(x).tolist() for name, x in bands.items()},
    }
    json.dump(record, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
