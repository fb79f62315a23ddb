"""The tables of a benchmark's report, as plain records: what HTML, Markdown and CSV show alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offline_vi.datasets import tasks as task_table
from offline_vi.evaluation.statistics import (
    AGGREGATES,
    FEW,
    Comparison,
    Interval,
    bootstrap_interval,
    compare,
    iqm,
    simulated_coverage,
)
from offline_vi.study.results import Run, Study
from offline_vi.study.suite import Suite


class Method(NamedTuple):
    """An algorithm under a preset: what is compared."""

    algorithm: str
    preset: str
    label: str
    colour: int


def methods(suite: Suite) -> list[Method]:
    """In the suite's order."""
    many = len(suite.presets) > 1
    pairs = [(algorithm, preset) for algorithm in suite.algorithms for preset in suite.presets]
    return [
        Method(algorithm, preset, f"{algorithm}, {preset}" if many else algorithm, number)
        for number, (algorithm, preset) in enumerate(pairs)
    ]


def runs_of(study: Study, method: Method, dataset: str | None = None) -> list[Run]:
    """The method's runs that are done, on one data set or all."""
    return [
        run
        for run in study.runs
        if run.done
        and (run.cell.algorithm, run.cell.preset) == (method.algorithm, method.preset)
        and dataset in (None, run.cell.dataset)
    ]


def finals(study: Study, method: Method, dataset: str) -> list[float]:
    """Normalised scores of the final policies, a number per seed."""
    return [run.final for run in runs_of(study, method, dataset) if run.final is not None]


@cache
def coverage(seeds: int) -> float:
    """What the interval of one task's IQM covers at so many seeds, of normal scores."""
    return simulated_coverage([0.0], 1.0, seeds)


@cache
def published() -> dict[tuple[str, str], list[tuple[float, str]]]:
    """(data set, algorithm) -> (score, source), final scores that were read in a file."""
    record = json.loads((Path(task_table.__file__).parent / "published_scores.json").read_text())
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for row in record["scores"]:
        found.setdefault((row["dataset"], row["algorithm"]), []).append((row["score"], row["source"]))
    return found


def published_for(study: Study, method: Method, dataset: str) -> list[tuple[float, str]]:
    """Only for a data set of D4RL's own under its own name and version."""
    files = study.suite.datasets[dataset]
    return published().get((files[0], method.algorithm), []) if len(files) == 1 else []


def score_rows(study: Study) -> list[dict[str, Any]]:
    """A row per data set and method that has a run."""
    rows = []
    for dataset in study.suite.datasets:
        for method in methods(study.suite):
            runs = runs_of(study, method, dataset)
            scores = finals(study, method, dataset)
            if not runs:
                continue
            bests = [run.best for run in runs if run.best is not None]
            returns = [float(run.result["return_mean"]) for run in runs if run.result.get("return_mean") is not None]
            row: dict[str, Any] = {
                "dataset": dataset,
                "method": method,
                "seeds": len(runs),
                "per_seed": scores,
                "mean": float(np.mean(scores)) if scores else None,
                "std": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
                "iqm": bootstrap_interval([scores]) if scores else None,
                "coverage": coverage(len(scores)) if 1 < len(scores) < FEW else None,
                "best": float(np.mean(bests)) if bests else None,
                "return": float(np.mean(returns)) if returns else None,
                "published": published_for(study, method, dataset),
                "seconds": float(np.mean([run.seconds for run in runs])),
                "steps": runs[0].result.get("steps"),
                "env": f"{runs[0].result.get('env_id') or 'none'}",
                "mujoco": runs[0].result.get("mujoco"),
                "commands": [run.command for run in runs],
            }
            rows.append(row)
    return rows


def comparable(study: Study) -> list[str]:
    """The data sets on which every method has a score: aggregates over others would compare different tasks."""
    return [
        dataset
        for dataset in study.suite.datasets
        if all(finals(study, method, dataset) for method in methods(study.suite))
    ]


def tasks(study: Study, method: Method) -> list[list[float]]:
    """The method's final scores on the comparable data sets."""
    return [finals(study, method, dataset) for dataset in comparable(study)]


def aggregate_rows(study: Study) -> list[dict[str, Any]]:
    """Each aggregate with its interval over the comparable data sets, the best IQM first."""
    rows = []
    for method in methods(study.suite) if comparable(study) else []:
        scores = tasks(study, method)
        row: dict[str, Any] = {name: bootstrap_interval(scores, statistic) for name, statistic in AGGREGATES.items()}
        fewest = min(map(len, scores))
        row |= {"method": method, "tasks": len(scores), "runs": sum(map(len, scores)), "fewest": fewest}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["IQM"].value)


def aggregate_coverage(study: Study) -> float | None:
    """What the aggregate IQM's interval covers at this many tasks and seeds; None where seeds are enough, or one."""
    names = comparable(study)
    scores = [tasks(study, method) for method in methods(study.suite)] if names else []
    fewest = min((len(task) for one in scores for task in one), default=0)
    if not 1 < fewest < FEW:
        return None
    means = np.mean([[np.mean(task) for task in one] for one in scores], axis=0)
    stds = np.mean([[np.std(task, ddof=1) for task in one] for one in scores], axis=0)
    return simulated_coverage(means, np.maximum(stds, 1e-6), fewest)


class Against(NamedTuple):
    """A method against the baseline."""

    method: Method
    baseline: Method
    found: Comparison


def comparisons(study: Study) -> list[Against]:
    """Every method against the first of the suite."""
    first, *others = methods(study.suite)
    if not comparable(study):
        return []
    theirs = tasks(study, first)
    return [Against(method, first, compare(tasks(study, method), theirs, iqm)) for method in others]


def density_rows(study: Study) -> list[dict[str, Any]]:
    """The shared behaviour models, mean over seeds: nats per action on held-out episodes."""
    rows = []
    for dataset, model in dict.fromkeys((one["dataset"], one["model"]) for one in study.models):
        group = [one for one in study.models if (one["dataset"], one["model"]) == (dataset, model)]
        names = [name for name in group[0]["held_out"] if name != "rows"]
        row: dict[str, Any] = {name: mean_of([one["held_out"].get(name) for one in group]) for name in names}
        if "off_support" in group[0]:
            row["off"] = mean_of([one["off_support"]["samples"] for one in group])
        row |= {"dataset": dataset, "model": model, "seeds": len(group), "steps": group[0]["steps"]}
        row["seconds"] = mean_of([one["seconds"] for one in group])
        rows.append(row)
    return rows


def support_rows(study: Study) -> list[dict[str, Any]]:
    """Where the final policies leave the data, and what their critics believe, mean over seeds."""
    rows = []
    for dataset in study.suite.datasets:
        for method in methods(study.suite):
            found = [run.result.get("diagnostics") or {} for run in runs_of(study, method, dataset)]
            if found:
                names = ("support/outside", "support/log_prob", "support/data_log_prob", "q/start", "q/return")
                row = {name: mean_of([one.get(name) for one in found]) for name in names}
                rows.append({**row, "dataset": dataset, "method": method, "seeds": len(found)})
    return rows


def mean_of(values: Sequence[float | None]) -> float | None:
    """Over those that are known."""
    known = [float(value) for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


class Curve(NamedTuple):
    """IQM over seeds at each evaluation, with its interval."""

    method: Method
    steps: list[int]
    points: list[Interval]
    seeds: int


def learning_curves(study: Study, dataset: str) -> list[Curve]:
    """Of each method on a data set."""
    found = []
    for method in methods(study.suite):
        scores = [run.curve for run in runs_of(study, method, dataset) if run.curve]
        steps = sorted(set.intersection(*map(set, scores))) if scores else []
        if steps:
            points = [bootstrap_interval([[curve[step] for curve in scores]], resamples=2_000) for step in steps]
            found.append(Curve(method, steps, points, len(scores)))
    return found
