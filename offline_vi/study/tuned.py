"""Settings that a paper tunes per task or domain: one table an algorithm, in ``configs/``.

A task's own row wins over its domain's: "antmaze-large-play" is looked up first, then "antmaze-large", then "antmaze".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from offline_vi.errors import UsageError, unknown

FOLDER = Path(__file__).resolve().parent / "configs"


def tables() -> dict[str, Path]:
    """algorithm -> its table."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


def tuned(algorithm: str, task: str) -> dict[str, Any]:
    """The hyper-parameters that differ for ``task``, a D4RL name with or without its version.

    Raises UsageError where the algorithm is not tuned, or not for this task.
    """
    if algorithm not in tables():
        raise UsageError(f"{algorithm} has the same settings for every task", "leave --tuned-for out")
    rows: dict[str, dict[str, Any]] = json.loads(tables()[algorithm].read_text())["tasks"]
    words = task.removesuffix("-v0").removesuffix("-v1").removesuffix("-v2").split("-")
    for length in range(len(words), 0, -1):
        if "-".join(words[:length]) in rows:
            return rows["-".join(words[:length])]
    raise unknown(task, rows, f"task that {algorithm} is tuned for")
