"""Data sets of images: what is read, what is refused, what is noticed, and sequences that never cross episodes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline_vi.data.frames import Frames, SequenceSampler
from offline_vi.datasets import images, load_images, pixels
from offline_vi.datasets.images import Episode, save_episode
from offline_vi.environments import check_spaces
from offline_vi.errors import (
    ActionRangeError,
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    DataWarning,
    EmptyDatasetError,
    MissingInputError,
    NonFiniteDataError,
    OfflineVIError,
    SpaceMismatchError,
    UnsafeDatasetError,
    UsageError,
)
from offline_vi.types import Spec


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    yield


def episode(steps: int, number: int = 0, shape: tuple[int, int, int] = (3, 8, 8)) -> Episode:
    """Frame t of episode n is filled with 20 n + t, action and reward count along."""
    frames = np.full((steps + 1, *shape), 0, np.uint8)
    frames += (20 * number + np.arange(steps + 1)).astype(np.uint8)[:, None, None, None]
    action = np.stack([np.arange(1, steps + 1) / 100.0, np.full(steps, number / 100.0)], 1).astype(np.float32)
    terminated = np.zeros(steps, np.bool_)
    terminated[-1] = number == 0
    return Episode(frames, action, np.arange(steps, dtype=np.float32) + 100 * number, terminated)


def folder_of(tmp_path: Path, episodes: list[Episode]) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for number, one in enumerate(episodes):
        save_episode(folder / f"{number:03}.npz", one)
    return folder


def frames_of(lengths: list[int]) -> Frames:
    parts = [episode(steps, number) for number, steps in enumerate(lengths)]
    frames, action, reward, terminated = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Frames(frames, action, reward, terminated, np.array(lengths), Spec((3, 8, 8), 2, "uint8"))


# ------------------------------------------------------------------ what is read


def test_a_folder_of_v_d4rl_s_layout_is_read_and_mapped(tmp_path: Path) -> None:
    lengths = [5, 3, 7]
    data = load_images(folder_of(tmp_path, [episode(n, k) for k, n in enumerate(lengths)]))
    expected = frames_of(lengths)
    for name in ("frames", "action", "reward", "terminated", "lengths"):
        np.testing.assert_array_equal(getattr(data, name), getattr(expected, name))
    assert isinstance(data.frames, np.memmap) and data.frames.dtype == np.uint8
    assert data.spec == Spec((3, 8, 8), 2, "uint8")
    again = load_images(tmp_path / "set")
    assert again.frames.filename == data.frames.filename  # type: ignore[attr-defined]


def test_the_action_that_led_to_an_image_becomes_the_one_taken_at_the_image_before(tmp_path: Path) -> None:
    one = episode(4)
    data = load_images(folder_of(tmp_path, [one]))
    np.testing.assert_array_equal(data.action, one.action)
    with np.load(tmp_path / "set" / "000.npz") as archive:
        np.testing.assert_array_equal(archive["action"][1:], one.action)
        np.testing.assert_array_equal(archive["action"][0], 0.0)


@pytest.mark.parametrize("jpeg, size", [(False, 32), (True, 32), (True, 16)])
def test_minari_s_images_are_read(tmp_path: Path, jpeg: bool, size: int) -> None:
    """Minari packs as JPEG from 32 pixels on."""
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 255, size).astype(np.uint8)
    picture = np.broadcast_to(smooth[:, None, None], (size, size, 3))
    frames = [picture, picture[::-1], picture, picture[::-1]]
    actions = rng.uniform(-2, 2, (3, 2)).astype(np.float32)
    (tmp_path / "minari").mkdir()
    minari.create_dataset_from_buffers(
        "own/pictures-v0",
        [
            EpisodeBuffer(
                id=0,
                observations=frames,
                actions=list(actions),
                rewards=[1.0, 2.0, 3.0],
                terminations=[False, False, True],
                truncations=[False] * 3,
            )
        ],
        observation_space=gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8),
        action_space=gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32),
        jpeg_encoding=jpeg,
    )
    data = load_images("own/pictures-v0")
    assert data.frames.shape == (4, 3, size, size)
    difference = data.frames.astype(int) - np.moveaxis(np.stack(frames), 3, 1)
    assert np.abs(difference).max() <= (3 if jpeg and size == 32 else 0)
    np.testing.assert_allclose(data.action, actions / 2.0, atol=1e-6)  # in [-1, 1]
    assert data.terminated.tolist() == [False, False, True]


def test_recipes_are_drawn_and_read() -> None:
    data = load_images(pixels.POINT_MASS)
    assert data.frames.shape == (6300, 1, 16, 16) and len(data) == 6000
    assert data.task is not None and data.task.ref_max == pixels.STRAIGHT_RETURN
    assert check_spaces(data.spec, data.task) == 30, "its environment is ours, and nobody has to name it"
    narrow = load_images(pixels.NARROW)
    assert np.abs(narrow.action).max() <= pixels.NARROW_BOUND + 1e-6


def test_the_drawn_pendulum_shows_its_angle() -> None:
    """The centre of the rod points where the pendulum does; upright is up."""
    angle = np.linspace(-3.0, 3.0, 13)
    picture = pixels.draw_rods(np.cos(angle), np.sin(angle))[:, 0].astype(float)
    axis = np.linspace(-1.2, 1.2, 24)
    mass = picture.sum((1, 2))
    x, y = (picture.sum(1) @ axis) / mass, (picture.sum(2) @ axis[::-1]) / mass
    np.testing.assert_allclose(np.arctan2(x, y), angle, atol=0.05)


def test_the_environments_move_as_their_recipes() -> None:
    rows = pixels.walk(1, 10, 1.0, seed=3)
    env = pixels.PixelPointMass()
    env.reset(seed=0)
    env.place = rows["obs"][0, 0].copy()
    for t in range(10):
        picture, reward, *_ = env.step(rows["action"][t, 0])
        np.testing.assert_array_equal(picture, pixels.draw_points(rows["obs"][t + 1])[0])
        assert reward == pytest.approx(rows["reward"][t, 0])


# ------------------------------------------------------------------ what is refused


def rewritten(path: Path, **changes: Any) -> None:
    """The archive with some arrays replaced; None leaves one out."""
    with np.load(path) as archive:
        arrays = dict(archive) | changes
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})


def columns_of(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        return dict(archive)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return folder_of(tmp_path, [episode(6, 1), episode(6, 2)]) / "001.npz"


def refused(path: Path, error: type[OfflineVIError], match: str) -> None:
    with pytest.raises(error, match=match) as info:
        load_images(path.parent)
    assert info.value.hint and "\n" not in str(info.value)
    left = Path(path.parents[1] / "home" / "frames")
    assert not left.exists() or not list(left.iterdir())  # nothing half-written


def test_truncated_and_damaged_archives(one: Path) -> None:
    good = one.read_bytes()
    for cut in (10, len(good) // 2, len(good) - 5):
        one.write_bytes(good[:cut])
        refused(one, DatasetCorruptError, "cannot read")
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        info = archive.getinfo("image.npy")
    damaged = bytearray(good)
    middle = info.header_offset + 60 + info.compress_size // 2
    damaged[middle : middle + 8] = bytes(8)
    one.write_bytes(damaged)
    refused(one, DatasetCorruptError, "image")


def test_bombs(one: Path) -> None:
    """Headers that declare what the archive does not hold, and archives that declare what they cannot hold."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 64, 64, 3)}
    )
    columns = columns_of(one)
    with zipfile.ZipFile(one, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header.getvalue() + bytes(1000))
        for key in columns.keys() - {"image"}:
            stream = io.BytesIO()
            np.save(stream, columns[key])
            archive.writestr(f"{key}.npy", stream.getvalue())
    refused(one, DatasetCorruptError, "declares")


def test_a_budget_of_bytes(one: Path) -> None:
    with pytest.raises(DatasetTooLargeError, match="allowed"):
        load_images(one.parent, max_dataset_bytes=1000)


def test_objects_are_never_unpickled(one: Path) -> None:
    columns = columns_of(one)
    np.savez_compressed(one, **columns | {"reward": np.array([{"a": 1}] * 7, object)})
    refused(one, UnsafeDatasetError, "not numbers")
    np.savez_compressed(one, **{key: value for key, value in columns.items() if key != "reward"})
    refused(one, DatasetFormatError, "reward missing")


@pytest.mark.parametrize(
    "change, error, match",
    [
        ({"image": np.zeros((7, 8, 8, 3), np.float32)}, DatasetFormatError, "float32"),
        ({"image": np.zeros((7, 16, 16, 3), np.uint8)}, SpaceMismatchError, "images of shape"),
        ({"image": np.zeros((7, 3, 8, 8), np.uint8)}, DatasetFormatError, "images of shape"),
        ({"image": np.zeros((7, 8, 8), np.uint8)}, DatasetFormatError, "images are"),
        ({"action": np.zeros((7, 3), np.float32)}, SpaceMismatchError, "actions of shape"),
        ({"action": np.zeros((6, 2), np.float32)}, DatasetFormatError, "rows"),
        ({"reward": np.full(7, np.nan, np.float32)}, NonFiniteDataError, "reward of episode 1"),
        ({"action": np.append(np.zeros((1, 2)), np.full((6, 2), 3.0), 0)}, ActionRangeError, "reach 3"),
        ({"is_last": np.zeros(7, np.bool_)}, DatasetFormatError, "is_first or is_last"),
        ({"discount": np.zeros(7, np.float32), "is_terminal": None}, DatasetFormatError, "ends before"),
    ],
)
def test_what_is_not_an_episode(one: Path, change: dict[str, Any], error: type[OfflineVIError], match: str) -> None:
    rewritten(one, **change)
    with pytest.raises(error, match=match):
        load_images(one.parent)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match=r"no \.npz"):
        load_images(tmp_path / "empty")
    with pytest.raises(MissingInputError, match="neither a folder"):
        load_images("offline-vi/pixels/nothing-v0")


# ------------------------------------------------------------------ misalignment by one


def test_a_first_action_that_nothing_led_from_is_noticed(one: Path) -> None:
    """The action taken at each image, kept where V-D4RL keeps the one that led to it."""
    action = columns_of(one)["action"]
    rewritten(one, action=np.append(action[1:], np.zeros((1, 2), np.float32), 0))
    refused(one, DatasetFormatError, "nothing led to it")
    for file in one.parent.glob("*.npz"):
        if file != one:
            file.unlink()
    np.testing.assert_array_equal(load_images(one.parent, alignment="taken-at").action, action[1:])


def shifted(data: Frames, rows: int) -> Frames:
    return replace(data, action=np.roll(data.action, rows, 0))


@pytest.mark.parametrize("name", [pixels.POINT_MASS, pixels.NARROW, pixels.PENDULUM, pixels.PENDULUM_MIXED])
def test_a_shift_by_one_is_seen_in_the_pixels(name: str) -> None:
    data = load_images(name, check=False)
    images.check_alignment(data)
    with pytest.raises(DatasetFormatError, match="shifted by one"):
        images.check_alignment(shifted(data, 1))
    with pytest.warns(DataWarning, match="one row early"):
        images.check_alignment(shifted(data, -1))


def test_a_feedback_policy_is_not_mistaken_for_a_shift() -> None:
    """Actions that follow from the frame, or from the one before, are no misalignment; neither are useless ones."""
    rng = np.random.default_rng(0)
    place = [rng.uniform(-1, 1, (60, 2))]
    action = []
    for _ in range(20):
        action.append(np.clip(2.0 * (pixels.GOAL - place[-1]) + 0.3 * rng.standard_normal((60, 2)), -1.0, 1.0))
        place.append(np.clip(place[-1] + pixels.STEP * action[-1], -1.0, 1.0))
    frames = np.concatenate([pixels.draw_points(p) for p in np.stack(place).swapaxes(0, 1)])
    actions = np.stack(action).swapaxes(0, 1).reshape(-1, 2).astype(np.float32)
    rows = len(actions)
    data = Frames(
        frames,
        actions,
        np.zeros(rows, np.float32),
        np.zeros(rows, np.bool_),
        np.full(60, 20),
        Spec((1, 16, 16), 2, "uint8"),
    )
    images.check_alignment(data)
    images.check_alignment(replace(data, action=rng.uniform(-1, 1, (rows, 2)).astype(np.float32)))


# ------------------------------------------------------------------ sequences


def test_sequences_never_cross_episodes() -> None:
    lengths = [5, 3, 9, 4]
    data = frames_of(lengths)
    sampler = SequenceSampler(data, 64, length=4, seed=1)
    seen = set()
    for _ in range(20):
        batch = sampler.sample()
        assert batch.obs.shape == (4, 64, 3, 8, 8) and batch.obs.dtype == batch.next_obs.dtype
        assert batch.obs.data_ptr() != batch.next_obs.data_ptr()
        np.testing.assert_array_equal(batch.obs[1:], batch.next_obs[:-1])
        value, valid = batch.obs[..., 0, 0, 0].numpy(), batch.index.numpy() >= 0
        number, step = value // 20, value % 20
        assert (number == number[0]).all()  # one episode
        assert (np.diff(step, axis=0)[valid[1:]] == 1).all()
        # action, reward and end are those of the frame before them
        np.testing.assert_allclose(batch.action[..., 0].numpy()[valid], (step[valid] + 1) / 100.0, atol=1e-6)
        np.testing.assert_array_equal(batch.reward.numpy()[valid], (100.0 * number + step)[valid])
        np.testing.assert_array_equal(batch.terminated.numpy()[valid], ((number == 0) & (step == 4))[valid])
        short = number[0] == 1  # the episode of 3 steps
        assert (valid.sum(0) == np.where(short, 3, 4)).all()
        seen |= set(zip(number[0].tolist(), step[0].tolist(), strict=True))
    assert seen == {(0, 0), (0, 1), (1, 0), *((2, t) for t in range(6)), (3, 0)}  # every window, and no other


def test_stacked_frames_are_the_last_ones_and_begin_with_the_first_repeated() -> None:
    batch = SequenceSampler(frames_of([6]), 1, length=4, stack=3).windows(np.array([0]), np.array([0]))
    assert batch.obs.shape == (4, 1, 9, 8, 8)
    assert batch.obs[:, 0, ::3, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_the_sampler_s_state_continues_its_stream() -> None:
    data = frames_of([5, 9])
    sampler = SequenceSampler(data, 8, 3, seed=5)
    sampler.sample()
    state = json.loads(json.dumps(sampler.state()))
    expected = sampler.sample()
    other = SequenceSampler(data, 8, 3, seed=0)
    other.load_state(state)
    np.testing.assert_array_equal(other.sample().index, expected.index)


def test_parts_of_a_data_set_are_views() -> None:
    data = frames_of([5, 3, 9, 4])
    training, held_out = data.split_episodes(0.5)
    assert training.lengths.tolist() == [5, 3] and held_out.lengths.tolist() == [9, 4]
    assert held_out.frames.base is not None and np.shares_memory(held_out.frames, data.frames)
    assert held_out.frames[0, 0, 0, 0] == 40 and held_out.reward[0] == 200.0
    np.testing.assert_array_equal(data.episode_returns(), [10.0, 303.0, 1836.0, 1206.0])
    with pytest.raises(EmptyDatasetError, match="cannot be split"):
        frames_of([5]).split_episodes()
    with pytest.raises(UsageError, match="0 steps"):
        SequenceSampler(data, 8, 0)


def test_frames_must_have_one_more_row_than_steps_in_every_episode() -> None:
    data = frames_of([5, 3])
    with pytest.raises(DatasetFormatError, match="frames"):
        replace(data, frames=data.frames[:-1])
    with pytest.raises(DatasetFormatError, match="float32"):
        replace(data, frames=data.frames.astype(np.float32))
