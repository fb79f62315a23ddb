"""The default names of folders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from offline_vi.joined import short_name


def run_name(what: str, data: str, seeds: Sequence[int], *parts: str) -> str:
    """ALGORITHM-DATASET-PRESET-MODEL-seedN: commands that differ in one of these are runs of their own.

    ``what`` is the algorithm or behavior model, ``data`` the data set or environment, ``seeds`` those that are trained
    in parallel, first to last; ``parts`` are preset, model and the like, empty ones left out.
    """
    numbers = f"{seeds[0]}" + (f"-{seeds[-1]}" if len(seeds) > 1 else "")
    joined = short_name(data)
    data = data if joined == data else joined.replace(" ", "-")
    return "-".join([what, data, *filter(None, parts), f"seed{numbers}"]).replace("/", "-")


def new_folder(path: Path) -> Path:
    """The path itself where nothing is there, else the first of PATH-2, PATH-3 and so on that is free."""
    paths = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in count(1))
    return next(found for found in paths if not found.exists())
