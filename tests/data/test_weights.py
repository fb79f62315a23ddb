"""Which episodes count: rules against plain NumPy, and what draws from weighted rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from offline_vi.data import Sampler, StackedSampler, Transitions, concatenate
from offline_vi.data.weights import Advantages, Best, Returns, agreeing_share, effective_rows, weighted
from offline_vi.errors import ConfigError


def episodes(lengths: list[int], returns: list[float], seed: int = 0) -> Transitions:
    """Episodes of these lengths with all their return in the last row, each ended by a terminal."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(lengths) - 1
    reward, terminal = np.zeros(sum(lengths)), np.zeros(sum(lengths), bool)
    reward[ends], terminal[ends] = returns, True
    return Transitions.from_d4rl(
        {
            "observations": rng.normal(size=(sum(lengths), 2)),
            "actions": rng.uniform(-1, 1, (sum(lengths), 1)),
            "rewards": reward,
            "terminals": terminal,
            "timeouts": np.zeros(sum(lengths), bool),
            "next_observations": rng.normal(size=(sum(lengths), 2)),
        },
        next_obs="within_episode",
    )


def test_the_best_episodes_are_taken_until_they_hold_the_share() -> None:
    data = episodes([5, 3, 2, 10], [1.0, 4.0, 3.0, 2.0])
    weight = weighted(data, Best(0.25)).weight
    assert weight is not None
    expected = np.repeat([0.0, 4.0, 4.0, 0.0], [5, 3, 2, 10])  # 5 of 20 rows: the best two episodes
    np.testing.assert_allclose(weight, expected)
    assert effective_rows(weight) == pytest.approx(5.0)


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(-50, 50)), min_size=1, max_size=12), st.floats(0.01, 1.0))
def test_no_episode_left_out_is_better_than_one_taken(drawn: list[tuple[int, float]], share: float) -> None:
    data = episodes([length for length, _ in drawn], [value for _, value in drawn])
    weight = Best(share)(data)
    slices, returns = data.episode_slices(), data.episode_returns()
    taken = np.array([weight[rows].all() for rows in slices])
    assert (taken == np.array([weight[rows].any() for rows in slices])).all()
    assert taken.any()
    assert returns[taken].min() >= returns[~taken].max(initial=-np.inf)
    lengths = np.array([length for length, _ in drawn])
    assert lengths[taken].sum() >= share * len(data) - 1e-9
    worst = np.flatnonzero(taken & (returns == returns[taken].min()))
    assert min(lengths[taken].sum() - lengths[worst]) < share * len(data)  # none too many


def softmax_by_hand(of_episodes: NDArray[np.float64], alpha: float, lengths: list[int]) -> NDArray[np.float64]:
    scaled = (of_episodes - min(of_episodes)) / (max(of_episodes) - min(of_episodes))
    rows = np.array(
        [np.exp(value / alpha) for value, length in zip(scaled, lengths, strict=True) for _ in range(length)]
    )
    return np.asarray(rows / rows.mean())


def test_weights_by_return() -> None:
    lengths, returns = [2, 7, 4], [1.0, 5.0, -3.0]
    found = Returns(alpha=0.3)(episodes(lengths, returns))
    np.testing.assert_allclose(found, softmax_by_hand(np.array(returns), 0.3, lengths), rtol=1e-6)


def test_weights_by_return_above_a_linear_prediction() -> None:
    rng = np.random.default_rng(3)
    lengths, returns = [int(n) for n in rng.integers(1, 9, 12)], [float(np.float32(x)) for x in rng.normal(size=12)]
    data = episodes(lengths, returns)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    design = np.column_stack([np.ones(12), data.obs[starts].astype(np.float64)])
    coefficients = np.linalg.solve(design.T @ design, design.T @ np.array(returns))  # the normal equations
    advantage = np.array(returns) - design @ coefficients
    np.testing.assert_allclose(Advantages(0.2)(data), softmax_by_hand(advantage, 0.2, lengths), rtol=1e-5)


def test_equal_returns_weigh_alike() -> None:
    data = episodes([2, 3], [1.0, 1.0])
    for rule in (Returns(), Advantages()):
        np.testing.assert_allclose(rule(data), 1.0)


def test_rows_are_drawn_in_proportion_to_their_weights() -> None:
    data = episodes([4], [1.0]).with_weights(np.array([0.0, 1.0, 0.0, 3.0]), {"rule": "mine"})
    index = np.concatenate([Sampler(data, 5_000, seed).sample().index.numpy() for seed in range(4)])
    counts = np.bincount(index, minlength=4)
    assert counts[0] == counts[2] == 0
    assert counts[3] / 20_000 == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 20_000))


def test_weighted_draws_go_on_where_they_were() -> None:
    data = weighted(episodes([5, 6, 7], [1.0, 2.0, 3.0]), Returns())
    source = Sampler(data, 8, 1)
    source.sample()
    state, expected = source.state(), [source.sample().index.tolist() for _ in range(3)]
    again = Sampler(data, 8, 2)
    again.load_state(state)
    assert [again.sample().index.tolist() for _ in range(3)] == expected


def test_seeds_in_parallel_draw_what_each_would_alone() -> None:
    data = weighted(episodes([5, 6, 7], [1.0, 2.0, 3.0]), Best(0.4))
    together = StackedSampler(data, 8, [4, 5]).sample().index
    for place, seed in enumerate((4, 5)):
        assert together[place].tolist() == Sampler(data, 8, seed).sample().index.tolist()


def test_rows_take_their_weights_along() -> None:
    data = weighted(episodes([3, 3, 3], [1.0, 2.0, 3.0]), Best(0.3))
    assert data.source.weights == {"rule": "best", "share": 0.3}
    weight = data.select(slice(6, 9)).weight
    assert weight is not None
    np.testing.assert_allclose(weight, 3.0)
    assert data.with_reward(2.0).weight is not None
    assert concatenate([data, data]).weight is None
    assert data.with_weights(None, {}).source.weights is None


@pytest.mark.parametrize("weight", [np.ones(2), -np.ones(3), np.zeros(3), np.array([1.0, np.nan, 1.0])])
def test_weights_that_are_none_are_refused(weight: NDArray[np.float64]) -> None:
    with pytest.raises(ConfigError):
        episodes([3], [1.0]).with_weights(weight, {})


@pytest.mark.parametrize("rule", [Best(0.0), Best(1.5), Returns(0.0), Advantages(-1.0)])
def test_rules_out_of_range_are_refused(rule: Best | Returns | Advantages) -> None:
    with pytest.raises(ConfigError):
        rule(episodes([3, 2], [1.0, 2.0]))


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(-50, 50)), min_size=1, max_size=12),
    st.floats(0.0, 0.5),
    st.floats(0.01, 1.0),
)
def test_the_agreeing_share_is_the_largest_that_agrees(
    drawn: list[tuple[int, float]], tolerance: float, least: float
) -> None:
    data = episodes([length for length, _ in drawn], [value for _, value in drawn])
    found = agreeing_share(data, tolerance, least)
    shares = [0.0]
    order = sorted(range(len(drawn)), key=lambda i: -np.float32(drawn[i][1]))
    lengths, returns = np.array([drawn[i][0] for i in order]), np.array([np.float32(drawn[i][1]) for i in order], float)
    for count in range(min(2, len(drawn)), len(drawn) + 1):
        share = lengths[:count].sum() / lengths.sum()
        limit = tolerance * min(share / 0.25, 1.0) * abs(returns[:count].mean())
        if share >= least and returns[:count].std() <= limit + 1e-9 * (limit > 0.0):
            shares.append(share)
    borderline = [
        lengths[:count].sum() / lengths.sum()
        for count in range(1, len(drawn) + 1)
        if abs(
            returns[:count].std()
            - tolerance * min(lengths[:count].sum() / lengths.sum() / 0.25, 1.0) * abs(returns[:count].mean())
        )
        < 1e-6
    ]
    assert found == pytest.approx(max(shares)) or found in borderline or max(shares) in borderline


def test_the_half_of_one_policy_agrees_whatever_the_other_is() -> None:
    rng = np.random.default_rng(0)
    data = episodes([10] * 40, [*rng.normal(1000, 5, 20), *rng.uniform(0, 600, 20)])
    assert agreeing_share(data) == 0.5
    for count in (20, 100, 1_000):  # the best few of any returns are close: that alone is no agreement
        assert agreeing_share(episodes([10] * count, list(np.linspace(0.0, 600.0, count)))) == 0.0
