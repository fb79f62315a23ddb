"""Checkpoints: directories that one rename publishes, verified whenever they are read."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from offline_vi.errors import (
    CheckpointCorruptError,
    CheckpointWarning,
    MissingInputError,
    NoCheckpointError,
)
from offline_vi.runs.files import is_folder, json_bytes, parse_json, read_file
from offline_vi.runs.ownership import CHECKPOINTS, OF_A_CHECKPOINT
from offline_vi.runs.tensors import load_tensors, parse_tensors

FORMAT = 1  # of a checkpoint directory
MAX_MANIFEST = 1_000_000  # bytes

MANIFEST, MODEL, TRAINER, STATE = "MANIFEST.json", "model.safetensors", "trainer.safetensors", "state.json"

NAME = re.compile(r"step_(\d{8,})(\.old)?")


class Checkpoint(NamedTuple):
    """What one checkpoint holds."""

    step: int  # gradient steps done
    model: dict[str, Tensor]  # weights and buffers: enough to act
    trainer: dict[str, Tensor]  # what only training needs: optimiser moments, random states
    state: dict[str, Any]  # JSON values: sampler, counters
    path: Path  # its folder


def load_checkpoint(run_path: str | Path) -> Checkpoint:
    """The newest complete checkpoint of a run, read without touching or locking it.

    A damaged one is passed over with a CheckpointWarning that names the file. Raises MissingInputError,
    NoCheckpointError, CheckpointCorruptError where all are damaged, UnsafeCheckpointError for a pickle.
    """
    path = Path(run_path)
    if path.is_file():
        load_tensors(path)  # a pickle, and anything broken, is refused for what it is
        raise MissingInputError(f"{path} is a file, not the directory of a run")
    if not path.is_dir():
        raise MissingInputError(f"there is no run {path}")
    return newest(path).checkpoint


class Found(NamedTuple):
    checkpoint: Checkpoint
    marks: dict[str, Any]  # where the logs ended: log name -> `CsvLog.mark`
    damaged: list[Path]  # newer ones that were passed over


def newest(run_path: Path) -> Found:
    damage: dict[Path, CheckpointCorruptError] = {}
    for path in published(run_path / CHECKPOINTS):
        try:
            checkpoint, marks = load_verified(path)
        except CheckpointCorruptError as error:
            damage[path] = error
            continue
        for reason in damage.values():
            warnings.warn(f"{reason}; using {path.name} instead", CheckpointWarning, stacklevel=3)
        return Found(checkpoint, marks, list(damage))
    for reason in damage.values():
        raise reason
    raise NoCheckpointError(f"{run_path} holds no checkpoint", "start the run anew with --overwrite")


def published(folder: Path) -> list[Path]:
    """The checkpoints, newest first, damaged or not: folders that hold at least one of a checkpoint's files."""
    paths = [path for path in folder.glob("step_*") if is_folder(path)]
    paths = [path for path in paths if OF_A_CHECKPOINT & {entry.name for entry in os.scandir(path)}]
    found = [(path, NAME.fullmatch(path.name)) for path in paths]
    ages = {path: (int(match[1]), match[2] is None) for path, match in found if match}
    return sorted(ages, key=lambda path: ages[path], reverse=True)


def saved_bytes(run_path: Path) -> int:
    """The size of the newest checkpoint; 0 without one."""
    paths = published(run_path / CHECKPOINTS)[:1]
    return sum(entry.stat(follow_symlinks=False).st_size for path in paths for entry in os.scandir(path))


def load_verified(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """Verify and parse; every file is read once, so that what was verified is what is parsed."""
    with _blaming(path, MANIFEST):
        manifest = parse_manifest(read_file(path / MANIFEST, MAX_MANIFEST))
    for name in sorted({entry.name for entry in os.scandir(path)} - {MANIFEST, *manifest}):
        with _blaming(path, name):
            raise ValueError("not in the manifest")
    data: dict[str, bytes] = {}
    for name, entry in manifest.items():
        with _blaming(path, name):
            data[name] = _verified(read_file(path / name, entry["bytes"]), entry)
    with _blaming(path, STATE):
        step, state, marks = parse_state(data[STATE])
    tensors: dict[str, dict[str, Tensor]] = {}
    for name in (MODEL, TRAINER):
        with _blaming(path, name):
            tensors[name] = parse_tensors(data[name], name)
            _compare(tensors[name], parse_json(data[STATE]).get("tensors", {}).get(name))
    return Checkpoint(step, tensors[MODEL], tensors[TRAINER], state, path), marks


def signature(tensors: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """The dtype and shape of every tensor, for state.json."""
    return {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}


def _compare(tensors: Mapping[str, Tensor], expected: Any) -> None:
    """Raises ValueError where tensors are not those that were written; checkpoints of earlier versions do not say."""
    found = signature(tensors)
    if expected is not None and found != expected:
        wrong = min(name for name in {**found, **expected} if found.get(name) != expected.get(name))
        raise ValueError(f"the tensor {wrong} is {found.get(wrong, 'missing')}, expected {expected.get(wrong, 'none')}")


@contextmanager
def _blaming(path: Path, name: str) -> Iterator[None]:
    """Say which file of a checkpoint is damaged."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointCorruptError(
            f"checkpoint {path.name}: {name}: {error}", "copy the run again, or train it anew with --overwrite"
        ) from None


def manifest_bytes(files: Mapping[str, bytes]) -> bytes:
    entries = {n: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in files.items()}
    return json_bytes({"format": FORMAT, "files": entries})


def parse_manifest(data: bytes) -> dict[str, dict[str, Any]]:
    record = parse_json(data)
    if record.get("format") != FORMAT:
        raise ValueError(f"format {record.get('format')!r}, this version reads {FORMAT}")
    entries: dict[str, dict[str, Any]] = record["files"]
    if set(entries) != {MODEL, TRAINER, STATE}:
        raise ValueError(f"lists {', '.join(sorted(entries))}")
    if any(set(entry) != {"bytes", "sha256"} for entry in entries.values()):
        raise ValueError("an entry is not of bytes and sha256")
    if json_bytes(record) != data:  # the one file without a hash: any byte that is not as we write it is damage
        raise ValueError("not as it was written")
    return entries


def parse_state(data: bytes) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """(step, what training goes on from, where each log ended): well-formed even where a hostile manifest vouches."""
    record = parse_json(data)
    step, state, marks = record["step"], record["state"], record["logs"]
    if type(step) is not int or not isinstance(state, dict) or not isinstance(marks, dict):
        raise ValueError("step, state or logs are not what they should be")
    for name, mark in marks.items():
        rows, columns = mark["rows"], mark["columns"]
        texts = isinstance(columns, list) and all(isinstance(column, str) for column in columns)
        if type(rows) is not int or rows < 0 or not texts:
            raise ValueError(f"the end of the log {name!r} is malformed")
    return step, state, marks


def _verified(data: bytes, entry: Mapping[str, Any]) -> bytes:
    if len(data) != entry["bytes"]:
        raise ValueError(f"{len(data):,} bytes, expected {entry['bytes']:,}")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError("sha256 mismatch")
    return data
