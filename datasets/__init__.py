"""Data sets by name or path. Importing this package imports no torch: `load` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from offline_vi.datasets.finding import (
    ensure as ensure,
    hdf5_file as hdf5_file,
    is_minari as is_minari,
    is_registered as is_registered,
    is_table as is_table,
    names as names,
    unknown_name as unknown_name,
)
from offline_vi.datasets.reading import (
    Read as Read,
    Reading as Reading,
    ReadingOptions as ReadingOptions,
    reading_from,
)
from offline_vi.datasets.task_choice import (
    environment as environment,
    episode_limit as episode_limit,
    task_of_file,
    task_on as task_on,
    with_bounds,
)

if TYPE_CHECKING:
    from offline_vi.data.frames import Frames
    from offline_vi.data.transitions import Transitions
    from offline_vi.datasets.vd4rl import Alignment

__all__ = ["Reading", "ensure", "load", "load_images", "names", "read"]

DEFAULT = Reading()


def load(
    name_or_path: str | Path, *more: str | Path, reading: Reading = DEFAULT, **options: Unpack[ReadingOptions]
) -> Transitions:
    """Read data sets, each alone, and join them: episodes never run across files.

    Names are those that plug-ins register, D4RL's ("hopper-medium-v2"), Minari's ("mujoco/hopper/medium-v0"), ours
    ("offline-vi/pendulum/mixed-v0", collected on first use), the path of an .hdf5 file in D4RL's layout, or that of a
    table (.csv, .tsv, .parquet), whose columns ``columns="FILE.toml"`` names. Files of D4RL's names, and bare names of
    .hdf5 files that are not in the working directory, are looked for in $OFFLINE_VI_DATA, then $D4RL_DATASET_DIR
    (default ~/.d4rl/datasets).

    Options are the fields of `Reading`, as keyword arguments (``action_range="clip"``), as a whole (``reading=``), or
    both: keyword arguments go first. ``next_obs``, ``action_range`` and ``on_nonfinite`` are those of
    `Transitions.from_columns`; Minari's sets hold every next observation, so that ``next_obs`` makes no difference to
    them. One .hdf5 file whose rows would take more than ``memory_budget`` bytes is converted once to columns in
    $OFFLINE_VI_HOME and mapped.

    Raises UsageError (unknown name, with the nearest valid one), MissingInputError, OfflineError, and the DataErrors
    of the readers and of `Transitions.from_columns`.
    """
    from offline_vi.data.transitions import concatenate
    from offline_vi.datasets import mapped

    reading = reading_from(reading, options)
    sources = [str(source) for source in (name_or_path, *more)]
    hashes = reading.hashes(len(sources))
    _check_columns(sources, reading)
    if len(sources) == 1 and not (is_registered(sources[0]) or is_table(sources[0]) or is_minari(sources[0])):
        file = hdf5_file(sources[0], reading.download)
        if mapped.is_larger(file.path, reading):
            return mapped.load_mapped(file, hashes[0], reading)
    return concatenate([_load_one(source, sha256, reading) for source, sha256 in zip(sources, hashes, strict=True)])


def _load_one(source: str, sha256: str | None, reading: Reading) -> Transitions:
    from offline_vi.data.transitions import Transitions
    from offline_vi.datasets import registered

    if is_registered(source):
        found = registered.load(source, reading)
        if isinstance(found, Transitions):
            return found
        columns, task, provenance = found
    else:
        columns, task, provenance = _read(source, sha256, reading)
    return Transitions.from_columns(
        columns,
        next_obs=provenance.next_obs,
        task=task,
        action_range=reading.action_range,
        on_nonfinite=reading.on_nonfinite,
        max_episode_steps=episode_limit(task, reading) if columns.timeout is None else None,
        source=provenance,
    )


def load_images(
    name_or_path: str | Path,
    *,
    alignment: Alignment = "led-to",
    max_dataset_bytes: int = DEFAULT.max_dataset_bytes,
    check: bool = True,
) -> Frames:
    """A data set of images, memory-mapped: see `offline_vi.datasets.images.load_images`."""
    from offline_vi.datasets import images

    return images.load_images(name_or_path, alignment=alignment, max_dataset_bytes=max_dataset_bytes, check=check)


def read(name_or_path: str | Path, *, reading: Reading = DEFAULT, **options: Unpack[ReadingOptions]) -> Read:
    """The columns of one data set as they are stored, its task and where it came from; arguments as in `load`.

    Raises what `load` raises, but for the checks of values.
    """
    reading = reading_from(reading, options)
    _check_columns([str(name_or_path)], reading)
    return _read(str(name_or_path), reading.hashes(1)[0], reading)


def _check_columns(sources: list[str], reading: Reading) -> None:
    """Raises UsageError where a file of columns is given and there is no table."""
    from offline_vi.errors import UsageError

    if reading.columns and not any(map(is_table, sources)):
        raise UsageError(f"{', '.join(sources)}: only tables have columns to name", "leave columns= out")


def _read(source: str, sha256: str | None, reading: Reading) -> Read:
    from offline_vi.data.transitions import Provenance
    from offline_vi.datasets import d4rl, minari, registered, tables

    if is_registered(source):
        return registered.read(source, reading)
    if is_table(source):
        return tables.read(source, sha256, reading)
    if is_minari(source):
        found = minari.read(source, reading.max_dataset_bytes, sha256, reading.download, with_env=not reading.env)
        task = task_on(reading.env, found.task) if reading.env else found.task
        return found._replace(task=with_bounds(task, found.columns.action.shape[1], reading, source))
    file = hdf5_file(source, reading.download)
    columns = d4rl.read_columns(file.path, reading.max_dataset_bytes)
    digest = d4rl.check_hash(file.path, sha256 or file.sha256)
    shape = (columns.obs.shape[1], columns.action.shape[1])
    task = task_of_file(file.name, shape, d4rl.with_stored_bounds(file.path, shape[1], reading))
    return Read(columns, task, Provenance(file.name, (str(file.path),), (digest,), reading.next_obs))
