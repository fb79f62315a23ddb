"""Data sets by name or path. Importing this package imports no torch: `load` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_vi.datasets.tasks import (
    FAMILIES,
    MINARI_NAMES,
    PIXEL_NAMES,
    RECIPE_NAMES,
    d4rl_hashes,
    d4rl_name,
    d4rl_references,
    task_of,
)
from offline_vi.errors import SpaceMismatchError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from offline_vi.data.columns import ActionRange, OnNonfinite, RowMode
    from offline_vi.data.frames import Frames
    from offline_vi.data.transitions import Provenance, Transitions
    from offline_vi.types import Task

__all__ = ["ensure", "load", "load_images", "names", "read"]


def names() -> list[str]:
    """Every data set that has a name: ours, D4RL's, Minari's."""
    return [*RECIPE_NAMES, *PIXEL_NAMES, *d4rl_references(), *MINARI_NAMES]


def load(
    name_or_path: str | Path,
    *more: str | Path,
    rows: RowMode = "d4rl",
    action_range: ActionRange = "error",
    on_nonfinite: OnNonfinite = "error",
    env: str | None = None,
    max_dataset_bytes: int = 32 << 30,
    sha256: str | Sequence[str] | None = None,
    download: bool = False,
    memory_budget: int | None = None,
) -> Transitions:
    """Read data sets, each alone, and join them: episodes never run across files.

    Names are D4RL's ("hopper-medium-v2"), Minari's ("mujoco/hopper/medium-v0"), ours
    ("offline-vi/pendulum/mixed-v0", collected on first use) or a path to an .hdf5 file in D4RL's layout. Files of
    D4RL's names, and bare file names that are not in the working directory, are looked for in $OFFLINE_VI_DATA, then
    $D4RL_DATASET_DIR (default ~/.d4rl/datasets).

    ``rows``, ``action_range`` and ``on_nonfinite`` are those of `Transitions.from_d4rl`; Minari's sets hold every
    next observation, so that ``rows`` makes no difference to them. ``env`` names the Gymnasium environment to score
    on (its box gives the action bounds) where the name does not tell or another one is wanted. ``sha256`` is the
    expected hash of each file; those of D4RL's names are known. ``download`` fetches what is not on this machine.
    One .hdf5 file whose rows would take more than ``memory_budget`` bytes (half of the machine's memory where None) is
    converted once to columns in $OFFLINE_VI_HOME and mapped.

    Raises UsageError (unknown name, with the nearest valid one), MissingInputError, OfflineError, and the DataErrors
    of the readers and of `Transitions.from_d4rl`.
    """
    from offline_vi.data.transitions import Provenance, Transitions, concatenate

    sources = (name_or_path, *more)
    hashes = [sha256] if sha256 is None or isinstance(sha256, str) else list(sha256)
    if sha256 is None:
        hashes *= len(sources)
    if len(hashes) != len(sources):
        raise UsageError(f"{len(hashes)} hashes for {len(sources)} data sets", "give one for each")
    if len(sources) == 1 and not is_minari(str(name_or_path)):
        from offline_vi.datasets import mapped

        path, name, known = hdf5_file(str(name_or_path), download)
        budget = mapped.default_budget() if memory_budget is None else memory_budget
        large = path.is_file() and path.stat().st_size > budget // 50  # no file expands further
        if large and mapped.bytes_in_memory(path, rows, max_dataset_bytes) > budget:
            task = task_of(name) if env is None else task_on(env, task_of(name))
            return mapped.load_mapped(
                path,
                Provenance(name, (str(path),)),
                task,
                rows,
                action_range,
                on_nonfinite,
                max_dataset_bytes,
                hashes[0] or known,
            )
    parts = []
    for source, expected in zip(sources, hashes, strict=True):
        columns, task, provenance = read(
            source, rows=rows, env=env, max_dataset_bytes=max_dataset_bytes, sha256=expected, download=download
        )
        parts.append(
            Transitions.from_d4rl(
                columns,
                rows=provenance.rows,
                task=task,
                action_range=action_range,
                on_nonfinite=on_nonfinite,
                source=provenance,
            )
        )
    return concatenate(parts)


def load_images(name_or_path: str | Path, **options: Any) -> Frames:
    """A data set of images, memory-mapped: see `offline_vi.datasets.images.load_images`."""
    from offline_vi.datasets import images

    return images.load_images(name_or_path, **options)


def read(
    name_or_path: str | Path,
    *,
    rows: RowMode = "strict",
    env: str | None = None,
    max_dataset_bytes: int = 32 << 30,
    sha256: str | None = None,
    download: bool = False,
) -> tuple[dict[str, NDArray[Any]], Task | None, Provenance]:
    """The raw columns of one data set in D4RL's layout, its task and where it came from; arguments as in `load`.

    Raises what `load` raises, but for the checks of values.
    """
    from offline_vi.data.transitions import Provenance
    from offline_vi.datasets import d4rl, minari

    task: Task | None
    source = str(name_or_path)
    if is_minari(source):
        columns, task, provenance = minari.read(source, max_dataset_bytes, sha256, download, with_env=env is None)
    else:
        path, name, known = hdf5_file(source, download)
        columns = d4rl.read_columns(path, rows, max_dataset_bytes)
        provenance = Provenance(name, (str(path),), (d4rl.check_hash(path, sha256 or known),), rows)
        task = task_of(name)
    return columns, task if env is None else task_on(env, task), provenance


def ensure(source: str) -> None:
    """See to it that a data set is on this machine: one of ours is collected, a published one downloaded.

    Raises UsageError (unknown name), MissingInputError, OfflineError, MissingDependencyError, DatasetCorruptError.
    """
    from offline_vi.datasets import minari
    from offline_vi.errors import MissingInputError

    if is_minari(source):
        if not minari.is_local(source):
            minari.fetch(source, download_missing=True)
    elif not (path := hdf5_file(source, download=True)[0]).is_file():
        raise MissingInputError(f"{source} is not there", f"put it at {path}, or set OFFLINE_VI_DATA to its folder")


def is_minari(source: str) -> bool:
    """Whether a name is one of Minari's, local or not. Raises UsageError for a name that is nobody's."""
    if Path(source).suffix in (".hdf5", ".h5") or source in d4rl_references():
        return False
    from offline_vi.datasets import d4rl, minari

    if d4rl.find_file(source) is not None:
        return False
    if source in RECIPE_NAMES or source in MINARI_NAMES or minari.is_local(source):
        return True
    raise unknown_name(source)


def hdf5_file(source: str, download: bool = False) -> tuple[Path, str, str | None]:
    """(path, data set name, expected SHA-256 or None) of a D4RL name or a path."""
    from offline_vi.datasets import d4rl

    if Path(source).suffix in (".hdf5", ".h5"):
        given = Path(source).expanduser()
        elsewhere = d4rl.find_file(given.stem) if given.name == source and not given.exists() else None
        return elsewhere or given, d4rl_name(given.stem), None
    path = d4rl.find_file(source)
    if path is None and download:
        path = d4rl.download(source)
    if path is None:
        raise d4rl.missing_file(source)
    return path, source, d4rl_hashes().get(source)


def task_on(env: str, task: Task | None) -> Task:
    """The task scored on another environment, whose box gives the action bounds."""
    import gymnasium

    from offline_vi.environments import make_env
    from offline_vi.types import Task

    try:
        space = make_env(Task(env, (), ())).action_space
    except gymnasium.error.Error as error:
        raise UsageError(f"environment {env!r}: {error}", "give a Gymnasium id such as Hopper-v5") from error
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded():
        raise SpaceMismatchError(f"{env} has the action space {space}", "a bounded Box is needed")
    low, high = tuple(map(float, space.low.ravel())), tuple(map(float, space.high.ravel()))
    if task is None:
        return Task(env, low, high, name=env)
    return replace(task, env_id=env, action_low=low, action_high=high, kwargs={}, max_episode_steps=None, note="")


def environment(env: str) -> Task:
    """The task of a Gymnasium id, with D4RL's reference scores where a D4RL family is scored on it. Raises UsageError,
    SpaceMismatchError, MissingDependencyError."""
    for family in FAMILIES:
        if family.env_id == env:
            task = task_of(family.prefix)
            assert task is not None
            return replace(task, max_episode_steps=None)
    return task_on(env, None)


def unknown_name(source: str) -> UsageError:
    close = get_close_matches(source, names(), n=1)
    hint = f"did you mean {close[0]}?" if close else "`offline-vi data list` shows the names; a file ends in .hdf5"
    return UsageError(f"unknown data set {source!r}", hint)
