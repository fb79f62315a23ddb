"""Statistics of benchmark scores against SciPy, against values stored from rliable, and against the truth."""

from __future__ import annotations

import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from offline_vi.errors import UsageError
from offline_vi.evaluation.statistics import (
    AGGREGATES,
    bootstrap_interval,
    compare,
    improvement,
    iqm,
    mean,
    median,
    optimality_gap,
    paired_difference,
    performance_profile,
    probability_of_improvement,
    simulated_coverage,
)

RLIABLE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "rliable.json").read_text())
SCORES = {name: np.array(rows).T for name, rows in RLIABLE["scores"].items()}  # (T, R)
SCORE = st.floats(-20.0, 120.0)


@given(st.lists(st.lists(SCORE, min_size=1, max_size=9), min_size=1, max_size=4))
def test_the_iqm_is_scipys_trimmed_mean_of_all_runs(tasks: list[list[float]]) -> None:
    pooled = np.concatenate([np.array(task) for task in tasks])
    ours = iqm([np.array(task) for task in tasks])
    np.testing.assert_allclose(ours, stats.trim_mean(pooled, 0.25), rtol=1e-12, atol=1e-9)


@given(st.lists(SCORE, min_size=2, max_size=8), st.lists(SCORE, min_size=2, max_size=8))
def test_the_probability_of_improvement_is_mann_whitneys_statistic(x: list[float], y: list[float]) -> None:
    expected = stats.mannwhitneyu(x, y).statistic / (len(x) * len(y))
    assert float(improvement([np.array(x)], [np.array(y)])) == pytest.approx(expected, abs=1e-12)


def test_aggregates_by_hand() -> None:
    tasks = [np.array([0.0, 10.0]), np.array([50.0, 70.0, 90.0]), np.array([120.0])]
    assert float(mean(tasks)) == pytest.approx((5.0 + 70.0 + 120.0) / 3)
    assert float(median(tasks)) == 70.0
    assert float(optimality_gap(tasks)) == pytest.approx((95.0 + 30.0 + 0.0) / 3)
    assert float(iqm(tasks)) == pytest.approx((10.0 + 50.0 + 70.0 + 90.0) / 4)  # one run of six left out on each side


def test_every_aggregate_reduces_many_resamples_as_it_reduces_one() -> None:
    rng = np.random.default_rng(0)
    many = [rng.normal(50.0, 30.0, (7, runs)) for runs in (3, 5, 4)]
    for statistic in AGGREGATES.values():
        rows = [float(statistic([task[row] for task in many])) for row in range(7)]
        np.testing.assert_allclose(statistic(many), rows, rtol=1e-12)


@pytest.mark.parametrize("name", list(SCORES))
def test_points_intervals_and_profiles_are_those_of_rliable(name: str) -> None:
    """Percentiles of 50,000 resamples differ between two seeds by 0.017 standard deviations, a 230th of the width."""
    for k, aggregate in enumerate(RLIABLE["aggregates"]):
        found = bootstrap_interval(SCORES[name], AGGREGATES[aggregate], resamples=RLIABLE["reps"])
        low, high = np.array(RLIABLE["intervals"][name])[:, k]
        assert found.value == pytest.approx(RLIABLE["points"][name][k], abs=1e-10)
        tolerance = 0.03 * (high - low)
        np.testing.assert_allclose([found.low, found.high], [low, high], rtol=0, atol=tolerance)
    profile = performance_profile(SCORES[name], RLIABLE["taus"], resamples=5_000)
    np.testing.assert_allclose(profile.fraction, RLIABLE["profiles"][name], atol=1e-12)
    low, high = RLIABLE["bands"][name]
    step = 1.0 / SCORES[name].size  # a percentile may fall on the next count
    np.testing.assert_allclose(profile.low, low, atol=1.01 * step)
    np.testing.assert_allclose(profile.high, high, atol=1.01 * step)


@pytest.mark.parametrize("pair", list(RLIABLE["improvement"]))
def test_the_probability_of_improvement_is_that_of_rliable(pair: str) -> None:
    ours, theirs = (SCORES[name] for name in pair.split(","))
    found = probability_of_improvement(ours, theirs, resamples=20_000)
    assert found.value == pytest.approx(RLIABLE["improvement"][pair], abs=1e-12)
    np.testing.assert_allclose([found.low, found.high], RLIABLE["improvement_intervals"][pair], rtol=0, atol=0.01)


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly_the_same() -> None:
    first, again = (bootstrap_interval(SCORES["a"]) for _ in range(2))
    other = bootstrap_interval(SCORES["a"], seed=1)
    assert first == again
    assert other != first
    assert other.low == pytest.approx(first.low, abs=0.05 * (first.high - first.low))


@pytest.mark.parametrize("means", [[0.0], [0.0, 40.0], [10.0, 45.0, 60.0, 95.0, 110.0]], ids=len)
def test_with_ten_runs_the_95_percent_interval_covers_the_truth_nine_times_in_ten(means: list[float]) -> None:
    assert simulated_coverage(means, 10.0, runs=10) >= 0.90


def test_with_three_runs_it_does_not_and_the_simulation_says_so() -> None:
    """A percentile bootstrap of three runs sees two thirds of the variance: 1.96 sqrt(2/3) = 1.6 standard deviations
    cover 89 % at best (many tasks); of one task the 27 resamples know no tails at all."""
    one, nine = (simulated_coverage(np.zeros(tasks), 10.0, runs=3) for tasks in (1, 9))
    assert 0.68 < one < 0.80
    assert 0.84 < nine < 0.90


def test_the_permutation_test_is_scipys_where_all_permutations_can_be_had() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(1.5, 1.0, 5), rng.normal(0.0, 1.0, 6)
    exact = stats.permutation_test(
        (x, y), lambda a, b: abs(a.mean() - b.mean()), alternative="greater", n_resamples=np.inf, vectorized=False
    )
    found = compare([x], [y], mean)
    assert found.p_value == pytest.approx(exact.pvalue, abs=1e-12)
    sampled = compare([x], [y], mean, resamples=400)
    assert sampled.p_value == pytest.approx(exact.pvalue, abs=0.02)
    assert found.difference.value == pytest.approx(x.mean() - y.mean())
    assert found.smallest_p == pytest.approx(1 / 462)  # 11 over 5, sides of different size
    assert found.runs == (5, 6)


def test_the_paired_test_is_scipys_and_its_interval_that_of_the_differences() -> None:
    rng = np.random.default_rng(4)
    starts = 50.0 * rng.standard_normal(9)  # which are far more different than the policies
    ours, theirs = starts + rng.normal(1.0, 1.0, 9), starts + rng.normal(0.0, 1.0, 9)
    exact = stats.permutation_test(
        (ours, theirs),
        lambda a, b: abs((a - b).mean()),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
        vectorized=False,
    )
    found = paired_difference(ours, theirs)
    assert found.p_value == pytest.approx(exact.pvalue, abs=1e-12)
    assert paired_difference(ours, theirs, resamples=500).p_value == pytest.approx(exact.pvalue, abs=0.05)
    reference = stats.bootstrap((ours - theirs,), np.mean, method="percentile", n_resamples=20_000)
    low, high = reference.confidence_interval
    assert found.difference == pytest.approx((float((ours - theirs).mean()), low, high), abs=0.05)
    assert (found.wins, found.starts) == (int((ours > theirs).sum()), 9)
    with pytest.raises(UsageError):
        paired_difference(ours, theirs[1:])


def test_the_paired_interval_covers_the_truth() -> None:
    rng, covered = np.random.default_rng(6), 0
    for repeat in range(300):
        apart = rng.exponential(1.0, 50)
        _, low, high = paired_difference(apart, np.zeros(50), resamples=500, seed=repeat).difference
        covered += low <= 1.0 <= high
    assert covered >= 0.88 * 300


def test_few_runs_cannot_reject_and_say_so() -> None:
    ours, theirs = np.array([[90.0, 91.0, 92.0]]), np.array([[10.0, 11.0, 12.0]])
    found = compare(ours, theirs)
    assert found.improvement.value == 1.0
    pooled = np.concatenate([ours[0], theirs[0]])
    gaps = [
        abs(pooled[list(chosen)].mean() - np.delete(pooled, list(chosen)).mean())
        for chosen in combinations(range(6), 3)
    ]
    assert found.smallest_p == pytest.approx(np.mean(np.array(gaps) >= max(gaps) - 1e-9)) == pytest.approx(0.1)
    assert found.p_value == 0.1
    assert found.wins is None


def test_all_ways_to_deal_several_tasks_are_tried() -> None:
    """Against a plain double loop over the deals of two tasks with different numbers of runs."""
    rng = np.random.default_rng(5)
    ours, theirs = [rng.normal(1.0, 1.0, 3), rng.normal(0.5, 1.0, 2)], [rng.normal(0.0, 1.0, 2), rng.normal(0, 1.0, 3)]
    pooled = [np.concatenate(pair) for pair in zip(ours, theirs, strict=True)]

    def gap(chosen: tuple[tuple[int, ...], ...]) -> float:
        sides = [
            (task[list(c)].mean(), np.delete(task, list(c)).mean()) for task, c in zip(pooled, chosen, strict=True)
        ]
        return float(abs(np.mean([a - b for a, b in sides])))

    deals = list(product(combinations(range(5), 3), combinations(range(5), 2)))
    observed = gap(((0, 1, 2), (0, 1)))
    expected = np.mean([gap(chosen) >= observed - 1e-9 for chosen in deals])
    found = compare(ours, theirs, mean)
    assert found.p_value == pytest.approx(expected, abs=1e-12)
    assert found.smallest_p == pytest.approx(1 / len(deals))


def test_a_p_value_is_never_below_the_smallest_one() -> None:
    ours, theirs = np.arange(10.0) + 100.0, np.arange(10.0)
    assert compare([ours], [theirs], mean, resamples=2_000).p_value >= compare([ours], [theirs]).smallest_p


def test_paired_seeds_cancel_what_a_seed_does_to_both() -> None:
    rng = np.random.default_rng(1)
    luck = rng.normal(0.0, 30.0, 8)
    ours, theirs = luck + 5.0 + rng.normal(0.0, 0.1, 8), luck
    alone, together = compare([ours], [theirs], mean), compare([ours], [theirs], mean, paired=True)
    assert together.difference.value == alone.difference.value == pytest.approx((ours - theirs).mean())
    width = together.difference.high - together.difference.low
    expected = 2 * 1.96 * (ours - theirs).std() / np.sqrt(8)
    assert width == pytest.approx(expected, rel=0.1)
    assert alone.difference.high - alone.difference.low > 100 * width
    assert together.wins == 8
    with pytest.raises(UsageError):
        compare([ours[:3]], [theirs], mean, paired=True)


def test_the_permutation_test_holds_its_level_between_equals() -> None:
    rng = np.random.default_rng(0)
    p = [compare(rng.normal(0, 1, (2, 4)), rng.normal(0, 1, (2, 4)), resamples=200, seed=k).p_value for k in range(400)]
    rejected = sum(value <= 0.05 for value in p)
    assert rejected <= stats.binom.ppf(0.999, len(p), 0.05)
    assert rejected >= 1


@pytest.mark.parametrize(
    ("tasks", "words"),
    [([], "at least one"), ([[]], "at least one"), ([[1.0, np.nan]], "not finite"), ([[[1.0]]], "at least one")],
)
def test_what_is_no_table_of_scores_is_refused(tasks: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bootstrap_interval(tasks)


def test_different_tasks_are_not_compared() -> None:
    with pytest.raises(UsageError, match="2 tasks against 1"):
        compare([[1.0], [2.0]], [[1.0]])
