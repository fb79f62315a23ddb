"""Scores of a run: evaluations on the way, and what result.json says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offline_vi.rl.policies import Policy
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.run import Record
from offline_vi.study.scores import RETURN, SCORE
from offline_vi.types import Task

if TYPE_CHECKING:
    import torch

    from offline_vi.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class EvalOptions:
    """How a policy is scored during training."""

    eval_every: int = 5_000
    """Steps between two evaluations; 0: only the final policy is evaluated."""
    eval_episodes: int = 10
    """Episodes per evaluation."""
    eval_seed: int = 100
    """Seed of the first evaluation episode; independent of --seed."""
    env_processes: bool = False
    """Run each environment of an evaluation in a process of its own, on Linux: the same numbers, sooner on a machine
    with spare cores if a step of the simulator takes several milliseconds, later if it takes less than one."""

    @property
    def interval(self) -> int | None:
        """Steps between two evaluations, as the training loop takes them."""
        return self.eval_every or None


def evaluate_into(
    run: RunDirectory,
    step: int,
    policy: Policy,
    task: Task,
    options: EvalOptions,
    *,
    discount: float = 0.99,
    device: torch.device | str = "cpu",
    **whose: int,
) -> Evaluation:
    """Evaluate a policy, and log a row per episode; ``whose`` are further columns, e.g. the seed of several."""
    from offline_vi.evaluation.evaluate import evaluate  # here, not above: gymnasium

    evaluation = evaluate(
        policy,
        task,
        options.eval_episodes,
        options.eval_seed,
        discount=discount,
        device=device,
        env_processes=options.env_processes,
    )
    for row in evaluation.episode_rows(step):
        run.log_episode({**row, **whose})
    return evaluation


def summary(run: RunDirectory, steps: int, seeds: Sequence[int] = ()) -> Record:
    """result.json: the final policy, per episode; the best evaluation apart. Of several ``seeds`` in parallel the
    means, and the same for each of them."""
    rows = run.read_episodes()
    result = scores(rows, steps)
    if len(seeds) > 1:
        result["seeds"] = {
            str(seed): scores([row for row in rows if int(row["training_seed"]) == seed], steps) for seed in seeds
        }
    if (run.path / "failures.json").exists() and (failures := run.read_json("failures.json")):
        result["failed_evaluations"] = failures
    return result


def scores(episodes: Sequence[Mapping[str, Any]], steps: int) -> Record:
    """The scores in the rows of episodes.csv. Episodes that failed are counted, and in no number.

    ``measure`` says what ``best`` and ``curve`` are of: normalized scores, or returns where the task has no reference
    scores.
    """
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for row in episodes:
        if math.isfinite(row["return"]):
            by_step.setdefault(int(row["step"]), []).append(row)
    if not by_step:
        return {"steps": steps, "note": "nothing was scored"}
    scored = all(math.isfinite(row["normalized"]) for rows in by_step.values() for row in rows)
    measure, column = (SCORE, "normalized") if scored else (RETURN, "return")
    means = {step: mean_of(rows, column) for step, rows in by_step.items()}
    best = max(means, key=lambda step: means[step])
    on_the_way = {
        "measure": measure,
        "best": {"step": best, measure: means[best]},
        "curve": {str(step): mean for step, mean in means.items()},
    }
    if steps not in by_step:
        return {"steps": steps, "note": "the final policy was not scored", **on_the_way}
    return {"steps": steps, **final(by_step[steps], scored), **failed(episodes, steps), **on_the_way}


def mean_of(rows: Sequence[Mapping[str, Any]], column: str) -> float:
    """The mean of a column."""
    return float(sum(row[column] for row in rows) / len(rows))


def final(rows: Sequence[Mapping[str, Any]], scored: bool) -> Record:
    """The scores of the final policy's episodes that did not fail."""
    normalized = [row["normalized"] for row in rows]
    limit = rows[0].get("max_episode_steps")
    return {
        **({SCORE: mean_of(rows, "normalized"), "normalized_scores": normalized} if scored else {}),
        RETURN: mean_of(rows, "return"),
        "returns": [row["return"] for row in rows],
        "lengths": [row["length"] for row in rows],
        "terminated": [bool(row["terminated"]) for row in rows],
        "env_id": rows[0]["env_id"],
        "mujoco": rows[0]["mujoco"],
        **({} if limit is None else {"max_episode_steps": limit}),
    }


def failed(episodes: Sequence[Mapping[str, Any]], step: int) -> Record:
    """The episodes of an evaluation that failed, and why."""
    rows = [row for row in episodes if int(row["step"]) == step and not math.isfinite(row["return"])]
    about = ("training_seed", "seed", "length", "failure")
    return {"failed_episodes": [{name: row[name] for name in about if name in row} for row in rows]} if rows else {}
