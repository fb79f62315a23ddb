"""Values along the data's own trajectories: a problem with a known answer, and episodes judged from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle_returns as oracle
import pytest
import torch
from numpy.typing import NDArray

from offline_vi.data import Transitions
from offline_vi.errors import ConfigError, EmptyDatasetError
from offline_vi.nn.networks import EnsembleLayerNorm, EnsembleLinear
from offline_vi.runs.directory import RunDirectory
from offline_vi.training import fit
from offline_vi.training.trajectory_values import TrajectoryValues, TrajectoryValuesConfig, fit_returns
from offline_vi.types import Spec

SMALL = TrajectoryValuesConfig(discount=0.5, folds=2, steps=600, refresh=200, hidden=(32,), batch_size=128)


def two_steps(episodes: int = 400, seed: int = 0) -> Transitions:
    """s_0 = x, s_1 = a: the reward of the second step is the first action plus noise. V(s_0) = 0, V(s_1) = s_1, and
    with gamma = 1/2 the advantage of the first step is a / 2."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (episodes, 2))
    action[:, 1] = 0.0
    start = rng.normal(size=episodes)
    reward = np.stack([np.zeros(episodes), action[:, 0] + 0.1 * rng.normal(size=episodes)], 1)
    obs = np.stack([np.stack([start, np.ones(episodes)], 1), np.stack([action[:, 0], np.zeros(episodes)], 1)], 1)
    return Transitions.from_d4rl(
        {
            "observations": obs.reshape(-1, 2),
            "actions": action.reshape(-1, 1),
            "rewards": reward.reshape(-1),
            "terminals": np.tile([False, True], episodes),
            "timeouts": np.zeros(2 * episodes, bool),
            "next_observations": np.stack([obs[:, 1], obs[:, 1]], 1).reshape(-1, 2),
        },
        next_obs="within_episode",
    )


def test_advantages_are_those_of_the_first_step() -> None:
    torch.manual_seed(0)
    data = two_steps()
    values = TrajectoryValues(data, SMALL)
    fit(values, data, 600, progress=False)
    first = values.advantages()[::2]
    assert np.corrcoef(first, data.action[::2, 0])[0, 1] > 0.95
    np.testing.assert_allclose(np.polyfit(data.action[::2, 0], first, 1), [0.5, 0.0], atol=0.08)


def test_an_episode_is_judged_by_a_network_that_never_saw_it() -> None:
    """The gradient of network k does not depend on the rewards of its own fold."""
    data = two_steps(40)
    torch.manual_seed(0)
    values = TrajectoryValues(data, SMALL)
    held_out = (values.fold == 1).numpy()
    changed = TrajectoryValues(data, SMALL)
    changed.restore(values.snapshot())
    changed.targets[1, held_out] += 100.0
    for one in (values, changed):
        fit(one, data, 20, progress=False)
    kept = [parameter[1].clone() for parameter in values.value.parameters()]
    for mine, other in zip(kept, [parameter[1] for parameter in changed.value.parameters()], strict=True):
        assert torch.equal(mine, other)


def test_folds_hold_whole_episodes() -> None:
    data = two_steps(30)
    fold = TrajectoryValues(data, SMALL).fold.reshape(-1, 2)
    assert (fold[:, 0] == fold[:, 1]).all()
    assert sorted(fold.unique().tolist()) == [0, 1]


def test_one_long_episode_is_judged_in_parts() -> None:
    fold = TrajectoryValues(two_steps(1).select(np.array([0, 1, 0, 1])), TrajectoryValuesConfig(folds=4)).fold
    assert fold.tolist() == [0, 1, 2, 3]


def walks(rows: int = 120, seed: int = 0) -> Transitions:
    """Episodes that end, episodes that are cut, and one that is not over."""
    rng = np.random.default_rng(seed)
    terminated = rng.random(rows) < 0.05
    episode_end = terminated | (rng.random(rows) < 0.05)
    episode_end[-1] = False
    obs, next_obs = (rng.normal(size=(2, rows, 3)) * [1, 5, 0.1]).astype(np.float32)
    action, reward = rng.uniform(-1, 1, (rows, 2)).astype(np.float32), rng.normal(size=rows).astype(np.float32)
    return Transitions(obs, action, reward, next_obs, terminated, episode_end, Spec((3,), 2))


def pairs(module: torch.nn.Module, kind: type[torch.nn.Module]) -> list[tuple[oracle.Array, oracle.Array]]:
    """(weight, bias) of every layer of a kind."""
    found = [layer for layer in module.modules() if isinstance(layer, kind)]
    arrays = [[part.detach().double().numpy() for part in layer.parameters()] for layer in found]
    return [(weight, bias) for weight, bias in arrays]


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_returns_are_those_of_the_oracle(lam: float) -> None:
    """lambda = 1 is Monte-Carlo up to a time limit, beyond which a network that never saw the row takes over."""
    data = walks()
    values = TrajectoryValues(data, TrajectoryValuesConfig(0.9, lam, folds=3, steps=12, refresh=5, hidden=(7, 6)))
    fit(values, data, 12, progress=False)
    layers, norms = (pairs(values, kind) for kind in (EnsembleLinear, EnsembleLayerNorm))
    mean, std = (part.double().numpy() for part in (values.inputs.mean, values.inputs.std))

    def value(obs: NDArray[np.float32]) -> oracle.Array:
        return oracle.values(layers, norms, (obs.astype(np.float64) - mean) / std) / values.scale

    reward = data.reward.astype(np.float64)
    ends = data.terminated, data.episode_end
    by_network = [oracle.recursion(reward, after, *ends, 0.9, lam) for after in value(data.next_obs)]
    fold, rows = values.fold.numpy(), np.arange(len(data))
    expected = np.stack(by_network)[fold, rows]
    np.testing.assert_allclose(values.trajectory_returns(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values.advantages(), expected - value(data.obs)[fold, rows], rtol=1e-3, atol=1e-5)


def test_returns_of_episodes_that_end_are_monte_carlo() -> None:
    data = two_steps(20)
    found = fit_returns(data, TrajectoryValuesConfig(0.5, 1.0, folds=2, steps=3, hidden=(4,)), progress=False)
    np.testing.assert_allclose(found[1::2], data.reward[1::2], rtol=1e-5)
    np.testing.assert_allclose(found[::2], 0.5 * data.reward[1::2], rtol=1e-5, atol=1e-7)


def test_a_fit_that_was_cut_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    data = two_steps(40)

    def values() -> TrajectoryValues:
        torch.manual_seed(1)
        return TrajectoryValues(data, TrajectoryValuesConfig(folds=2, steps=30, refresh=8, hidden=(8,), batch_size=16))

    whole, first, rest = values(), values(), values()
    fit(whole, data, 30, progress=False)
    with RunDirectory.create(tmp_path / "run") as run:
        fit(first, data, 17, progress=False, run=run)
        fit(rest, data, 30, progress=False, run=run, resume=True)
    np.testing.assert_array_equal(whole.advantages(), rest.advantages())


def test_what_cannot_be_judged_is_refused() -> None:
    data = two_steps(3)
    with pytest.raises(EmptyDatasetError):
        TrajectoryValues(data, TrajectoryValuesConfig(folds=7))
    with pytest.raises(ConfigError):
        TrajectoryValues(data, TrajectoryValuesConfig(folds=1))
    with pytest.raises(ConfigError):
        TrajectoryValues(data, TrajectoryValuesConfig(discount=1.0))
    with pytest.raises(ConfigError, match=r"1\.5"):
        TrajectoryValues(data, TrajectoryValuesConfig(lam=1.5))
