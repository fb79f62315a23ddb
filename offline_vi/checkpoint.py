"""The run directory: checkpoints that are whole or absent, logs that end where the checkpoint does, one writer.

A checkpoint is a directory that one rename publishes: its files are written and synchronised under a temporary name,
``MANIFEST.json`` (sizes and SHA-256) last. Whoever reads one reads each file once into memory, compares the hash of
those bytes and parses those bytes. Nothing here knows an algorithm, and nothing is ever unpickled::

    RUN/
      run.lock                   held (flock) for the life of a `RunDirectory`
      config.json run.json ...   `RunDirectory.write_json`
      metrics.csv episodes.csv   `RunDirectory.log_metrics`, `RunDirectory.log_episode`
      checkpoints/
        LATEST                   name of the checkpoint published last: for people and scripts, not read here
        step_00010000/           model.safetensors  trainer.safetensors  state.json  MANIFEST.json
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from offline_vi.errors import (
    CheckpointWriteError,
)

FORMAT = 1  # of a checkpoint directory
MANIFEST, MODEL, TRAINER, STATE = "MANIFEST.json", "model.safetensors", "trainer.safetensors", "state.json"
LOCK, CHECKPOINTS = "run.lock", "checkpoints"
MAX_JSON = 1_000_000  # bytes of a JSON file that people may edit
MAX_HEADER = 4_000_000  # bytes of a safetensors header: some 30,000 tensors; its parser needs many times that

_NAME = re.compile(r"step_(\d{8,})(\.old)?")
_FALL_BACK = "an older checkpoint, where there is one, is used without being asked"


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
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
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


_DISK_FULL = tuple(getattr(os_errno, name) for os_errno, name in ())
