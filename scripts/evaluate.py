"""offline-vi evaluate RUN: score the policy of a run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from offline_vi.errors import UsageError


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

    from offline_vi.algorithm import Algorithm
    from offline_vi.algorithms.build import load
    from offline_vi.checkpoint import read_json
    from offline_vi.datasets import task_on
    from offline_vi.evaluation import check_spaces, evaluate
    from offline_vi.types import Spec, Task

    torch.set_num_threads(options.threads)
    policy = load(options.run)
    config = read_json(Path(options.run) / "config.json")
    if not isinstance(policy, Algorithm):
        raise UsageError(f"{options.run} holds a behaviour model, not a policy", "evaluate a run of `offline-vi train`")
    task = Task.from_json(config["task"]) if config.get("task") else None
    if options.env:
        task = replace(task, env_id=options.env, kwargs={}) if task else task_on(options.env, None)
    if task is None or not task.env_id:
        raise UsageError("no environment is known for this run", "name one: --env ID")
    check_spaces(Spec.from_json(config["recipe"]["spec"]), task)
    evaluation = evaluate(policy, task, options.episodes, options.seed, progress=not options.quiet)
    record: dict[str, Any] = evaluation.to_json()
    if options.json:
        json.dump(record, sys.stdout, indent=1)
        print()
        return
    print(f"{task.name or task.env_id}: {options.episodes} episodes on {evaluation.env_id}")
    print(f"  return            {evaluation.mean_return:10.2f} +- {evaluation.returns.std():.2f}")
    print(f"  normalised score  {evaluation.mean:10.2f} +- {evaluation.normalized.std():.2f}")
    print(f"  failed episodes   {evaluation.n_failed:7d}")
    print(f"  mujoco {evaluation.versions.get('mujoco', 'absent')}, gymnasium {evaluation.versions.get('gymnasium')}")
    if task.note:
        print(f"  note: {task.note}")


if __name__ == "__main__":
    main()
