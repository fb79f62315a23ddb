"""Files larger than memory: converted once, block by block, to ``.npy`` columns in the cache, which are mapped.

Random rows of an HDF5 file cost milliseconds a batch, those of a mapped column a tenth of one. The rows are those of
`Transitions.from_columns`, bit for bit: each block goes through it, with the row after it for the last next state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from offline_vi.data.columns import Columns, NextObs
from offline_vi.data.transitions import Provenance, Transitions
from offline_vi.datasets.cache import cached_folder
from offline_vi.datasets.d4rl import admitted, check_hash, with_stored_bounds
from offline_vi.datasets.finding import File
from offline_vi.datasets.reading import Reading
from offline_vi.datasets.safe.hdf5 import open_hdf5, read_rows
from offline_vi.datasets.task_choice import task_of_file
from offline_vi.errors import DatasetFormatError, DatasetTooLargeError, EmptyDatasetError
from offline_vi.runs.files import read_json, write_json
from offline_vi.types import Spec, Task

FORMAT = 1  # of the columns in the cache
BLOCK_BYTES = 1 << 20  # of a block's rows as float32; some copies of it lie in memory at once
LAST = "columns.json"  # of the files of a data set in the cache
COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "episode_end")


def default_budget() -> int:
    """Half of the machine's memory, bytes; 4 GiB where the system does not tell (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return 4 << 30


def is_larger(path: Path, reading: Reading) -> bool:
    """Whether the rows of a file would take more than the memory budget. Raises what `d4rl.admitted` raises."""
    budget = reading.memory_budget or default_budget()
    large = path.is_file() and path.stat().st_size > budget // 50  # no file expands further
    return large and bytes_in_memory(path, reading.max_dataset_bytes) > budget


def bytes_in_memory(path: Path, max_bytes: int) -> int:
    """What the file's transitions would take as float32, with their next observations."""
    with open_hdf5(path) as file:
        sizes = {key: int(array.size) for key, array in admitted(file, path, max_bytes).items()}
    sizes["next_observations"] = sizes["observations"]
    return 4 * sum(sizes.values())


def load_mapped(file: File, sha256: str | None, reading: Reading) -> Transitions:
    """The transitions of a file in D4RL's layout, mapped copy-on-write: what is not read takes no memory.

    In messages about values, rows count from the beginning of the block that they name. Raises DatasetTooLargeError
    for options that need all rows at once, and what `Transitions.from_columns` raises.
    """
    if reading.action_range == "data" or reading.on_nonfinite == "drop-episode":
        raise DatasetTooLargeError(
            f"{file.path} is larger than the memory budget: mapping the range of the actions, or dropping episodes, "
            "takes all its rows at once",
            'raise it: memory_budget=N; or give action_range="clip" and on_nonfinite="error"',
        )
    digest = check_hash(file.path, sha256 or file.sha256)
    with open_hdf5(file.path) as opened:
        arrays = admitted(opened, file.path, reading.max_dataset_bytes)
        shape = (arrays["observations"].shape[-1], arrays["actions"].shape[-1])
    task = task_of_file(file.name, shape, with_stored_bounds(file.path, shape[1], reading))
    source = Provenance(file.name, (str(file.path),), (digest,), reading.next_obs)
    kinds = [FORMAT, digest, reading.next_obs, reading.action_range, task.to_json() if task else None]
    folder = cached_folder(
        "rows", json.dumps(kinds), LAST, lambda folder: _convert(file.path, folder, source, task, reading)
    )
    record = read_json(folder / LAST)
    columns: dict[str, Any] = {
        name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        for name in (*COLUMNS, *(["behavior_log_prob"] if record["log_prob"] else []))
    }
    return Transitions(
        **columns, spec=Spec(columns["obs"].shape[1:], columns["action"].shape[1]), task=task, source=source
    )


class _Flags(NamedTuple):
    """The ends of episodes over the whole file, and what follows from them."""

    timeouts: NDArray[np.bool_]  # (N,)
    ends: NDArray[np.bool_]  # (N,) terminal, or cut
    kept: NDArray[np.bool_]  # (N,) which rows become transitions


def _flags(arrays: dict[str, h5py.Dataset], path: Path, next_obs: NextObs) -> _Flags:
    terminal, timeout = (
        np.asarray(read_rows(arrays[key], path, key)).reshape(-1).astype(np.bool_) if key in arrays else None
        for key in ("terminals", "timeouts")
    )
    if terminal is None or timeout is None:
        raise DatasetFormatError(f"{path}: a file that is mapped needs 'timeouts'", "raise memory_budget=N")
    if next_obs == "within_episode" and "next_observations" in arrays:
        return _Flags(timeout, terminal | timeout, np.ones(len(terminal), np.bool_))
    cut = timeout if next_obs == "following_row" else timeout & ~terminal
    kept = ~cut
    kept[-1] = False
    return _Flags(timeout, terminal | np.append(cut[1:], True), kept)


def _convert(path: Path, folder: Path, source: Provenance, task: Task | None, reading: Reading) -> None:
    with open_hdf5(path) as file:
        arrays = admitted(file, path, reading.max_dataset_bytes)
        flags = _flags(arrays, path, reading.next_obs)
        count, done = int(flags.kept.sum()), 0
        if count == 0:
            raise EmptyDatasetError(f"{path}: no transition is left", "look at its terminals and timeouts")
        log_probs: list[NDArray[np.float32] | None] = []
        written: dict[str, Any] = {}
        for part in _parts(arrays, path, source, task, reading):
            for name in COLUMNS:
                values = getattr(part, name)
                if name not in written:
                    shape = (count, *values.shape[1:])
                    written[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", values.dtype, shape)
                written[name][done : done + len(part)] = values
            log_probs.append(part.behavior_log_prob)
            done += len(part)
        assert done == count
        ends = flags.ends[flags.kept]  # of a block its last row would be one
        ends[-1] = True
        written["episode_end"][:] = ends
        for column in written.values():
            column.flush()
    known = [values for values in log_probs if values is not None]
    if len(known) == len(log_probs):
        np.save(folder / "behavior_log_prob.npy", np.concatenate(known), allow_pickle=False)
    write_json(folder / LAST, {"format": FORMAT, "log_prob": len(known) == len(log_probs)})


def _parts(
    arrays: dict[str, h5py.Dataset], path: Path, source: Provenance, task: Task | None, reading: Reading
) -> Iterator[Transitions]:
    """The transitions of one block of rows after the other."""
    total = len(arrays["observations"])
    width = sum(4 * array.size for array in arrays.values()) // max(total, 1)
    block = max(BLOCK_BYTES // max(width, 1), 2)
    known = reading.next_obs == "within_episode" and "next_observations" in arrays
    beyond = 0 if known else 1  # the row that the last next state is of
    for start in range(0, total, block):
        stop = min(start + block, total)
        block_rows = {key: read_rows(array, path, key, start, stop + beyond) for key, array in arrays.items()}
        name = f"{source.name} (rows from {start:,})"
        try:
            yield Transitions.from_columns(
                Columns.from_d4rl(block_rows, name),
                next_obs=reading.next_obs,
                task=task,
                action_range=reading.action_range,
                source=replace(source, name=name),
            )
        except EmptyDatasetError:  # a block of nothing but cut rows
            continue
