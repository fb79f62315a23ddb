"""Scores of a run: evaluations on the way, and what result.json says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offline_vi.rl.policies import Policy
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.run import Record
from offline_vi.types import Task

if TYPE_CHECKING:
    import torch

    from offline_vi.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class EvalOptions:
    """How a policy is scored on the way."""

    eval_every: int = 5_000
    """Steps between two evaluations; 0: only the final policy's."""
    eval_episodes: int = 10
    """Episodes per evaluation."""
    eval_seed: int = 100
    """Seed of the first evaluation episode; independent of --seed."""

    @property
    def interval(self) -> int | None:
        """For the training loop."""
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

    evaluation = evaluate(policy, task, options.eval_episodes, options.eval_seed, discount=discount, device=device)
    for row in evaluation.episode_rows(step):
        run.log_episode({**row, **whose})
    return evaluation


def summary(run: RunDirectory, steps: int) -> Record:
    """result.json: the final policy, per episode; the best evaluation apart. Of several seeds in parallel the means,
    and the same for each of them."""
    rows = run.read_episodes()
    result = scores(rows, steps)
    members = sorted({int(row["training_seed"]) for row in rows if "training_seed" in row})
    if members:
        result["seeds"] = {
            str(seed): scores([row for row in rows if int(row["training_seed"]) == seed], steps) for seed in members
        }
    if (run.path / "failures.json").exists() and (failures := run.read_json("failures.json")):
        result["failed_evaluations"] = failures
    return result


def scores(episodes: Sequence[Mapping[str, Any]], steps: int) -> Record:
    """Of the rows of episodes.csv."""
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for row in episodes:
        by_step.setdefault(int(row["step"]), []).append(row)
    if not by_step:
        return {"steps": steps, "note": "nothing was scored"}
    means = {step: sum(row["normalized"] for row in rows) / len(rows) for step, rows in by_step.items()}
    best = max(means, key=lambda step: means[step])
    on_the_way = {
        "best": {"step": best, "normalized_score": means[best]},
        "curve": {str(step): mean for step, mean in means.items()},
    }
    if steps not in by_step:
        return {"steps": steps, "note": "the final policy was not scored", **on_the_way}
    rows = by_step[steps]
    return {
        "steps": steps,
        "normalized_score": means[steps],
        "normalized_scores": [row["normalized"] for row in rows],
        "return_mean": sum(row["return"] for row in rows) / len(rows),
        "returns": [row["return"] for row in rows],
        "lengths": [row["length"] for row in rows],
        "env_id": rows[0]["env_id"],
        "mujoco": rows[0]["mujoco"],
        **on_the_way,
    }
