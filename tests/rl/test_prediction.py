"""`predict`: NumPy in the environment's units, the same action for the same observation."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from agents import built, small_choice
from numpy.typing import NDArray
from torch import Tensor

import offline_vi as ovi
from offline_vi.behavior import GaussianBehavior
from offline_vi.errors import CapabilityError, EnvError, SpaceMismatchError
from offline_vi.rl.algorithm import set_task
from offline_vi.rl.fixed_noise import FixedNoise
from offline_vi.rl.policies import DeterministicPolicy, GuardedPolicy
from offline_vi.types import Spec, Task

SPEC = Spec((3,), 1)
ROWS = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)


def test_rows_share_their_random_numbers() -> None:
    with FixedNoise() as noise:
        first, like = torch.randn(4, 6, 2), torch.rand_like(torch.zeros(6, 2))
        drawn = torch.multinomial(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), 400, replacement=True)
        one = torch.multinomial(torch.tensor([[0.6, 0.4], [0.1, 0.9]]), 1)
    assert torch.equal(first, first[:, :1].expand(4, 6, 2))
    assert torch.equal(like, like[:1].expand(6, 2))
    assert 0.4 < drawn[0].double().mean() < 0.6
    assert drawn[1].all()
    assert one.tolist() == [[0], [1]]  # of a single draw the likeliest
    with noise:
        again = torch.randn((4, 9, 2))
    assert torch.equal(again[:, 0], first[:, 0])


def test_an_action_does_not_depend_on_the_other_rows() -> None:
    torch.manual_seed(0)
    agent = built(small_choice("emaq", SPEC), SPEC)
    set_task(agent, Task("", (-3.0,), (9.0,)))
    action = agent.predict(ROWS)
    assert action.shape == (10, 1)
    assert action.dtype == np.float32
    assert agent.training
    assert np.allclose(action, [agent.predict(row) for row in ROWS], atol=1e-5)
    torch.manual_seed(1)
    assert np.array_equal(agent.predict(ROWS), action)
    assert not np.array_equal(agent.predict(ROWS, deterministic=False), action)


class Spy:
    """Remembers what an environment is shown and told."""

    def __init__(self) -> None:
        self.seen: list[NDArray[Any]] = []
        self.told: list[NDArray[Any]] = []


SPY = Spy()


def pendulum() -> Any:
    import gymnasium

    class Watched(gymnasium.Wrapper[Any, Any, Any, Any]):
        def reset(self, **options: Any) -> Any:
            obs, info = self.env.reset(**options)
            SPY.seen.append(obs)
            return obs, info

        def step(self, action: Any) -> Any:
            SPY.told.append(action)
            found = self.env.step(action)
            SPY.seen.append(found[0])
            return found

    return Watched(gymnasium.make("Pendulum-v1"))


def test_predict_acts_by_the_bytes_that_evaluation_acts_by() -> None:
    torch.manual_seed(0)
    agent = built(small_choice("td3-bc", SPEC), SPEC)
    set_task(agent, Task("", (-2.0,), (2.0,)))
    ovi.evaluate(agent, pendulum, episodes=1, max_episode_steps=5)
    for obs, action in zip(SPY.seen, SPY.told, strict=False):
        padded = np.concatenate([obs[None], np.zeros((9, 3), np.float32)])  # evaluation acts on batches of 10 rows
        assert np.array_equal(agent.predict(padded)[0], action)


class Laplace(GaussianBehavior):
    """A model of somebody's own, whose draws no bank of numbers replaces."""

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        scale = torch.ones(num_samples, len(obs), SPEC.action_dim)
        return torch.distributions.Laplace(torch.zeros_like(scale), scale).sample().clamp(-1.0, 1.0)


def test_any_draw_gives_the_same_action_to_the_same_row() -> None:
    torch.manual_seed(0)
    agent = ovi.algorithms.EMaQ(SPEC, Laplace(SPEC))
    state = torch.get_rng_state()
    action = agent.predict(ROWS)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(action, [agent.predict(row) for row in ROWS])
    assert not np.array_equal(agent.predict(ROWS, deterministic=False), action)


def test_what_is_no_observation_is_refused() -> None:
    agent = built(small_choice("bc", SPEC), SPEC)
    for wrong in (np.zeros(4), np.zeros((2, 4)), np.zeros((2, 2, 3)), np.array(["a", "b", "c"])):
        with pytest.raises(SpaceMismatchError):
            agent.predict(wrong)
    with pytest.raises(EnvError):
        agent.predict(np.full(3, np.nan))


def test_the_score_of_what_is_deployed_can_be_measured() -> None:
    """`DeterministicPolicy` earns in `evaluate` what a loop over `predict` earns, and the algorithm itself does not."""
    torch.manual_seed(0)
    agent = built(small_choice("emaq", SPEC), SPEC).eval()
    set_task(agent, Task("Pendulum-v1", (-2.0,), (2.0,)))
    env, expected = gymnasium.make("Pendulum-v1"), []
    for seed in (3, 4):
        obs, _ = env.reset(seed=seed)
        total = 0.0
        for _ in range(20):
            obs, reward, *_ = env.step(agent.predict(obs))
            total += float(reward)
        expected.append(total)
    assert agent.task is not None
    found = ovi.evaluate(DeterministicPolicy(agent), agent.task, 2, 3, max_episode_steps=20)
    assert found.returns == pytest.approx(expected, rel=1e-4)
    again = ovi.evaluate(DeterministicPolicy(agent), agent.task, 2, 3, max_episode_steps=20)
    assert np.array_equal(found.returns, again.returns)
    drawn = ovi.evaluate(agent, agent.task, 2, 3, max_episode_steps=20)
    assert not np.allclose(drawn.returns, expected, rtol=1e-4)


def test_a_guard_within_a_deterministic_policy_counts_the_states_of_running_episodes_alone() -> None:
    class Noisy:
        def act(self, obs: Tensor) -> Tensor:
            return torch.randn(obs.shape[0], 1).clamp(-1.0, 1.0)

    guard = GuardedPolicy(Noisy(), None)
    ovi.evaluate(DeterministicPolicy(guard), "Pendulum-v1", 3, max_episode_steps=5)
    assert guard.states == 15


def test_a_policy_with_a_memory_has_no_deterministic_form() -> None:
    class Remembering:
        def reset(self, rows: Tensor | None = None) -> None: ...

        def act(self, obs: Tensor) -> Tensor:
            return obs[:, :1]

    with pytest.raises(CapabilityError):
        DeterministicPolicy(Remembering())
