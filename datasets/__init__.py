"""Data sets by name or path. Importing this package imports no torch: `load` does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Unpack

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
    acting,
    environment as environment,
    episode_limit as episode_limit,
    in_environment,
    on_environment as on_environment,
    scored_elsewhere,
    scored_on as scored_on,
    task_of_file,
    task_on as task_on,
    with_bounds,
)
from offline_vi.errors import OfflineVIError
from offline_vi.joined import short_name

if TYPE_CHECKING:
    from offline_vi.data.frames import Frames
    from offline_vi.data.report import DataReport
    from offline_vi.data.steps import Steps
    from offline_vi.data.transitions import Transitions
    from offline_vi.data.unknown_ends import UnknownEnds
    from offline_vi.datasets.minari import Described
    from offline_vi.datasets.vd4rl import Alignment
    from offline_vi.types import Task

__all__ = ["Reading", "ensure", "inspect", "load", "load_images", "names", "read"]

DEFAULT = Reading()


class Part(NamedTuple):
    """One of the data sets that are joined."""

    data: Transitions
    steps: Callable[[], Steps]  # what became of its rows
    ends: UnknownEnds | None = None  # those of its episodes after which nothing is known


def load(
    name_or_path: str | Path, *more: str | Path, reading: Reading = DEFAULT, **options: Unpack[ReadingOptions]
) -> Transitions:
    """Read data sets one by one and join them. Episodes never run across files.

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

    reading = reading_from(reading, options)
    parts = _load([str(source) for source in (name_or_path, *more)], reading)
    data = concatenate([part.data for part in parts])
    _report(data, parts)
    return replace(data, source=replace(data.source, rules=reading.rules()))


def inspect(
    name_or_path: str | Path, *more: str | Path, reading: Reading = DEFAULT, **options: Unpack[ReadingOptions]
) -> DataReport:
    """Report what is in data sets, and what `load` makes of them with the same arguments. It reads the data, and raises
    what `load` raises."""
    from offline_vi.data.report import DataReport
    from offline_vi.data.transitions import concatenate

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parts = _load([str(source) for source in (name_or_path, *more)], reading_from(reading, options))
            data = concatenate([part.data for part in parts])
            _report(data, parts)
    except OfflineVIError:
        for warning in caught:  # what was odd ahead of the refusal
            warnings.warn(warning.message, stacklevel=2)
        raise
    messages = [str(warning.message) for warning in caught]
    return DataReport.of(data, [part.steps() for part in parts], messages)


def _load(sources: list[str], reading: Reading) -> list[Part]:
    """Each data set read alone."""
    from offline_vi.datasets import mapped, minari_mapped

    hashes = reading.hashes(len(sources))
    _check_columns(sources, reading)
    budget = mapped.budget_of(reading)
    alone = len(sources) == 1 and not is_registered(sources[0]) and not is_table(sources[0])
    if alone and is_minari(sources[0]):
        found = _described(sources[0], reading)
        if minari_mapped.bytes_in_memory(found) > budget:
            data = minari_mapped.load_mapped(found, _task_of_minari(found, reading), hashes[0], reading)
            return [Part(data, lambda: minari_mapped.steps_of(found, reading))]
    elif alone:
        file = hdf5_file(sources[0], reading.download)
        if mapped.is_larger(file.path, reading):
            return [Part(mapped.load_mapped(file, hashes[0], reading), lambda: mapped.steps_of(file, reading))]
    return [_load_one(source, sha256, reading) for source, sha256 in zip(sources, hashes, strict=True)]


def _report(data: Transitions, parts: list[Part]) -> None:
    """Report bounds that are far wider than the actions, and ends of episodes after which nothing is known, once for
    all parts of the data."""
    from offline_vi.data.rows import report_narrow_actions
    from offline_vi.data.unknown_ends import report_unknown_ends
    from offline_vi.types import unit_task

    name = short_name(data.source.name)
    report_unknown_ends([part.ends for part in parts if part.ends is not None], name)
    report_narrow_actions(data.action, data.task or unit_task(data.spec.action_dim), name)


def _load_one(source: str, sha256: str | None, reading: Reading) -> Part:
    from offline_vi.data.steps import Steps
    from offline_vi.data.transitions import Transitions
    from offline_vi.data.unknown_ends import UnknownEnds
    from offline_vi.datasets import registered

    if is_registered(source):
        found = registered.load(source, reading)
        if isinstance(found, Transitions):
            return Part(found, lambda: Steps.of_transitions(found))
        columns, task, provenance = found
    else:
        columns, task, provenance = _read(source, sha256, reading)
    data, steps = Transitions.examined(
        columns,
        next_obs=provenance.next_obs,
        task=task,
        action_range=reading.action_range,
        on_nonfinite=reading.on_nonfinite,
        discrete_actions=reading.discrete_actions,
        max_episode_steps=episode_limit(task, reading) if columns.timeout is None else None,
        source=provenance,
    )
    return Part(replace(data, task=acting(data.task, reading)), lambda: steps, UnknownEnds.of(columns))


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
    from offline_vi.data.unknown_ends import UnknownEnds, report_unknown_ends

    reading = reading_from(reading, options)
    _check_columns([str(name_or_path)], reading)
    found = _read(str(name_or_path), reading.hashes(1)[0], reading)
    report_unknown_ends([UnknownEnds.of(found.columns)], found.source.name)
    return found


def _described(name: str, reading: Reading) -> Described:
    """A Minari set by its metadata."""
    from offline_vi.datasets import minari

    env = "" if reading.unscored else reading.env or None
    return minari.describe(name, reading.download, env, reading.obs_keys)


def _task_of_minari(found: Described, reading: Reading) -> Task | None:
    """The task of a set in the units that the options say."""
    from offline_vi.datasets import minari

    own = in_environment(found.task, reading, found.name)
    if reading.env and own.env_id:
        own = scored_elsewhere(own, minari.origin(found.name))
    return with_bounds(own, found.widths[1], reading, found.name)


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
        described = _described(source, reading)
        found = minari.read(described, reading.max_dataset_bytes, sha256, reading.on_bad_episode)
        return found._replace(task=_task_of_minari(described, reading))
    file = hdf5_file(source, reading.download)
    columns = d4rl.read_columns(file.path, reading.max_dataset_bytes)
    digest = d4rl.check_hash(file.path, sha256 or file.sha256)
    shape = (columns.obs.shape[1], columns.action.shape[1])
    task = task_of_file(file.name, shape, d4rl.with_stored_bounds(file.path, shape[1], reading))
    return Read(columns, task, Provenance(file.name, (str(file.path),), (digest,), reading.next_obs))
