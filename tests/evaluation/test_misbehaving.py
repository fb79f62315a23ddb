"""Whatever an environment does wrong costs its own episode, and nothing else."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.errors import EvaluationError, EvaluationWarning, UsageError
from offline_vi.evaluation.evaluate import Evaluation, evaluate
from offline_vi.types import Task

Faults = dict[int, tuple[str, int]]  # seed -> what goes wrong, at which step; 0: in reset
FAULTS: Faults = {}  # of the test that runs
MADE = [0]  # environments so far


class Text:
    """An error whose own text cannot be had."""

    def __repr__(self) -> str:
        raise ValueError("no text")


def leave(*_: Any) -> Any:
    sys.exit("the simulator exits")


def broken(*_: Any) -> Any:
    raise RuntimeError("the simulator broke")


def unspeakable(*_: Any) -> Any:
    raise RuntimeError(Text())


IN_STEP: dict[str, Any] = {
    "raises": broken,
    "raises what has no text": unspeakable,
    "exits": leave,
    "nan observation": lambda obs, reward: (obs * np.nan, reward, False, False, {}),
    "infinite observation": lambda obs, reward: (obs / np.zeros(2), reward, False, False, {}),
    "observation beyond float32": lambda obs, reward: (obs + 1e300, reward, False, False, {}),
    "shape": lambda obs, reward: (np.zeros(3), reward, False, False, {}),
    "one number": lambda obs, reward: (0.5, reward, False, False, {}),
    "no observation": lambda obs, reward: (None, reward, False, False, {}),
    "text observation": lambda obs, reward: (["1.0", "2.0"], reward, False, False, {}),
    "dict observation": lambda obs, reward: ({"observation": obs}, reward, False, False, {}),
    "nan reward": lambda obs, reward: (obs, np.nan, False, False, {}),
    "infinite reward": lambda obs, reward: (obs, -np.inf, False, False, {}),
    "reward beyond float32": lambda obs, reward: (obs, 1e39, False, False, {}),
    "no reward": lambda obs, reward: (obs, None, False, False, {}),
    "text reward": lambda obs, reward: (obs, "1.0", False, False, {}),
    "two rewards": lambda obs, reward: (obs, np.array([reward, reward]), False, False, {}),
    "four values": lambda obs, reward: (obs, reward, False, {}),
    "nothing": lambda obs, reward: None,
    "text as end": lambda obs, reward: (obs, reward, "False", False, {}),
    "nan as end": lambda obs, reward: (obs, reward, False, np.nan, {}),
    "no end": lambda obs, reward: (obs, reward, None, False, {}),
}
IN_RESET: dict[str, Any] = {
    "raises": broken,
    "exits": leave,
    "nan observation": lambda obs: (obs * np.nan, {}),
    "shape": lambda obs: (np.zeros((2, 1)), {}),
    "no observation": lambda obs: (None, {}),
    "no info": lambda obs: obs,
    "nothing": lambda obs: None,
}


class Misbehaving(gymnasium.Env[Any, Any]):
    """A linear walk s' = s / 2 + a, r = s[0] + step, of five to eight steps; it does what `FAULTS` say."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self) -> None:
        MADE[0] += 1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seed, self.count = seed or 0, 0
        self.state: NDArray[np.float64] = np.random.default_rng(seed).normal(size=2)
        what, at = FAULTS.get(self.seed, ("", -1))
        return IN_RESET[what](self.state) if at == 0 else (self.state.copy(), {})

    def step(self, action: Any) -> Any:
        self.count += 1
        reward = self.state[0] + self.count
        self.state = self.state / 2.0 + float(action[0])
        what, at = FAULTS.get(self.seed, ("", -1))
        if at == self.count:
            with np.errstate(all="ignore"):
                return IN_STEP[what](self.state, reward)
        return self.state.copy(), np.array([reward]), self.count >= 5 + self.seed % 4, False, {}

    def close(self) -> None:
        if FAULTS:
            raise RuntimeError("it cannot even be closed")


gymnasium.register("offline_vi_tests/Misbehaving-v0", entry_point=Misbehaving, max_episode_steps=50)  # type: ignore[arg-type]
TASK = Task("offline_vi_tests/Misbehaving-v0", (-2.0,), (2.0,), ref_min=0.0, ref_max=50.0)


class Noisy:
    """Its actions follow from observation and noise."""

    def act(self, obs: Tensor) -> Tensor:
        return torch.tanh(obs[:, :1] + 0.3 * torch.randn(len(obs), 1))


@pytest.fixture(autouse=True)
def _well_behaved() -> Iterator[None]:
    FAULTS.clear()
    yield
    FAULTS.clear()


def scored(faults: Faults, episodes: int = 13, num_envs: int = 10, task: Task = TASK) -> Evaluation:
    FAULTS.clear()
    FAULTS.update(faults)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)
        return evaluate(Noisy(), task, episodes, 100, num_envs=num_envs)


STEPS = st.tuples(st.sampled_from(sorted(IN_STEP)), st.integers(1, 5))
RESETS = st.tuples(st.sampled_from(sorted(IN_RESET)), st.just(0))


@settings(max_examples=60)
@given(
    st.dictionaries(st.integers(100, 112), STEPS | RESETS, min_size=1, max_size=12),
    st.sampled_from([1, 3, 10]),
)
@example({100 + place: (name, 1 + place % 5) for place, name in enumerate(list(IN_STEP)[:12])}, 10)
@example({100 + place: (name, 1) for place, name in enumerate(list(IN_STEP)[12:])}, 4)
@example({101 + place: (name, 0) for place, name in enumerate(IN_RESET)}, 10)
def test_the_numbers_of_all_other_episodes_are_those_of_a_well_behaved_environment(
    faults: Faults, num_envs: int
) -> None:
    plain, found = scored({}), scored(faults, num_envs=num_envs)
    failed = np.isin(plain.seeds, list(faults))
    np.testing.assert_array_equal(np.isnan(found.returns), failed)
    for column in ("returns", "lengths", "terminated", "discounted", "first_obs", "first_action", "normalized"):
        np.testing.assert_array_equal(getattr(found, column)[~failed], getattr(plain, column)[~failed])
    assert found.n_failed == failed.sum()
    assert found.mean_return == pytest.approx(plain.returns[~failed].mean(), rel=1e-12)
    assert found.mean == pytest.approx(2.0 * plain.returns[~failed].mean(), rel=1e-12)
    assert found.failures.keys() == faults.keys() and all(found.failures.values())
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert record["returns"] == plain.returns[~failed].tolist() and record["n_failed"] == failed.sum()
    assert record["failures"].keys() == {str(seed) for seed in faults}


@pytest.mark.parametrize("what", ["nan observation", "infinite observation", "shape", "nan reward"])
def test_impossible_values_cost_their_episode_alone(what: str) -> None:
    found = scored({100: (what, 1), 107: (what, 5), 112: (what, 3)})
    assert np.flatnonzero(~found.succeeded).tolist() == [0, 7, 12]
    np.testing.assert_array_equal(found.returns[found.succeeded], scored({}).returns[found.succeeded])


def test_the_returns_are_those_of_a_plain_loop() -> None:
    """NumPy alone, a policy without noise; rewards are arrays of one number."""

    class Straight:
        def act(self, obs: Tensor) -> Tensor:
            return torch.full((len(obs), 1), 0.25)

    found = evaluate(Straight(), TASK, 4, 100)
    for episode, seed in enumerate(range(100, 104)):
        state, total = np.random.default_rng(seed).normal(size=2), 0.0
        for step in range(1, 6 + seed % 4):
            total += state[0] + step
            state = state / 2.0 + 0.5
        assert found.returns[episode] == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(("what", "words"), [("two rewards", ["reward", "(2,)"]), ("shape", ["(3,)", "(2,)"])])
def test_the_reason_says_what_was_wrong(what: str, words: list[str]) -> None:
    reason = scored({101: (what, 2)}).failures[101]
    assert all(word in reason for word in [*words, "step 1"])


def test_all_episodes_failing_is_an_error_with_the_reason() -> None:
    with pytest.raises(EvaluationError, match="the simulator broke"):
        scored({seed: ("raises", 1) for seed in range(100, 113)})


def test_an_environment_that_cannot_be_made_anew_costs_its_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process may hold so many of them and no more."""
    plain = scored({})
    first = MADE[0]

    def init(self: Misbehaving) -> None:
        MADE[0] += 1
        if MADE[0] > first + 3:
            raise OSError("no further licence")

    monkeypatch.setattr(Misbehaving, "__init__", init)
    found = scored({102: ("exits", 3)}, num_envs=3)
    kept = found.succeeded
    assert not kept[2] and kept[:2].all()
    np.testing.assert_array_equal(found.returns[kept], plain.returns[kept])
    assert "licence" in found.failures[102]


class Endless(Misbehaving):
    """Nothing ends it."""

    def step(self, action: Any) -> Any:
        obs, reward, *_ = super().step(action)
        return obs, reward, False, False, {}


gymnasium.register("offline_vi_tests/Endless-v0", entry_point=Endless)  # type: ignore[arg-type]


def test_episodes_without_a_limit_are_refused_and_cut_where_one_is_given() -> None:
    endless = replace(TASK, env_id="offline_vi_tests/Endless-v0")
    with pytest.raises(UsageError) as caught:
        evaluate(Noisy(), endless, 2)
    assert "max_episode_steps=" in caught.value.hint
    for found in (
        evaluate(Noisy(), replace(endless, max_episode_steps=7), 2),
        evaluate(Noisy(), endless, 2, max_episode_steps=7),
        evaluate(Noisy(), Endless, 2, max_episode_steps=7),
        evaluate(Noisy(), lambda: gymnasium.wrappers.TimeLimit(Endless(), 7), 2),
    ):
        assert found.lengths.tolist() == [7, 7] and found.max_episode_steps == 7
        assert not found.terminated.any() and found.to_json()["max_episode_steps"] == 7
