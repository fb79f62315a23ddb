"""offline-vi evaluate RUN: score the policy of a run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from offline_vi.study.scoring import RunScore


@dataclass(frozen=True)
class EvaluateOptions:
    """Score the final policy of a run directory."""

    run: tyro.conf.Positional[str]
    """Run directory of `offline-vi train`."""
    env: str = ""
    """Gymnasium id, where it is not the data set's own; the policy keeps the action map that it was trained with."""
    episodes: int = 100
    """Episodes."""
    seed: int = 1000
    """Seed of the first episode; episode e has seed + e."""
    seed_index: Annotated[int, tyro.conf.arg(aliases=["--member"])] = 0
    """Which seed of a run of several in parallel (--parallel-seeds), counted from 0."""
    guard: float = 0.0
    """Do not follow the policy to actions whose log-density is below this quantile of the data's (0.001, 0.01, 0.05,
    0.5), but take the behavior model's best candidate; 0: no guard."""
    video: int = 0
    """Film so many episodes, from --seed on, into RUN/videos."""
    threads: int = 1
    """CPU threads of torch."""
    json: bool = False
    """Machine-readable output on stdout."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """No progress on stderr."""


def main(arguments: list[str] | None = None) -> None:
    options = tyro.cli(EvaluateOptions, args=arguments, prog="offline-vi evaluate")
    import torch  # here and below: not for --help

    from offline_vi.study.scoring import ScoringOptions, score_run

    torch.set_num_threads(options.threads)
    scoring = ScoringOptions(
        env=options.env,
        episodes=options.episodes,
        seed=options.seed,
        seed_index=options.seed_index,
        guard=options.guard,
        video=options.video,
        progress=not options.quiet,
    )
    score = score_run(options.run, scoring)
    if options.json:
        json.dump(score.to_json(options.guard), sys.stdout, indent=1)
        print()
    else:
        print_score(score)


def print_score(score: RunScore) -> None:
    """For people."""
    task, evaluation = score.task, score.evaluation
    print(f"{task.name or task.env_id}: {len(evaluation.returns)} episodes on {evaluation.env_id}")
    print(f"  return            {evaluation.mean_return:10.2f} +- {evaluation.returns.std():.2f}")
    print(f"  normalized score  {evaluation.mean:10.2f} +- {evaluation.normalized.std():.2f}")
    print(f"  failed episodes   {evaluation.n_failed:7d}")
    if score.guard is not None:
        share, threshold = 100 * score.guard.share, score.guard.threshold
        print(f"  replaced actions  {share:10.2f} % (log-density below {threshold:.2f} nats)")
    print(f"  mujoco {evaluation.versions.get('mujoco', 'absent')}, gymnasium {evaluation.versions.get('gymnasium')}")
    if score.videos is not None:
        print(f"  films             {score.videos}")
    if task.note:
        print(f"  note: {task.note}")


if __name__ == "__main__":
    main()
