"""offline-vi sweep-inference RUN: one trained policy acted on in many ways, from cloning to greedy."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from offline_vi.errors import UsageError

if TYPE_CHECKING:
    from offline_vi.rl.algorithm import Algorithm
    from offline_vi.rl.policies import Policy, Ranking, Way


@dataclass(frozen=True)
class SweepOptions:
    """Score one checkpoint over the number of candidates, Phi, the clip of the latent noise and the temperature of the
    choice, one at a time with the others as trained, without training anything."""

    run: tyro.conf.Positional[str]
    """Run directory of `offline-vi train`, of an algorithm that ranks candidates (bcq, emaq)."""
    candidates: tuple[int, ...] = (1, 2, 5, 10, 30, 100)
    """N: candidates per state."""
    phi: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2)
    """Phi: largest perturbation, in units of the action box [-1, 1]."""
    noise_clip: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, float("inf"))
    """Clip of the latent noise, in standard deviations."""
    temperature: tuple[float, ...] = (0.0, 1.0, 3.0, 10.0, 30.0, float("inf"))
    """Temperature of the choice, in units of Q: 0 the best candidate, inf any."""
    episodes: int = 10
    """Episodes per setting."""
    seed: int = 1000
    """Seed of the first episode."""
    threads: int = 1
    """CPU threads of torch."""
    output: str = ""
    """Folder of sweep.json and sweep.png; default: the run directory."""
    json: bool = False
    """Machine-readable output on stdout."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """No progress on stderr."""


AXES = {
    "candidates": "N, candidates per state",
    "phi": "Phi, largest perturbation",
    "noise_clip": "clip of the latent noise",
    "temperature": "temperature of the choice, units of Q",
}


def main(arguments: list[str] | None = None) -> None:
    sweep(tyro.cli(SweepOptions, args=arguments, prog="offline-vi sweep-inference"))


def settings(options: SweepOptions) -> list[tuple[str, Way]]:
    """(axis, way to act) for all axes; the first and the last are the two ends."""
    from offline_vi.rl.policies import Way

    return [
        ("cloning", Way(num_candidates=1, phi=0.0)),
        *(("candidates", Way(num_candidates=count)) for count in options.candidates),
        *(("phi", Way(phi=value)) for value in options.phi),
        *(("noise_clip", Way(noise_clip=value)) for value in options.noise_clip),
        *(("temperature", Way(temperature=value)) for value in options.temperature),
        ("greedy", Way()),
    ]


def ways(policy: Ranking, options: SweepOptions) -> list[tuple[str, Way, Policy]]:
    """Every setting that this algorithm knows, as a policy; one that perturbs nothing has no Phi, one on full samples
    no noise to clip."""
    from offline_vi.errors import ConfigError

    found: list[tuple[str, Way, Policy]] = []
    for axis, way in settings(options):
        try:
            found.append((axis, way, policy.ranking(way)))
        except ConfigError:
            if axis == "cloning":
                found.append((axis, way, policy.ranking(way._replace(phi=None))))
    return found


def unwrapped(policy: Algorithm) -> Ranking:
    """The algorithm that ranks. Raises UsageError where there is none."""
    from offline_vi.rl.algorithm import Jointly
    from offline_vi.rl.policies import Ranking

    inner: Any = policy.algorithm if isinstance(policy, Jointly) else policy
    if not isinstance(inner, Ranking):
        raise UsageError(f"{type(inner).__name__} does not rank candidates when it acts", "sweep a run of bcq or emaq")
    return inner


def sweep(options: SweepOptions) -> dict[str, Any]:
    """Evaluate all settings with the same episodes; write sweep.json and sweep.png."""
    import torch  # here and below: not for --help
    from tqdm import tqdm

    from offline_vi.algorithms.build import load
    from offline_vi.environments import check_spaces
    from offline_vi.evaluation.evaluate import evaluate
    from offline_vi.rl.algorithm import Algorithm
    from offline_vi.rl.policies import BehaviorPolicy, Way
    from offline_vi.runs.files import read_json, write_json
    from offline_vi.scripts.common import multiply_as
    from offline_vi.types import Spec, Task

    torch.set_num_threads(options.threads)
    policy = load(options.run)
    multiply_as(options.run)
    config = read_json(Path(options.run) / "config.json")
    if not isinstance(policy, Algorithm):
        raise UsageError(f"{options.run} holds a behaviour model, not a policy", "sweep a run of `offline-vi train`")
    if not (config.get("task") or {}).get("env_id"):
        raise UsageError("no environment is known for this run", "train with --env ID")
    ranking, task = unwrapped(policy), Task.from_json(config["task"])
    check_spaces(Spec.from_json(config["recipe"]["spec"]), task)
    direct = {"cloning": BehaviorPolicy(policy_behavior(ranking)), "greedy": policy}
    rows: list[dict[str, Any]] = []
    for axis, way, acting in tqdm(
        [*ways(ranking, options), *((f"direct {name}", Way(), one) for name, one in direct.items())],
        unit="setting",
        disable=options.quiet,
    ):
        evaluation = evaluate(acting, task, options.episodes, options.seed)
        scores = evaluation.normalized if task.ref_min is not None else evaluation.returns
        numbers = {"score": float(scores.mean()), "std": float(scores.std()), "scores": scores.tolist()}
        rows.append({"axis": axis, **way._asdict(), **numbers})
    record = {"run": options.run, "episodes": options.episodes, "seed": options.seed, "rows": rows}
    folder = Path(options.output or options.run)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "sweep.json", {**record, "rows": [spoken(row) for row in rows]})
    picture(rows, folder / "sweep.png", Path(options.run).name)
    if options.json:
        json.dump({**record, "rows": [spoken(row) for row in rows]}, sys.stdout, indent=1)
        print()
    else:
        for row in rows:
            print(f"{label(row):<42} {row['score']:8.1f} +- {row['std']:.1f}")
        print(f"plot: {folder / 'sweep.png'}")
    return record


def policy_behavior(ranking: Ranking) -> Any:
    """What the candidates are drawn from."""
    return ranking.ranking().behavior


def spoken(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity."""
    return {key: "inf" if value == float("inf") else value for key, value in row.items()}


def label(row: dict[str, Any]) -> str:
    """The setting in words."""
    parts = {"num_candidates": "N", "phi": "Phi", "noise_clip": "clip"}
    told = [f"{short} {row[key]:g}" for key, short in parts.items() if row[key] is not None]
    told += [f"T {row['temperature']:g}"] if row["axis"] == "temperature" else []
    return f"{row['axis'].replace('_', ' ')}  {', '.join(told)}".strip()


def picture(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """A panel per axis; dashed lines are the two ends, computed without the sweep."""
    from matplotlib import pyplot as plt

    from offline_vi.study.plots import ACCENT, INK, MUTED

    ends = {row["axis"]: row["score"] for row in rows}
    names = [name for name in AXES if any(row["axis"] == name for row in rows)]
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.0), sharey=True, squeeze=False)
    for place, name in zip(axes.flat, names, strict=True):
        column = "num_candidates" if name == "candidates" else name
        points = [row for row in rows if row["axis"] == name]
        where = range(len(points))
        scores, spread = [row["score"] for row in points], [row["std"] / len(row["scores"]) ** 0.5 for row in points]
        place.errorbar(where, scores, yerr=spread, color=ACCENT, marker="o", markersize=4, linewidth=1.4, capsize=2)
        place.set_xticks(list(where), [f"{row[column]:g}" for row in points], fontsize=8)
        place.axhline(ends["direct greedy"], color=INK, linestyle="--", linewidth=1, label="greedy")
        place.axhline(ends["direct cloning"], color=MUTED, linestyle="--", linewidth=1, label="cloning")
        place.set_xlabel(AXES[name], fontsize=9)
        place.spines[["top", "right"]].set_visible(False)
        place.grid(alpha=0.25)
    axes[0, 0].set_ylabel("normalised score, standard error", fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10, color=INK)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
