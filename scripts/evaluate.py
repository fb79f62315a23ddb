"""offline-vi evaluate RUN: score the policy of a run."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from offline_vi.joined import short_name
from offline_vi.scripts.arguments import parsed

if TYPE_CHECKING:
    from offline_vi.study.scoring import RunScore


@dataclass(frozen=True)
class EvaluateOptions:
    """Score the final policy of a run directory."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory of `offline-vi train`."""
    env: str = ""
    """Environment to score on, if it is not the run's own: a Gymnasium id, or code of yours as module:Id, module:Class
    or module:function. A run whose own environment is such code is scored only if this names it. The policy keeps the
    action map that it was trained with."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment's constructor: key=value ..., or one JSON object."""
    max_episode_steps: int = 0
    """Steps after which an episode is cut; 0: as in the run, or the environment's own limit."""
    episodes: int = 100
    """Number of episodes."""
    seed: int = 1000
    """Seed of the first episode; episode e has seed + e."""
    seed_index: Annotated[int, tyro.conf.arg(aliases=["--member"])] = 0
    """Which seed to score, of a run that trained several in parallel (--parallel-seeds), counted from 0."""
    guard: float = 0.0
    """Replace actions whose log-density is below this quantile of the data's (0.001, 0.01, 0.05, 0.5) by the behavior
    model's best candidate; 0: no guard."""
    guard_states: float = 0.0
    """In states that are unlike the data's, take the middle of the action box instead of the policy's action.
    `offline-vi fit-guard RUN` fits the density of states; this share of the data's own states counts as unknown (0.001,
    0.01, 0.05, 0.5); 0: no guard."""
    safe_action: tuple[float, ...] = ()
    """The action to take in unknown states instead of the middle of the box, in the environment's units: one number for
    each dimension."""
    deterministic: bool = False
    """Act as a file of `offline-vi export` and `predict` do: random numbers, as those of candidate actions, are drawn
    once. Policies that draw none, such as clones, score the same."""
    video: int = 0
    """Film this many episodes, from --seed on, into RUN/videos."""
    env_processes: bool = False
    """Run each environment in a process of its own, on Linux: the same numbers, sooner on a machine with spare cores if
    a step of the simulator takes several milliseconds, later if it takes less than one."""
    threads: int = 1
    """CPU threads of torch."""
    json: bool = False
    """Machine-readable output on stdout."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Show no progress on stderr."""


def main(arguments: list[str] | None = None) -> None:
    options = parsed(EvaluateOptions, arguments, "offline-vi evaluate")
    from offline_vi.nn.precision import use_threads  # here and below: not for --help
    from offline_vi.study.plots import harmless
    from offline_vi.study.scoring import ScoringOptions, keep_score, score_run

    use_threads(options.threads)
    scoring = ScoringOptions(
        env=options.env,
        env_kwargs=options.env_kwargs,
        max_episode_steps=options.max_episode_steps,
        episodes=options.episodes,
        seed=options.seed,
        seed_index=options.seed_index,
        guard=options.guard,
        guard_states=options.guard_states,
        safe_action=options.safe_action,
        deterministic=options.deterministic,
        video=options.video,
        env_processes=options.env_processes,
        progress=not options.quiet,
    )
    score, path = score_run(options.run, scoring), None
    with harmless("the file of this evaluation"):
        path = keep_score(options.run, score, scoring)
    if options.json:
        json.dump(score.to_json(options.guard), sys.stdout, indent=1)
        print()
    else:
        print_score(score)
        if path is not None:
            print(f"  written to        {path}")
    if score.film_error is not None:
        raise score.film_error


def print_score(score: RunScore) -> None:
    """Print the score for people to read."""
    from offline_vi.study.scores import RETURN, SCORE

    task, evaluation = score.task, score.evaluation
    name, on = short_name(task.name) or task.env_id, evaluation.env_id
    print(f"{name}: {len(evaluation.returns)} episodes{'' if name == on else f' on {on}'}")
    of_returns, of_scores = evaluation.spread
    kinds = [("return", False, of_returns, RETURN), ("normalized score", True, of_scores, SCORE)]
    for name, scores, spread, measure in kinds if evaluation.scored else kinds[:1]:
        mean, low, high = evaluation.interval(scores)
        print(f"  {name:<18}{mean:10.2f} mean over episodes")
        if evaluation.succeeded.sum() > 1:
            print(f"  {'':<18}{low:10.2f} to {high:.2f}: 95 % interval of this policy's mean")
            print(f"  {'':<18}{spread:10.2f} standard deviation over episodes")
        if (of_data := score.data.get(measure)) is not None:
            print(f"  {'':<18}{of_data:10.2f} mean over the data's own episodes")
    ended, lengths = evaluation.terminated[evaluation.succeeded], evaluation.lengths[evaluation.succeeded]
    limit = f"before the limit of {evaluation.max_episode_steps} steps"
    print(f"  ended by the task {int(ended.sum()):7d} of {len(ended)} episodes {limit}")
    print(f"  length            {lengths.mean():10.2f} steps, mean over episodes")
    print(f"  failed episodes   {evaluation.n_failed:7d}, where the environment failed")
    for seed, why in evaluation.failures.items():
        print(f"    seed {seed}: {why}")
    if score.guard is not None and score.guard.known is not None:
        print(f"  unknown states    {100 * score.guard.share_unknown:10.2f} % (usual: {100 * score.guard.level:g} %)")
        culprits = [
            f"{score.name_of(entry)} in {100 * count / score.guard.unknown_states:.0f} %"
            for entry, count in score.guard.culprits.most_common(3)
        ]
        if culprits:
            print(f"  {'':<18}most unusual in them: {', '.join(culprits)}")
    if score.guard is not None and score.guard.behavior is not None:
        share, threshold = 100 * score.guard.share, score.guard.threshold
        print(f"  replaced actions  {share:10.2f} % (log-density below {threshold:.2f} nats)")
    packages = ("gymnasium", *(["mujoco"] if "mujoco" in sys.modules else []))  # which an environment imports to step
    print(f"  {', '.join(f'{name} {evaluation.versions.get(name)}' for name in packages)}")
    if score.videos is not None:
        print(f"  films             {score.videos}")
    for difference in score.differences:
        print(f"  note: {difference}")
    if task.note:
        print(f"  note: {task.note}")


if __name__ == "__main__":
    main()
