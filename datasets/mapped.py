"""Files larger than memory: converted once, block by block, to ``.npy`` columns in the cache, which are mapped.

Random rows of an HDF5 file cost milliseconds a batch, those of a mapped column a tenth of one. The rows are those of
`Transitions.from_columns`, bit for bit: each block goes through it, with the row after it for the last next state.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from offline_vi.data.columns import LOG_PROB_KEY, Columns, warn
from offline_vi.data.discrete import labels_in, refuse_labels
from offline_vi.data.order import contradictions, ends_shown
from offline_vi.data.rows import rewards_cut_off
from offline_vi.data.steps import Steps
from offline_vi.data.transitions import Provenance, Transitions
from offline_vi.datasets.cache import ColumnWriter, cached_folder
from offline_vi.datasets.d4rl import admitted, check_hash, with_stored_bounds
from offline_vi.datasets.finding import File
from offline_vi.datasets.reading import Reading
from offline_vi.datasets.safe.hdf5 import half_of_memory, open_hdf5, read_rows
from offline_vi.datasets.task_choice import acting, task_of_file
from offline_vi.errors import DatasetFormatError, DatasetTooLargeError, EmptyDatasetError
from offline_vi.runs.files import read_json, write_json
from offline_vi.types import Spec, Task

FORMAT = 4  # of the columns in the cache
BLOCK_BYTES = 1 << 20  # of a block's rows as float32; some copies of it lie in memory at once
ABOUT = "columns.json"  # what was reported while the columns were made
COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "episode_end")


def budget_of(reading: Reading) -> int:
    """Bytes that rows may take in memory."""
    return reading.memory_budget or half_of_memory()


def is_larger(path: Path, reading: Reading) -> bool:
    """Whether the rows of a file would take more than the memory budget. Raises what `d4rl.admitted` raises."""
    return path.is_file() and bytes_in_memory(path, reading.max_dataset_bytes) > budget_of(reading)


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
    refuse_what_takes_all_rows(reading, str(file.path))
    digest = check_hash(file.path, sha256 or file.sha256)
    with open_hdf5(file.path) as opened:
        arrays = admitted(opened, file.path, reading.max_dataset_bytes)
        shape = (arrays["observations"].shape[-1], arrays["actions"].shape[-1])
    task = task_of_file(file.name, shape, with_stored_bounds(file.path, shape[1], reading))
    source = Provenance(file.name, (str(file.path),), (digest,), reading.next_obs)
    return map_rows(lambda folder: _convert(file.path, folder, source, task, reading), source, task, reading)


def refuse_what_takes_all_rows(reading: Reading, name: str) -> None:
    """Raises DatasetTooLargeError for options that cannot be followed a block at a time."""
    if reading.action_range == "data" or reading.on_nonfinite != "error" or reading.on_bad_episode != "error":
        raise DatasetTooLargeError(
            f"{name} is larger than the memory budget: mapping the range of the actions, repairing NaN, or leaving out "
            "episodes takes all its rows at once",
            'raise it: memory_budget=N; or give action_range="clip", on_nonfinite="error" and on_bad_episode="error"',
        )


def map_rows(write: Callable[[Path], None], source: Provenance, task: Task | None, reading: Reading) -> Transitions:
    """The transitions that ``write`` puts into an empty folder of the cache by `write_rows`, mapped copy-on-write."""
    kinds = [FORMAT, source.sha256, source.next_obs, reading.action_range, reading.discrete_actions, reading.obs_keys]
    key = json.dumps([*kinds, task.to_json() if task else None])
    folder = cached_folder("rows", key, write)
    record = read_json(folder / ABOUT)
    for message in record["warnings"]:
        warn(message)
    columns: dict[str, Any] = {
        name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in (*COLUMNS, *record["more"])
    }
    spec = Spec(columns["obs"].shape[1:], columns["action"].shape[1])
    return Transitions(**columns, spec=spec, task=acting(task, reading), source=source)


def write_rows(
    folder: Path, count: int, parts: Iterator[Transitions], whole: Mapping[str, NDArray[Any]] = MappingProxyType({})
) -> None:
    """Write so many transitions, which come in parts, as columns, and what was reported on the way, so that whoever
    maps them later is told, too.

    ``whole`` are columns (R,) of all rows, in the place of those of the parts: the last row of a part may be no end of
    an episode.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log_prob = _write_columns(folder, count, parts, whole)
    messages = [str(warning.message) for warning in caught]
    more = [*(name for name in whole if name not in COLUMNS), *(["behavior_log_prob"] if log_prob else [])]
    write_json(folder / ABOUT, {"format": FORMAT, "more": more, "warnings": messages})


def _write_columns(folder: Path, count: int, parts: Iterator[Transitions], whole: Mapping[str, NDArray[Any]]) -> bool:
    """Returns whether log-probabilities are among the columns."""
    log_probs: list[NDArray[np.float32] | None] = []
    written: dict[str, ColumnWriter] = {}
    done = 0
    with ExitStack() as stack:
        for part in parts:
            rows = {name: getattr(part, name) for name in COLUMNS}
            rows |= {name: values[done : done + len(part)] for name, values in whole.items()}
            for name, values in rows.items():
                if name not in written:
                    shape = (count, *values.shape[1:])
                    written[name] = stack.enter_context(ColumnWriter(folder / f"{name}.npy", values.dtype, shape))
                written[name].write(values)
            log_probs.append(part.behavior_log_prob)
            done += len(part)
    assert done == count
    known = [values for values in log_probs if values is not None]
    if len(known) == len(log_probs):
        np.save(folder / "behavior_log_prob.npy", np.concatenate(known), allow_pickle=False)
    return len(known) == len(log_probs)


def steps_of(file: File, reading: Reading) -> Steps:
    """The rows of a file that is mapped, without its matrices."""
    source = Provenance(file.name, next_obs=reading.next_obs)
    with open_hdf5(file.path) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `load_mapped` has reported
        arrays = admitted(opened, file.path, reading.max_dataset_bytes)
        flags = _flags(arrays, source, file.path)
        reward, terminal, timeout = (
            read_rows(arrays[key], file.path, key).reshape(-1) for key in ("rewards", "terminals", "timeouts")
        )
        actions = (read_rows(arrays["actions"], file.path, "actions", *block) for block in _blocks(arrays))
        return Steps(
            reward=reward.astype(np.float32),
            terminal=terminal.astype(np.bool_),
            timeout=flags.timeouts,
            recorded=timeout.astype(np.bool_),
            finite=np.ones(len(reward), np.bool_),
            used=flags.kept,
            next_obs="next_observations" in arrays,
            log_prob=LOG_PROB_KEY in arrays,
            labels=labels_in(actions),
        )


class _Flags(NamedTuple):
    """The ends of episodes over the whole file, and what follows from them."""

    terminal: NDArray[np.bool_]  # (N,)
    timeouts: NDArray[np.bool_]  # (N,)
    ends: NDArray[np.bool_]  # (N,) terminal, or cut
    kept: NDArray[np.bool_]  # (N,) which rows become transitions


def _flags(arrays: dict[str, h5py.Dataset], source: Provenance, path: Path) -> _Flags:
    terminal, timeout = (
        np.asarray(read_rows(arrays[key], path, key)).reshape(-1).astype(np.bool_) if key in arrays else None
        for key in ("terminals", "timeouts")
    )
    if terminal is None or timeout is None:
        raise DatasetFormatError(f"{path}: a file that is mapped needs 'timeouts'", "raise memory_budget=N")
    if source.next_obs == "within_episode" and "next_observations" in arrays:
        return _Flags(terminal, timeout, terminal | timeout, np.ones(len(terminal), np.bool_))
    if "next_observations" in arrays and len(terminal) > 1:
        none = np.empty((len(terminal), 0), np.float32)
        flags = Columns(none, none, np.zeros(len(terminal), np.float32), terminal, timeout)
        timeout = ends_shown(_contradictions(arrays, path), flags, source.name)
    cut = timeout if source.next_obs == "following_row" else timeout & ~terminal
    kept = ~cut
    kept[-1] = False
    return _Flags(terminal, timeout, terminal | np.append(cut[1:], True), kept)


def _contradictions(arrays: dict[str, h5py.Dataset], path: Path) -> NDArray[np.bool_]:
    """(N - 1,) where a stored next observation is not the following row's, over the whole file."""
    keys = ("observations", "next_observations")
    parts = []
    for start, stop in _blocks(arrays):
        obs, after = (read_rows(arrays[key], path, key, start, stop + 1).astype(np.float32) for key in keys)
        parts.append(contradictions(obs, after))
    return np.concatenate(parts)


def _blocks(arrays: dict[str, h5py.Dataset]) -> Iterator[tuple[int, int]]:
    """(first row, row after the last one) of one block after the other."""
    total = len(arrays["observations"])
    width = sum(4 * array.size for array in arrays.values()) // max(total, 1)
    block = max(BLOCK_BYTES // max(width, 1), 2)
    for start in range(0, total, block):
        yield start, min(start + block, total)


def _convert(path: Path, folder: Path, source: Provenance, task: Task | None, reading: Reading) -> None:
    with open_hdf5(path) as file:
        arrays = admitted(file, path, reading.max_dataset_bytes)
        if reading.discrete_actions == "error":
            actions = arrays["actions"]
            refuse_labels((read_rows(actions, path, "actions", *block) for block in _blocks(arrays)), source.name)
        flags = _flags(arrays, source, path)
        if not flags.kept.any():
            raise EmptyDatasetError(f"{path}: no transition is left", "look at its terminals and timeouts")
        ends = flags.ends[flags.kept]  # of a block its last row would be one
        ends[-1] = True
        reward = read_rows(arrays["rewards"], path, "rewards").reshape(-1).astype(np.float32)
        whole = {"episode_end": ends, "cut_off": rewards_cut_off(reward, flags.terminal, np.flatnonzero(flags.kept))}
        write_rows(folder, len(ends), _parts(arrays, flags.timeouts, path, source, task, reading), whole)


def _parts(
    arrays: dict[str, h5py.Dataset],
    timeouts: NDArray[np.bool_],
    path: Path,
    source: Provenance,
    task: Task | None,
    reading: Reading,
) -> Iterator[Transitions]:
    """The transitions of one block of rows after the other. What can be known of the whole file alone, its labels, its
    order and its ``timeouts``, is known already."""
    stored = reading.next_obs == "within_episode" and "next_observations" in arrays
    beyond = 0 if stored else 1  # the row that the last next state is of
    read = {key: array for key, array in arrays.items() if stored or key != "next_observations"}
    for start, stop in _blocks(arrays):
        block_rows = {key: read_rows(array, path, key, start, stop + beyond) for key, array in read.items()}
        name = f"{source.name} (rows from {start:,})"
        try:
            yield Transitions.from_columns(
                Columns.from_d4rl(block_rows | {"timeouts": timeouts[start : stop + beyond]}, name),
                next_obs=reading.next_obs,
                task=task,
                action_range=reading.action_range,
                discrete_actions="continuous",
                source=replace(source, name=name),
            )
        except EmptyDatasetError:  # a block of nothing but cut rows
            continue
