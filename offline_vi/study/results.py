"""Reading a benchmark directory: a record per cell, from the files of its run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from offline_vi.errors import MissingInputError, OfflineVIError
from offline_vi.runs.files import read_json
from offline_vi.study.cells import is_done, status, table
from offline_vi.study.suite import Cell, Suite, suite_from


class Run(NamedTuple):
    """A cell and what its files say."""

    cell: Cell
    path: Path
    done: bool
    error: str
    command: str
    result: dict[str, Any]  # of result.json; empty where it is not done
    record: dict[str, Any]  # of run.json
    seconds: float  # wall clock over all processes that worked on it

    @property
    def final(self) -> float | None:
        """Normalised score of the final policy; None where nothing was scored."""
        value = self.result.get("normalized_score")
        return None if value is None else float(value)

    @property
    def best(self) -> float | None:
        """Of the best evaluation on the way: chosen by looking, never to be mixed with the final one."""
        value = (self.result.get("best") or {}).get("normalized_score")
        return None if value is None else float(value)

    @property
    def curve(self) -> dict[int, float]:
        """Step -> mean normalised score."""
        scores = self.result.get("curve") or {}
        return {int(step): float(score) for step, score in scores.items() if score is not None}


class Study(NamedTuple):
    """A benchmark directory."""

    folder: Path
    suite: Suite
    runs: list[Run]
    models: list[dict[str, Any]]  # the shared behaviour models: dataset, model, seed, and their result.json
    environment: dict[str, str]  # of environment.txt


def read_study(folder: str | Path) -> Study:
    """Raises MissingInputError and ConfigError where the folder is no benchmark directory."""
    folder = Path(folder)
    if not (folder / "suite.json").exists():
        raise MissingInputError(
            f"{folder} is no benchmark directory", "`offline-vi benchmark SUITE --output DIR` makes one"
        )
    record = read_json(folder / "suite.json")
    suite = as_suite(record["suite"])
    runs = [read_run(folder, cell, record["commands"]) for cell in suite.cells()]
    models = {}
    for cell in suite.cells():
        model = suite.models(cell)
        path = folder / "behavior" / model_name(cell, model)
        if model and is_done(path):
            seconds = seconds_of(folder).get(path.name, 0.0)
            about = {"dataset": cell.dataset, "model": model, "seed": cell.seed, "seconds": seconds}
            models[path] = {**about, **read_json(path / "result.json")}
    lines = (folder / "environment.txt").read_text().splitlines() if (folder / "environment.txt").exists() else []
    environment = dict(line.split(" ", 1) for line in lines if " " in line)
    return Study(folder, suite, runs, list(models.values()), environment)


def as_suite(record: Mapping[str, Any]) -> Suite:
    """Of suite.json."""
    return suite_from({key: value for key, value in record.items() if value not in ({}, "")}, str(record["name"]))


def model_name(cell: Cell, model: str) -> str:
    """Of the run directory of a shared behaviour model."""
    return f"{cell.dataset.replace('/', '-')}_{model}_seed{cell.seed}"


def read_run(folder: Path, cell: Cell, commands: Mapping[str, list[str]], error: str = "") -> Run:
    """What is known of a cell, done or not."""
    path = folder / "runs" / cell.name
    record, done = status(path), is_done(path)
    result: dict[str, Any] = {}
    with suppress(OfflineVIError):
        result = read_json(path / "result.json") if done else {}
    told = error or ("" if done else str(record.get("error", "not started" if not record else "cut")))
    seconds = seconds_of(folder).get(cell.name) or float(record.get("wall_seconds") or 0.0)
    return Run(cell, path, done, told, " ".join(commands.get(cell.name, [])), result, record, seconds)


def seconds_of(folder: Path) -> dict[str, float]:
    """Run -> wall clock of all processes that worked on it, from the journal."""
    total: dict[str, float] = {}
    for row in table(folder / "journal.csv"):
        with suppress(ValueError, TypeError, KeyError):
            total[row["run"]] = total.get(row["run"], 0.0) + float(row["seconds"])
    return total


def row_of(run: Run) -> dict[str, Any]:
    """Of results.csv."""
    result, diagnostics = run.result, run.result.get("diagnostics") or {}
    versions = run.record.get("versions") or {}
    return {
        "algorithm": run.cell.algorithm,
        "preset": run.cell.preset,
        "dataset": run.cell.dataset,
        "seed": run.cell.seed,
        "status": "done" if run.done else "failed",
        "final": run.final,
        "best": run.best,
        "best_step": (result.get("best") or {}).get("step"),
        "return": result.get("return_mean"),
        "episodes": len(result.get("returns") or []),
        "steps": result.get("steps"),
        "outside": diagnostics.get("support/outside"),
        "q_start": diagnostics.get("q/start"),
        "q_return": diagnostics.get("q/return"),
        "seconds": round(run.seconds, 1),
        "env_id": result.get("env_id"),
        "mujoco": result.get("mujoco"),
        "offline_vi": versions.get("offline_vi"),
        "torch": versions.get("torch"),
        "revision": run.record.get("git_revision"),
        "precision": run.record.get("precision"),
        "products": run.record.get("products"),
        "error": run.error,
        "command": run.command,
    }
