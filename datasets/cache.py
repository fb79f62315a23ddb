"""What is converted once and kept in $OFFLINE_VI_HOME: a folder under a key, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def home() -> Path:
    """$OFFLINE_VI_HOME, else ~/.cache/offline_vi."""
    return Path(os.environ.get("OFFLINE_VI_HOME") or Path.home() / ".cache" / "offline_vi")


def cached_folder(kind: str, key: str, last: str, write: Callable[[Path], None]) -> Path:
    """The folder of ``kind`` under a key; where it is missing, ``write`` fills an empty one first.

    ``last`` is the file that ``write`` makes last: a folder that has it is complete.

    Of several processes that write the same key at once, one wins. Raises what ``write`` raises and leaves nothing.
    """
    folder = home() / kind / hashlib.sha256(key.encode()).hexdigest()[:24]
    if (folder / last).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".write-", dir=folder.parent) as scratch:
        whole = Path(scratch) / "columns"
        whole.mkdir()
        write(whole)
        try:
            os.rename(whole, folder)
        except OSError:  # another process was faster: same key, same data
            if not (folder / last).is_file():
                raise
    return folder
