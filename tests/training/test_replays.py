"""Updates taken several at a time: the steps, the metrics and the checkpoints of one at a time.

A CPU replays nothing; here a stand-in for a CUDA graph repeats the recorded functions of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
import pytest
import torch
from agents import built, small_choice
from captures import SPEC, assert_same, recording, toy
from numpy.typing import NDArray

from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.behavior import CVAE, CVAEConfig, DecoderMeans
from offline_vi.behavior.proposals import CandidateCache
from offline_vi.data.samplers import Sampler, StackedSampler
from offline_vi.errors import ConfigError, GraphWarning, Interrupted
from offline_vi.nn.optim import steps_taken
from offline_vi.rl.algorithm import Algorithm
from offline_vi.runs.directory import RunDirectory
from offline_vi.stopping import requests
from offline_vi.training import capture, updates
from offline_vi.training.loop import fit
from offline_vi.training.metrics import History
from offline_vi.types import Batch


class Recorded:
    """How often functions were replayed, and for how many updates."""

    def __init__(self) -> None:
        self.replays: list[int] = []

    def __call__(self, function: Callable[[], updates.Sums]) -> tuple[Callable[[], None], updates.Sums]:
        written = function()
        taken = max(count for _, count in written)

        def run() -> None:
            self.replays.append(taken)
            for (old, _), (new, _) in zip(written, function(), strict=True):
                for name, value in old.items():
                    value.copy_(new[name])

        return run, written


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorder = Recorded()
    monkeypatch.setitem(updates.RECORDERS, "cpu", recorder)
    monkeypatch.setitem(capture.PROGRAMS, "replayed", (recording,))
    return recorder


def small(name: str) -> Algorithm:
    torch.manual_seed(3)
    return built(small_choice(name, SPEC, batch_size=16), SPEC)


def trained(name: str, graph: capture.Graph) -> tuple[dict[str, torch.Tensor], History]:
    agent = small(name)
    history = fit(agent, toy(), 130, graph=graph, progress=False, log_every=40)
    return agent.snapshot(), history


@pytest.mark.parametrize("name", ["bcq", "iql", "td3-bc", "sac"])
def test_ten_at_a_time_take_the_steps_of_one_at_a_time(name: str, recorded: Recorded) -> None:
    (state, history), (own, expected) = trained(name, "replayed"), trained(name, "off")
    assert_same(state, own)
    assert len(history.rows) == len(expected.rows) == 4
    for row, other in zip(history.rows, expected.rows, strict=True):
        assert row.keys() == other.keys()
        assert row == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert len(recorded.replays) < 60  # of 130 steps


def test_seeds_side_by_side_are_replayed_too(recorded: Recorded) -> None:
    states = []
    for graph in ("replayed", "off"):
        torch.manual_seed(0)
        agent = BC(SPEC.stacked(3), BCConfig(hidden=(8,), batch_size=16))
        fit(agent, StackedSampler(toy(), 16, (1, 2, 3)), 40, graph=graph, progress=False)
        states.append(agent.snapshot())
    assert_same(states[0], states[1])
    assert recorded.replays


@pytest.mark.parametrize("stop", [7, 10, 33, 64])
def test_a_resumed_training_has_the_bytes_of_one_that_was_not_interrupted(
    stop: int, tmp_path: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[int] = []

    def on_eval(step: int, agent: Algorithm) -> dict[str, float]:
        evaluated.append(step)
        return {}

    how = {"graph": "replayed", "progress": False, "log_every": 35, "save_every": 25, "eval_every": 45}

    def go(agent: Algorithm, run: RunDirectory, resume: bool = False) -> Algorithm:
        fit(agent, toy(), 100, **how, on_eval=on_eval, run=run, resume=resume)  # type: ignore[arg-type]
        return agent

    with RunDirectory.create(tmp_path / "whole") as run:
        whole = go(small("td3-bc"), run)
    assert evaluated == [45, 90, 100]
    drawn, numbers = 0, Sampler.numbers

    def asking(source: Sampler) -> NDArray[np.int64]:
        nonlocal drawn
        drawn += 1
        requests.signum = 15 if drawn == stop else requests.signum
        return numbers(source)

    with monkeypatch.context() as patch, RunDirectory.create(tmp_path / "run") as run, pytest.raises(Interrupted):
        patch.setattr(Sampler, "numbers", asking)
        go(small("td3-bc"), run)
    assert stop <= drawn < stop + updates.TOGETHER
    requests.signum = 0
    with RunDirectory.resume(tmp_path / "run") as run:
        resumed = go(small("td3-bc"), run, resume=True)
    found, expected = resumed.snapshot(), whole.snapshot()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


class Counted(Sampler):
    """A source of one's own draws in a way of its own."""

    def sample(self) -> Batch:
        batch = super().sample()
        return batch._replace(reward=batch.reward * 0.0)


def test_a_source_of_another_class_is_asked_for_its_batches(recorded: Recorded) -> None:
    states = []
    for graph in ("replayed", "off"):
        agent = small("td3-bc")
        fit(agent, Counted(toy(), 16), 30, graph=graph, progress=False)
        states.append(agent.snapshot())
    assert_same(states[0], states[1])
    assert set(recorded.replays) == {1}


def test_candidates_drawn_ahead_are_replayed_as_they_are_by_then(recorded: Recorded) -> None:
    states = []
    for graph in ("replayed", "off"):
        torch.manual_seed(3)
        model = CVAE(SPEC, CVAEConfig(hidden=(8,))).eval().requires_grad_(False)
        candidates = CandidateCache(DecoderMeans(model), toy(), period=8 * CandidateCache.STRIDE, seed=0)
        agent = BCQ(SPEC, candidates, BCQConfig(hidden=(8,), batch_size=16))
        fit(agent, toy(), 120, graph=graph, progress=False)
        states.append({**agent.snapshot(), **{str(key): table for key, table in candidates._tables.items()}})
    assert_same(states[0], states[1], within=1e-3)


def failing(function: Callable[[], updates.Sums]) -> tuple[Callable[[], None], updates.Sums]:
    function()
    raise RuntimeError("out of graphs")


def wrong(function: Callable[[], updates.Sums]) -> tuple[Callable[[], None], updates.Sums]:
    return lambda: None, function()


@pytest.mark.parametrize("recorder", [failing, wrong])
def test_where_a_graph_fails_training_goes_on_as_written(
    recorder: Callable[[Callable[[], updates.Sums]], tuple[Callable[[], None], updates.Sums]],
    recorded: Recorded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(updates.RECORDERS, "cpu", recorder)
    written = trained("iql", "off")[0]
    with pytest.warns(GraphWarning):
        found = trained("iql", "replayed")[0]
    assert all(torch.equal(value, found[name]) for name, value in written.items())


def test_a_device_without_graphs_trains_as_written() -> None:
    written = trained("iql", "off")[0]
    with pytest.warns(GraphWarning):
        found = trained("iql", "replayed")[0]
    assert all(torch.equal(value, found[name]) for name, value in written.items())


def test_the_first_program_that_takes_the_step_is_taken(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object, inputs: list[torch.Tensor], batch: slice) -> capture.Run:
        raise AssertionError

    monkeypatch.setitem(capture.PROGRAMS, "replayed", (broken, recording))
    assert_same(trained("iql", "replayed")[0], trained("iql", "off")[0])
    assert recorded.replays


class Third(TD3BC):
    """The actor steps every third time, and the phase does not say where in the cycle an update is."""

    def capture_phase(self) -> Hashable:
        return steps_taken(self.critic_opt) % self.config.policy_delay == self.config.policy_delay - 1


def test_phases_that_do_not_follow_each_other_are_not_replayed_in_silence(recorded: Recorded) -> None:
    torch.manual_seed(0)
    agent = Third(SPEC, TD3BCConfig(hidden=(8,), batch_size=16, policy_delay=3))
    with pytest.raises(ConfigError):
        fit(agent, toy(), 60, graph="replayed", progress=False)
    again = TD3BC(SPEC, TD3BCConfig(hidden=(8,), batch_size=16, policy_delay=3))
    fit(again, toy(), 60, graph="replayed", progress=False)
