"""One trained policy that acts in many ways, from cloning to greedy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from offline_vi.errors import UsageError

if TYPE_CHECKING:
    from offline_vi.rl.algorithm import Algorithm
    from offline_vi.rl.policies import CandidatePolicy, Policy


@dataclass(frozen=True)
class Sweep:
    """Score one checkpoint over the number of candidates, Phi, the clip of the latent noise and the temperature of the
    choice, one at a time with the others as trained, without training anything."""

    run: tyro.conf.Positional[str]
    """Run directory of `offline-vi train`, of an algorithm that ranks candidates (bcq, emaq, soft-q)."""
    candidates: tuple[int, ...] = (1, 2, 5, 10, 30, 100)
    """N: numbers of candidates per state."""
    phi: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2)
    """Phi: largest perturbation, in units of the action box [-1, 1]."""
    noise_clip: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, float("inf"))
    """Clip of the latent noise, in standard deviations."""
    temperature: tuple[float, ...] = (0.0, 1.0, 3.0, 10.0, 30.0, float("inf"))
    """Temperature of the choice, in units of the Q that was trained: 0 the best candidate, inf any."""
    env: str = ""
    """Environment, where it is not the run's own, or code that only the run's files name: module:Id."""
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
    """Show no progress on stderr."""


def settings(policy: CandidatePolicy, options: Sweep) -> list[tuple[str, CandidatePolicy]]:
    """(axis, policy) for all axes that this policy has, each with the rest as trained; the first and the last are the
    two ends. What moves no candidate has no Phi, what draws full samples no noise to clip."""
    from offline_vi.behavior import DecoderMeans

    found = [("cloning", replace(policy, num_candidates=1, phi=None if policy.phi is None else 0.0))]
    found += [("candidates", replace(policy, num_candidates=count)) for count in options.candidates]
    if policy.phi is not None:
        found += [("phi", replace(policy, phi=value)) for value in options.phi]
    if isinstance(policy.proposals, DecoderMeans):
        model = policy.proposals.model
        found += [("noise_clip", replace(policy, proposals=DecoderMeans(model, clip))) for clip in options.noise_clip]
    found += [("temperature", replace(policy, temperature=value)) for value in options.temperature]
    return [*found, ("greedy", policy)]


def ranking(agent: Algorithm) -> CandidatePolicy:
    """How the algorithm, or the one that it wraps, ranks candidates. Raises UsageError where it does not."""
    from offline_vi.rl.algorithm import Wrapper, find_capability
    from offline_vi.rl.policies import Ranks

    found = find_capability(agent, Ranks)
    if found is None:
        inner = agent.algorithm if isinstance(agent, Wrapper) else agent
        raise UsageError(f"{type(inner).__name__} does not rank candidates when it acts", "sweep a run of bcq or emaq")
    return found.policy()


def described(policy: CandidatePolicy) -> dict[str, float | None]:
    """The values of a policy on all axes, None on those that it does not have."""
    from offline_vi.behavior import DecoderMeans

    clip = policy.proposals.noise_clip if isinstance(policy.proposals, DecoderMeans) else None
    values = {"num_candidates": policy.num_candidates, "temperature": policy.temperature, "phi": policy.phi}
    return {**values, "noise_clip": clip}


def sweep(options: Sweep) -> dict[str, Any]:
    """Evaluate all settings with the same episodes; write sweep.json and sweep.png."""
    from tqdm import tqdm  # here and below: not for --help

    from offline_vi.console import as_drawn, standard_error
    from offline_vi.environments import check_spaces
    from offline_vi.evaluation.evaluate import evaluate
    from offline_vi.nn.precision import use_threads
    from offline_vi.rl.policies import BehaviorPolicy
    from offline_vi.runs.files import write_json
    from offline_vi.runs.ownership import claim
    from offline_vi.study.kept import load_policy, read_config
    from offline_vi.study.plots import harmless, title_of
    from offline_vi.study.scoring import task_of_run, use_products_of
    from offline_vi.study.sweep_plot import sweep_plot

    use_threads(options.threads)
    policy, config = load_policy(options.run), read_config(options.run)
    use_products_of(options.run)
    trained, task = ranking(policy), task_of_run(config.record, options.env, run=options.run)
    check_spaces(config.spec, task)
    ways = settings(trained, options)
    direct: list[tuple[str, Policy, CandidatePolicy]] = [
        ("direct cloning", BehaviorPolicy(trained.proposals), ways[0][1]),
        ("direct greedy", policy, trained),
    ]
    rows: list[dict[str, Any]] = []
    for axis, acting, way in tqdm(
        [*((axis, way, way) for axis, way in ways), *direct],
        unit="setting",
        disable=options.quiet,
        file=standard_error(as_drawn),
    ):
        evaluation = evaluate(acting, task, options.episodes, options.seed)
        scores = (evaluation.normalized if evaluation.scored else evaluation.returns)[evaluation.succeeded]
        numbers = {"score": float(scores.mean()), "std": float(scores.std()), "scores": scores.tolist()}
        rows.append({"axis": axis, **described(way), **numbers})
    measure = "normalized score" if task.has_references else "return"
    about = {"run": options.run, "measure": measure, "episodes": options.episodes, "seed": options.seed}
    record = {**about, "rows": rows}
    folder = Path(options.output or options.run)
    claim(folder, "report", ["sweep.json", "sweep.png"])
    write_json(folder / "sweep.json", {**record, "rows": [spoken(row) for row in rows]})
    with harmless("the plot"):
        sweep_plot(rows, folder / "sweep.png", title_of(Path(options.run)), measure)
    return record


def spoken(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity."""
    return {key: "inf" if value == float("inf") else value for key, value in row.items()}
