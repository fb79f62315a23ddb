"""HDF5 files that are damaged or mean harm: refused with a typed error, nothing else touched, little memory used."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from oracle_data import distinct_columns

from offline_vi import datasets
from offline_vi.datasets.safe import hdf5
from offline_vi.datasets.safe.hdf5 import half_of_memory
from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    MissingInputError,
    OfflineVIError,
    UnsafeDatasetError,
)

Reached = Callable[[int, str, int], None]


def write(path: Path, rows: int = 20, skip: tuple[str, ...] = (), **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, column in distinct_columns(rows).items():
            if key not in skip:
                file.create_dataset(key, data=column, **options)
    return path


@contextmanager
def opens_of(path: Path) -> Iterator[Callable[[], int]]:
    """Counts every open() of ``path`` by anybody, C libraries too (Linux inotify)."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        watch, add = libc.inotify_init1, libc.inotify_add_watch
    except (OSError, AttributeError):
        pytest.skip("needs inotify")
    descriptor = watch(os.O_NONBLOCK)
    assert add(descriptor, os.fsencode(path), 0x20) >= 0  # IN_OPEN

    def count() -> int:
        try:
            return len(os.read(descriptor, 4096)) // 16
        except BlockingIOError:
            return 0

    try:
        yield count
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------ attacks


def external_link(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        file["rewards"] = h5py.ExternalLink(str(secret), "rewards")


def external_link_in_group(path: Path, secret: Path) -> None:
    write(path)
    with h5py.File(path, "a") as file:
        file.create_group("infos")["qpos"] = h5py.ExternalLink(str(secret), "rewards")


def external_storage(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", shape=(20,), dtype="f4", external=[(str(secret), 0, 80)])


def virtual_array(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    layout = h5py.VirtualLayout(shape=(20,), dtype="f4")
    layout[:] = h5py.VirtualSource(str(secret), "rewards", shape=(20,))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("rewards", layout)


def soft_loop(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        file["rewards"] = h5py.SoftLink("/rewards")


def hard_loop(path: Path, secret: Path) -> None:
    write(path)
    with h5py.File(path, "a") as file:
        group = file.create_group("metadata")
        group["again"] = group


def deep_groups(path: Path, secret: Path) -> None:
    write(path)
    with h5py.File(path, "a") as file:
        file["metadata/a/b/c/d"] = np.zeros(1)


def many_objects(path: Path, secret: Path) -> None:
    write(path)
    with h5py.File(path, "a") as file:
        for number in range(300):
            file.create_dataset(f"infos/{number}", data=np.zeros(1))


def group_for_array(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards/values", data=np.zeros(20, np.float32))


def object_references(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", data=[file["actions"].ref] * 20, dtype=h5py.ref_dtype)


def varying_length(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (20,), dtype=h5py.vlen_dtype(np.float32))


def compound(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", data=np.zeros(20, [("a", "f4"), ("b", "f8")]))


def named_type(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        file["rewards"] = np.dtype("f4")


def other_filter(path: Path, secret: Path) -> None:
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", data=np.zeros(20, np.float32), scaleoffset=3)


ATTACKS: dict[Callable[[Path, Path], None], type[OfflineVIError]] = {
    external_link: UnsafeDatasetError,
    external_link_in_group: UnsafeDatasetError,
    external_storage: UnsafeDatasetError,
    virtual_array: UnsafeDatasetError,
    soft_loop: UnsafeDatasetError,
    hard_loop: UnsafeDatasetError,
    deep_groups: UnsafeDatasetError,
    many_objects: UnsafeDatasetError,
    group_for_array: DatasetFormatError,
    object_references: DatasetFormatError,
    varying_length: DatasetFormatError,
    compound: DatasetFormatError,
    named_type: DatasetFormatError,
    other_filter: UnsafeDatasetError,
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_attacks_are_refused_and_nothing_else_is_opened(attack: Callable[[Path, Path], None], tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.hdf5")
    attack(tmp_path / "data.hdf5", secret)
    with opens_of(secret) as count:
        with pytest.raises(ATTACKS[attack]) as caught:
            datasets.load(tmp_path / "data.hdf5")
        assert count() == 0
    assert "data.hdf5" in str(caught.value) and caught.value.hint


def test_the_watch_on_foreign_files_sees_what_hdf5_opens(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.hdf5")
    external_link(tmp_path / "data.hdf5", secret)
    with opens_of(secret) as count:
        with h5py.File(tmp_path / "data.hdf5") as file:
            file["rewards"][()]
        assert count() > 0


def test_names_that_are_not_read_are_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5")
    with h5py.File(path, "a") as file:
        file["notes"] = "recorded on a Tuesday"
        file["elsewhere"] = h5py.ExternalLink("nowhere.hdf5", "x")
        file["metadata/algorithm"] = np.bytes_("SAC")
        file["metadata/policy/fc0/weight"] = np.zeros((2, 2))
        file["infos/goal"] = "there"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(datasets.load(path)) == 19


# ------------------------------------------------------------------ bombs


def fill_value_bomb(path: Path) -> None:
    write(path, skip=("observations",))
    with h5py.File(path, "a") as file:
        file.create_dataset("observations", shape=(20, 1 << 30), dtype="f4", fillvalue=1.0)


def gzip_bomb(path: Path) -> None:
    rows = half_of_memory() // 64  # of 80 bytes each
    with h5py.File(path, "w") as file:
        for key, width in (("observations", 20), ("actions", 1), ("rewards", 1), ("terminals", 1), ("timeouts", 1)):
            file.create_dataset(key, shape=(rows, width), dtype="f4", chunks=(1 << 16, width), compression=9)
            file[key][: 1 << 16] = 0.0


def chunk_bomb(path: Path) -> None:
    """Few rows, but their only chunk unpacks to 128 MB."""
    write(path, skip=("rewards",))
    with h5py.File(path, "a") as file:
        array = file.create_dataset("rewards", (1 << 27,), "i1", chunks=(1 << 27,), maxshape=(None,), compression=9)
        array[:4] = 1.0
        array.resize((20,))


@pytest.mark.parametrize("bomb", [fill_value_bomb, gzip_bomb, chunk_bomb])
def test_bombs_are_refused_before_memory_is_taken(bomb: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "bomb.hdf5"
    bomb(path)
    started = time.perf_counter()
    tracemalloc.start()  # NumPy reports its arrays to it
    try:
        with pytest.raises(DatasetTooLargeError, match=r"bomb\.hdf5"):
            datasets.load(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 1.0


def test_the_budget_is_the_users(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5", rows=1000)
    with pytest.raises(DatasetTooLargeError, match="10,000 allowed"):
        datasets.load(path, max_dataset_bytes=10_000)
    assert len(datasets.load(path, max_dataset_bytes=30_000)) == 999


# ------------------------------------------------------------------ damage

_FUZZ = """
import os, resource, signal, sys, warnings
from pathlib import Path
import numpy as np
from offline_vi import datasets
from offline_vi.datasets.safe import hdf5
from offline_vi.datasets.safe.hdf5 import half_of_memory
from offline_vi.errors import OfflineVIError

signal.alarm(100)  # a hang kills the child
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # and so does a bomb; torch alone maps more than a gigabyte
warnings.simplefilter("ignore")
folder, whole = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
expected = datasets.load(sys.argv[2])
rng = np.random.default_rng(0)
outcomes = {}
for case in range(int(sys.argv[4])):
    if sys.argv[3] == "cut":
        damaged = whole[: rng.integers(len(whole))]
    else:
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
    path = folder / "damaged.hdf5"
    path.write_bytes(damaged)
    try:
        found = datasets.load(path, sha256=expected.source.sha256 if sys.argv[3] == "hash" else None)
        columns = ("obs", "action", "reward", "next_obs", "terminated", "episode_end")
        same = all(np.array_equal(getattr(found, key), getattr(expected, key)) for key in columns)
        outcome = "harmless" if same else "silent"
    except OfflineVIError as error:
        outcome = type(error).__name__
        assert "damaged" in str(error)
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
print(outcomes)
"""


def fuzz(tmp_path: Path, kind: str, cases: int, **options: Any) -> dict[str, int]:
    """Outcomes of damaged copies, in a child so that a crash of the C library is seen as one."""
    path = write(tmp_path / "whole.hdf5", rows=400, **options)
    script = tmp_path / "fuzz.py"
    script.write_text(_FUZZ)
    result = subprocess.run(
        [sys.executable, script, tmp_path, path, kind, str(cases)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-2000:]
    outcomes = {}
    for entry in result.stdout.strip().strip("{}").split(","):
        name, count = entry.split(":")
        outcomes[name.strip(" '")] = int(count)
    return outcomes


def test_cut_files_are_refused(tmp_path: Path, reached: Reached) -> None:
    assert fuzz(tmp_path, "cut", 100, compression="gzip", shuffle=True) == {"DatasetCorruptError": 100}
    reached(10, "cuts refused", 100)


def test_flipped_bits_are_refused_or_harmless(tmp_path: Path, reached: Reached) -> None:
    outcomes = fuzz(tmp_path, "flip", 400, compression="gzip", shuffle=True, fletcher32=True)
    assert outcomes.get("silent", 0) == 0 and sum(outcomes.values()) == 400
    reached(11, "flips without a crash or a silent change", 400)


def test_a_known_hash_finds_every_flip_in_arrays_as_they_are(tmp_path: Path) -> None:
    """Nothing else could: neither compressed nor checksummed, most flips are just other numbers."""
    outcomes = fuzz(tmp_path, "hash", 100)
    assert sum(outcomes.values()) == 100 and not {"silent", "harmless"} & set(outcomes)


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5", rows=4000, compression="gzip", chunks=True)
    with h5py.File(path) as file:
        chunk = file["rewards"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        raw.write(b"\xff" * 16)
    with pytest.raises(DatasetCorruptError, match=r"data\.hdf5: cannot read 'rewards'"):
        datasets.load(path)


def test_hashes_find_what_the_format_cannot(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5")
    digest = datasets.load(path).source.sha256[0]
    assert len(datasets.load(path, sha256=digest.upper())) == 19
    with h5py.File(path, "a") as file:
        file["rewards"][3] += 1.0
    with pytest.raises(DatasetCorruptError, match=digest):
        datasets.load(path, sha256=digest)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04 not this"])
def test_what_is_no_hdf5_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.hdf5").write_bytes(content)
    with pytest.raises(DatasetCorruptError, match=r"data\.hdf5"):
        datasets.load(tmp_path / "data.hdf5")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "folder.hdf5").mkdir()
    for name in ("nothing.hdf5", "folder.hdf5"):
        with pytest.raises(MissingInputError) as caught:
            datasets.load(tmp_path / name)
        assert caught.value.exit_code == 66


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_shapes_are_checked_before_reading(key: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5", skip=(key,))
    with pytest.raises(DatasetFormatError, match=key):
        datasets.load(path)
    with h5py.File(path, "a") as file:
        file[key] = np.zeros((19, 2) if key in ("observations", "actions") else 19, np.float32)
    with pytest.raises(OfflineVIError, match=r"has 20 rows, 'observations' 19|has 19 rows, 'observations' 20"):
        datasets.load(path)


# ------------------------------------------------------------------ what only looks like harm


@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_one_hot_logs_compress_a_hundredfold_and_are_read(compression: str, tmp_path: Path) -> None:
    rows, states = 100_000, 200
    state = np.arange(rows) % states
    path = tmp_path / "log.hdf5"
    with h5py.File(path, "w") as file:
        obs = file.create_dataset(
            "observations", (rows, states), "f4", chunks=(1000, states), compression=compression, shuffle=True
        )
        obs[:] = np.eye(states, dtype=np.float32)[state]
        file["actions"] = np.sin(np.arange(rows))[:, None]
        for key in ("rewards", "terminals", "timeouts"):
            file.create_dataset(key, data=np.zeros(rows, np.int8), compression=compression)
    assert rows * states * 4 > 50 * path.stat().st_size or compression == "lzf"
    data = datasets.load(path)
    assert len(data) == rows - 1
    np.testing.assert_array_equal(data.obs.argmax(1), state[:-1])


def test_the_bound_on_bytes_follows_the_memory_and_yields_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "data.hdf5", rows=2000, skip=("observations", "next_observations"))
    with h5py.File(path, "a") as file:
        file.create_dataset("observations", (2000, 2000), "i1", chunks=(10, 2000), compression="gzip")[:10] = 1
    assert 50 * path.stat().st_size < 2000 * 2000
    assert len(datasets.load(path)) == 1999
    monkeypatch.setattr(hdf5, "half_of_memory", lambda: 1 << 20)
    with pytest.raises(DatasetTooLargeError, match=r"4,\d+,000 bytes declared in a file of") as caught:
        datasets.load(path)
    assert "max_dataset_bytes=N" in caught.value.hint
    assert len(datasets.load(path, max_dataset_bytes=1 << 23, memory_budget=1 << 30)) == 1999


@pytest.mark.parametrize("swmr", [False, True])
def test_a_file_that_this_process_is_writing_is_read(swmr: bool, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.hdf5", "w", libver="latest") as opened:
        for key, column in distinct_columns(20).items():
            opened[key] = column
        opened.flush()
        if swmr:
            opened.swmr_mode = True
        assert len(datasets.load(tmp_path / "data.hdf5")) == 19
