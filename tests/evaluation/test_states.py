"""The density of states: false alarms at the rate that was asked for, and what it notices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import offline_vi as ovi
from offline_vi.errors import ConfigError
from offline_vi.evaluation.states import fit_states, load_states, save_states, share_unknown
from offline_vi.rl.policies import GuardedPolicy
from offline_vi.rl.states import KnownStates, KnownStatesConfig
from offline_vi.types import Spec

SMALL = KnownStatesConfig(hidden=(32, 32), batch_size=128)


def on_a_circle(episodes: int = 60, length: int = 50) -> ovi.Transitions:
    """Angles that wander; states are (cos, sin, speed)."""
    rng = np.random.default_rng(0)
    turned = rng.uniform(0.0, 2.0 * np.pi, (episodes, 1)) + np.cumsum(rng.normal(0.1, 0.05, (episodes, length)), 1)
    states = np.stack([np.cos(turned), np.sin(turned), np.gradient(turned, axis=1)], -1).reshape(-1, 3)
    ends = np.tile(np.arange(length) == length - 1, episodes)
    rows = len(states)
    return ovi.Transitions.from_arrays(
        obs=states.astype(np.float32),
        action=np.zeros((rows, 1), np.float32),
        reward=np.zeros(rows, np.float32),
        terminated=np.zeros(rows, bool),
        timeout=ends,
    )


@pytest.fixture(scope="module")
def states() -> KnownStates:
    return fit_states(on_a_circle(), 300, config=SMALL).states


def test_false_alarms_are_as_rare_as_asked(states: KnownStates) -> None:
    found = fit_states(on_a_circle(), 0, config=SMALL)  # whatever the density is
    assert abs(found.false_alarms[0.5] - 0.5) < 0.1
    assert found.false_alarms[0.05] < 0.15
    assert share_unknown(states, torch.from_numpy(on_a_circle().obs), 0.01) < 0.05


def test_quantiles_are_those_of_order_statistics(states: KnownStates) -> None:
    own = KnownStates(Spec((3,), 1), SMALL)
    obs = torch.randn(199, 3)
    own.calibrate(obs)
    scores = np.sort(own.score(obs).detach().numpy())
    expected = [-np.inf, scores[1], scores[9], scores[99]]  # floor(level * 200) from below
    assert np.allclose(own.quantiles.numpy(), expected)
    with pytest.raises(ConfigError):
        own.threshold(0.02)


def test_states_unlike_the_data_are_unknown(states: KnownStates) -> None:
    obs = torch.from_numpy(on_a_circle().obs)
    for wrong in (100.0 * obs, obs.roll(1, -1), torch.full_like(obs, torch.nan)):
        assert share_unknown(states, wrong, 0.01) > 0.9


@pytest.mark.parametrize("entry", range(3))
@pytest.mark.parametrize("reading", [5.0, -300.0, torch.nan, torch.inf])
def test_the_entry_that_is_unlike_the_data_is_named(states: KnownStates, entry: int, reading: float) -> None:
    obs = torch.from_numpy(on_a_circle().obs)[::10]
    broken = obs.index_fill(-1, torch.tensor([entry]), reading)
    assert (states.culprit(broken) == entry).float().mean() > 0.95
    guarded = GuardedPolicy(Forward(), None, states=states, level=0.01)
    guarded.act(broken)
    assert sum(guarded.culprits.values()) == guarded.unknown_states
    assert guarded.culprits.most_common(1)[0][0] == entry


class Forward:
    """Always the same action."""

    def act(self, obs: Tensor) -> Tensor:
        return torch.full((obs.shape[0], 1), 0.5)


def test_reports_say_which_guard_spoke(states: KnownStates, tmp_path: Path) -> None:
    obs = torch.from_numpy(on_a_circle().obs[:100])
    guarded = GuardedPolicy(Forward(), None, states=states, level=0.01)
    assert guarded.act(torch.cat([obs, 100.0 * obs]))[100:].abs().max() == 0.0
    assert guarded.share_unknown == pytest.approx(0.5, abs=0.03)
    assert guarded.share == 0.0
    guarded.count_only(torch.arange(200) < 100)  # the others are no states
    guarded.states = guarded.unknown_states = 0
    guarded.act(torch.cat([obs, 100.0 * obs]))
    assert (guarded.states, guarded.share_unknown < 0.05) == (100, True)
    with pytest.raises(ConfigError):
        GuardedPolicy(Forward(), None, states=states, safe_action=torch.tensor([40.0]))  # in the environment's units
    stopping = GuardedPolicy(Forward(), None, states=states, safe_action=torch.tensor([-1.0]))
    assert (stopping.act(100.0 * obs) == -1.0).all()


def test_a_density_of_states_is_kept(states: KnownStates, tmp_path: Path) -> None:
    save_states(fit_states(on_a_circle(), 3, config=SMALL), tmp_path / "states")
    assert load_states(tmp_path / "states").quantiles.isfinite().any()
    with pytest.raises(ConfigError):
        load_states(tmp_path / "elsewhere")
