"""The best steps of each state: a problem with a known answer, the loss against an oracle, folds that stay apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from offline_vi.data import Transitions
from offline_vi.data.samplers import Sampler
from offline_vi.data.weights import Best, agreeing_share
from offline_vi.errors import ConfigError, EmptyDatasetError
from offline_vi.training import BestSteps, BestStepsConfig, fit, fit_gains, improving_rows, worthwhile_rows
from offline_vi.types import Spec

SMALL = BestStepsConfig(steps=700, hidden=(32,), batch_size=128)


def noisy_bandit(rows: int = 3_000, seed: int = 0) -> tuple[Transitions, NDArray[np.float64]]:
    """States s in [-1, 1]; the advantage is (1 + s) a and three times as much noise: nothing is to be gained at -1."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
    ends = np.arange(rows) % 5 == 4
    data = Transitions(obs, action, np.zeros(rows, np.float32), obs, ends, ends, Spec((1,), 1))
    explained = ((1 + obs) * action)[:, 0].astype(np.float64)
    return data, explained + 3.0 * explained.std() * rng.normal(size=rows)


def test_as_many_steps_are_kept_in_every_state_and_they_are_the_best() -> None:
    torch.manual_seed(0)
    data, advantages = noisy_bandit()
    kept = fit_gains(data, advantages, SMALL, progress=False) > 0.0
    state, action = data.obs[:, 0], data.action[:, 0]
    for low in (-0.5, 0.0, 0.5):
        here = (state > low) & (state < low + 0.5)
        assert kept[here].mean() == pytest.approx(0.3, abs=0.08)
        assert action[here & kept].mean() > 0.5  # of the best three tenths: 0.7; the noise alone would keep 0


def test_the_loss_is_the_oracle_s() -> None:
    torch.manual_seed(1)
    data, advantages = noisy_bandit(60)
    steps = BestSteps(data, advantages, BestStepsConfig(kept=0.2, folds=4, hidden=(6,)))
    batch = Sampler(data, 16, 3).sample()
    explained, quantile = (part.detach().double().numpy() for part in steps.both(batch.obs, batch.action))
    rows, fold = batch.index.numpy(), steps.fold.numpy()
    expected = 0.0
    for k in range(4):
        for at, row in enumerate(rows):
            error = (explained[k, at] - advantages[row] / advantages.std()) ** 2 if fold[row] != k else 0.0
            above = explained[k, at] - quantile[k, at]
            expected += (error + (0.8 * above if above > 0.0 else -0.2 * above)) / len(rows)
    assert steps.loss(batch)[0].item() == pytest.approx(expected, rel=1e-5)


def test_a_row_is_judged_by_networks_that_never_saw_its_advantage() -> None:
    data, advantages = noisy_bandit(60)
    torch.manual_seed(0)
    steps = BestSteps(data, advantages, SMALL)
    changed = BestSteps(data, advantages, SMALL)
    changed.restore(steps.snapshot())
    held_out = steps.fold == 1
    changed.advantages[held_out] += 100.0
    for one in (steps, changed):
        fit(one, data, 10, progress=False)
    rows = held_out.numpy()
    np.testing.assert_array_equal(steps.gains()[rows], changed.gains()[rows])
    assert not np.array_equal(steps.gains()[~rows], changed.gains()[~rows])


def test_rows_are_those_of_the_best_episodes_and_never_none() -> None:
    data, _ = noisy_bandit(20)
    reward = np.repeat([1.0, 4.0, 3.0, 2.0], 5).astype(np.float32)
    data = Transitions(data.obs, data.action, reward, data.obs, data.terminated, data.episode_end, data.spec)
    gains = np.tile([1.0, -1.0, 0.0, 2.0, -3.0], 4)
    expected = np.zeros(20)
    expected[5:15], expected[[5, 8, 10, 13]] = 0.2, 1.0
    np.testing.assert_allclose(improving_rows(data, gains, 0.5, 0.2), expected)
    alike = improving_rows(data, -np.ones(20), 0.25)
    assert np.flatnonzero(alike).tolist() == [5, 6, 7, 8, 9]
    assert len(set(alike[5:10])) == 1


@pytest.mark.parametrize("config", [BestStepsConfig(kept=0.0), BestStepsConfig(kept=1.0), BestStepsConfig(folds=1)])
def test_shares_and_folds_out_of_range_are_refused(config: BestStepsConfig) -> None:
    with pytest.raises(ConfigError):
        BestSteps(*noisy_bandit(60), config)


def test_fewer_rows_than_folds_are_refused() -> None:
    with pytest.raises(EmptyDatasetError):
        BestSteps(*noisy_bandit(2), BestStepsConfig())


def of_returns(returns: NDArray[np.float64]) -> Transitions:
    """Episodes of ten steps with these returns."""
    ends = np.arange(10 * len(returns)) % 10 == 9
    obs, action = np.zeros((len(ends), 1), np.float32), np.zeros((len(ends), 1), np.float32)
    reward = np.repeat(returns / 10.0, 10).astype(np.float32)
    return Transitions(obs, action, reward, obs, ends, ends, Spec((1,), 1))


def test_an_expert_that_falls_is_cloned_whole() -> None:
    """A fifth of the rows are of episodes that agree: all steps of the best quarter count, and no values are fitted."""
    rng = np.random.default_rng(0)
    returns = np.concatenate(
        [rng.normal(3000.0, 30.0, 20), rng.uniform(500.0, 2500.0, 20), rng.normal(800.0, 150.0, 60)]
    )
    data = of_returns(returns)

    def never() -> NDArray[np.float64]:
        raise AssertionError("no values are needed")

    assert 0.2 <= agreeing_share(data) < 0.25
    np.testing.assert_array_equal(worthwhile_rows(data, never), Best(0.25)(data))
    gains = rng.normal(size=len(data))
    differing = of_returns(rng.uniform(500.0, 2500.0, 100))
    expected = improving_rows(differing, gains)
    np.testing.assert_array_equal(worthwhile_rows(differing, lambda: gains), expected)
