"""Critics that start from returns: what they learn, what their targets are, and who is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agents import built, small_choice

from offline_vi.algorithms.bc import BC
from offline_vi.data import Sampler, StackedSampler, Transitions, concatenate
from offline_vi.errors import CapabilityError, ConfigError
from offline_vi.training import fit, start_critics
from offline_vi.types import Batch, Spec

SPEC = Spec((3,), 2)


def rows(count: int = 400, seed: int = 0) -> Transitions:
    """Rewards that say nothing of the returns, which are known: 3 + 2 s_1 - a_1."""
    rng = np.random.default_rng(seed)
    obs, action = rng.normal(size=(count, 3)).astype(np.float32), rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    never = np.zeros(count, bool)
    return Transitions(obs, action, rng.normal(size=count).astype(np.float32), obs[::-1], never, never, SPEC)


def with_known_returns(data: Transitions) -> Transitions:
    return data.with_returns(3.0 + 2.0 * data.obs[:, 0] - data.action[:, 0])


def agent(name: str, **changed: Any) -> Any:
    torch.manual_seed(0)
    return built(small_choice(name, SPEC, jointly=False, hidden=(32, 32), batch_size=64, **changed), SPEC)


@pytest.mark.parametrize("name", ["bcq", "emaq", "iql"])
def test_critics_are_the_returns_and_their_targets_copies(name: str) -> None:
    data = with_known_returns(rows())
    one = agent(name)
    one.critic_opt.param_groups[0]["lr"] = 1e-2
    start_critics(one, data, 100, progress=False)
    obs, action = torch.from_numpy(data.obs), torch.from_numpy(data.action)
    assert data.returns is not None
    error = one.q_value(obs, action).detach().numpy() - data.returns
    assert np.square(error).mean() < 0.1 * data.returns.var()
    assert all(map(torch.equal, one.critic_target.parameters(), one.critic.parameters()))
    assert all(not parameter.requires_grad for parameter in one.critic_target.parameters())


def test_training_that_follows_bootstraps_with_fresh_batches() -> None:
    data, one = rows(), agent("emaq")
    start_critics(one, with_known_returns(data), 3, progress=False)
    assert one.trained_steps == 3
    drawn: list[Batch] = []
    update = one.update
    one.update = lambda batch: (drawn.append(batch), update(batch))[1]  # type: ignore[func-returns-value]
    fit(one, data, 2, progress=False)
    first = Sampler(data, 64, 0).sample()
    for batch in drawn:
        assert torch.equal(batch.reward, torch.from_numpy(data.reward)[batch.index])
        assert not batch.terminated.any()
        assert not torch.equal(batch.index, first.index)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_batch_of_rows_with_returns_ends_with_them(stacked: bool) -> None:
    data = with_known_returns(rows())
    source = StackedSampler(data, 5, [1, 2]) if stacked else Sampler(data, 5, 1)
    batch = source.sample()
    assert data.returns is not None
    assert torch.equal(batch.reward, torch.from_numpy(data.returns)[batch.index])
    assert (batch.terminated == 1.0).all() and batch.terminated.shape == batch.reward.shape


def test_returns_stay_with_their_rows_and_are_no_reward() -> None:
    plain = rows()
    data = with_known_returns(plain)
    assert data.returns is not None
    assert data.episode_returns().tolist() == plain.episode_returns().tolist()
    chosen = data.select(np.array([7, 3]))
    assert chosen.returns is not None and chosen.returns.tolist() == data.returns[[7, 3]].tolist()
    assert data.with_returns(None).returns is None
    assert concatenate([data, data]).returns is None


def test_what_teaches_nothing_is_refused() -> None:
    data = rows()
    with pytest.raises(CapabilityError, match="BC"):
        start_critics(BC(SPEC), with_known_returns(data), 1)
    with pytest.raises(ConfigError):
        start_critics(agent("emaq"), data, 1)
    with pytest.raises(ConfigError, match=r"\(3,\)"):
        data.with_returns(np.zeros(3))
    with pytest.raises(ConfigError):
        data.with_returns(np.full(len(data), np.nan))
    with pytest.raises(ConfigError):
        with_known_returns(data).with_reward(2.0)
