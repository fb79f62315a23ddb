"""Environments in processes of their own: the same bytes, and a simulator that crashes costs its own episode."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from offline_vi.errors import EnvError, EvaluationError, EvaluationWarning
from offline_vi.evaluation.evaluate import Evaluation, evaluate
from offline_vi.processes import POSSIBLE
from offline_vi.types import Task

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="needs Linux")


class Walk(gymnasium.Env[Any, Any]):
    """s' = s / 2 + a + noise, five to eight steps; ``fault`` happens at the third step of the episodes ``seeds``."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, fault: str = "", seeds: tuple[int, ...] = ()) -> None:
        self.fault, self.seeds = fault, seeds

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.seed, self.count, self.state = seed or 0, 0, self.np_random.normal(size=2)
        return self.state.copy(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.state = self.state / 2.0 + float(action[0]) + 0.1 * self.np_random.normal(size=2)
        if self.count == 3 and self.seed in self.seeds:
            match self.fault:
                case "raises":
                    raise RuntimeError("the simulator broke")
                case "exits":
                    sys.exit("the simulator exits")
                case "is killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "leaves":
                    os._exit(7)
                case "nan":
                    self.state = self.state * np.nan
        return self.state.copy(), float(self.state[0]), self.count >= 5 + self.seed % 4, False, {}


WALK = "offline_vi_tests/Walk-v0"
gymnasium.register(WALK, entry_point=Walk)  # type: ignore[arg-type]


class Noisy:
    """Its actions follow from observation and noise."""

    def act(self, obs: Tensor) -> Tensor:
        return torch.tanh(obs[:, :1] + 0.3 * torch.randn(len(obs), 1))


def scored(fault: str = "", seeds: tuple[int, ...] = (), num_envs: int = 10, apart: bool = True) -> Evaluation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)
        return evaluate(
            Noisy(),
            Task(WALK, (-2.0,), (2.0,), {"fault": fault, "seeds": seeds}),
            13,
            100,
            num_envs=num_envs,
            max_episode_steps=7,
            env_processes=apart,
        )


def record(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.to_json() | {"first": evaluation.first_obs.tolist()})


@pytest.mark.parametrize("num_envs", [1, 3, 10])
def test_the_numbers_are_those_of_one_process(num_envs: int) -> None:
    assert record(scored(num_envs=num_envs)) == record(scored(apart=False))


def test_a_robot_walks_the_same_steps() -> None:
    pytest.importorskip("mujoco")
    task = Task("Hopper-v5", (-1.0,) * 3, (1.0,) * 3, max_episode_steps=60)

    class Random:
        def act(self, obs: Tensor) -> Tensor:
            return torch.rand(len(obs), 3) * 2.0 - 1.0

    found = [json.dumps(evaluate(Random(), task, 12, 5, env_processes=apart).to_json()) for apart in (True, False)]
    assert found[0] == found[1]


@pytest.mark.parametrize("fault", ["raises", "exits", "nan"])
def test_what_goes_wrong_is_said_as_in_one_process(fault: str) -> None:
    seeds = (100, 104, 112)
    assert record(scored(fault, seeds)) == record(scored(fault, seeds, apart=False))


@pytest.mark.parametrize("fault", ["is killed", "leaves"])
@pytest.mark.parametrize("num_envs", [1, 4, 10])
def test_a_process_that_ends_costs_its_episode_alone(fault: str, num_envs: int) -> None:
    found, plain = scored(fault, (101, 112), num_envs), scored(apart=False)
    failed = np.isin(plain.seeds, [101, 112])
    np.testing.assert_array_equal(np.isnan(found.returns), failed)
    np.testing.assert_array_equal(found.returns[~failed], plain.returns[~failed])
    assert all(str({"is killed": -9, "leaves": 7}[fault]) in why for why in found.failures.values())


def test_no_process_is_left() -> None:
    class Stopping:
        def __init__(self, error: type[BaseException]) -> None:
            self.error, self.count = error, 0

        def act(self, obs: Tensor) -> Tensor:
            self.count += 1
            if self.count == 3:
                raise self.error
            return torch.full((len(obs), 1), np.nan if self.error is EnvError and self.count == 2 else 0.0)

    scored()
    assert not multiprocessing.active_children()
    for error in (KeyboardInterrupt, EnvError, ZeroDivisionError):
        with pytest.raises(error):
            evaluate(Stopping(error), Walk, 12, max_episode_steps=7, env_processes=True)
        assert not multiprocessing.active_children()
    with pytest.raises(EvaluationError):
        scored("leaves", tuple(range(100, 113)))
    assert not multiprocessing.active_children()
