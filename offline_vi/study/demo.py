"""The demonstration: what a data set's own policies score, next to clones, BCQ and the recommended preset."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offline_vi.errors import UsageError
from offline_vi.study.cells import result

EPISODES = 10  # of each evaluation


@dataclass(frozen=True)
class DemoOptions:
    """What the demonstration trains on, and for how long."""

    dataset: str  # name or file
    output: str = "runs/demo"  # folder of the runs and of the picture
    steps: int = 10_000  # gradient steps of each clone
    bcq_steps: int = 1_500  # of BCQ, which takes about as long

    def contenders(self) -> dict[str, tuple[Path, Sequence[str]]]:
        """What is compared -> its run directory and the arguments of `offline-vi train`."""
        clone = ("bc", "--preset", "recommended", "--steps", str(self.steps), "--decay-steps", str(self.steps))
        trained = {
            "clone of all": (*clone, "--episode-weights", "all"),
            "clone of the best quarter": (*clone, "--episode-weights", "best"),
            "BCQ as published": ("bcq", "--preset", "published", "--steps", str(self.bcq_steps)),
            "recommended": clone,
        }
        common = ("--dataset", self.dataset, "--eval-every", "0", "--eval-episodes", str(EPISODES))
        title = re.sub(r"\W+", "-", self.dataset).strip("-")
        made = f"{title}-{self.steps}-{self.bcq_steps}"  # other numbers of steps are other runs
        return {
            name: (Path(self.output) / f"{made}-{re.sub(r'[^a-z]+', '-', name.lower())}", (*words, *common))
            for name, words in trained.items()
        }


class DataFacts(NamedTuple):
    """A data set in three numbers."""

    rows: int
    episodes: int
    score: float  # mean normalized score of its episodes; their return where there are no reference scores
    measure: str  # which of the two


class Trained(NamedTuple):
    """What a contender came to."""

    score: float  # mean normalized score, or return where the task has no reference scores
    error: float  # standard error of that mean over the episodes
    seconds: float  # of the run, with everything that is fitted for it and the evaluation
    steps: int  # gradient steps


def data_facts(dataset: str) -> DataFacts:
    """Read the data set. Raises UsageError where no environment is known, and what `load` raises."""
    from offline_vi import datasets  # torch

    data = datasets.load(dataset)
    if data.task is None:
        raise UsageError(f"no environment is known for {dataset}", "`offline-vi data list` names data sets with one")
    returns = data.observed_returns()
    if data.task.has_references:
        return DataFacts(len(data), len(returns), float(data.task.normalized(returns).mean()), "normalized score")
    return DataFacts(len(data), len(returns), float(returns.mean()), "return")


def trained(run: Path) -> Trained:
    """What a run that is done came to."""
    final: dict[str, Any] = result(run)
    seconds = float(json.loads((run / "run.json").read_text())["wall_seconds"])
    scores = np.array(final.get("normalized_scores", final["returns"]))
    return Trained(float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores))), seconds, final["steps"])


def picture(data: DataFacts, contenders: Mapping[str, Trained], path: Path) -> None:
    """Write the comparison as a PNG file: a bar for the data and for each contender."""
    from matplotlib.figure import Figure

    from offline_vi.study.plots import ACCENT, INK, MUTED

    names = ["the data", *contenders]
    values = [data.score, *(one.score for one in contenders.values())]
    errors = [0.0, *(one.error for one in contenders.values())]
    notes = ["", *(f"{one.steps:,} steps, {one.seconds:.0f} s" for one in contenders.values())]
    figure = Figure(figsize=(7.0, 2.9))
    axis = figure.subplots()
    colors = [MUTED] * (len(names) - 1) + [ACCENT]
    axis.barh(names, values, xerr=errors, color=colors, height=0.62, ecolor=INK)
    for at, (value, error, note) in enumerate(zip(values, errors, notes, strict=True)):
        axis.text(max(value, 0.0) + error, at, f"  {value:.1f}   {note}", va="center", color=INK, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(min(0.0, *values), max(max(values), 1.0) * 1.45)
    axis.set_xlabel(f"{data.measure}, mean of {EPISODES} episodes and its standard error")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
