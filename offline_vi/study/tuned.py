"""Settings that a paper tunes per task or domain: one table an algorithm, in ``configs/``, each row with its source.

A task's own row wins over its domain's: "antmaze-large-play" is looked up first, then "antmaze-large", then "antmaze".
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from offline_vi.errors import UsageError, unknown

FOLDER = Path(__file__).resolve().parent / "configs"


class Row(NamedTuple):
    """What is set for a task."""

    settings: dict[str, Any]  # hyper-parameters and options of the run
    source: str  # "OWNER/REPOSITORY COMMIT FILE"


def tables() -> dict[str, Path]:
    """algorithm -> its table."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


def tuned(algorithm: str, task: str, stage: str = "tasks") -> dict[str, Any]:
    """The settings that differ for ``task``, a D4RL name with or without its version; ``stage`` "finetuning" for those
    of `offline-vi finetune`.

    Raises UsageError where the algorithm is not tuned, or not for this task.
    """
    return _row(algorithm, task, stage).settings


def source_of(algorithm: str, task: str) -> str:
    """Where the settings for ``task`` were read. Raises UsageError."""
    return _row(algorithm, task, "tasks").source


def is_tuned(algorithm: str, task: str) -> bool:
    """Whether a paper has settings of its own for ``task``."""
    return algorithm in tables() and _find(_rows(algorithm, "tasks"), task) is not None


def _row(algorithm: str, task: str, stage: str) -> Row:
    rows = _rows(algorithm, stage) if algorithm in tables() else {}
    if not rows:
        raise UsageError(f"{algorithm} has the same settings for every task", "leave --tuned-for out")
    found = _find(rows, task)
    if found is None:
        raise unknown(task, rows, f"task that {algorithm} is tuned for")
    return found


def _rows(algorithm: str, stage: str) -> dict[str, Row]:
    record = json.loads(tables()[algorithm].read_text())
    return {task: Row(**row) for task, row in record.get(stage, {}).items()}


def _find(rows: dict[str, Row], task: str) -> Row | None:
    words = re.sub(r"-v\d+$", "", task).split("-")
    names = ("-".join(words[:length]) for length in range(len(words), 0, -1))
    return next((rows[name] for name in names if name in rows), None)
