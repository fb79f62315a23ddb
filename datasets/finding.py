"""Where data sets are: the library's own, D4RL's and Minari's by name, files by path. Importing this module imports no
torch."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from offline_vi import registry
from offline_vi.datasets.local import local_names
from offline_vi.datasets.tasks import (
    MINARI_NAMES,
    PIXEL_NAMES,
    RECIPE_NAMES,
    d4rl_hashes,
    d4rl_name,
    d4rl_references,
)
from offline_vi.errors import MissingInputError, UsageError
from offline_vi.homes import expanded

HDF5 = (".hdf5", ".h5")
TABLES = (".csv", ".tsv", ".parquet")


class File(NamedTuple):
    """A file in D4RL's layout."""

    path: Path
    name: str  # of the data set
    sha256: str | None  # of the published file, None where it is not known


def names() -> list[str]:
    """Every data set that has a name: those of plug-ins, ours, D4RL's, Minari's, and others in Minari's folder."""
    known = [*registry.data_sets(), *RECIPE_NAMES, *PIXEL_NAMES, *d4rl_references(), *MINARI_NAMES]
    return [*known, *(name for name in local_names() if name not in known)]


def is_registered(source: str) -> bool:
    """Whether a plug-in registered a data set of this name (`registry.register_dataset`)."""
    return source in registry.data_sets()


def is_table(source: str) -> bool:
    """Whether a path is one of a table."""
    return Path(source).suffix in TABLES and not is_registered(source)


def ensure(source: str) -> None:
    """See to it that a data set is on this machine: one of ours is collected, a published one downloaded.

    Raises UsageError (unknown name), MissingInputError, OfflineError, MissingDependencyError, DatasetCorruptError.
    """
    from offline_vi.datasets import minari

    if is_registered(source):
        return
    if is_minari(source):
        if not minari.is_local(source):
            minari.fetch(source, download_missing=True)
    elif is_table(source):
        if not expanded(source).is_file():
            raise absent(expanded(source))
    elif not (path := hdf5_file(source, download=True).path).is_file():
        raise MissingInputError(f"{source} is not there", f"put it at {path}, or set OFFLINE_VI_DATA to its folder")


def absent(path: Path) -> MissingInputError:
    """The error for a table that is not there, or for a pattern, which the shell resolves if it is not quoted."""
    pattern = set(path.name) & set("*?[")
    return MissingInputError(
        f"{path} is not there", "name the files one by one, or leave out the quotes" if pattern else "check it"
    )


def is_minari(source: str) -> bool:
    """Whether a name is one of Minari's, local or not. Raises UsageError for a name that is nobody's."""
    if Path(source).suffix in (*HDF5, *TABLES) or source in d4rl_references():
        return False
    from offline_vi.datasets import d4rl, minari

    if d4rl.find_file(source) is not None:
        return False
    if source in RECIPE_NAMES or source in MINARI_NAMES or minari.is_local(source):
        return True
    raise unknown_name(source)


def hdf5_file(source: str, download: bool = False) -> File:
    """The file of a D4RL name or a path. Raises MissingInputError, OfflineError."""
    from offline_vi.datasets import d4rl

    if Path(source).suffix in HDF5:
        given = expanded(source)
        elsewhere = d4rl.find_file(given.stem) if given.name == source and not given.exists() else None
        return File(elsewhere or given, d4rl_name(given.stem), None)
    path = d4rl.find_file(source)
    if path is None and download:
        path = d4rl.download(source)
    if path is None:
        raise d4rl.missing_file(source)
    return File(path, source, d4rl_hashes().get(source))


def unknown_name(source: str) -> UsageError:
    close = get_close_matches(source, names(), n=1)
    files = ", ".join((*HDF5, *TABLES))
    hint = f"did you mean {close[0]}?" if close else f"`offline-vi data list` shows the names; files end in {files}"
    return UsageError(f"unknown data set {source!r}", hint)
