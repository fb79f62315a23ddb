"""What it changes in the score to train PLAS and SPOT as published, the CVAE first, and not jointly.

    python benchmarks/procedures.py --output FOLDER [--data NAME|FILE+FILE ...] [--seeds 0 1 2] [--report-only]

The published procedures with short budgets: the CVAE is fitted for ``--fit`` steps and frozen, then the policy is
trained for ``--steps``. Next to them what the preset was before: both trained jointly for ``--steps``, SPOT on raw
observations. The final policy is scored over 20 episodes. procedures.md has normalized scores, mean and 95 % Student
interval over seeds, and the seconds of a run, one thread. Done cells are skipped, cut ones resumed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
from cells import interval, run_all, table

from offline_vi.datasets.tasks import ROBOTS
from offline_vi.study.cells import Job, is_done, result

JOINTLY = ("--behavior-steps", "0", "--behavior.lr", "1e-3")
BEFORE = {"plas": JOINTLY, "spot": (*JOINTLY, "--no-normalize")}
SHIPPED = tuple(
    f"offline-vi/{robot}/{level}-v0" for level in ("medium-expert", "medium", "medium-replay") for robot in ROBOTS
)


def jobs_of(data: str, options: argparse.Namespace) -> dict[str, list[Job]]:
    """Procedure -> a job for each seed."""
    common = ["--dataset", *data.split("+"), "--steps", str(options.steps), *options.flags.split()]
    common += ["--eval-every", "0", "--eval-episodes", "20", "-q"]
    kinds = {"published": ("--behavior-steps", str(options.fit)), "jointly": ()}
    folder = re.sub(r"\W+", "-", data).strip("-")
    return {
        f"{name}, {kind}": [
            Job(
                options.output / "runs" / f"{folder}-{name}-{kind}-{seed}",
                ("train", name, *common, *(flags or BEFORE[name]), "--seed", str(seed)),
            )
            for seed in options.seeds
        ]
        for name in BEFORE
        for kind, flags in kinds.items()
    }


def row_of(data: str, jobs: dict[str, list[Job]]) -> dict[str, str]:
    """A row of the table."""
    row = {"data set": re.sub(r"[^+]*/(?=[^/+]*\.hdf5)", "", data)}
    for name, of_seeds in jobs.items():
        done = [job.path for job in of_seeds if is_done(job.path)]
        seconds = [json.loads((path / "run.json").read_text())["wall_seconds"] for path in done]
        scores = [float(str(result(path)["normalized_score"])) for path in done]
        row[name] = f"{interval(scores)}, {np.mean(seconds):.0f} s" if done else ""
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--data", nargs="+", default=SHIPPED, help="names or files; FILE+FILE are joined")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--steps", type=int, default=5_000, help="of the policy; default: 5,000")
    parser.add_argument(
        "--fit", type=int, default=10_000, help="of the CVAE, where it is fitted first; default: 10,000"
    )
    parser.add_argument("--flags", default="", help="further flags of `offline-vi train`, e.g. '--env Hopper-v5'")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    jobs = {data: jobs_of(data, options) for data in options.data}
    if not options.report_only:
        run_all(job for of_data in jobs.values() for of_seeds in of_data.values() for job in of_seeds)
    rows = [row_of(data, of_data) for data, of_data in jobs.items()]
    text = table(rows)
    (options.output / "procedures.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
