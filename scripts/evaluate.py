"""offline-vi evaluate RUN: score the policy of a run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from offline_vi.errors import UsageError

if TYPE_CHECKING:
    from offline_vi.rl.algorithm import Algorithm
    from offline_vi.rl.policies import GuardedPolicy


@dataclass(frozen=True)
class EvaluateOptions:
    """Score the final policy of a run directory."""

    run: tyro.conf.Positional[str]
    """Run directory of `offline-vi train`."""
    env: str = ""
    """Gymnasium id, where it is not the data set's own."""
    episodes: int = 100
    """Episodes."""
    seed: int = 1000
    """Seed of the first episode; episode e has seed + e."""
    member: int = 0
    """Which seed of a run of several side by side (--seeds-at-once), counted from 0."""
    guard: float = 0.0
    """Do not follow the policy to actions whose log-density is below this quantile of the data's (0.001, 0.01, 0.05,
    0.5), but take the behaviour model's best candidate; 0: no guard."""
    video: int = 0
    """Film so many episodes, from --seed on, into RUN/videos."""
    threads: int = 1
    """CPU threads of torch."""
    json: bool = False
    """Machine-readable output on stdout."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """No progress on stderr."""


def main(arguments: list[str] | None = None) -> None:
    score(tyro.cli(EvaluateOptions, args=arguments, prog="offline-vi evaluate"))


def score(options: EvaluateOptions) -> None:
    """Load the run's final policy, check the spaces, evaluate, print."""
    import torch  # here and below: not for --help

    from offline_vi.algorithms.build import load
    from offline_vi.datasets import task_on
    from offline_vi.environments import check_spaces
    from offline_vi.evaluation.evaluate import evaluate
    from offline_vi.rl.algorithm import Algorithm
    from offline_vi.runs.files import read_json
    from offline_vi.scripts.common import multiply_as
    from offline_vi.types import Spec, Task

    torch.set_num_threads(options.threads)
    policy = load(options.run, options.member)
    multiply_as(options.run)
    config = read_json(Path(options.run) / "config.json")
    if not isinstance(policy, Algorithm):
        raise UsageError(f"{options.run} holds a behaviour model, not a policy", "evaluate a run of `offline-vi train`")
    task = Task.from_json(config["task"]) if config.get("task") else None
    if options.env:
        task = replace(task, env_id=options.env, kwargs={}) if task else task_on(options.env, None)
    if task is None or not task.env_id:
        raise UsageError("no environment is known for this run", "name one: --env ID")
    check_spaces(Spec.from_json(config["recipe"]["spec"]), task)
    guarded = guard(policy, options) if options.guard else None
    evaluation = evaluate(guarded or policy, task, options.episodes, options.seed, progress=not options.quiet)
    record: dict[str, Any] = evaluation.to_json()
    if options.video:
        from offline_vi.study.video import film

        film(guarded or policy, task, options.video, options.seed, Path(options.run) / "videos")
        record["videos"] = str(Path(options.run) / "videos")
    if guarded is not None:
        record["guard"] = {"level": options.guard, "threshold": guarded.threshold, "share": guarded.share}
    if options.json:
        json.dump(record, sys.stdout, indent=1)
        print()
        return
    print(f"{task.name or task.env_id}: {options.episodes} episodes on {evaluation.env_id}")
    print(f"  return            {evaluation.mean_return:10.2f} +- {evaluation.returns.std():.2f}")
    print(f"  normalised score  {evaluation.mean:10.2f} +- {evaluation.normalized.std():.2f}")
    print(f"  failed episodes   {evaluation.n_failed:7d}")
    if guarded is not None:
        print(f"  replaced actions  {100 * guarded.share:10.2f} % (log-density below {guarded.threshold:.2f} nats)")
    print(f"  mujoco {evaluation.versions.get('mujoco', 'absent')}, gymnasium {evaluation.versions.get('gymnasium')}")
    if options.video:
        print(f"  films             {record['videos']}")
    if task.note:
        print(f"  note: {task.note}")


def guard(policy: Algorithm, options: EvaluateOptions) -> GuardedPolicy:
    """The policy under guard of the density that its run measured the support with.

    Raises ConfigError where the run knows no density or not that quantile.
    """
    from offline_vi.algorithms.build import load_with_density
    from offline_vi.errors import ConfigError
    from offline_vi.evaluation.support import Support
    from offline_vi.rl.policies import GuardedPolicy, q_value
    from offline_vi.runs.files import read_json

    record = read_json(Path(options.run) / "result.json").get("support")
    algorithm, density = load_with_density(options.run, options.member)
    if density is None or record is None:
        raise ConfigError(f"{options.run} has no density of the data's actions", "train with --support-from DIR")
    threshold = Support.from_json(record).threshold(options.guard)
    return GuardedPolicy(algorithm, density, threshold, value=lambda obs, action: q_value(algorithm, obs, action))


if __name__ == "__main__":
    main()
