"""Rewards are changed where they come from: in the rows, in what is collected, and back where Q is reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from offline_vi.algorithms.iql import IQL, IQLConfig
from offline_vi.data.samplers import Sampler
from offline_vi.data.transitions import Transitions, concatenate
from offline_vi.datasets import environment
from offline_vi.errors import ConfigError, SpaceMismatchError
from offline_vi.evaluation.evaluate import Evaluation
from offline_vi.evaluation.support import overestimation_report
from offline_vi.training.collector import Collection, Collector
from offline_vi.training.online import fit_online
from offline_vi.types import Batch, RewardMap, Spec

SPEC = Spec((3,), 1)


def rows(count: int = 20) -> Transitions:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(count, 3)).astype(np.float32)
    ends = np.arange(count) % 5 == 4
    reward = rng.normal(size=count).astype(np.float32)
    return Transitions(obs, np.tanh(obs[:, :1]), reward, obs, np.zeros(count, np.bool_), ends, SPEC)


def test_the_rows_take_scale_and_shift_and_nothing_else_changes() -> None:
    data = rows()
    changed = data.with_reward(2.5, -1.0)
    np.testing.assert_array_equal(changed.reward, np.float32(2.5) * data.reward - np.float32(1.0))
    assert changed.reward.dtype == np.float32
    assert changed.obs is data.obs and changed.task == data.task
    assert (changed.source.reward_scale, changed.source.reward_shift) == (2.5, -1.0)
    assert data.source.reward_scale == 1.0  # the data themselves stay as they were
    assert changed.select(slice(0, 3)).source == changed.source


def test_two_maps_are_one() -> None:
    data = rows()
    twice = data.with_reward(4.0, 1.0).with_reward(0.5, -3.0)
    once = data.with_reward(2.0, -2.5)
    np.testing.assert_allclose(twice.reward, once.reward, rtol=1e-6)
    assert twice.source.reward_map == once.source.reward_map == RewardMap(2.0, -2.5)


def test_ending_the_task_costs_what_the_rows_are_told() -> None:
    """Not where an episode was only cut; in units of the reward before it is scaled, in whatever order."""
    data = rows()
    terminated = data.episode_end & (np.arange(20) > 10)
    data = replace(data, terminated=terminated)
    changed = data.with_reward(2.0, 1.0, end_penalty=5.0)
    expected = 2.0 * (data.reward.astype(np.float64) - np.where(terminated, 5.0, 0.0)) + 1.0
    np.testing.assert_allclose(changed.reward, expected, rtol=1e-6)
    twice = data.with_reward(2.0, 1.0).with_reward(end_penalty=10.0)
    np.testing.assert_allclose(twice.reward, expected, rtol=1e-6)
    assert twice.source.reward_map == changed.source.reward_map == RewardMap(2.0, 1.0, 5.0)
    assert RewardMap.of(changed.source.reward_map.recorded()) == RewardMap(2.0, 1.0, 5.0)
    batch = Sampler(data, 64, seed=0).sample()
    mapped = Sampler(changed, 64, seed=0).sample()
    torch.testing.assert_close(RewardMap(2.0, 1.0, 5.0).apply(batch.reward, batch.terminated), mapped.reward)


@pytest.mark.parametrize(("scale", "shift"), [(0.0, 0.0), (-1.0, 0.0), (np.nan, 0.0), (np.inf, 0.0), (1.0, np.inf)])
def test_what_is_no_map_is_refused(scale: float, shift: float) -> None:
    with pytest.raises(ConfigError, match="rewards of"):
        rows().with_reward(scale, shift)


def test_data_in_different_units_are_not_joined() -> None:
    data = rows()
    assert concatenate([data.with_reward(2.0), data.with_reward(2.0)]).source.reward_scale == 2.0
    with pytest.raises(SpaceMismatchError, match="different units"):
        concatenate([data, data.with_reward(2.0)])


# ------------------------------------------------------------------ collecting


class Still:
    def explore(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), 1)


def test_batches_are_in_the_learners_units_and_what_is_kept_in_the_environments() -> None:
    plain, mapped = (
        Collector(
            Still(),
            environment("Pendulum-v1"),
            SPEC,
            8,
            Collection(warmup=5, warmup_policy=Still(), rewards=rewards),
            seed=3,
        )
        for rewards in (RewardMap(), RewardMap(0.1, 7.0))
    )
    for _ in range(4):
        ours, theirs = plain.sample(), mapped.sample()
        torch.testing.assert_close(theirs.reward, 0.1 * ours.reward + 7.0)
        assert torch.equal(ours.obs, theirs.obs)
    np.testing.assert_array_equal(plain.transitions().reward, mapped.transitions().reward)


class Recorder(IQL):
    def update(self, batch: Batch) -> Any:
        self.rewards = torch.cat([getattr(self, "rewards", batch.reward[:0]), batch.reward])
        return {"critic/loss": torch.zeros(())}


def test_both_halves_of_a_blended_batch_are_mapped() -> None:
    data = rows()
    agent = Recorder(SPEC, IQLConfig(hidden=(8,), batch_size=8))
    _, collected = fit_online(
        agent,
        environment("Pendulum-v1"),
        SPEC,
        6,
        rewards=RewardMap(10.0, 1000.0),
        explorer=Still(),
        warmup_policy=Still(),
        offline=data,
        warmup=4,
        progress=False,
    )
    known = np.concatenate([data.reward, collected.reward]) * np.float32(10.0) + np.float32(1000.0)
    assert np.isin(agent.rewards.numpy().round(2), known.round(2)).all()
    assert (collected.reward <= 0.0).all()  # Pendulum's


# ------------------------------------------------------------------ training and reporting


def test_an_algorithm_on_changed_rows_is_one_on_changed_batches() -> None:
    data = rows()
    batches = [Sampler(given, 8, seed=1).sample() for given in (data, data.with_reward(4.0, 0.5))]
    torch.testing.assert_close(batches[1].reward, 4.0 * batches[0].reward + 0.5)
    assert torch.equal(batches[0].obs, batches[1].obs)


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_q_is_reported_in_the_environments_units(discount: float) -> None:
    """Constant rewards of 2 over episodes of 3 and 5 steps, of which the first ended the task; the critic is right
    about 10 r - 1 with a penalty of 4 at that end."""
    lengths, scale, shift, penalty = np.array([3, 5]), 10.0, -1.0, 4.0
    returns = np.array([sum(discount**t * 2.0 for t in range(length)) for length in lengths])
    learned = np.array([sum(discount**t * (scale * 2.0 + shift) for t in range(length)) for length in lengths])
    learned[0] -= scale * penalty * discount**2

    class Right:
        def act(self, obs: Tensor) -> Tensor:
            return obs

        def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
            return obs[:, 0]

    evaluation = Evaluation(
        returns=2.0 * lengths,
        lengths=lengths,
        terminated=np.array([True, False]),
        seeds=np.arange(2),
        normalized=returns,
        env_id="none",
        discounted=returns,
        first_obs=learned[:, None],
        first_action=np.zeros((2, 1), np.float32),
        discount=discount,
    )
    report = overestimation_report(Right(), evaluation, rewards=RewardMap(scale, shift, penalty))
    assert report["q/start"] == pytest.approx(returns.mean())
    assert report["q/overestimation"] == pytest.approx(0.0, abs=1e-9)
    assert overestimation_report(Right(), evaluation)["q/start"] == pytest.approx(learned.mean())
