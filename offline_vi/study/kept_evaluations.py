"""What evaluations of a run are kept: RUN/evaluations holds a JSON file for each, named after the time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from offline_vi.errors import OfflineVIError
from offline_vi.runs.files import read_json, require_folder, write_json, writing

FOLDER = "evaluations"


def keep_evaluation(run: str | Path, record: Mapping[str, Any]) -> Path:
    """Write a record; its "kind" is "rollouts" or "off-policy". Raises CheckpointWriteError and OutputDirError."""
    folder = require_folder(Path(run) / FOLDER)
    with writing(folder, 0):
        folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = folder / now.strftime("%Y-%m-%dT%H-%M-%S.%fZ.json")
    write_json(path, {**record, "time": now.isoformat(timespec="seconds")})
    return path


def evaluations(run: str | Path, kind: str) -> Iterator[dict[str, Any]]:
    """The records of a kind, the newest first; files that cannot be read are passed over."""
    for path in sorted((Path(run) / FOLDER).glob("*.json"), reverse=True):
        try:
            record = read_json(path)
        except OfflineVIError:
            continue
        if record.get("kind") == kind:
            yield record
