"""A checkpoint holds the whole of an algorithm, other people's too, or the algorithm is refused before training."""

from __future__ import annotations

import collections
import enum
import json
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from offline_vi.errors import CapabilityError, CheckpointCorruptError
from offline_vi.nn.state import decode, encode, refuse_unsaved, restore, snapshot
from offline_vi.rl.algorithm import Algorithm
from offline_vi.types import Batch, Metrics, Spec

SPEC = Spec((3,), 2)


@dataclass
class Counters:
    """A mutable dataclass."""

    updates: int = 0
    losses: list[float] = field(default_factory=list)


class Plain:
    """An object of a class in plain Python."""

    def __init__(self) -> None:
        self.total = 0


class Phase(enum.Enum):
    WARM = 1
    HOT = 2


class Theirs(Algorithm):
    """An algorithm as other people write them: state in every corner."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.batch_size = 4
        self.nets = nn.ModuleList(nn.Linear(spec.obs_dim, spec.action_dim) for _ in range(2))
        self.opts = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in self.nets]
        self.by_name = {"extra": torch.optim.Adam(self.nets[0].parameters(), lr=1e-3)}
        self.schedule = torch.optim.lr_scheduler.StepLR(self.opts[0], step_size=2, gamma=0.5)
        self.warmup = torch.optim.lr_scheduler.LambdaLR(self.opts[1], lambda step: 1.0 / (1.0 + step))
        self.steps, self.best = 0, float("inf")
        self.recent: collections.deque[float] = collections.deque(maxlen=3)
        self.seen: set[int] = set()
        self.counters = Counters()
        self.table = {1: "one", "two": [1, 2.5]}
        self.mean = torch.zeros(2)  # no buffer
        self.clipped = list(self.nets.parameters())  # for the norm of their gradients
        self.loose = [nn.Parameter(torch.ones(2))]  # of no module
        self.array = np.zeros(3)
        self.memory: list[tuple[Tensor, float]] = []  # grows
        self.plain = Plain()
        self.phase, self.folder = Phase.WARM, Path("a")
        self.rng, self.dice = np.random.default_rng(0), random.Random(0)

    def update(self, batch: Batch) -> Metrics:
        noise = float(self.rng.normal()) + self.dice.random()
        loss = torch.stack([(net(batch.obs) - batch.action - noise).square().mean() for net in self.nets]).sum()
        for opt in (*self.opts, *self.by_name.values()):
            opt.zero_grad()
        loss.backward()
        for opt in (*self.opts, *self.by_name.values()):
            opt.step()
        self.schedule.step()
        self.warmup.step()
        self.phase, self.folder = Phase.HOT, Path("b")
        self.steps += 1
        self.best = min(self.best, float(loss))
        self.recent.append(float(loss))
        self.seen.add(self.steps % 3)
        self.counters.updates += 1
        self.counters.losses.append(float(loss))
        self.table["two"] = [self.steps]
        self.mean = 0.9 * self.mean + 0.1 * batch.action.mean(0)
        self.array += 1.0
        self.loose[0].data += 1.0
        self.memory.append((batch.obs, float(loss)))
        self.plain.total += 1
        self.late = {"steps": self.steps, "mean": batch.obs.mean(0)}  # not there before the first update
        return {"loss": loss.detach()}

    def act(self, obs: Tensor) -> Tensor:
        return torch.tanh(self.nets[0](obs))


def batches(count: int) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    made = [(normal(4, 3), normal(4, 2), normal(4), normal(4, 3)) for _ in range(count)]
    return [Batch(*columns, torch.zeros(4), torch.zeros(4, dtype=torch.int64)) for columns in made]


def test_an_interrupted_algorithm_of_other_people_goes_on_as_if_it_had_not_been() -> None:
    torch.manual_seed(0)
    whole = Theirs(SPEC)
    start = snapshot(whole)
    for batch in batches(7):
        whole.update(batch)

    first, second = Theirs(SPEC), Theirs(SPEC)
    restore(first, *start)
    for batch in batches(7)[:4]:
        first.update(batch)
    tensors, values = snapshot(first)
    restore(second, tensors, json.loads(json.dumps(values, allow_nan=False)))
    for batch in batches(7)[4:]:
        second.update(batch)

    assert (second.steps, second.phase, second.folder) == (7, Phase.HOT, Path("b"))
    assert all(ours is theirs for ours, theirs in zip(second.clipped, second.nets.parameters(), strict=True))
    assert second.loose[0].tolist() == [8.0, 8.0]
    assert second.counters == whole.counters
    assert second.late["steps"] == 7
    assert second.plain.total == 7 and len(second.memory) == 7
    assert second.recent == whole.recent and second.recent.maxlen == 3
    assert second.table == whole.table
    expected, found = snapshot(whole), snapshot(second)
    assert found.values == expected.values
    assert set(found.tensors) == set(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[name], tensor), name


class Hidden:
    """Something that nobody knows how to save."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("buffer", Hidden()),
        ("critics", [nn.Linear(2, 2), nn.Linear(2, 2)]),
        ("file", open),
        ("objects", [Hidden()]),
        ("names", np.array(["a", "b"])),
        ("nested", {"a": {"b": Hidden()}}),
    ],
)
def test_what_would_be_lost_is_refused_by_name(name: str, value: Any) -> None:
    algorithm = Theirs(SPEC)
    refuse_unsaved(algorithm)
    setattr(algorithm, name, value)
    if name == "file":  # a function is code
        refuse_unsaved(algorithm)
        return
    with pytest.raises(CapabilityError, match=name):
        refuse_unsaved(algorithm)
    with pytest.raises(CapabilityError, match=name):
        snapshot(algorithm)


def test_state_within_a_module_of_an_algorithm_is_found() -> None:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = 3

    algorithm, other = Theirs(SPEC), Theirs(SPEC)
    algorithm.average, other.average = Average(), Average()
    algorithm.average.count = 17
    restore(other, *snapshot(algorithm))
    assert other.average.count == 17
    algorithm.average.cache = Hidden()  # type: ignore[assignment]
    with pytest.raises(CapabilityError, match=r"average\.cache"):
        refuse_unsaved(algorithm)


def test_a_fresh_algorithm_takes_the_number_of_its_steps_over() -> None:
    algorithm, other = Theirs(SPEC), Theirs(SPEC)
    algorithm.trained_steps = 7
    restore(other, *snapshot(algorithm))
    assert other.trained_steps == 7


def test_tensors_that_are_no_buffers_come_back_without_a_record_too() -> None:
    algorithm, other = Theirs(SPEC), Theirs(SPEC)
    algorithm.mean, algorithm.array = torch.ones(2), np.ones(3)
    other.restore(algorithm.snapshot())
    assert torch.equal(other.mean, torch.ones(2)) and other.array.tolist() == [1.0, 1.0, 1.0]


class Holder:
    """An object that uses a module, and owns none."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net


def test_a_module_that_the_algorithm_has_is_saved_there_and_another_one_is_refused() -> None:
    algorithm = Theirs(SPEC)
    before = snapshot(algorithm).tensors.keys()
    algorithm.holder = Holder(algorithm.nets[0])  # type: ignore[assignment]
    assert snapshot(algorithm).tensors.keys() == before
    algorithm.holder = Holder(nn.Linear(2, 2))  # type: ignore[assignment]
    with pytest.raises(CapabilityError, match=r"holder\.net"):
        refuse_unsaved(algorithm)


class Remembers(Theirs):
    """A policy with memory of the running episodes, which is none of the algorithm's."""

    transient = frozenset({"memory_of_episodes"})

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.memory_of_episodes: object = None


def test_what_an_algorithm_calls_transient_is_left_out() -> None:
    algorithm, other = Remembers(SPEC), Remembers(SPEC)
    algorithm.memory_of_episodes = Hidden()
    assert snapshot(algorithm).tensors.keys() == snapshot(other).tensors.keys()
    restore(other, *snapshot(algorithm))
    assert other.memory_of_episodes is None


def test_moments_of_another_shape_are_refused() -> None:
    algorithm = Theirs(SPEC)
    algorithm.update(batches(1)[0])
    tensors, values = snapshot(algorithm)
    wrong = {**tensors, "by_name.extra.0.exp_avg": torch.zeros(2)}
    with pytest.raises(CheckpointCorruptError, match="exp_avg"):
        restore(Theirs(SPEC), wrong, values)
    with pytest.raises(CheckpointCorruptError, match="stranger"):
        restore(Theirs(SPEC), {**tensors, "stranger": torch.zeros(1)}, values)
    missing = {name: tensor for name, tensor in tensors.items() if name != "nets.0.weight"}
    with pytest.raises(CheckpointCorruptError, match=r"nets\.0\.weight"):
        restore(Theirs(SPEC), missing, values)


PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(max_size=3) | st.none(), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
        | st.builds(collections.deque, st.lists(inner, max_size=3), st.none() | st.integers(1, 5))
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_plain_values_survive_json(value: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value), allow_nan=False)))
    assert encode(back) == encode(value)  # NaN is not equal to itself, and sets have no order
    assert type(back) is type(value)


def test_numpy_numbers_keep_their_type() -> None:
    for value in (np.float32(1.5), np.int64(7), np.float64("nan"), np.bool_(True)):
        back = decode(json.loads(json.dumps(encode(value), allow_nan=False)))
        assert repr(back) == repr(value) and back.dtype == value.dtype
