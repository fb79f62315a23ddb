"""Files larger than the memory budget: the same rows, mapped; little memory; whole or absent in the cache."""

from __future__ import annotations

import resource
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from forks import ended, forked, resident
from oracle_data import distinct_columns
from test_hostile_data import write

from offline_vi import datasets
from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.datasets import mapped
from offline_vi.errors import ActionRangeError, DatasetTooLargeError, DataWarning, NonFiniteDataError, OutputDirError
from offline_vi.training.loop import fit

Reached = Callable[[int, str, int], None]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("next_obs", ["following_row", "within_episode"])
@pytest.mark.parametrize("with_next", [True, False])
@pytest.mark.parametrize("block", [2, 7, 1000])
def test_the_rows_are_those_of_the_file_read_whole(
    next_obs: Any, with_next: bool, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "data.hdf5", rows=50, skip=() if with_next else ("next_observations",))
    rng = np.random.default_rng(0)
    with h5py.File(path, "a") as file:
        ends = rng.choice(4, p=[0.6, 0.15, 0.15, 0.1], size=50)
        for key, flags in (("terminals", ends % 2 == 1), ("timeouts", ends >= 2)):
            del file[key]
            file[key] = flags
    monkeypatch.setattr(mapped, "BLOCK_BYTES", block * 4 * 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, found = datasets.load(path, next_obs=next_obs), datasets.load(path, next_obs=next_obs, memory_budget=1)
    assert isinstance(found.obs, np.memmap) and not isinstance(whole.obs, np.memmap)
    for name in (*mapped.COLUMNS, "cut_off"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
        assert getattr(found, name).dtype == getattr(whole, name).dtype
    assert (found.spec, found.task, found.source) == (whole.spec, whole.task, whole.source)


def test_ends_that_were_not_marked_and_labels_are_those_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "data.hdf5", rows=900)
    with h5py.File(path, "a") as file:
        file["next_observations"][[7, 8, 9, 500]] += 9.0  # 7, 8 and 9 are half of their block
        file["actions"][600:640] = 1.0  # some blocks hold labels alone
        file["actions"][640:660] = 0.0
    monkeypatch.setattr(mapped, "BLOCK_BYTES", 8 * 4 * 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, found = datasets.load(path), datasets.load(path, memory_budget=1)
    assert found.reward.tolist() == [10.0 * row for row in range(899) if row not in (7, 8, 9, 500)]
    for name in mapped.COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    with h5py.File(path, "a") as file:
        file["actions"][:] = np.arange(900)[:, None] % 2
    with pytest.raises(ActionRangeError, match="0 and 1"):
        datasets.load(path, memory_budget=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(datasets.load(path, memory_budget=1, discrete_actions="continuous")) == 895


def test_values_are_checked_and_what_needs_all_rows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5")
    needing_all: list[dict[str, Any]] = [
        {"action_range": "data"}, {"on_nonfinite": "drop-episode"}, {"on_nonfinite": "split"}, {"on_nonfinite": "hold"}
    ]  # fmt: skip
    for options in needing_all:
        with pytest.raises(DatasetTooLargeError, match="all its rows"):
            datasets.load(path, memory_budget=1, **options)
    with h5py.File(path, "a") as file:
        file["actions"][3] = 2.0
    with pytest.raises(ActionRangeError):
        datasets.load(path, memory_budget=1)
    with h5py.File(path, "a") as file:
        file["rewards"][3] = np.nan
    with pytest.raises(NonFiniteDataError, match="rows from 0"):
        datasets.load(path, memory_budget=1)


def test_a_conversion_that_dies_leaves_nothing_and_the_next_one_goes_through(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "data.hdf5")
    with monkeypatch.context() as patch:
        patch.setattr(mapped, "write_json", lambda *arguments: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OutputDirError, match="disk full"):
            datasets.load(path, memory_budget=1)
    assert list((home / "rows").iterdir()) == []
    assert len(datasets.load(path, memory_budget=1)) == 19
    with h5py.File(path, "a") as file:
        file["rewards"][3] += 1.0
    assert datasets.load(path, memory_budget=1).reward[3] == datasets.load(path).reward[3]  # another file, another key


@pytest.mark.parametrize("damage", ["cut", "changed", "longer", "missing", "link"])
def test_a_column_that_is_not_as_it_was_written_is_made_anew(damage: str, tmp_path: Path, home: Path) -> None:
    path = write(tmp_path / "data.hdf5")
    whole = datasets.load(path, memory_budget=1)
    (column,) = (home / "rows").glob("*/reward.npy")
    data = bytearray(column.read_bytes())
    data[-1] ^= 1
    changes = {"cut": bytes(data[:-3]), "changed": bytes(data), "longer": column.read_bytes() + b"x"}
    column.unlink()
    if damage == "link":
        column.symlink_to(path)
        with pytest.raises(OutputDirError, match="none of its columns"):
            datasets.load(path, memory_budget=1)
        assert column.is_symlink()
        return
    if damage in changes:
        column.write_bytes(changes[damage])
    with pytest.warns(DataWarning, match="made anew"):
        again = datasets.load(path, memory_budget=1)
    np.testing.assert_array_equal(again.reward, whole.reward)
    assert [entry.name for entry in (home / "rows").iterdir()] == [column.parent.name]


def test_a_file_ten_times_the_budget_trains_within_it(tmp_path: Path, reached: Reached) -> None:
    """300 MB, 30 MB of budget; anonymous memory counts, mapped pages do not."""
    rows, width = 1_000_000, 70
    columns = distinct_columns(1000)
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        for key, size in (("observations", width), ("actions", 2)):
            array = file.create_dataset(key, (rows, size), np.float32)
            for start in range(0, rows, 50_000):
                array[start : start + 50_000] = np.random.default_rng(start).uniform(-1, 1, (50_000, size))
        file["rewards"] = np.zeros(rows, np.float32)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(1, rows + 1) % len(columns["rewards"]) == 0

    def work(_: Path) -> None:  # in a forked child, since its limit of memory would stay; no bytes are compared
        config, budget = BCConfig(hidden=(8,), batch_size=256), 30_000_000
        small = datasets.load(write(tmp_path / "small.hdf5"))
        fit(BC(small.spec, config), small, 100, progress=False)  # torch itself takes memory when it first trains
        before = resident()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (used + (200 << 20), resource.RLIM_INFINITY))
        data = datasets.load(tmp_path / "data.hdf5", memory_budget=budget)
        fit(BC(data.spec, config), data, 100, progress=False)
        assert resident() - before < budget
        assert len(data) == rows - rows // 1000

    size = (tmp_path / "data.hdf5").stat().st_size
    assert size > 290_000_000
    assert ended(forked(work, tmp_path)) == 0
    reached(35, "megabytes in a file with a budget of 30", size // 1_000_000)
