"""What is in the locomotion data sets that the library makes, and what BC and BCQ make of them.

    python benchmarks/recipes.py --output FOLDER [--robot hopper] [--version v0] [--levels medium expert]
        [--steps 20000] [--seeds 0]

Each data set is collected where it is missing. recipes.md: rows, returns, ends, the starts' values (discounted sums of
an episode's own rewards), true log-probabilities, SHA-256 of the file, the default CVAE's gap to the true density on
held-out episodes (`offline-vi fit-behavior cvae`), the scores of BC and of BCQ with the preset `fast` on that model
(`offline-vi train`; no --seeds: none). returns.png: a histogram of the returns of each. Done cells are skipped, cut
ones resumed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cells import interval

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from offline_vi import datasets
from offline_vi.data.transitions import Transitions
from offline_vi.datasets.tasks import LEVELS, ROBOTS
from offline_vi.study.cells import Job, is_done, result, run_job

ACCENT, INK = "#0b6e99", "#1f2933"


def jobs_of(level: str, name: str, options: argparse.Namespace) -> dict[str, Job]:
    """The fit and the trainings on one data set."""
    data = ["--dataset", name]
    fit = ["fit-behavior", "cvae", *data, "--steps", str(options.steps), "-q"]
    jobs = {"cvae": Job(options.output / "runs" / f"{level}-cvae", tuple(fit))}
    for seed in options.seeds:
        common = [*data, "--seed", str(seed), "--steps", str(options.steps), "--eval-every", str(options.steps), "-q"]
        common += ["--eval-episodes", "20"]
        for algorithm, flags in (("bc", []), ("bcq", ["--preset", "fast", "--behavior", "cvae"])):
            path = options.output / "runs" / f"{level}-{algorithm}-{seed}"
            jobs[f"{algorithm}-{seed}"] = Job(path, ("train", algorithm, *common, *flags))
    return jobs


def facts(name: str, data: Transitions, jobs: dict[str, Job], seeds: list[int]) -> dict[str, Any]:
    """A row of the table."""
    assert data.task is not None
    assert data.behavior_log_prob is not None
    row: dict[str, Any] = {
        "data set": name,
        "rows": f"{len(data):,}",
        "mean score": f"{data.task.normalized(data.episode_returns()).mean():.1f}",
        "episodes": f"{len(data.episode_slices()):,}",
        "% terminated": f"{100 * data.terminated.sum() / len(data.episode_slices()):.0f}",
        **{f"start's value at {gamma}": f"{data.observed_returns(gamma).mean():.0f}" for gamma in (0.99, 0.997)},
        "true log-probability, nats": f"{data.behavior_log_prob.mean():.2f}",
        "SHA-256": data.source.sha256[0][:12],
    }
    if is_done(jobs["cvae"].path):
        held_out = json.loads((jobs["cvae"].path / "result.json").read_text())["held_out"]
        row["CVAE's gap, nats"] = f"{held_out['gap']:.2f}"
    for algorithm in ("bc", "bcq"):
        done = [jobs[f"{algorithm}-{seed}"].path for seed in seeds if is_done(jobs[f"{algorithm}-{seed}"].path)]
        scores = [float(result(path)["normalized_score"]) for path in done]
        row[{"bc": "BC", "bcq": "BCQ, `fast` on `cvae`"}[algorithm]] = interval(scores) if scores else ""
    return row


def picture(sets: dict[str, Transitions], path: Path) -> None:
    """Returns of the episodes of each data set."""
    every = np.concatenate([data.episode_returns() for data in sets.values()])
    bins = np.linspace(every.min(), every.max(), 73)
    figure, axes = plt.subplots(len(sets), 1, figsize=(6, 1.25 * len(sets) + 0.6), sharex=True, squeeze=False)
    for place, (level, data) in zip(axes[:, 0], sets.items(), strict=True):
        returns = data.episode_returns()
        share = np.full(len(returns), 100 / len(returns))
        place.hist(returns, bins=bins, color=ACCENT, weights=share)
        place.axvline(returns.mean(), color=INK, linewidth=1, linestyle="--")
        place.set_ylabel(level, rotation=0, ha="right", va="center", fontsize=9)
        place.spines[["top", "right"]].set_visible(False)
        place.tick_params(labelsize=8)
    axes[-1, 0].set_xlabel("return of an episode (dashed: mean); height: % of the episodes", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--robot", default="hopper", choices=list(ROBOTS))
    parser.add_argument("--version", default=max(LEVELS), choices=list(LEVELS))
    parser.add_argument("--levels", nargs="+", choices=LEVELS["v0"], help="default: all of the version")
    parser.add_argument("--steps", type=int, default=20_000, help="gradient steps (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of BC and BCQ (default: 0)")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    levels = options.levels or LEVELS[options.version]
    names = {level: f"offline-vi/{options.robot}/{level}-{options.version}" for level in levels}
    sets = {level: datasets.load(name) for level, name in names.items()}
    picture(sets, options.output / "returns.png")
    jobs = {level: jobs_of(level, name, options) for level, name in names.items()}
    if not options.report_only:
        for job in (job for of_level in jobs.values() for job in of_level.values()):
            if not is_done(job.path):
                outcome = run_job(job)
                print(f"{job.path.name}: {f'{outcome.seconds:.0f} s' if outcome.done else outcome.error}", flush=True)
    rows = [facts(names[level], data, jobs[level], options.seeds) for level, data in sets.items()]
    head = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(str(row.get(name, '')) for name in head)} |" for row in rows]
    (options.output / "recipes.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
