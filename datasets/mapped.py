"""Files larger than memory: converted once, block by block, to ``.npy`` columns in the cache, which are mapped.

Random rows of an HDF5 file cost milliseconds a batch, those of a mapped column a tenth of one. The rows are those of
`Transitions.from_d4rl`, bit for bit: each block goes through it, with the row after it for the last next state.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from offline_vi.data.columns import ActionRange, OnNonfinite, RowMode
from offline_vi.data.transitions import Provenance, Transitions
from offline_vi.datasets.d4rl import admitted, check_hash
from offline_vi.datasets.hdf5 import open_hdf5, read_rows
from offline_vi.errors import DatasetFormatError, DatasetTooLargeError, EmptyDatasetError
from offline_vi.runs.files import read_json, write_json
from offline_vi.types import Spec, Task

FORMAT = 1  # of the columns in the cache
BLOCK_BYTES = 1 << 20  # of a block's rows as float32; some copies of it lie in memory at once
COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "episode_end")


def default_budget() -> int:
    """Half of the machine's memory, bytes."""
    return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES")) // 2


def home() -> Path:
    """$OFFLINE_VI_HOME, else ~/.cache/offline_vi."""
    return Path(os.environ.get("OFFLINE_VI_HOME") or Path.home() / ".cache" / "offline_vi")


def bytes_in_memory(path: Path, rows: RowMode, max_bytes: int) -> int:
    """What the file's transitions would take as float32, with their next observations."""
    with open_hdf5(path) as file:
        arrays = admitted(file, path, rows, max_bytes)
        return 4 * sum(int(array.size) * (2 if key == "observations" else 1) for key, array in arrays.items())


def load_mapped(
    path: Path,
    source: Provenance,
    task: Task | None,
    rows: RowMode,
    action_range: ActionRange,
    on_nonfinite: OnNonfinite,
    max_bytes: int,
    sha256: str | None,
) -> Transitions:
    """The transitions of a file in D4RL's layout, mapped copy-on-write: what is not read takes no memory.

    In messages about values, rows count from the beginning of the block that they name. Raises DatasetTooLargeError
    for options that need all rows at once, and what `Transitions.from_d4rl` raises.
    """
    if action_range == "data" or on_nonfinite == "drop-episode":
        raise DatasetTooLargeError(
            f"{path} is larger than the memory budget: --action-range data and --on-nonfinite drop-episode need all "
            "its rows at once",
            "raise --memory-budget, or prepare the file",
        )
    digest = check_hash(path, sha256)
    source = replace(source, sha256=(digest,), rows=rows)
    key = json.dumps([FORMAT, digest, rows, action_range, task.to_json() if task else None])
    folder = home() / "rows" / hashlib.sha256(key.encode()).hexdigest()[:24]
    if not (folder / "columns.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".write-", dir=folder.parent) as scratch:
            whole = Path(scratch) / "columns"
            whole.mkdir()
            _convert(path, whole, source, task, rows, action_range, max_bytes)
            try:
                os.rename(whole, folder)
            except OSError:  # another process was faster: same key, same rows
                if not (folder / "columns.json").is_file():
                    raise
    record = read_json(folder / "columns.json")
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


def _flags(arrays: dict[str, h5py.Dataset], path: Path, task: Task | None, rows: RowMode) -> _Flags:
    terminal, timeout = (
        np.asarray(read_rows(arrays[key], path, key)).reshape(-1).astype(np.bool_) if key in arrays else None
        for key in ("terminals", "timeouts")
    )
    if terminal is None or timeout is None:
        raise DatasetFormatError(f"{path}: a file that is mapped needs 'timeouts'", "raise --memory-budget")
    if rows == "strict" and "next_observations" in arrays:
        return _Flags(timeout, terminal | timeout, np.ones(len(terminal), np.bool_))
    cut = timeout if rows == "d4rl" else timeout & ~terminal
    kept = ~cut
    kept[-1] = False
    return _Flags(timeout, terminal | np.append(cut[1:], True), kept)


def _convert(
    path: Path,
    folder: Path,
    source: Provenance,
    task: Task | None,
    rows: RowMode,
    action_range: ActionRange,
    max_bytes: int,
) -> None:
    with open_hdf5(path) as file:
        arrays = admitted(file, path, rows, max_bytes)
        flags = _flags(arrays, path, task, rows)
        count, done = int(flags.kept.sum()), 0
        if count == 0:
            raise EmptyDatasetError(f"{path}: no transition is left", "check the file with `data check`")
        log_probs: list[NDArray[np.float32] | None] = []
        written: dict[str, Any] = {}
        for part in _parts(arrays, path, source, task, rows, action_range):
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
    write_json(folder / "columns.json", {"format": FORMAT, "log_prob": len(known) == len(log_probs)})


def _parts(
    arrays: dict[str, h5py.Dataset],
    path: Path,
    source: Provenance,
    task: Task | None,
    rows: RowMode,
    action_range: ActionRange,
) -> Iterator[Transitions]:
    total = len(arrays["observations"])
    width = sum(4 * array.size for array in arrays.values()) // max(total, 1)
    block = max(BLOCK_BYTES // max(width, 1), 2)
    beyond = 0 if rows == "strict" and "next_observations" in arrays else 1  # the row that the last next state is of
    for start in range(0, total, block):
        stop = min(start + block, total)
        columns = {key: read_rows(array, path, key, start, stop + beyond) for key, array in arrays.items()}
        name = f"{source.name} (rows from {start:,})"
        try:
            yield Transitions.from_d4rl(
                columns, rows=rows, task=task, action_range=action_range, source=replace(source, name=name)
            )
        except EmptyDatasetError:  # a block of nothing but cut rows
            continue
