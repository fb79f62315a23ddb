"""SAC beside Stable-Baselines3's at the same settings: what each has learned after so many steps, and how fast.

    python benchmarks/sac_returns.py --output FOLDER [--steps 100000] [--seeds 0 1 2] [--libraries ours sb3]

Both: Hopper-v5, one environment, one gradient step of 256 transitions per step, 256 x 256 networks, alpha learned, 100
uniform actions first. The return is that of the training episodes (the policy with its noise) that ended in the last
20,000 steps: metrics.csv has a row per 1,000 steps, with the mean over the episodes that ended in it. Stable-Baselines3
lives in an environment of its own, made in --envs by scripts/compare_speed.py. Done runs are skipped; a cut one of ours
resumes, a cut one of theirs starts again (it is written only at its end). Writes sac.md and sac.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

ENV, WARMUP, ROW, LAST = "Hopper-v5", 100, 1_000, 20_000
LIBRARIES = {"ours": "offline_vi", "sb3": "Stable-Baselines3"}


def theirs(seed: int, steps: int, folder: Path) -> None:
    """Train Stable-Baselines3's SAC, in its environment; metrics.csv and result.json when it is done."""
    import stable_baselines3  # type: ignore[import-not-found, unused-ignore]
    import torch
    from stable_baselines3.common.callbacks import BaseCallback  # type: ignore[import-not-found, unused-ignore]

    class Episodes(BaseCallback):  # type: ignore[misc, unused-ignore]
        """Returns and lengths of the training episodes, a row per ROW steps."""

        rows: list[tuple[int, float, float]]
        ended: list[tuple[float, float]]

        def _on_training_start(self) -> None:
            self.rows, self.ended = [], []

        def _on_step(self) -> bool:
            self.ended += [
                (float(info["episode"]["r"]), float(info["episode"]["l"]))
                for info in self.locals["infos"]
                if "episode" in info
            ]
            if self.num_timesteps % ROW == 0 and self.ended:
                means = (sum(column) / len(self.ended) for column in zip(*self.ended, strict=True))
                self.rows.append((self.num_timesteps, *means))
                self.ended = []
            return True

    torch.set_num_threads(1)
    sac = stable_baselines3.SAC(
        "MlpPolicy", ENV, learning_starts=WARMUP, policy_kwargs={"net_arch": [256, 256]}, device="cpu", seed=seed
    )
    episodes, started = Episodes(), time.perf_counter()
    sac.learn(steps, callback=episodes)
    seconds = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("step", "episode/return", "episode/length"), *episodes.rows])
    record = {"wall_seconds": seconds, "version": stable_baselines3.__version__}
    (folder / "result.json").write_text(json.dumps(record))


def train(library: str, seed: int, options: argparse.Namespace) -> str:
    """One run, in a process of its own; an error in one line, or nothing."""
    folder = options.output / "runs" / f"{library}-seed{seed}"
    if library == "sb3":
        if (folder / "result.json").exists():
            return ""
        from offline_vi.scripts.compare_speed import python_of

        python = python_of("sb3", options.envs)
        worker = [str(python), str(Path(__file__).resolve()), "--worker", str(seed), "--steps", str(options.steps)]
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run([*worker, "--output", str(folder)], env=variables, stdout=subprocess.DEVNULL)
        return "" if ended.returncode == 0 else f"exit code {ended.returncode}"
    from offline_vi.study.cells import Job, run_job

    given = ["--env", ENV, "--steps", str(options.steps), "--warmup", str(WARMUP), "--seed", str(seed)]
    given += ["--log-every", str(ROW), "--eval-every", str(options.steps), "--save-every", "20000"]
    return run_job(Job(folder, ("train-online", "sac", *given))).error


def returns(folder: Path) -> list[tuple[int, float]]:
    """(step, mean return of the training episodes that ended in the ROW steps up to it)."""
    from offline_vi.study.cells import table

    rows = [(int(row["step"]), row["episode/return"]) for row in table(folder / "metrics.csv")]
    return [(step, float(value)) for step, value in rows if value not in ("", "nan")]


def picture(curves: dict[str, list[list[tuple[int, float]]]], path: Path) -> None:
    """A line per run, a colour per library."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4))
    for (library, runs), colour in zip(curves.items(), ("#0b6e99", "#d97706"), strict=False):
        for order, run in enumerate(runs):
            steps, values = np.array(run).T
            smooth = [values[max(0, i - 4) : i + 1].mean() for i in range(len(values))]
            label = LIBRARIES[library] if order == 0 else None
            axes.plot(steps / 1000, smooth, color=colour, linewidth=1.4, alpha=0.8, label=label)
    axes.set_xlabel("thousand steps in the environment", fontsize=9)
    axes.set_ylabel("return of a training episode\n(mean of the last 5,000 steps)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def report(options: argparse.Namespace) -> None:
    """The table and the picture of what is done."""
    import numpy as np
    from cells import interval

    head = ["library", f"return, steps {options.steps - LAST:,} to {options.steps:,}", "per seed", "steps/s"]
    lines, curves = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"], {}
    for library in options.libraries:
        folders = [options.output / "runs" / f"{library}-seed{seed}" for seed in options.seeds]
        done = [folder for folder in folders if (folder / "result.json").exists()]
        if not done:
            continue
        curves[library] = [[(at, value) for at, value in returns(run) if at <= options.steps] for run in done]
        final = [
            float(np.mean([value for step, value in run if step > options.steps - LAST])) for run in curves[library]
        ]
        seconds = [seconds_of(run) for run in done]
        told = [LIBRARIES[library], interval(final), ", ".join(f"{value:.0f}" for value in final)]
        lines.append(f"| {' | '.join(told)} | {', '.join(f'{options.steps / value:.0f}' for value in seconds)} |")
    (options.output / "sac.md").write_text("\n".join(lines) + "\n")
    picture(curves, options.output / "sac.png")
    print("\n".join(lines))


def seconds_of(run: Path) -> float:
    """Wall-clock of a run's training; of ours with its checkpoints and the evaluation at its end."""
    told = run / "run.json"
    record: dict[str, Any] = json.loads((told if told.exists() else run / "result.json").read_text())
    return float(record["wall_seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--steps", type=int, default=100_000, help="in the environment (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES))
    parser.add_argument(
        "--envs", type=Path, default=Path("build/compare_speed"), help="environments of other libraries"
    )
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # a seed of theirs
    options = parser.parse_args()
    if options.worker is not None:
        theirs(options.worker, options.steps, options.output)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds if not options.report_only else []:
        for library in options.libraries:
            error = train(library, seed, options)
            print(f"{library}-seed{seed}: {error or 'done'}", flush=True)
    report(options)


if __name__ == "__main__":
    main()
