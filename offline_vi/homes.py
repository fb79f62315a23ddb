"""The home of a user, where downloads and what is converted are kept. Containers run users that have none."""

from __future__ import annotations

import os
from pathlib import Path

from offline_vi.errors import MissingInputError

VARIABLES = "HOME, or OFFLINE_VI_HOME, D4RL_DATASET_DIR and MINARI_DATASETS_PATH"


def home() -> Path:
    """Raises MissingInputError where the user has none."""
    try:
        return Path.home()
    except RuntimeError:
        raise MissingInputError("this user has no home", f"name a folder: {VARIABLES}") from None


def cache() -> Path:
    """Where what is made once is kept: $OFFLINE_VI_HOME, else ~/.cache/offline_vi."""
    return Path(os.environ.get("OFFLINE_VI_HOME") or home() / ".cache" / "offline_vi")


def expanded(path: str | Path) -> Path:
    """A path whose ``~`` stands for a home. Raises MissingInputError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise MissingInputError(f"{path}: there is no such home", "write the path from the root") from None
