"""The pieces of the demonstration: the data's score, the command that trains, the model next to the policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from offline_vi.errors import UsageError

EPISODES, EVAL_SEED = 10, 100


@dataclass(frozen=True)
class DemoOptions:
    """What the demonstration trains on, and for how long."""

    dataset: str  # name or file
    output: str = "runs/demo"  # run directory
    steps: int = 5_000  # gradient steps of BCQ
    behavior_steps: int = 5_000  # of the CVAE

    def train_words(self) -> list[str]:
        """Of `offline-vi train`: BCQ on a frozen CVAE."""
        words = ["bcq", "--dataset", self.dataset, "--preset", "fast", "--behavior", "cvae"]
        words += ["--behavior-steps", str(self.behavior_steps)]
        words += ["--steps", str(self.steps), "--eval-every", str(max(self.steps // 5, 1)), "--overwrite"]
        return [*words, "--output", self.output, "--behavior.hidden", "256", "256", "--hidden", "256", "256"]


class DataFacts(NamedTuple):
    """A data set in three numbers."""

    rows: int
    episodes: int
    score: float  # mean normalized score of its episodes; their return where there are no reference scores
    measure: str  # which of the two


class Compared(NamedTuple):
    """Mean normalized scores, or returns where the task has no reference scores."""

    behavior: float  # of the behavior model's own samples
    policy: float  # of BCQ on that model


def data_facts(dataset: str) -> DataFacts:
    """Read the data set. Raises UsageError where no environment is known, and what `load` raises."""
    from offline_vi import datasets  # torch

    data = datasets.load(dataset)
    if data.task is None:
        raise UsageError(f"no environment is known for {dataset}", "`offline-vi data list` names data sets with one")
    returns = data.episode_returns()
    if data.task.has_references:
        return DataFacts(len(data), len(returns), float(data.task.normalized(returns).mean()), "normalized score")
    return DataFacts(len(data), len(returns), float(returns.mean()), "return")


def compare_with_behavior(run: str | Path) -> Compared:
    """Score the policy of a run of the demonstration, and the behavior model that it ranks the samples of."""
    from offline_vi.evaluation.evaluate import evaluate
    from offline_vi.rl.policies import BehaviorPolicy
    from offline_vi.runs.files import read_json
    from offline_vi.study.kept import behavior_of, load_agent
    from offline_vi.study.scoring import task_of_run

    policy, task = load_agent(run), task_of_run(read_json(Path(run) / "config.json"))
    model = behavior_of(policy)
    assert model is not None
    cloned = evaluate(BehaviorPolicy(model), task, EPISODES, EVAL_SEED)
    return Compared(cloned.score, evaluate(policy, task, EPISODES, EVAL_SEED).score)
