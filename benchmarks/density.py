"""What behavior models know and how they act: nats of unseen actions next to the score of the central action.

    python benchmarks/density.py --output FOLDER [--data NAME ...] [--models NAME ...] [--steps 5000] [--seeds 0]
        [--episodes 10] [--flags "--episode-weights best"] [--report-only]

Every model is fitted by `offline-vi fit-behavior` to all but the last tenth of the episodes. density.md: density and
errors on that tenth, and normalized scores over 10 episodes, mean and 95 % Student interval over seeds. likelihood.md:
how the errors of two of the models weigh in a likelihood, and what saturated actions do to it. Done cells are skipped,
cut ones resumed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import interval
from torch import Tensor

from offline_vi import datasets
from offline_vi.behavior import CentralActions, GaussianBehavior, LeastSquaresBehavior
from offline_vi.behavior.pretrained import load_behavior
from offline_vi.data.transitions import Transitions
from offline_vi.distributions.squashed import TanhNormal
from offline_vi.evaluation import evaluate
from offline_vi.rl.policies import BehaviorPolicy
from offline_vi.study.cells import Job, is_done, result, run_job
from offline_vi.study.density import evenly

REGULARIZED = ("--layer-norm", "--dropout", "0.1")
PLAIN = ("--no-layer-norm", "--dropout", "0")
MODELS: dict[str, tuple[str, ...]] = {
    "gaussian": ("gaussian",),
    "gaussian, LayerNorm and dropout": ("gaussian", *REGULARIZED),
    "least-squares": ("least-squares", *REGULARIZED),
    "least-squares, neither": ("least-squares", *PLAIN),
    "mixture": ("mixture",),
    "mixture, LayerNorm and dropout": ("mixture", *REGULARIZED),
    "cvae": ("cvae",),
    "cvae, LayerNorm and dropout": ("cvae", *REGULARIZED),
    "flow": ("flow",),
    "flow-matching": ("flow-matching",),
}
SHIPPED = tuple(f"offline-vi/{robot}/medium-expert-v0" for robot in ("hopper", "walker2d", "halfcheetah"))
HELD_OUT, ROWS = 0.1, 10_000
SATURATED = 0.99  # |a| from which an action counts as saturated


def job_of(data: str, model: str, seed: int, options: argparse.Namespace) -> Job:
    """The fit of one model."""
    name = re.sub(r"\W+", "-", f"{data} {model}").strip("-")
    flags = ("--dataset", data, "--steps", str(options.steps), "--held-out", str(HELD_OUT), "--seed", str(seed))
    return Job(
        options.output / "runs" / f"{name}-{seed}", ("fit-behavior", *MODELS[model], *flags, *options.flags.split())
    )


def unseen(data: Transitions) -> tuple[Tensor, Tensor]:
    """Observations (B, O) and actions (B, A) that no model was fitted to."""
    rows = evenly(data.split_episodes(HELD_OUT)[1], ROWS)
    return torch.from_numpy(rows.obs), torch.from_numpy(rows.action)


@torch.no_grad()
def act(run: Path, data: Transitions, episodes: int) -> dict[str, float]:
    """Normalized scores of the central action and of samples; kept in the run."""
    path = run / "acting.json"
    if path.exists():
        kept: dict[str, float] = json.loads(path.read_text())
        return kept
    model: Any = load_behavior(run)
    found: dict[str, float] = {}
    assert data.task is not None
    for name, proposals in (("center", CentralActions(model)), ("samples", model)):
        returns = evaluate(BehaviorPolicy(proposals), data.task, episodes).returns
        found[name] = float(data.task.normalized(returns).mean())
    path.write_text(json.dumps(found))
    return found


@torch.no_grad()
def errors(run: Path, rows: Transitions) -> tuple[float, float]:
    """Of the central action and of one sample a state: root mean square over entries, in units of the box."""
    model: Any = load_behavior(run)
    obs, action = unseen(rows)
    torch.manual_seed(0)
    center, sample = (float((a - action).square().mean().sqrt()) for a in (model.center(obs), model.sample(obs)[0]))
    return center, sample


def row_of(data: str, model: str, runs: Sequence[Path], rows: Transitions) -> dict[str, str]:
    """A row of density.md: one model on one data set."""
    acting = [json.loads((run / "acting.json").read_text()) for run in runs]
    held_out: list[Any] = [result(run)["held_out"] for run in runs]
    center, sample = np.mean([errors(run, rows) for run in runs], axis=0)
    return {
        "data set": data.removeprefix("offline-vi/"),
        "model": model,
        "nats, unseen": f"{np.mean([part['iwae_64'] for part in held_out]):.2f}",
        "error of the center": f"{center:.3f}",
        "error of samples": f"{sample:.3f}",
        "score of the center": interval([part["center"] for part in acting]),
        "score of samples": interval([part["samples"] for part in acting]),
    }


def share_of_tenth(weight: Tensor) -> float:
    """Of the sum of the weights (B,), what the heaviest tenth of the rows has."""
    ordered = weight.sort(descending=True).values
    return float(ordered[: len(ordered) // 10].sum() / ordered.sum())


@torch.no_grad()
def likelihood_of(data: str, rows: Transitions, gaussian: Path, squares: Path) -> dict[str, str]:
    """A row of likelihood.md: how the errors of the mean weigh, and what saturated entries are worth."""
    obs, action = unseen(rows)
    normal, box = load_behavior(gaussian), load_behavior(squares)
    assert isinstance(normal, GaussianBehavior) and isinstance(box, LeastSquaresBehavior)
    base = normal.distribution(obs).base
    saturated = action.abs() >= SATURATED
    # (B, 1, A) -> nats of each entry: an entry alone is an action of one dimension
    nats = TanhNormal(base.loc.unsqueeze(-1), base.log_scale.unsqueeze(-1)).log_prob(action.unsqueeze(-1))
    entries = {"saturated entries": saturated, "the others": ~saturated}
    return {
        "data set": data.removeprefix("offline-vi/"),
        "weight of the heaviest tenth, tanh-Normal": f"{100 * share_of_tenth(base.stddev.pow(-2).mean(-1)):.0f} %",
        "in the box": f"{100 * share_of_tenth(box.around(box.center(obs), obs).base.stddev.pow(-2).mean(-1)):.0f} %",
        f"entries beyond {SATURATED}": f"{100 * saturated.float().mean():.1f} %",
        **{f"nats, {name}": f"{nats[where].mean():.2f}" if where.any() else "" for name, where in entries.items()},
    }


def table(rows: Sequence[dict[str, str]]) -> str:
    """Markdown."""
    lines = [" | ".join(row.values()) for row in (dict(zip(rows[0], rows[0], strict=True)), *rows)]
    lines.insert(1, " | ".join("---" for _ in rows[0]))
    return "".join(f"| {line} |\n" for line in lines)


def report(options: argparse.Namespace, loaded: dict[str, Transitions]) -> None:
    """Write what is there."""

    def scored(data: str, model: str) -> list[Path]:
        runs = [job_of(data, model, seed, options).path for seed in options.seeds]
        return [run for run in runs if is_done(run) and (run / "acting.json").exists()]

    pairs = [(data, model, runs) for data in options.data for model in options.models if (runs := scored(data, model))]
    if pairs:
        (options.output / "density.md").write_text(table([row_of(*pair, loaded[pair[0]]) for pair in pairs]))
    both = [(data, scored(data, "gaussian"), scored(data, "least-squares")) for data in options.data]
    rows = [likelihood_of(data, loaded[data], one[0], other[0]) for data, one, other in both if one and other]
    if rows:
        (options.output / "likelihood.md").write_text(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--data", nargs="+", default=SHIPPED, help="names or files")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), help="default: all")
    parser.add_argument("--steps", type=int, default=5_000, help="gradient steps of each fit; default: 5000")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--episodes", type=int, default=10, help="per score; default: 10")
    parser.add_argument("--flags", default="", help="further flags of `offline-vi fit-behavior`")
    parser.add_argument("--report-only", action="store_true", help="fit nothing")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    loaded = {data: datasets.load(data) for data in options.data}
    if not options.report_only:
        for data, model, seed in ((d, m, s) for d in options.data for m in options.models for s in options.seeds):
            job = job_of(data, model, seed, options)
            outcome = run_job(job)
            print(f"{job.path.name}: {f'{outcome.seconds:.0f} s' if outcome.done else outcome.error}", flush=True)
            if outcome.done:
                act(job.path, loaded[data], options.episodes)
                report(options, loaded)
    report(options, loaded)


if __name__ == "__main__":
    main()
