"""Minari's storages: the same rows from HDF5, Arrow and Parquet; odd episodes, counts that disagree, and memory."""

from __future__ import annotations

import json
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_minari import NAME, create, data_folder, rewrite, root as root

from offline_vi import datasets
from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    DataWarning,
    MissingDependencyError,
    OfflineVIError,
    SpaceMismatchError,
    UnsafeDatasetError,
)

FORMATS = ["hdf5", "arrow", "parquet"]
ENDS = ["term", "trunc", "stop"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("budget", [0, 1])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_storage_holds_the_same_rows(kind: str, budget: int) -> None:
    truth = create([4, 1, 7, 3], ["term", "trunc", "stop", "term"], data_format=kind)
    found = datasets.load(NAME, memory_budget=budget)
    assert isinstance(found.obs, np.memmap) is bool(budget)
    np.testing.assert_array_equal(found.obs, truth["obs"])
    np.testing.assert_array_equal(found.next_obs, truth["next_obs"])
    np.testing.assert_array_equal(found.action, truth["action"] / 2.0)
    np.testing.assert_array_equal(found.reward, truth["reward"].astype(np.float32))
    np.testing.assert_array_equal(found.terminated, truth["term"])
    np.testing.assert_array_equal(found.episode_end, truth["end"])
    assert found.task is not None and found.task.env_id == "Pendulum-v1"
    assert found.source.sha256 == datasets.load(NAME, sha256=found.source.sha256[0]).source.sha256
    with pytest.raises(DatasetCorruptError):
        datasets.load(NAME, sha256="0" * 64)
    report = datasets.inspect(NAME, memory_budget=budget)
    assert (report.rows, report.transitions, report.episodes, report.training_episodes) == (15, 15, 4, 4)
    assert (report.ends.terminal, report.ends.timeout) == (2, 2)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_without_pyarrow_the_extra_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create([3], data_format=kind)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="pyarrow") as caught:
        datasets.load(NAME)
    assert "offline-vi[arrow]" in caught.value.hint


# ------------------------------------------------------------------ odd episodes


def damage(kind: str, how: str) -> None:
    """Make episode 1 of three odd."""
    if kind == "hdf5":
        with h5py.File(data_folder() / "main_data.hdf5", "a") as file:
            episode = file["episode_1"]
            if how == "missing":
                del episode["rewards"]
            elif how == "cut":
                rewards = episode["rewards"][:-1]
                del episode["rewards"]
                episode["rewards"] = rewards
            else:
                observations = episode["observations"][:, :2]
                del episode["observations"]
                episode["observations"] = observations
        return
    import pyarrow as pa
    from pyarrow import dataset, parquet

    (path,) = [path for path in (data_folder() / "1").iterdir() if path.suffix == f".{kind}"]
    table = dataset.dataset(path, format=kind).to_table()
    if how == "missing":
        table = table.drop_columns(["rewards"])
    elif how == "cut":
        table = table.slice(0, 1)
    else:
        values = np.zeros((len(table), 2), np.float32)
        column = pa.FixedSizeListArray.from_arrays(values.reshape(-1), 2)
        table = table.set_column(table.column_names.index("observations"), "observations", column)
    if kind == "parquet":
        parquet.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("how", ["missing", "cut", "narrow"])
def test_one_odd_episode_is_refused_or_left_out_and_counted(kind: str, how: str) -> None:
    truth = create([3, 4, 5], data_format=kind)
    damage(kind, how)
    if how == "cut" and kind != "hdf5":  # an episode of no step is none
        assert len(datasets.load(NAME)) == 8
        return
    with pytest.raises(DatasetFormatError, match="episode_1") as caught:
        datasets.load(NAME)
    assert 'on_bad_episode="drop"' in caught.value.hint
    with pytest.warns(DataWarning, match="left out 1 of 3 episodes"):
        found = datasets.load(NAME, on_bad_episode="drop")
    rows = np.r_[0:3, 7:12]
    np.testing.assert_array_equal(found.obs, truth["obs"][rows])
    np.testing.assert_array_equal(found.next_obs, truth["next_obs"][rows])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("total", [1, 5])
def test_metadata_that_count_other_episodes(kind: str, total: int) -> None:
    create([3, 4, 5], data_format=kind)
    rewrite(lambda metadata: metadata.update(total_episodes=total))
    with pytest.raises(DatasetFormatError, match=f"3 episodes are stored, the metadata count {total}") as caught:
        datasets.load(NAME)
    assert 'on_bad_episode="drop"' in caught.value.hint
    with pytest.warns(DataWarning, match=f"3 episodes .* {total}"):
        assert len(datasets.load(NAME, on_bad_episode="drop")) == 12


def test_harm_is_never_just_left_out(tmp_path: Path) -> None:
    create([3, 3])
    with h5py.File(data_folder() / "main_data.hdf5", "a") as file:
        del file["episode_1"]["rewards"]
        file["episode_1"]["rewards"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "/")
    with pytest.raises(UnsafeDatasetError):
        datasets.load(NAME, on_bad_episode="drop")


def test_labels_in_a_set_are_pointed_elsewhere() -> None:
    create([3])

    def discrete(metadata: dict[str, Any]) -> None:
        metadata["action_space"] = json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 3})

    rewrite(discrete)
    with pytest.raises(SpaceMismatchError) as caught:
        datasets.load(NAME)
    assert "DiscreteSAC" in caught.value.hint


# ------------------------------------------------------------------ hostile files


def only_file(kind: str) -> Path:
    (path,) = [path for path in (data_folder() / "0").iterdir() if path.suffix == f".{kind}"]
    return path


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_arrow_is_refused_before_it_is_unpacked(codec: str) -> None:
    import pyarrow as pa

    create([3], data_format="arrow")
    rows = 50_000_000
    table = pa.table({"rewards": np.zeros(rows, np.float32)})
    with pa.OSFile(str(only_file("arrow")), "wb") as sink:
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    del table
    before = pa.total_allocated_bytes()
    with pytest.raises(UnsafeDatasetError, match="compressed"):
        datasets.load(NAME)
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_a_parquet_bomb_is_refused_before_it_is_unpacked() -> None:
    import pyarrow as pa
    from pyarrow import parquet

    create([3], data_format="parquet")
    table = pa.table({name: np.zeros(2_000_000, np.float32) for name in ("rewards", "terminations")})
    parquet.write_table(table, only_file("parquet"))
    assert only_file("parquet").stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(DatasetTooLargeError, match="allowed"):
            datasets.load(NAME, max_dataset_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_damaged_files_are_refused_or_harmless(kind: str) -> None:
    create([3], data_format=kind)
    path = only_file(kind)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for case in range(60):
        damaged = bytearray(whole)
        if case % 2:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                datasets.load(NAME, action_range="clip", on_nonfinite="drop-episode")
            except OfflineVIError:
                continue


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_links_are_not_followed(kind: str, tmp_path: Path) -> None:
    create([3], data_format=kind)
    path = only_file(kind)
    path.rename(tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    with pytest.raises(UnsafeDatasetError):
        datasets.load(NAME)


# ------------------------------------------------------------------ memory


def test_wide_numbers_take_no_more_memory_than_float32(tmp_path: Path) -> None:
    rows, width = 100_000, 40
    path = tmp_path / "wide.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.random.default_rng(0).normal(size=(rows, width))
        file["actions"] = np.sin(np.arange(rows))[:, None]
        for key in ("rewards", "terminals", "timeouts"):
            file[key] = np.zeros(rows)
    size = 4 * rows * width
    tracemalloc.start()
    try:
        data = datasets.load(path, next_obs="within_episode")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data.obs.nbytes == pytest.approx(size, rel=1e-3)
    assert peak < 4.2 * size  # the columns, the rows and their next observations; float64 would be two more
