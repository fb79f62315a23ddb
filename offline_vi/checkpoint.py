"""The run directory: checkpoints that are whole or absent, logs that end where the checkpoint does, one writer.

A checkpoint is a directory that one rename publishes: its files are written and synchronised under a temporary name,
``MANIFEST.json`` (sizes and SHA-256) last. Whoever reads one reads each file once into memory, compares the hash of
those bytes and parses those bytes. Nothing here knows an algorithm, and nothing is ever unpickled::

    RUN/
      run.lock                   held (flock) for the life of a `RunDirectory`
      config.json run.json ...   `RunDirectory.write_json`
      metrics.csv episodes.csv support.csv     `RunDirectory.log_metrics`, `log_episode`, `log_support`
      checkpoints/
        LATEST                   name of the checkpoint published last: for people and scripts, not read here
        step_00010000/           model.safetensors  trainer.safetensors  state.json  MANIFEST.json
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import random
import re
import shutil
import stat
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import safetensors.torch
import torch
from torch import Tensor

from offline_vi.errors import (
    CheckpointCorruptError,
    CheckpointWarning,
    CheckpointWriteError,
    ConfigError,
    DeterminismWarning,
    MissingInputError,
    NoCheckpointError,
    OutputDirError,
    RunExistsError,
    RunLockedError,
    UnsafeCheckpointError,
)

FORMAT = 1  # of a checkpoint directory
MANIFEST, MODEL, TRAINER, STATE = "MANIFEST.json", "model.safetensors", "trainer.safetensors", "state.json"
LOCK, CHECKPOINTS = "run.lock", "checkpoints"
LOGS = ("metrics.csv", "episodes.csv", "support.csv")
NOTHING: dict[str, Any] = {"columns": [], "rows": 0}  # the mark of an empty log
MAX_JSON = 1_000_000  # bytes of a JSON file that people may edit
MAX_HEADER = 4_000_000  # bytes of a safetensors header: some 30,000 tensors; its parser needs many times that

_NAME = re.compile(r"step_(\d{8,})(\.old)?")
_DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Checkpoint(NamedTuple):
    """What one checkpoint holds."""

    step: int  # gradient steps done
    model: dict[str, Tensor]  # weights and buffers: enough to act
    trainer: dict[str, Tensor]  # what only training needs: optimiser moments, random states
    state: dict[str, Any]  # JSON values: sampler, counters
    path: Path


# ------------------------------------------------------------------ files


def _temporary(folder: Path) -> Path:
    return folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex}"


def _write(path: Path, data: bytes) -> None:
    """Create ``path`` with ``data`` on the disk; permissions are those of any new file (0o666 less the umask)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Put the names in ``folder`` on the disk: a rename alone may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    """Write ``path`` so that every reader sees the old bytes or the new ones."""
    temporary = _temporary(path.parent)
    try:
        _write(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _read(path: Path, limit: int | None = None) -> bytes:
    """All bytes of a regular file. Raises ValueError for anything else (links, pipes, devices) and beyond ``limit``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ValueError("missing") from None
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror})") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):  # before Python opens it: a directory it will not
        os.close(descriptor)
        raise ValueError("not a regular file")
    with open(descriptor, "rb") as file:
        if limit is not None and status.st_size > limit:
            raise ValueError(f"{status.st_size:,} bytes, more than {limit:,}")
        return file.read() if limit is None else file.read(limit)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path, needed: int) -> Iterator[None]:
    """Turn the operating system's refusal to write into CheckpointWriteError."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        full = f"no space left (need {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB free)"
        what = full if error.errno in _DISK_FULL else f"cannot write ({error.strerror})"
        raise CheckpointWriteError(
            f"{folder}: {what}", "what was saved before is intact; make room, then --resume"
        ) from error


# ------------------------------------------------------------------ tensors and JSON


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` as one safetensors file that is whole or absent. Raises CheckpointWriteError."""
    data = _tensor_bytes(tensors)
    with _writing(Path(path).parent, len(data)):
        _replace(Path(path), data)


def load_tensors(path: str | Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. The bytes that are parsed are those that were hashed.

    Raises MissingInputError, UnsafeCheckpointError for a pickle (nothing of it is run), CheckpointCorruptError, also
    where the file has not the hash ``sha256``.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"{path} is not there")
    try:
        data = _read(path)
        tensors = _parse_tensors(data, path.name)
    except ValueError as error:
        raise CheckpointCorruptError(f"{path}: {error}") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointCorruptError(f"{path} has not the SHA-256 {sha256}", "it was damaged or changed: copy it again")
    return tensors


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # cloned: safetensors refuses tensors that share memory
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )


def _parse_tensors(data: bytes, name: str) -> dict[str, Tensor]:
    length = int.from_bytes(data[:8], "little")
    if not (len(data) >= 8 and length <= len(data) - 8 and data[8:9] == b"{"):
        if _looks_pickled(data):
            raise UnsafeCheckpointError(
                f"{name}: refusing pickle: loading it could run any code",
                "convert it to safetensors where you trust it",
            )
        raise ValueError("no safetensors file")
    if length > MAX_HEADER:
        raise ValueError(f"header of {length:,} bytes, more than {MAX_HEADER:,}")
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, AssertionError, KeyError, OverflowError, RuntimeError, TypeError) as error:
        raise ValueError(f"no safetensors file ({error})") from None


def _looks_pickled(data: bytes) -> bool:
    """Whether these bytes, which are no safetensors file, are a pickle: torch's zip or tar file, or a bare one."""
    container = data.startswith(b"PK") or data[257:262] == b"ustar"
    binary = data[:1] == b"\x80" and data[1:2] <= b"\x05"
    textual = data[:1] in (b"(", b"c", b"]", b"}", b"l", b"d") and data.rstrip().endswith(b".")
    return container or binary or textual


def read_json(path: str | Path) -> dict[str, Any]:
    """An object from a JSON file of at most 1 MB. Raises MissingInputError where there is none, ConfigError."""
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"{path} is not there", "give the directory of a run")
    try:
        return _parse_json(_read(path, MAX_JSON))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _parse_json(data: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        record = json.loads(data, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    return record


def write_json(path: str | Path, record: Mapping[str, Any]) -> None:
    """Replace a JSON file by one rename; NaN and infinity become null. Raises CheckpointWriteError."""
    path, data = Path(path), _json_bytes(_finite(record))
    with _writing(path.parent, len(data)):
        _replace(path, data)


def _json_bytes(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    """JSON knows no NaN: it becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


# ------------------------------------------------------------------ logs


class CsvLog:
    """A CSV file that grows by whole lines and can be cut back to where a checkpoint saw it.

    The first row fixes the columns; a row with a new one rewrites the file with an empty cell in the rows before.
    `mark` therefore remembers columns and rows, not bytes: `rewind` gives back the very bytes of that moment.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        self.rows = 0
        if path.exists():
            self._rewrite(*self._table())  # a line that a kill cut short goes

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Write one line by one call of the system. Raises CheckpointWriteError, with the file as it was."""
        added = [name for name in row if name not in self.columns]
        with _writing(self.path.parent, 4096):
            if added:
                self._rewrite(self.columns + added, self._table()[1])
            line = _csv_bytes([[row.get(name, "") for name in self.columns]])
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                size = os.fstat(descriptor).st_size
                if os.write(descriptor, line) != len(line):
                    os.ftruncate(descriptor, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        self.rows += 1

    def read(self) -> list[dict[str, float | int | str]]:
        """The rows as they were given: numbers as numbers, without the columns that a row did not have."""
        table = self._table()[1]
        return [{name: _number(cell) for name, cell in row.items() if cell != ""} for row in table]

    def mark(self) -> dict[str, Any]:
        """JSON value for `rewind`; what it stands for is on the disk."""
        if self.rows:
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
        return {"columns": list(self.columns), "rows": self.rows}

    def rewind(self, mark: Mapping[str, Any]) -> None:
        """Drop what came after ``mark``. Warns where rows from before are gone."""
        rows = self._table()[1]
        if len(rows) < mark["rows"]:
            warnings.warn(
                f"{self.path.name} has {len(rows)} rows, the checkpoint saw {mark['rows']}: the others are lost",
                CheckpointWarning,
                stacklevel=3,
            )
        self._rewrite(list(mark["columns"]), rows[: mark["rows"]])

    def _table(self) -> tuple[list[str], list[dict[str, str]]]:
        try:
            text = _read(self.path).decode(errors="replace")
        except ValueError:
            return [], []
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]), restval="")
        rows = list(reader)
        return list(reader.fieldnames or []), rows

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        data = _csv_bytes([columns, *([row.get(name, "") for name in columns] for row in rows)]) if columns else b""
        if not data:
            self.path.unlink(missing_ok=True)
        elif not self.path.exists() or self.path.read_bytes() != data:
            _replace(self.path, data)
        self.columns, self.rows = columns, len(rows)


def _csv_bytes(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _number(cell: str) -> float | int | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(cell)
    return cell


# ------------------------------------------------------------------ checkpoints on the disk


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
    return _newest(path).checkpoint


class _Found(NamedTuple):
    checkpoint: Checkpoint
    marks: dict[str, Any]  # where the logs ended: log name -> `CsvLog.mark`
    damaged: list[Path]  # newer ones that were passed over


def _newest(run_path: Path) -> _Found:
    damage: dict[Path, CheckpointCorruptError] = {}
    for path in _published(run_path / CHECKPOINTS):
        try:
            checkpoint, marks = _load(path)
        except CheckpointCorruptError as error:
            damage[path] = error
            continue
        for reason in damage.values():
            warnings.warn(f"{reason}; using {path.name} instead", CheckpointWarning, stacklevel=3)
        return _Found(checkpoint, marks, list(damage))
    for reason in damage.values():
        raise reason
    raise NoCheckpointError(f"{run_path} holds no checkpoint", "start the run anew with --overwrite")


def _published(folder: Path) -> list[Path]:
    """The checkpoints, newest first, damaged or not."""
    found = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("step_*")]
    ages = {path: (int(match[1]), match[2] is None) for path, match in found if match}
    return sorted(ages, key=lambda path: ages[path], reverse=True)


def _load(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """Verify and parse; every file is read once, so that what was verified is what is parsed."""
    with _blaming(path, MANIFEST):
        manifest = _parse_manifest(_read(path / MANIFEST, MAX_JSON))
    for name in sorted({entry.name for entry in os.scandir(path)} - {MANIFEST, *manifest}):
        with _blaming(path, name):
            raise ValueError("not in the manifest")
    data: dict[str, bytes] = {}
    for name, entry in manifest.items():
        with _blaming(path, name):
            data[name] = _verified(_read(path / name, entry["bytes"]), entry)
    with _blaming(path, STATE):
        step, state, marks = _parse_state(data[STATE])
    with _blaming(path, MODEL):
        model = _parse_tensors(data[MODEL], MODEL)
    with _blaming(path, TRAINER):
        trainer = _parse_tensors(data[TRAINER], TRAINER)
    return Checkpoint(step, model, trainer, state, path), marks


@contextmanager
def _blaming(path: Path, name: str) -> Iterator[None]:
    """Say which file of a checkpoint is damaged."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointCorruptError(
            f"checkpoint {path.name}: {name}: {error}", "copy the run again, or train it anew with --overwrite"
        ) from None


def _manifest(files: Mapping[str, bytes]) -> bytes:
    entries = {n: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in files.items()}
    return _json_bytes({"format": FORMAT, "files": entries})


def _parse_manifest(data: bytes) -> dict[str, dict[str, Any]]:
    record = _parse_json(data)
    if record.get("format") != FORMAT:
        raise ValueError(f"format {record.get('format')!r}, this version reads {FORMAT}")
    entries: dict[str, dict[str, Any]] = record["files"]
    if set(entries) != {MODEL, TRAINER, STATE}:
        raise ValueError(f"lists {', '.join(sorted(entries))}")
    if any(set(entry) != {"bytes", "sha256"} for entry in entries.values()):
        raise ValueError("an entry is not of bytes and sha256")
    if _json_bytes(record) != data:  # the one file without a hash: any byte that is not as we write it is damage
        raise ValueError("not as it was written")
    return entries


def _parse_state(data: bytes) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """(step, what training goes on from, where each log ended): well-formed even where a hostile manifest vouches."""
    record = _parse_json(data)
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


# ------------------------------------------------------------------ the run


class Listener(Protocol):
    """Is told of every row that a run logs, after it is in the file."""

    def row(self, log: str, row: Mapping[str, float | int | str]) -> None:
        """A row of "metrics.csv", "episodes.csv" or "support.csv"."""

    def close(self) -> None:
        """No row will follow."""


class RunDirectory:
    """The directory of a run, for its one writer; a context manager that holds the lock.

    Made by `create` or `resume`. To look into a run that somebody else may be writing, use `load_checkpoint`.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self.listeners: list[Listener] = []
        self._checkpoints = path / CHECKPOINTS
        for leftover in (*path.glob(".tmp-*"), *self._checkpoints.glob(".tmp-*")):
            _remove(leftover)  # whoever wrote it is dead: the lock is ours
        self._checkpoints.mkdir(exist_ok=True)
        self._logs = {name: CsvLog(path / name) for name in LOGS}

    @classmethod
    def create(cls, path: str | Path, *, overwrite: bool = False) -> RunDirectory:
        """A new run. ``overwrite`` empties the directory of a run that is there, and only of a run.

        Raises RunExistsError, RunLockedError, OutputDirError.
        """
        path = Path(path)
        with _making(path):
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()) and not (path / LOCK).exists():
                raise RunExistsError(f"{path} is not empty and is no run", "choose another --output")
            lock = _locked(path)
            try:
                contents = [entry for entry in path.iterdir() if entry.name != LOCK]
                if contents and not overwrite:
                    raise RunExistsError(f"the run {path} exists", "--resume continues it, --overwrite replaces it")
                for entry in contents:
                    _remove(entry)
                return cls(path, lock)
            except BaseException:
                os.close(lock)
                raise

    @classmethod
    def resume(cls, path: str | Path) -> RunDirectory:
        """A run that is there. Raises MissingInputError, RunLockedError, OutputDirError."""
        path = Path(path)
        if not path.is_dir():
            raise MissingInputError(f"there is no run {path}", "start it without --resume")
        with _making(path):
            lock = _locked(path)
            try:
                run = cls(path, lock)
                if not run.has_checkpoint():  # nothing to continue from: whoever goes on starts over
                    for log in run._logs.values():
                        log.rewind(NOTHING)
                return run
            except BaseException:
                os.close(lock)
                raise

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; may be called twice. The lock's file stays: removing it would let two writers in."""
        while self.listeners:
            self.listeners.pop().close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save(
        self,
        step: int,
        model: Mapping[str, Tensor],
        trainer: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        keep: int = 2,
    ) -> Path:
        """Publish a checkpoint, then remove all but the newest ``keep``; ``state`` holds JSON values without NaN.

        Where the logs end is part of the checkpoint. Raises CheckpointWriteError; what was saved before is intact then.
        """
        if keep < 1:
            raise ValueError(f"keep={keep}: at least the new checkpoint is kept")
        files = {MODEL: _tensor_bytes(model), TRAINER: _tensor_bytes(trainer)}
        target, temporary = self._checkpoints / f"step_{step:08d}", _temporary(self._checkpoints)
        with _writing(self._checkpoints, sum(map(len, files.values()))):
            marks = {name: log.mark() for name, log in self._logs.items()}
            files[STATE] = _json_bytes({"step": step, "logs": marks, "state": state})
            try:
                os.mkdir(temporary)
                for name, data in {**files, MANIFEST: _manifest(files)}.items():
                    _write(temporary / name, data)
                _sync(temporary)
                if target.exists():  # a step saved twice: the old one stays readable until the new one is there
                    old = target.with_suffix(".old")
                    self._discard(old)
                    os.rename(target, old)
                os.rename(temporary, target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            _sync(self._checkpoints)
            _replace(self._checkpoints / "LATEST", f"{target.name}\n".encode())
            for path in _published(self._checkpoints)[keep:]:
                if path != target:
                    self._discard(path)
        return target

    def _discard(self, path: Path) -> None:
        """Remove a checkpoint; it is hidden by one rename first, so that no half of it is ever found."""
        if path.exists():
            hidden = _temporary(self._checkpoints)
            os.rename(path, hidden)
            _remove(hidden)

    def has_checkpoint(self) -> bool:
        """Whether there is any checkpoint, damaged or not."""
        return bool(_published(self._checkpoints))

    def latest(self) -> Checkpoint:
        """The point to continue from: the newest complete checkpoint, with the logs cut back to where it saw them.

        Damaged ones after it are renamed to ``damaged-...``, with a CheckpointWarning that names the file. Raises
        NoCheckpointError, with the logs emptied, CheckpointCorruptError where all are damaged, UnsafeCheckpointError
        for a pickle.
        """
        try:
            checkpoint, marks, damaged = _newest(self.path)
        except NoCheckpointError:
            for log in self._logs.values():
                log.rewind(NOTHING)  # a run that died before its first checkpoint begins anew
            raise
        for path in damaged:
            aside = path.with_name(f"damaged-{path.name}")
            self._discard(aside)
            os.rename(path, aside)
        for name, log in self._logs.items():
            log.rewind(marks.get(name, NOTHING))  # a log that the checkpoint does not know began after it
        return checkpoint

    def log_metrics(self, row: Mapping[str, float | int]) -> None:
        """Append a row to metrics.csv; a name seen for the first time adds a column."""
        self._log("metrics.csv", row)

    def log_episode(self, row: Mapping[str, float | int | str]) -> None:
        """Append a row to episodes.csv (`Evaluation.episode_rows`)."""
        self._log("episodes.csv", row)

    def log_support(self, row: Mapping[str, float | int]) -> None:
        """Append a row to support.csv (`support.support_report`, `support.overestimation_report`)."""
        self._log("support.csv", row)

    def _log(self, name: str, row: Mapping[str, float | int | str]) -> None:
        self._logs[name].append(row)
        for listener in self.listeners:
            listener.row(name, row)

    def read_metrics(self) -> list[dict[str, float | int | str]]:
        """The rows of metrics.csv."""
        return self._logs["metrics.csv"].read()

    def read_episodes(self) -> list[dict[str, float | int | str]]:
        """The rows of episodes.csv."""
        return self._logs["episodes.csv"].read()

    def read_support(self) -> list[dict[str, float | int | str]]:
        """The rows of support.csv."""
        return self._logs["support.csv"].read()

    def write_json(self, name: str, record: Mapping[str, Any]) -> None:
        """`write_json` of a file of the run."""
        write_json(self.path / name, record)

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the run. Raises MissingInputError, ConfigError."""
        return read_json(self.path / name)


@contextmanager
def _making(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputDirError(f"{path} cannot be written ({error.strerror})", "choose another --output") from error


def _locked(path: Path) -> int:
    """Descriptor of the run's lock, held; the process number in it is for the message of whoever comes second."""
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise RunLockedError(
            f"the run {path} is locked by pid {owner}", "wait for it, or choose another --output"
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


# ------------------------------------------------------------------ random states


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, JSON values): torch's default generators, of the CPU and of each CUDA device in use, and Python's.

    NumPy's global generator is not among them: nothing here draws from it.
    """
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors |= {f"cuda:{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    version, words, gauss = random.getstate()
    return tensors, {"python": [version, list(words), gauss]}


def set_random_state(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Go back to a `random_state`. Warns where a CUDA device of then is not here now."""
    for name, value in tensors.items():
        if name == "cpu":
            torch.set_rng_state(value)
        elif torch.cuda.is_available() and int(name.removeprefix("cuda:")) < torch.cuda.device_count():
            torch.cuda.set_rng_state(value, name)
        else:
            warnings.warn(f"{name} is not here: what it draws will differ", DeterminismWarning, stacklevel=2)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
