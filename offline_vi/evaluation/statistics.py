"""What several runs on several tasks say about an algorithm: aggregates, intervals, comparisons. NumPy only.

R. Agarwal, M. Schwarzer, P. S. Castro, A. Courville, M. G. Bellemare: Deep Reinforcement Learning at the Edge of the
Statistical Precipice, NeurIPS 2021 (their code: github.com/google-research/rliable).

Scores come as one array per task, its last axis the runs (seeds): a (T, R) matrix, or a list where tasks have different
numbers of runs. A run is one number, the mean over the episodes of one evaluation: episodes and evaluations of one run
are not independent, so that runs are what is resampled. Every statistic reduces the runs and leaves the axes before
them, so that thousands of resamples are one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_vi.errors import UsageError

Array = NDArray[np.float64]
Tasks = Sequence[ArrayLike] | Array
"""T arrays (..., R_t) of scores."""
Statistic = Callable[[Sequence[Array]], Array]
"""T arrays (..., R_t) -> (...)."""
RESAMPLES = 10_000
FEW = 10  # runs: with fewer a report says what its intervals cover


class Interval(NamedTuple):
    """An estimate and the bounds of its interval."""

    value: float  # the estimate
    low: float  # the lower bound
    high: float  # the upper bound


def iqm(tasks: Sequence[Array]) -> Array:
    """Interquartile mean: of all runs of all tasks, the mean without the lowest and the highest quarter (Agarwal et al.
    2021). As in `scipy.stats.trim_mean`, floor(n / 4) are left out on either side."""
    pooled = np.sort(np.concatenate(list(tasks), axis=-1), axis=-1)
    cut = pooled.shape[-1] // 4
    kept: Array = pooled[..., cut : pooled.shape[-1] - cut].mean(-1)
    return kept


def mean(tasks: Sequence[Array]) -> Array:
    """Mean over tasks of the mean over runs."""
    means: Array = _task_means(tasks).mean(0)
    return means


def median(tasks: Sequence[Array]) -> Array:
    """Median over tasks of the mean over runs."""
    medians: Array = np.median(_task_means(tasks), axis=0)
    return medians


def optimality_gap(tasks: Sequence[Array], goal: float = 100.0) -> Array:
    """How far scores stay below ``goal``, scores above it counting as reached (Agarwal et al. 2021); mean
    over tasks of the mean over runs."""
    gaps: Array = _task_means([goal - np.minimum(task, goal) for task in tasks]).mean(0)
    return gaps


def _task_means(tasks: Sequence[Array]) -> Array:
    return np.stack([task.mean(-1) for task in tasks])


AGGREGATES: dict[str, Statistic] = {"IQM": iqm, "median": median, "mean": mean, "optimality gap": optimality_gap}


def bootstrap_interval(
    tasks: Tasks, statistic: Statistic = iqm, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The statistic with its stratified percentile bootstrap interval: runs are drawn with replacement within each
    task, the tasks stay (Agarwal et al. 2021); ``resamples`` is 10,000 by default. With a single run per task the
    interval is a point: nothing is known.

    Raises UsageError where there are no scores, or not all are finite.
    """
    scores = _checked(tasks)
    drawn = statistic(_resampled(scores, resamples, np.random.default_rng(seed)))
    return _interval(statistic(scores), drawn, level)


def _resampled(tasks: Sequence[Array], resamples: int, rng: np.random.Generator) -> list[Array]:
    """T arrays (R_t, ...) -> T arrays (resamples, R_t, ...)."""
    return [task[rng.integers(len(task), size=(resamples, len(task)))] for task in tasks]


def _interval(value: Array, drawn: Array, level: float) -> Interval:
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(value), float(low), float(high))


def _checked(tasks: Tasks) -> list[Array]:
    scores = [np.asarray(task, np.float64) for task in tasks]
    if not scores or any(task.ndim != 1 or task.size == 0 for task in scores):
        raise UsageError("statistics need at least one task with at least one run each", "an array of runs per task")
    if not all(np.isfinite(task).all() for task in scores):
        raise UsageError("a score is not finite", "leave failed runs out and say how many there were")
    return scores


def simulated_coverage(
    means: ArrayLike,
    stds: ArrayLike,
    runs: int,
    statistic: Statistic = iqm,
    *,
    level: float = 0.95,
    repeats: int = 1_000,
    resamples: int = 1_000,
    seed: int = 0,
) -> float:
    """How often the interval covers the truth where scores are normal: ``means`` and ``stds`` (T,) of the tasks,
    ``runs`` runs each. The truth is the statistic of 100,000 runs.

    A percentile bootstrap of few runs is too short: the variance that it sees is (R - 1) / R of the true one, and its
    tails are the normal's where Student's are needed.
    """
    rng = np.random.default_rng(seed)
    means, stds = np.broadcast_arrays(np.asarray(means, np.float64), np.asarray(stds, np.float64))

    def draw(count: int) -> list[Array]:
        return [m + s * rng.standard_normal(count) for m, s in zip(means.ravel(), stds.ravel(), strict=True)]

    truth, covered = float(statistic(draw(100_000))), 0
    for _ in range(repeats):
        scores = draw(runs)
        _, low, high = _interval(statistic(scores), statistic(_resampled(scores, resamples, rng)), level)
        covered += low <= truth <= high
    return covered / repeats


class Profile(NamedTuple):
    """A performance profile with its pointwise band."""

    scores: Array  # (L,) the thresholds tau
    fraction: Array  # (L,)
    low: Array  # (L,)
    high: Array  # (L,)


def exceedance(tasks: Sequence[Array], thresholds: Array) -> Array:
    """Share of runs that score above each threshold tau, mean over tasks: (..., L) (Agarwal et al. 2021)."""
    shares: Array = np.stack([(task[..., None] > thresholds).mean(-2) for task in tasks]).mean(0)
    return shares


def performance_profile(
    tasks: Tasks, thresholds: ArrayLike, *, level: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> Profile:
    """The run-score distribution at ``thresholds`` (L,), with a stratified bootstrap band at each.

    Raises UsageError as `bootstrap_interval`.
    """
    scores, taus = _checked(tasks), np.asarray(thresholds, np.float64)
    drawn = exceedance(_resampled(scores, resamples, np.random.default_rng(seed)), taus)
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
    return Profile(taus, exceedance(scores, taus), low, high)


def improvement(ours: Sequence[Array], theirs: Sequence[Array]) -> Array:
    """P(X > Y) + P(X = Y) / 2 for a run X of ours and Y of theirs, mean over tasks: (...) (Agarwal et al. 2021; the
    Mann-Whitney statistic over R_x R_y)."""
    shares = []
    for x, y in zip(ours, theirs, strict=True):
        against = x[..., :, None] - y[..., None, :]
        shares.append(((np.sign(against) + 1.0) / 2.0).mean((-2, -1)))
    chance: Array = np.stack(shares).mean(0)
    return chance


def probability_of_improvement(
    ours: Tasks, theirs: Tasks, *, level: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> Interval:
    """`improvement` with its stratified bootstrap interval; the same tasks in the same order, runs need not match.

    Raises UsageError as `bootstrap_interval`, and where the tasks are not as many.
    """
    x, y = _same_tasks(ours, theirs)
    rng = np.random.default_rng(seed)
    drawn = improvement(_resampled(x, resamples, rng), _resampled(y, resamples, rng))
    return _interval(improvement(x, y), drawn, level)


class Comparison(NamedTuple):
    """Ours against theirs over several runs on the same tasks."""

    difference: Interval  # of the statistic, ours - theirs
    improvement: Interval  # P(a run of ours is better than one of theirs)
    p_value: float  # two-sided permutation test of "no difference"
    smallest_p: float  # the smallest p-value that so many runs can give
    runs: tuple[int, int]  # of ours and theirs, all tasks together
    wins: int | None = None  # pairs of runs with the same seed in which ours is better; None where runs are not paired


def compare(
    ours: Tasks,
    theirs: Tasks,
    statistic: Statistic = iqm,
    *,
    paired: bool = False,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Whether two algorithms differ: bootstrap interval of the difference, probability of improvement, and a
    permutation test that exchanges runs between the two within each task. The test holds its level at any number of
    runs, which the bootstrap does not; with few runs it cannot reject (``smallest_p``): three against three on one task
    give 2/20 at best. Up to ``resamples`` (default 10,000) ways to deal the runs are all tried, so that the p-value is
    exact; of more, as many are drawn.

    ``paired`` says that run k of both has the same seed, on every task. Then the bootstrap draws seeds, not runs: what
    a seed does to both sides cancels in their difference.

    Raises UsageError as `probability_of_improvement`, and where paired tasks have different numbers of runs.
    """
    x, y = _same_tasks(ours, theirs)
    rng = np.random.default_rng(seed)
    observed = statistic(x) - statistic(y)
    if paired:
        if [len(a) for a in x] != [len(b) for b in y]:
            raise UsageError("paired tasks have different numbers of runs", "leave paired=True out")
        both = _resampled([np.stack([a, b], -1) for a, b in zip(x, y, strict=True)], resamples, rng)
        drawn = statistic([task[..., 0] for task in both]) - statistic([task[..., 1] for task in both])
    else:
        drawn = statistic(_resampled(x, resamples, rng)) - statistic(_resampled(y, resamples, rng))
    smallest = _smallest_p(x, y)
    return Comparison(
        _interval(observed, drawn, level),
        probability_of_improvement(x, y, level=level, seed=seed),
        max(_permutation_p(x, y, statistic, resamples, rng), smallest),
        smallest,
        (sum(map(len, x)), sum(map(len, y))),
        int(sum((a > b).sum() for a, b in zip(x, y, strict=True))) if paired else None,
    )


class PairedDifference(NamedTuple):
    """What two policies earned from the same starts, ours - theirs."""

    difference: Interval  # the mean over starts, and its interval
    p_value: float  # two-sided sign-flip test of "no difference"
    wins: int  # starts from which ours earned more
    starts: int  # that both had


def paired_difference(
    ours: ArrayLike, theirs: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference:
    """Two policies compared by what they earned from the same starts, (E,) each: the mean difference, its bootstrap
    interval over starts, and the permutation test that exchanges the two within each start. Up to ``resamples``
    (default 10,000) ways to exchange are all tried; of more, as many are drawn.

    What a start does to both cancels in their difference. The result is of these two policies: it says nothing about
    what another training seed would give.

    Raises UsageError where the numbers of starts differ, or where a score is not finite.
    """
    x, y = (_checked([side])[0] for side in (ours, theirs))
    if len(x) != len(y):
        raise UsageError(f"{len(x)} starts against {len(y)}", "compare on the starts that both have")
    rng, apart = np.random.default_rng(seed), x - y
    drawn = apart[rng.integers(len(apart), size=(resamples, len(apart)))].mean(-1)
    exact = 2 ** len(apart) <= resamples
    if exact:
        signs = 1.0 - 2.0 * np.indices((2,) * len(apart)).reshape(len(apart), -1).T  # (2^E, E)
    else:
        signs = rng.choice([-1.0, 1.0], size=(resamples, len(apart)))
    as_large = np.abs((signs * apart).mean(-1)) >= abs(apart.mean()) - 1e-9
    p_value = float(as_large.mean() if exact else (1 + as_large.sum()) / (1 + resamples))
    interval = _interval(apart.mean(), drawn, level)
    return PairedDifference(interval, p_value, int((apart > 0.0).sum()), len(apart))


def _permutation_p(
    x: Sequence[Array], y: Sequence[Array], statistic: Statistic, resamples: int, rng: np.random.Generator
) -> float:
    """The two-sided p-value of "no difference": exact where there are at most ``resamples`` ways to deal the runs."""
    pooled = [np.concatenate([a, b]) for a, b in zip(x, y, strict=True)]
    sizes = [len(a) for a in x]
    exact = _ways(x, y) <= resamples
    if exact:
        orders = _every_order([len(task) for task in pooled], sizes)
    else:
        orders = [rng.permuted(np.tile(np.arange(len(task)), (resamples, 1)), axis=1) for task in pooled]
    dealt = [task[order] for task, order in zip(pooled, orders, strict=True)]
    left = statistic([task[:, :size] for task, size in zip(dealt, sizes, strict=True)])
    right = statistic([task[:, size:] for task, size in zip(dealt, sizes, strict=True)])
    as_large = np.abs(left - right) >= np.abs(statistic(x) - statistic(y)) - 1e-9
    return float(as_large.mean() if exact else (1 + as_large.sum()) / (1 + resamples))


def _every_order(runs: Sequence[int], sizes: Sequence[int]) -> list[NDArray[np.intp]]:
    """T arrays (ways, R_t): every way to deal the runs of every task, the first ``sizes[t]`` of a row to one side."""
    each = [np.array(list(_orders(count, size))) for count, size in zip(runs, sizes, strict=True)]
    picks = np.indices([len(orders) for orders in each]).reshape(len(each), -1)  # (T, ways)
    return [orders[pick] for orders, pick in zip(each, picks, strict=True)]


def _orders(count: int, size: int) -> Iterator[list[int]]:
    """Every way to deal ``count`` runs of one task, ``size`` of them to the first side."""
    for chosen in combinations(range(count), size):
        yield [*chosen, *(run for run in range(count) if run not in chosen)]


def _ways(x: Sequence[Array], y: Sequence[Array]) -> int:
    """The number of ways to deal the runs of every task."""
    return math.prod(math.comb(len(a) + len(b), len(a)) for a, b in zip(x, y, strict=True))


def _smallest_p(x: Sequence[Array], y: Sequence[Array]) -> float:
    """One over the number of ways to deal the runs; twice that where both sides are as large, for the mirror image of
    a deal then is as far from zero."""
    mirrored = all(len(a) == len(b) for a, b in zip(x, y, strict=True))
    return min((2 if mirrored else 1) / _ways(x, y), 1.0)


def _same_tasks(ours: Tasks, theirs: Tasks) -> tuple[list[Array], list[Array]]:
    x, y = _checked(ours), _checked(theirs)
    if len(x) != len(y):
        raise UsageError(f"{len(x)} tasks against {len(y)}", "compare on the tasks that both have")
    return x, y
