"""The run directory: checkpoints that are whole or absent, logs that end where the checkpoint does, one writer.

A checkpoint is a directory that one rename publishes: its files are written and synchronised under a temporary name,
``MANIFEST.json`` (sizes and SHA-256) last. Whoever reads one reads each file once into memory, compares the hash of
those bytes and parses those bytes. Nothing here knows an algorithm, and nothing is ever unpickled::

    RUN/
      offline_vi.json            says that the folder is a run's: see `ownership`
      run.lock                   held for the life of a `RunDirectory`
      config.json run.json       what was asked for, and what it ran on: `RunDirectory.write_json`
      result.json                the final scores, written at the end
      metrics.csv episodes.csv support.csv     `RunDirectory.log_metrics`, `log_episode`, `log_support`
      learning_curve.png         these logs as a picture
      log.txt                    messages; crash.txt after an error
      checkpoints/
        LATEST                   name of the checkpoint published last: for people and scripts, not read here
        step_00010000/           model.safetensors  trainer.safetensors  state.json  MANIFEST.json
      evaluations/               a JSON file for each later evaluation
      states/                    the density of states that `fit_guard` fits
      behavior/ model/ ...       models and runs that belong to this one: see docs/benchmarks.md
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from filelock import lock_descriptor
from torch import Tensor

from offline_vi.errors import (
    MissingInputError,
    NoCheckpointError,
    OutputDirError,
    RunExistsError,
    RunLockedError,
)
from offline_vi.runs.checkpoint import (
    MANIFEST,
    MODEL,
    NAME,
    STATE,
    TRAINER,
    Checkpoint,
    manifest_bytes,
    newest,
    published,
    signature,
)
from offline_vi.runs.files import (
    json_bytes,
    kind_of,
    read_json,
    replace_file,
    require_folder,
    safely,
    sync_folder,
    temporary_name,
    write_json,
    write_new,
    writing,
)
from offline_vi.runs.logs import CsvLog
from offline_vi.runs.ownership import (
    CHECKPOINTS,
    LOCK,
    empty,
    is_checkpoint,
    is_free,
    is_run,
    mark,
    refuse_in_the_way,
    remove_leftover,
)
from offline_vi.runs.tensors import tensor_bytes

LOGS = ("metrics.csv", "episodes.csv", "support.csv")
NOTHING: dict[str, Any] = {"columns": [], "rows": 0}  # the mark of an empty log


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
        for folder in (path, self._checkpoints):
            for leftover in folder.glob(".tmp-*"):
                remove_leftover(leftover)  # whoever wrote it is dead: the lock is ours
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
            if not is_free(path) and not is_run(path):
                raise RunExistsError(f"{path} is not empty and is no run", "choose another --output")
            refuse_in_the_way(path)
            lock = _locked(path)
            try:
                if not is_free(path):
                    if not overwrite:
                        raise RunExistsError(f"the run {path} exists", "--resume continues it, --overwrite replaces it")
                    empty(path)
                mark(path, "run")
                return cls(path, lock)
            except BaseException:
                os.close(lock)
                raise

    @classmethod
    def resume(cls, path: str | Path) -> RunDirectory:
        """A run that is there. Raises MissingInputError where there is none, RunLockedError, OutputDirError."""
        path = Path(path)
        if not path.is_dir():
            raise MissingInputError(f"there is no run {path}", "start it without --resume")
        with _making(path):
            if not is_free(path) and not is_run(path):
                raise MissingInputError(f"{path} is no run of this library", "start it without --resume, elsewhere")
            refuse_in_the_way(path)
            lock = _locked(path)
            try:
                mark(path, "run")
                run = cls(path, lock)
                if not run.has_checkpoint():  # nothing to continue from: whoever goes on starts over
                    for log in run._logs.values():
                        log.rewind(NOTHING)
                return run
            except BaseException:
                os.close(lock)
                raise

    def inner(self, name: str) -> Path:
        """The path of a run, or of a model, within this one. Raises OutputDirError where a link leads elsewhere."""
        return require_folder(self.path / name)

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

        Where the logs end is part of the checkpoint. Raises CheckpointWriteError, and RunLockedError where the run is
        not this process's any more; what was saved before is intact then.
        """
        self.require_lock()
        if keep < 1:
            raise ValueError(f"keep={keep}: at least the new checkpoint is kept")
        files = {MODEL: tensor_bytes(model), TRAINER: tensor_bytes(trainer)}
        target, temporary = self._checkpoints / f"step_{step:08d}", temporary_name(self._checkpoints)
        with writing(self._checkpoints, sum(map(len, files.values()))):
            marks = {name: log.mark() for name, log in self._logs.items()}
            tensors = {MODEL: signature(model), TRAINER: signature(trainer)}
            files[STATE] = json_bytes({"step": step, "logs": marks, "tensors": tensors, "state": state})
            old = target.with_suffix(".old")
            for path in (target, old):
                if kind_of(path) and not is_checkpoint(path):
                    raise OutputDirError(f"{path} is in the way, and is no checkpoint", "move it away, then --resume")
            try:
                os.mkdir(temporary)
                for name, data in {**files, MANIFEST: manifest_bytes(files)}.items():
                    write_new(temporary / name, data)
                sync_folder(temporary)
                if target.exists():  # a step saved twice: the old one stays readable until the new one is there
                    self._discard(old)
                    os.rename(target, old)
                os.rename(temporary, target)
            except BaseException:
                remove_leftover(temporary)
                raise
            sync_folder(self._checkpoints)
            replace_file(self._checkpoints / "LATEST", f"{target.name}\n".encode())
            for path in published(self._checkpoints)[keep:]:
                if path != target:
                    self._discard(path)
        return target

    def require_lock(self) -> None:
        """Raises RunLockedError where the lock that is held is not the one that is there: somebody removed it, or moved
        the directory, and another process may train here by now."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._lock), os.lstat(self.path / LOCK)):
                return
        raise RunLockedError(f"{self.path / LOCK} was removed or replaced", "see who else works there, then --resume")

    def _discard(self, path: Path) -> None:
        """Remove a checkpoint, and nothing that holds anything else; it is hidden by one rename first, so that no half
        of it is ever found."""
        if is_checkpoint(path):
            hidden = temporary_name(self._checkpoints)
            os.rename(path, hidden)
            remove_leftover(hidden)

    def has_checkpoint(self) -> bool:
        """Whether there is any checkpoint, damaged or not."""
        return bool(published(self._checkpoints))

    def newest_step(self) -> int:
        """Gradient steps that the newest checkpoint has, damaged or not; 0 without one."""
        names = [NAME.fullmatch(path.name) for path in published(self._checkpoints)]
        return max((int(name[1]) for name in names if name), default=0)

    def latest(self) -> Checkpoint:
        """The point to continue from: the newest complete checkpoint, with the logs cut back to where it saw them.

        Damaged ones after it are renamed to ``damaged-...``, with a CheckpointWarning that names the file. Raises
        NoCheckpointError, with the logs emptied, CheckpointCorruptError where all are damaged, UnsafeCheckpointError
        for a pickle.
        """
        try:
            checkpoint, marks, damaged = newest(self.path)
        except NoCheckpointError:
            for log in self._logs.values():
                log.rewind(NOTHING)  # a run that died before its first checkpoint begins anew
            raise
        for path in filter(is_checkpoint, damaged):
            aside = path.with_name(f"damaged-{path.name}")
            self._discard(aside)
            if not kind_of(aside):
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
        self.require_lock()
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
        self.require_lock()
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
    """Descriptor of the run's lock, held: flock, or LockFileEx of the first byte on Windows, where nobody else can read
    that byte then. The process number after it is for the message of whoever comes second."""
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | safely(), 0o666)
    try:
        if not lock_descriptor(descriptor, blocking=False):
            os.lseek(descriptor, 1, os.SEEK_SET)
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise RunLockedError(f"the run {path} is locked by pid {owner}", "wait for it, or choose another --output")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f" {os.getpid()}\n".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
