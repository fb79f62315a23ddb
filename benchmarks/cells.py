"""Runs of `offline-vi train` as the cells of a study: done ones are skipped, cut ones resumed, failed ones told."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats


def run_cells(cells: Mapping[Path, Sequence[str]], jobs: int = 1) -> None:
    """run directory -> arguments of `offline-vi train` (without --output); ``jobs`` at once, one thread each."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda cell: _run(*cell), cells.items()))


def _run(run: Path, arguments: Sequence[str]) -> None:
    if is_done(run):
        return
    command = [sys.executable, "-m", "offline_vi", "train", *arguments, "--output", str(run), "-q"]
    command += ["--resume"] if (run / "config.json").exists() else []
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seconds = json.loads((run / "run.json").read_text())["wall_seconds"] if (run / "run.json").exists() else 0.0
    print(f"{run.name}: {f'{seconds:.0f} s' if ended.returncode == 0 else ended.stderr.strip()}", flush=True)


def is_done(run: Path) -> bool:
    """Whether the run has a result."""
    return (run / "result.json").exists()


def result(run: Path) -> dict[str, Any]:
    """The run's result.json."""
    record: dict[str, Any] = json.loads((run / "result.json").read_text())
    return record


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def interval(values: Sequence[float]) -> str:
    """Mean with the 95 % Student interval over runs."""
    if len(values) < 2:
        return f"{values[0]:.1f} (1 run)"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.1f} +- {half:.1f} ({len(values)} runs)"
