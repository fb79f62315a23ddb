"""Splitting, joining and drawing: every row and every column arrives, once, and where it belongs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offline_vi.data.frames import Frames, SequenceSampler
from offline_vi.data.replay import Replay
from offline_vi.data.samplers import Sampler, StackedSampler
from offline_vi.data.transitions import Provenance, Transitions, concatenate
from offline_vi.errors import UsageError
from offline_vi.nn.normalizer import Normalizer
from offline_vi.runs.directory import RunDirectory
from offline_vi.types import Batch, Spec, Task

COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "episode_end", "behavior_log_prob")


def rows(
    lengths: list[int], name: str = "a", closed: bool = True, log_prob: bool = True, task: Any = None
) -> Transitions:
    """Episodes of the given lengths, every number another one; the last is cut short unless ``closed``."""
    size = sum(lengths)
    rng = np.random.default_rng(size)
    end = np.zeros(size, bool)
    end[np.cumsum(lengths) - 1] = True
    end[-1] = closed
    return Transitions(
        obs=rng.normal(size=(size, 2)).astype(np.float32),
        action=rng.uniform(-1, 1, (size, 1)).astype(np.float32),
        reward=rng.normal(size=size).astype(np.float32),
        next_obs=rng.normal(size=(size, 2)).astype(np.float32),
        terminated=end & (rng.random(size) < 0.5),
        episode_end=end,
        spec=Spec((2,), 1),
        task=task,
        behavior_log_prob=rng.normal(size=size).astype(np.float32) if log_prob else None,
        source=Provenance(name, (f"{name}.hdf5",), (f"{name}0",), "within_episode"),
    )


def same(found: Transitions, expected: dict[str, Any]) -> None:
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(found, column), expected[column], err_msg=column)


def cut(data: Transitions, start: int, stop: int) -> dict[str, Any]:
    return {column: getattr(data, column)[start:stop] for column in COLUMNS}


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("lengths", [[1], [3], [2, 1, 4]])
def test_slices_are_the_episodes(lengths: list[int], closed: bool) -> None:
    """The last one, too, that the data break off."""
    data = rows(lengths, closed=closed)
    ends = np.cumsum(lengths).tolist()
    assert data.episode_slices() == [slice(stop - size, stop) for size, stop in zip(lengths, ends, strict=True)]


def test_returns_are_summed_in_double_precision() -> None:
    data = replace(rows([3, 2]), reward=np.array([2.0**24, 1.0, 1.0, 0.25, 0.5], np.float32))
    assert data.episode_returns().tolist() == [2.0**24 + 2.0, 0.75]
    images = frames([3, 2], reward=data.reward)
    assert images.episode_returns().tolist() == [2.0**24 + 2.0, 0.75]


@pytest.mark.parametrize(
    ("episodes", "share", "held_out"),
    [(2, 0.1, 1), (2, 0.9, 1), (3, 0.0, 1), (3, 1.0, 2), (10, 0.1, 1), (10, 0.35, 4), (20, 0.1, 2), (6, 0.5, 3)],
)
def test_the_last_episodes_are_held_out(episodes: int, share: float, held_out: int) -> None:
    lengths = [1 + number % 3 for number in range(episodes)]
    data = rows(lengths)
    border = sum(lengths[: episodes - held_out])
    training, rest = data.split_episodes(share)
    same(training, cut(data, 0, border))
    same(rest, cut(data, border, len(data)))
    assert (rest.spec, rest.task, rest.source) == (data.spec, data.task, data.source)

    images = frames(lengths)
    first, last = images.split_episodes(share)
    at = border + episodes - held_out  # one frame more in every episode
    for found, some, shown, of in (
        (first, slice(0, border), slice(0, at), slice(0, episodes - held_out)),
        (last, slice(border, None), slice(at, None), slice(episodes - held_out, None)),
    ):
        np.testing.assert_array_equal(found.frames, images.frames[shown])
        np.testing.assert_array_equal(found.lengths, images.lengths[of])
        for column in ("action", "reward", "terminated"):
            np.testing.assert_array_equal(getattr(found, column), getattr(images, column)[some])


def test_a_tenth_is_held_out_unless_said() -> None:
    data, images = rows([2] * 20), frames([2] * 20)
    assert [len(part.episode_slices()) for part in data.split_episodes()] == [18, 2]
    assert [len(part.lengths) for part in images.split_episodes()] == [18, 2]


def test_joined_data_hold_every_part_and_end_every_episode() -> None:
    task = Task("E-v0", (-1.0,), (1.0,))
    parts = [rows([2, 3], "a", closed=False, task=task), rows([4], "b", task=task), rows([1, 1], "c", task=task)]
    joined = concatenate(parts)
    ends = [parts[0].episode_end.copy(), *(part.episode_end for part in parts[1:])]
    ends[0][-1] = True
    expected = {column: np.concatenate([getattr(part, column) for part in parts]) for column in COLUMNS}
    same(joined, expected | {"episode_end": np.concatenate(ends)})
    assert not parts[0].episode_end[-1]  # the parts stay as they were
    assert (joined.spec, joined.task) == (parts[0].spec, task)
    assert joined.source == Provenance(
        "a+b+c", ("a.hdf5", "b.hdf5", "c.hdf5"), ("a0", "b0", "c0"), "within_episode"
    )  # fmt: skip
    assert concatenate(parts[:1]) is parts[0]


def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    june, july, other = (rows([2], name) for name in ("log", "log", "other"))
    june = replace(june, source=replace(june.source, paths=("june/log.csv",)))
    july = replace(july, source=replace(july.source, paths=("july/log.csv",)))
    assert concatenate([june, july, other]).source.name == "june/log+july/log+other"
    assert concatenate([june, other]).source.name == "log+other"


def test_densities_are_joined_where_all_parts_have_them() -> None:
    assert concatenate([rows([2]), rows([3], log_prob=False)]).behavior_log_prob is None
    assert concatenate([rows([2], log_prob=False), rows([3], log_prob=False)]).behavior_log_prob is None


def test_dropped_episodes_take_their_densities_along() -> None:
    columns = {
        "observations": np.array([[0.0], [np.nan], [2.0], [3.0], [4.0]]),
        "actions": np.zeros((5, 1)),
        "rewards": np.arange(5.0),
        "terminals": np.array([0, 1, 0, 0, 1]),
        "timeouts": np.zeros(5),
        "infos/action_log_probs": -np.arange(5.0),
    }
    with pytest.warns(UserWarning, match="dropped 1 of 2"):
        data = Transitions.from_d4rl(columns, next_obs="within_episode", on_nonfinite="drop-episode")
    assert data.reward.tolist() == [2.0, 3.0]  # what followed the last row is not known
    assert data.behavior_log_prob is not None
    assert data.behavior_log_prob.tolist() == [-2.0, -3.0]


def test_the_range_of_the_data_is_each_dimensions_own() -> None:
    columns = {
        "observations": np.zeros((4, 1)),
        "actions": np.array([[-3.0, 5.0], [1.0, 5.0], [0.0, 5.0], [-1.0, 5.0]]),
        "rewards": np.zeros(4),
        "terminals": np.array([0, 0, 0, 1]),
        "timeouts": np.zeros(4),
    }
    data = Transitions.from_d4rl(columns, next_obs="within_episode", action_range="data", source=Provenance("mine"))
    assert data.task == Task("", (-3.0, 4.0), (1.0, 6.0), name="mine")
    np.testing.assert_allclose(data.action, np.array([[-1.0, 0.0], [1.0, 0.0], [0.5, 0.0]]), atol=1e-6)


def test_statistics_are_taken_in_double_precision() -> None:
    values = (1e4 + np.random.default_rng(0).normal(size=(100_000, 2)) * [0.01, 0.1]).astype(np.float32)
    normalizer = Normalizer(Spec((2,), 1)).fit(values)
    np.testing.assert_allclose(normalizer.mean, values.astype(np.float64).mean(0), rtol=1e-7)
    np.testing.assert_allclose(normalizer.std, values.astype(np.float64).std(0), rtol=1e-6)


# ------------------------------------------------------------------ drawing


def frames(lengths: list[int], **changed: Any) -> Frames:
    """Frames whose every pixel tells their number."""
    steps, count = sum(lengths), sum(lengths) + len(lengths)
    arrays: dict[str, Any] = {
        "frames": np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 3, 4)).copy(),
        "action": np.linspace(-1, 1, steps, dtype=np.float32)[:, None],
        "reward": np.arange(steps, dtype=np.float32),
        "terminated": np.arange(steps) % 2 == 1,
        "lengths": np.array(lengths),
    }
    return Frames(**(arrays | changed), spec=Spec((2, 3, 4), 1, "uint8"))


def drawn(batch: Batch) -> list[list[float]]:
    return [column.flatten().tolist() for column in batch]


def test_the_seed_of_a_sampler_is_0_unless_said() -> None:
    data, images = rows([40]), frames([9, 9])
    assert drawn(Sampler(data, 8).sample()) == drawn(Sampler(data, 8, seed=0).sample())
    assert drawn(SequenceSampler(images, 4, 3).sample()) == drawn(SequenceSampler(images, 4, 3, seed=0).sample())
    assert drawn(SequenceSampler(images, 4, 3, seed=1).sample()) != drawn(SequenceSampler(images, 4, 3).sample())


def test_what_is_drawn_lies_on_the_device_asked_for() -> None:
    """On PyTorch's device without memory, where no number can be looked at."""
    sampler = Sampler(rows([5]), 2, device="meta")
    assert {column.device.type for column in sampler.sample()} == {"meta"}
    stacked = StackedSampler(rows([5]), 2, [0, 1], device="meta")
    assert {column.device.type for column in stacked.sample()} == {"meta"}
    sequences = SequenceSampler(frames([5]), 2, 2, device="meta")
    assert {column.device.type for column in sequences.sample()} == {"meta"}


def test_a_stack_of_samplers_does_not_take_the_state_of_another_number() -> None:
    states = StackedSampler(rows([5]), 2, [0, 1]).state()
    with pytest.raises(ValueError, match="zip"):
        StackedSampler(rows([5]), 2, [0, 1, 2]).load_state(states)


@pytest.mark.parametrize(("size", "length", "stack"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_sequence_has_steps_and_frames(size: int, length: int, stack: int) -> None:
    with pytest.raises(UsageError):
        SequenceSampler(frames([4]), size, length, stack=stack)


def test_a_sequence_of_one_step_is_a_transition() -> None:
    batch = SequenceSampler(frames([3, 2]), 1, 1).windows(np.array([0, 1, 1]), np.array([2, 0, 1]))
    assert batch.obs[0, :, 0, 0, 0].tolist() == [2, 4, 5]
    assert batch.next_obs[0, :, 0, 0, 0].tolist() == [3, 5, 6]
    assert batch.index.tolist() == [[2, 3, 4]]
    assert batch.reward.tolist() == [[2.0, 3.0, 4.0]]
    assert batch.terminated.tolist() == [[0.0, 1.0, 0.0]]
    assert batch.terminated.dtype == torch.float32


def test_a_sequence_beyond_its_episode_repeats_its_end() -> None:
    batch = SequenceSampler(frames([2, 4]), 1, 4, stack=2).windows(np.array([0, 1]), np.array([0, 0]))
    assert batch.obs.shape == (4, 2, 4, 3, 4)  # two frames of two channels
    assert batch.obs[:, 0, ::2, 0, 0].tolist() == [[0, 0], [0, 1], [1, 2], [1, 2]]
    assert batch.next_obs[:, 0, ::2, 0, 0].tolist() == [[0, 1], [1, 2], [1, 2], [1, 2]]
    assert batch.obs[:, 1, ::2, 0, 0].tolist() == [[3, 3], [3, 4], [4, 5], [5, 6]]
    assert batch.index.tolist() == [[0, 2], [1, 3], [-1, 4], [-1, 5]]
    assert batch.reward.tolist() == [[0.0, 2.0], [1.0, 3.0], [1.0, 4.0], [1.0, 5.0]]


def test_support_has_a_log_of_its_own(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run") as run:
        run.log_support({"outside": 1.5})
        assert run.read_support() == [{"outside": 1.5}]
        assert (run.read_metrics(), run.read_episodes()) == ([], [])
    assert (tmp_path / "run" / "support.csv").read_text() == "outside\n1.5\n"


def test_a_replay_keeps_types_rows_and_their_order() -> None:
    """Also where it has wrapped around, and where it has grown."""
    spec, task = Spec((3,), 2, "uint8"), Task("E-v0", (-1.0, -1.0), (1.0, 1.0))
    for capacity, count in ((1500, 1300), (5, 5), (5, 8)):
        replay = Replay(spec, 64, capacity)
        for row in range(count):
            obs = torch.full((3,), row % 256, dtype=torch.uint8)
            replay.add(obs, torch.full((2,), row / 2000), float(row), obs + 1, row % 3 == 0, row % 4 == 0)
        kept = np.arange(max(0, count - capacity), count)
        data = replay.transitions(task, "mine")
        assert (data.spec, data.task, data.source.name) == (spec, task, "mine")
        assert [str(column.dtype) for column in (data.obs, data.next_obs)] == ["uint8", "uint8"]
        np.testing.assert_array_equal(data.reward, kept)
        np.testing.assert_array_equal(data.obs[:, 0], kept % 256)
        np.testing.assert_array_equal(data.next_obs[:, 2], (kept + 1) % 256)
        np.testing.assert_allclose(data.action[:, 1], kept / 2000, rtol=1e-6)
        np.testing.assert_array_equal(data.terminated, kept % 3 == 0)
        np.testing.assert_array_equal(data.episode_end[:-1], (kept % 4 == 0)[:-1])
        batch = replay.sample()
        rows = {int(at): float(reward) for at, reward in zip(batch.index, batch.reward, strict=True)}
        assert all(0 <= at < len(replay) and reward in kept for at, reward in rows.items())
        assert batch.obs.dtype == torch.uint8
        again = Replay(spec, 64, capacity)
        again.load_state(replay.state())
        again.load_tensors(replay.tensors())
        assert drawn(again.sample()) == drawn(replay.sample())
