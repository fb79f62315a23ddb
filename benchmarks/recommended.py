"""What the preset `recommended` makes of each data set, next to clones of all of it and of its best quarter.

    python benchmarks/recommended.py --output FOLDER [--data NAME|FILE+FILE ...] [--seeds 0 1 2] [--report-only]

Every clone has the same network, optimizer and number of steps; only the rows that count differ. BCQ in its own
recommended preset perturbs such a clone. The final policy is scored over 20 episodes. recommended.md has normalized
scores, mean and 95 % Student interval over seeds, and the seconds that training took with everything that is fitted for
it, one thread. Done cells are skipped, cut ones resumed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
from cells import interval, run_all, table

from offline_vi import datasets
from offline_vi.data.weights import Best
from offline_vi.datasets.tasks import ROBOTS
from offline_vi.study.cells import Job, is_done, result

CONTENDERS = {
    "BCQ, recommended": ("bcq",),
    "clone of all": ("bc", "--episode-weights", "all"),
    "clone of the best quarter": ("bc", "--episode-weights", "best", "--best-share", "0.25"),
    "recommended": ("bc",),
}
LEVELS = ("expert", "medium-expert", "medium", "medium-replay", "random")
SHIPPED = tuple(f"offline-vi/{robot}/{level}-v0" for level in LEVELS for robot in ROBOTS)


def jobs_of(data: str, options: argparse.Namespace) -> dict[str, list[Job]]:
    """Contender -> a job for each seed."""
    common = ["--preset", "recommended", "--dataset", *data.split("+"), *options.flags.split()]
    common += ["--eval-every", "0", "--eval-episodes", "20", "-q"]

    def title(name: str) -> str:
        return re.sub(r"\W+", "-", name).strip("-")

    return {
        name: [
            Job(
                options.output / "runs" / f"{title(data)}-{title(name)}-{seed}",
                ("train", *CONTENDERS[name], *common, "--seed", str(seed)),
            )
            for seed in options.seeds
        ]
        for name in options.contenders
    }


def row_of(data: str, jobs: dict[str, list[Job]], flags: str) -> dict[str, str]:
    """A row of the table."""
    env = re.search(r"--env (\S+)", flags)
    rows = datasets.load(*data.split("+"), env=env.group(1) if env else None)
    assert rows.task is not None
    scores = rows.task.normalized(rows.episode_returns())
    best = np.array([Best(0.25)(rows)[part.start] > 0.0 for part in rows.episode_slices()])
    row = {"data set": re.sub(r"[^+]*/(?=[^/+]*\.hdf5)", "", data)}
    row |= {"data (best quarter)": f"{scores.mean():.1f} ({scores[best].mean():.1f})"}
    for name, of_seeds in jobs.items():
        done = [job.path for job in of_seeds if is_done(job.path)]
        row[name] = interval([float(str(result(path)["normalized_score"])) for path in done]) if done else ""
        seconds = [json.loads((path / "run.json").read_text())["wall_seconds"] for path in done]
        if seconds and name == "recommended":
            row["seconds"] = f"{np.mean(seconds):.0f}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--data", nargs="+", default=SHIPPED, help="names or files; FILE+FILE are joined")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="default: all")
    parser.add_argument("--flags", default="", help="further flags of `offline-vi train`, e.g. '--env Hopper-v5'")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    jobs = {data: jobs_of(data, options) for data in options.data}
    if not options.report_only:
        for name in reversed(options.contenders):  # the recommended preset first
            run_all(job for of_data in jobs.values() for job in of_data[name])
    rows = [row_of(data, of_data, options.flags) for data, of_data in jobs.items()]
    text = table(rows)
    (options.output / "recommended.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
