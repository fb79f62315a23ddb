"""V-D4RL's 84-pixel shards: the rows that come out, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from offline_vi.datasets import load_images
from offline_vi.errors import (
    DatasetFormatError,
    DatasetTooLargeError,
    DataWarning,
    EmptyDatasetError,
    MissingInputError,
    OfflineVIError,
    SpaceMismatchError,
    UnsafeDatasetError,
)

Rows = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path / "home"))
    yield


def rows_of(lengths: list[int], ended: bool = False) -> Rows:
    """Episodes of so many images, as the authors' script writes them: row t of episode e has the number 100 e + t."""
    number = np.concatenate([100 * e + np.arange(length) for e, length in enumerate(lengths)])
    step = np.concatenate([np.r_[0, np.ones(length - 2), 2] for length in lengths])
    led_to = np.where(step == 0, 0.0, number / 1000.0)
    return {
        "observation": np.broadcast_to((number % 251)[:, None, None, None], (len(number), 3, 84, 84)).astype(np.uint8),
        "action": np.stack([led_to, -led_to], 1),
        "reward": number.astype(np.float64),
        "discount": np.where((step == 2) & ended, 0.0, 1.0),
        "step_type": step,
    }


def write(folder: Path, name: str, rows: Rows) -> Path:
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / name, "w") as file:
        for key, column in rows.items():
            file.create_dataset(key, data=column, compression="gzip")
    return folder


@pytest.mark.parametrize("ended", [False, True])
def test_shards_are_read_in_their_order_and_actions_moved_to_the_image_before(ended: bool, tmp_path: Path) -> None:
    for name in ("10.hdf5", "2.hdf5"):
        write(tmp_path / "set", name, rows_of([4, 3] if name == "2.hdf5" else [5], ended))
    data = load_images(tmp_path / "set")
    assert data.lengths.tolist() == [3, 2, 4]
    assert isinstance(data.frames, np.memmap) and data.frames.shape == (12, 3, 84, 84)
    numbers = [0, 1, 2, 3, 100, 101, 102, 0, 1, 2, 3, 4]
    assert data.frames[:, 0, 0, 0].tolist() == numbers
    taken = [1, 2, 3, 101, 102, 1, 2, 3, 4]  # the number of the image that the action led to
    np.testing.assert_allclose(data.action[:, 0], np.array(taken) / 1000.0, rtol=1e-6)
    assert data.reward.tolist() == taken
    assert np.flatnonzero(data.terminated).tolist() == ([2, 4, 8] if ended else [])
    assert data.spec.obs_dtype == "uint8" and data.spec.action_dim == 2


def test_actions_taken_at_the_image(tmp_path: Path) -> None:
    rows = rows_of([4])
    rows["action"][0] = 0.5
    with pytest.raises(DatasetFormatError) as caught:
        load_images(write(tmp_path / "set", "a.hdf5", rows))
    assert 'alignment="taken-at"' in caught.value.hint
    data = load_images(tmp_path / "set", alignment="taken-at")
    np.testing.assert_allclose(data.action[:, 0], [0.5, 0.001, 0.002], rtol=1e-6)


def test_an_episode_that_a_shard_cuts_is_read_in_parts_and_reported(tmp_path: Path) -> None:
    rows = rows_of([6])
    write(tmp_path / "set", "0.hdf5", {key: column[:4] for key, column in rows.items()})
    write(tmp_path / "set", "1.hdf5", {key: column[4:] for key, column in rows.items()})
    with pytest.warns(DataWarning, match="1 ends of episodes"):
        data = load_images(tmp_path / "set")
    assert data.lengths.tolist() == [3, 1] and data.reward.tolist() == [1.0, 2.0, 3.0, 5.0]


def without(key: str) -> Any:
    return lambda rows: rows.pop(key)


def changed(key: str, value: Any) -> Any:
    return lambda rows: rows.update({key: value(rows[key])})


@pytest.mark.parametrize(
    "change, error, match",
    [
        (without("step_type"), DatasetFormatError, "step_type missing"),
        (changed("observation", lambda x: x.astype(np.float32)), DatasetFormatError, "float32"),
        (changed("observation", lambda x: np.repeat(x, 3, 1)), DatasetFormatError, "9"),
        (changed("action", lambda x: x[:, 0]), DatasetFormatError, "actions"),
        (changed("reward", lambda x: x[:-1]), DatasetFormatError, "rows"),
        (changed("step_type", lambda x: x + 1), DatasetFormatError, "step types"),
        (changed("reward", lambda x: np.where(x == 2, np.nan, x)), OfflineVIError, "reward"),
        (changed("action", lambda x: 3000.0 * x), OfflineVIError, "actions reach"),
    ],
)
def test_what_is_no_shard(change: Any, error: type[OfflineVIError], match: str, tmp_path: Path) -> None:
    rows = rows_of([4])
    change(rows)
    with pytest.raises(error, match=match) as caught:
        load_images(write(tmp_path / "set", "a.hdf5", rows))
    assert caught.value.hint


def test_shards_of_one_size_within_a_budget_and_of_their_own(tmp_path: Path) -> None:
    small = rows_of([4])
    folder = write(tmp_path / "set", "a.hdf5", small)
    with pytest.raises(DatasetTooLargeError):
        load_images(folder, max_dataset_bytes=1000)
    small["observation"] = small["observation"][..., :64, :64]
    write(folder, "b.hdf5", small)
    with pytest.raises(SpaceMismatchError, match=r"b\.hdf5"):
        load_images(folder)
    write(folder, "b.hdf5", {key: column[:1] for key, column in rows_of([4]).items()})
    with pytest.warns(DataWarning):
        assert len(load_images(write(folder, "c.hdf5", rows_of([3, 3])))) == 7
    with h5py.File(folder / "c.hdf5", "a") as file:
        del file["reward"]
        file["reward"] = h5py.ExternalLink(str(folder / "a.hdf5"), "reward")
    with pytest.raises(UnsafeDatasetError):
        load_images(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError):
        load_images(tmp_path / "empty")
    with pytest.raises(EmptyDatasetError):
        load_images(write(tmp_path / "short", "a.hdf5", {key: column[:1] for key, column in rows_of([4]).items()}))
