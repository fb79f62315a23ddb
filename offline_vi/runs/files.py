"""Files that are whole or absent: written under a temporary name, synchronized, renamed."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from offline_vi.errors import (
    CheckpointWriteError,
    ConfigError,
    MissingInputError,
    OutputDirError,
)

MAX_JSON = 8_000_000  # bytes of a JSON file: none larger is read, and none is written
INTACT = "what was saved before is intact; "
CHECK = INTACT + "see whether the folder can be written, then --resume"
REMEDIES = {  # what to do where the system refuses to write
    errno.ENOSPC: INTACT + "make room, then --resume",
    errno.EDQUOT: INTACT + "make room in your quota, then --resume",
    errno.EFBIG: INTACT + "raise the limit (ulimit -f), then --resume",
    errno.EMFILE: INTACT + "raise the limit of open files (ulimit -n), then --resume",
}


def open_flags(*names: str) -> int:
    """The flags of `os.open` that this system has: Windows lacks those of links, pipes and folders."""
    return sum(int(getattr(os, name, 0)) for name in names)


def safely() -> int:
    """The flags that open a file without following a link, and leave its bytes as they are."""
    return open_flags("O_NOFOLLOW", "O_BINARY")


def kind_of(path: Path) -> str:
    """ "file", "folder", "link" or "special file"; empty where there is nothing. Links are not followed."""
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        return ""
    known = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return known.get(stat.S_IFMT(mode), "special file")


def is_regular(path: Path) -> bool:
    return kind_of(path) == "file"


def is_folder(path: Path) -> bool:
    return kind_of(path) == "folder"


def require_regular(path: Path) -> None:
    """Raises OutputDirError where there is something that is no regular file: it is not written over."""
    if kind_of(path) not in ("", "file"):
        raise OutputDirError(f"{path} is a {kind_of(path)}, not a file of this library", "move it away")


def require_folder(path: Path) -> Path:
    """A folder, or where one is to be made. Raises OutputDirError where there is something else: a link would lead
    elsewhere."""
    if kind_of(path) not in ("", "folder"):
        raise OutputDirError(f"{path} is a {kind_of(path)}, not a folder of this library", "move it away")
    return path


TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{32}")


def temporary_name(folder: Path) -> Path:
    return folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex}"


def write_new(path: Path, data: bytes) -> None:
    """Create ``path`` with ``data`` on the disk; permissions are those of any new file (0o666 less the umask)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | safely(), 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on the disk: a rename alone may be lost with the power. Windows opens no folders."""
    if not (directory := open_flags("O_DIRECTORY")):
        return
    descriptor = os.open(folder, os.O_RDONLY | directory | safely())
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Write ``path`` so that every reader sees the old bytes or the new ones. Raises OutputDirError where something
    that is no regular file is in its place."""
    require_regular(path)
    temporary = temporary_name(path.parent)
    try:
        write_new(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`replace_file` with text. Raises CheckpointWriteError, and OutputDirError as it does."""
    data = text.encode(errors="replace")
    with writing(path.parent, len(data)):
        replace_file(path, data)


def append(path: Path, data: bytes) -> None:
    """Add to a regular file by one call of the system, so that others may add to it at the same time. Raises OSError,
    also for anything else than a regular file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | open_flags("O_NONBLOCK") | safely()
    descriptor = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str:
    """The text of a regular file; empty where there is none that can be read."""
    with suppress(ValueError, OSError):
        return read_file(path).decode(errors="replace")
    return ""


def open_regular(path: Path) -> io.BufferedReader:
    """A regular file, to be read. Raises ValueError for anything else: links, pipes, devices, folders."""
    if path.is_symlink():  # before it is opened: not every system refuses to follow it
        raise ValueError(f"cannot be opened ({os.strerror(errno.ELOOP)})")
    try:
        descriptor = os.open(path, os.O_RDONLY | open_flags("O_NONBLOCK") | safely())
    except FileNotFoundError:
        raise ValueError("missing") from None
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # before Python opens it: a directory it will not
        os.close(descriptor)
        raise ValueError("not a regular file")
    return open(descriptor, "rb")


def read_file(path: Path, limit: int | None = None) -> bytes:
    """All bytes of a regular file. Raises ValueError for anything else (links, pipes, devices) and beyond ``limit``."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise ValueError(f"{size:,} bytes, more than {limit:,}")
        return file.read() if limit is None else file.read(limit)


def reserved(size: int) -> IO[bytes]:
    """A file without a name, of so many bytes that the disk has for it: who maps it can write to all of them. It is
    gone with its last map, also if the process is killed. Raises CheckpointWriteError."""
    folder = Path(tempfile.gettempdir())
    with writing(folder, size):
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
        allocate: Callable[[int, int, int], None] | None = getattr(os, "posix_fallocate", None)
        if allocate is None or size == 0:
            file.truncate(size)
        else:
            allocate(file.fileno(), 0, size)
        return file


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path, needed: int) -> Iterator[None]:
    """Turn the operating system's refusal to write into CheckpointWriteError."""
    try:
        yield
    except OSError as error:
        raise CheckpointWriteError(
            f"{folder}: {_cause(folder, needed, error)}", REMEDIES.get(error.errno or 0, CHECK)
        ) from error


def _cause(folder: Path, needed: int, error: OSError) -> str:
    """Why the system refused to write."""
    need = f"need {needed / 1e6:.1f} MB"
    if error.errno == errno.ENOSPC:
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        return f"no space left ({need}, {free / 1e6:.1f} MB free)"
    limits = {errno.EDQUOT: "the quota is used up", errno.EFBIG: "more than a file of this process may have"}
    limit = limits.get(error.errno or 0)
    return f"no space left ({need}, {limit})" if limit else f"cannot write ({error.strerror})"


def read_json(path: str | Path) -> dict[str, Any]:
    """An object from a JSON file of at most 8 MB. Raises MissingInputError where there is none, ConfigError."""
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"{path} is not there", "give the directory of a run")
    try:
        return parse_json(read_file(path, MAX_JSON))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_json(data: bytes) -> dict[str, Any]:
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
    """Replace a JSON file by one rename; NaN and infinity become null. Raises CheckpointWriteError, and ConfigError for
    one that could not be read again."""
    path, data = Path(path), json_bytes(finite(record))
    if len(data) > MAX_JSON:
        raise ConfigError(f"{path} would have {len(data):,} bytes, more than {MAX_JSON:,}", "take fewer cells or seeds")
    with writing(path.parent, len(data)):
        replace_file(path, data)


def json_bytes(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def finite(value: Any) -> Any:
    """JSON knows no NaN: it becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
