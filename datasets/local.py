"""Minari's folder on this machine. Importing this module imports no torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from offline_vi import homes

NAME = re.compile(r"[\w-]+(/[\w-]+)*-v\d+", re.ASCII)
MAX_DEPTH = 5  # folders of a name


def root() -> Path:
    """$MINARI_DATASETS_PATH, else ~/.minari/datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or homes.home() / ".minari" / "datasets")


def local_names() -> list[str]:
    """Minari's data sets that are on this machine, whoever made them."""
    found, folders = [], [root()]
    for _ in range(MAX_DEPTH):
        below = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()) if path.is_dir()]
        found += [path for path in below if (path / "data" / "metadata.json").is_file()]
        folders = [path for path in below if path not in found and not path.is_symlink()]
    return sorted(name for path in found if NAME.fullmatch(name := path.relative_to(root()).as_posix()))
