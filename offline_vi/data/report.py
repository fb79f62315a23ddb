"""What is in a data set, and what training makes of it: counted once, printed by `offline-vi data check` and `info`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline_vi.data.steps import Steps
from offline_vi.data.transitions import Transitions
from offline_vi.errors import counted
from offline_vi.types import FloatArray, unit_task

BLOCK_ROWS = 1 << 14  # looked at at once: rows may be mapped
FEW = 10  # ends by the task that say something
BILL, TIMES = 0.03, 2.0  # share of all rewards, and times the usual one, from which a last row says something
SOME = 5  # last rows that say something
LARGE = 30.0  # observations beyond which networks are to get them normalized


class Statistics(NamedTuple):
    """Statistics of the numbers that are finite; NaN where there are none."""

    mean: float  # of all values
    std: float  # standard deviation over all values
    min: float  # the smallest value
    max: float  # the largest value

    @classmethod
    def of(cls, values: NDArray[Any]) -> Statistics:
        finite = values[np.isfinite(values)].astype(np.float64)
        if len(finite) == 0:
            return cls(math.nan, math.nan, math.nan, math.nan)
        return cls(float(finite.mean()), float(finite.std()), float(finite.min()), float(finite.max()))


class Features(NamedTuple):
    """The features of a matrix (R, F)."""

    low: tuple[float, ...]  # (F,) smallest values
    high: tuple[float, ...]  # (F,) largest values
    constant: tuple[int, ...]  # features with one value
    duplicated: tuple[tuple[int, int], ...]  # pairs of features that are equal in every row, and not constant

    @classmethod
    def of(cls, blocks: Callable[[], Iterator[FloatArray]]) -> Features:
        """The statistics of a matrix that ``blocks`` gives a few rows at a time."""
        low, high, sums = (np.array([]) for _ in range(3))
        rng = np.random.default_rng(0)
        for number, block in enumerate(blocks()):
            # equal features have equal sums, whatever the weights; others almost surely do not
            weighted = (rng.uniform(1.0, 2.0, (len(block), 1)) * block).sum(0, dtype=np.float64)
            low = block.min(0) if number == 0 else np.minimum(low, block.min(0))
            high = block.max(0) if number == 0 else np.maximum(high, block.max(0))
            sums = weighted if number == 0 else sums + weighted
        constant = low == high
        first: dict[tuple[float, ...], int] = {}
        pairs = []
        for feature in np.flatnonzero(~constant).tolist():
            other = first.setdefault((float(sums[feature]), float(low[feature]), float(high[feature])), feature)
            if other != feature:
                pairs.append((other, feature))
        return cls(_numbers(low), _numbers(high), tuple(np.flatnonzero(constant).tolist()), tuple(pairs))


class Ends(NamedTuple):
    """How the episodes of a data set end."""

    terminal: int  # the task ended
    timeout: int | None  # cut, as recorded (rows that are both count here, too); None where there is no such column
    limit: int  # cut by the limit of steps, where there is no such column
    unmarked: int  # cut where next observations show that an end was not marked
    open: int  # neither: the last row of a data set
    failed: int | None  # of the ends of the task, the failures; None where that is not recorded


@dataclass(frozen=True)
class DataReport:
    """A data set as it is stored (rows, episodes) and as training gets it (transitions)."""

    name: str  # of the data set, or of its file
    paths: tuple[str, ...]  # the files
    sha256: tuple[str, ...]  # of each file
    rows: int  # as they are stored
    episodes: int  # as they are stored
    transitions: int  # rows that training gets
    training_episodes: int  # what `Transitions.episode_slices` counts
    dropped: dict[str, int]  # why -> rows that are no transitions
    dropped_episodes: int  # of which no transition is left
    ends: Ends  # why episodes ended
    returns: Statistics  # of whole episodes, undiscounted, in the data's units
    lengths: Statistics  # rows of whole episodes
    scores: Statistics | None  # normalized returns, where the task has reference scores
    observations: Features  # statistics of each entry
    actions: Features  # in the data's units
    action_low: tuple[float, ...]  # what -1 stands for
    action_high: tuple[float, ...]  # what +1 stands for
    on_bounds: float  # share of action entries at -1 or +1
    action_kind: str  # "amounts", or the labels that they look like
    environment: str  # that scores policies; empty where there is none
    next_obs: str  # where next observations come from, as in `Transitions.from_columns`
    next_obs_stored: bool  # whether the file holds next observations
    log_prob_stored: bool  # whether it holds log-densities of the behavior policy
    note: str  # what a reader of a score must know
    warnings: tuple[str, ...]  # everything that was repaired or is odd

    @classmethod
    def of(cls, data: Transitions, steps: Sequence[Steps], warnings: Sequence[str] = ()) -> DataReport:
        """The report on transitions and on the rows of the data sets that were joined to them."""
        task = data.task or unit_task(data.spec.action_dim)
        returns = np.concatenate([part.returns for part in steps])
        scores, lengths, ends = task.normalized(returns), np.concatenate([part.lengths for part in steps]), _ends(steps)
        observations = Features.of(lambda: _blocks(data.obs))
        bounds = [np.abs(block) >= 1.0 for block in _blocks(data.action)]
        labels = " + ".join(sorted({part.labels for part in steps if part.labels}))
        return cls(
            name=data.source.name,
            paths=data.source.paths,
            sha256=data.source.sha256,
            rows=sum(len(part.reward) for part in steps),
            episodes=len(returns),
            transitions=len(data),
            training_episodes=len(data.episode_slices()),
            dropped={
                "NaN or infinities": sum(int((~part.finite).sum()) for part in steps),
                "next state unknown": sum(int((part.finite & ~part.used).sum()) for part in steps),
            },
            dropped_episodes=sum(part.dropped_episodes for part in steps),
            ends=ends,
            returns=Statistics.of(returns),
            lengths=Statistics.of(lengths),
            scores=Statistics.of(scores) if np.isfinite(scores).any() else None,
            observations=observations,
            actions=Features.of(lambda: (task.to_env(block) for block in _blocks(data.action))),
            action_low=task.action_low,
            action_high=task.action_high,
            on_bounds=sum(float(block.sum()) for block in bounds) / data.action.size,
            action_kind=labels or "amounts",
            environment=task.env_id,
            next_obs=data.source.next_obs,
            next_obs_stored=all(part.next_obs for part in steps),
            log_prob_stored=all(part.log_prob for part in steps),
            note=task.note,
            warnings=(
                *warnings,
                *_final_bills(steps),
                *_early_ends(steps),
                *_scales(observations, data.source.obs_names),
            ),
        )


def _final_bills(steps: Sequence[Steps]) -> Iterator[str]:
    """A warning where last rows that no policy learns from hold much of the return: an end that settles accounts is one
    of the task."""
    used, unused = (
        np.concatenate([part.reward[rows].astype(np.float64) for part, rows in zip(steps, chosen, strict=True)])
        for chosen in ([part.used for part in steps], [part.finite & ~part.used for part in steps])
    )
    usual, total = np.abs(used).mean() if len(used) else 0.0, np.abs(used).sum() + np.abs(unused).sum()
    share = np.abs(unused).sum() / total if total else 0.0
    if len(unused) >= SOME and share > BILL and np.abs(unused).mean() > TIMES * usual:
        yield (
            f"the last rows of {counted(len(unused), 'episode')}, which no policy learns from because no next state is "
            f"known, hold {share:.0%} of all rewards, {np.abs(unused).mean() / max(usual, 1e-12):.0f} times as much as "
            "other rows: if the task ends there, as at a deadline with a final bill, mark them as terminated "
            "(terminated = true in the file of columns: every episode ends the task)"
        )


def _early_ends(steps: Sequence[Steps]) -> Iterator[str]:
    """A warning where rewards are costs and the episodes that the task ended earned more than the others, or episodes
    earned less the longer they were: a policy may then end its episodes, by whatever ends them."""
    lengths, returns = (np.concatenate([getattr(part, name) for part in steps]) for name in ("lengths", "returns"))
    ended = np.concatenate([(part.terminal if part.failed is None else part.failed)[part.ends] for part in steps])
    known = np.isfinite(returns)
    lengths, returns, ended = lengths[known], returns[known], ended[known]
    if ended.sum() < FEW or lengths.std() == 0.0 or returns.std() == 0.0:
        return
    correlation, of = float(np.corrcoef(lengths, returns)[0, 1]), f"{ended.sum()} of {len(ended)} episodes"
    cost = -returns.sum() / lengths.sum() * lengths.max()  # of as many usual steps as the longest episode has
    rounded = float(f"{cost:.2g}")
    penalty = f", such as --end-penalty {rounded:g}: about what a whole episode costs" if cost > 0.0 else ""
    remedy = (
        "so a policy may earn most by ending them early: if such an end is a failure and not a goal, train with a "
        f"penalty for it{penalty}"
    )
    if correlation < -0.5:
        yield (
            f"the longer an episode was, the less it earned (correlation {correlation:.2f}), and the task ended {of}, "
            f"{remedy}"
        )
    elif returns.sum() < 0.0 and (~ended).sum() >= FEW and returns[ended].mean() > returns[~ended].mean():
        yield (
            f"the task ended {of}, after {lengths[ended].mean():.0f} steps on average, and they earned more than the "
            f"others ({returns[ended].mean():.2f} against {returns[~ended].mean():.2f} on average), {remedy}"
        )


def _scales(observations: Features, names: Sequence[str]) -> Iterator[str]:
    """A warning where an observation is far from what networks are made for."""
    largest = np.maximum(np.abs(observations.low), np.abs(observations.high))
    if largest.size and largest.max() > LARGE:
        feature = int(largest.argmax())
        name = f" ({names[feature]})" if len(names) == largest.size else f" (entry {feature})"
        yield (
            f"observations are as large as {largest.max():.4g}{name}: networks learn slowly from such numbers, so "
            "--normalize them (in Python: agent.inputs.fit(data.obs)) unless the preset does so by itself"
        )


def _ends(steps: Sequence[Steps]) -> Ends:
    known = [part.recorded for part in steps if part.recorded is not None]
    failed = [part.terminal if part.failed is None else part.failed for part in steps]
    failed = failed if any(part.failed is not None for part in steps) else []
    cuts = [part.timeout.sum() for part in steps]
    added = [
        int(cut) - (0 if part.recorded is None else int(part.recorded.sum()))
        for cut, part in zip(cuts, steps, strict=True)
    ]
    return Ends(
        terminal=sum(int(part.terminal.sum()) for part in steps),
        timeout=sum(int(flags.sum()) for flags in known) if known else None,
        limit=sum(count for count, part in zip(added, steps, strict=True) if part.recorded is None),
        unmarked=sum(count for count, part in zip(added, steps, strict=True) if part.recorded is not None),
        failed=sum(int(flags.sum()) for flags in failed) if failed else None,
        open=sum(not (part.terminal[-1] or part.timeout[-1]) for part in steps),
    )


def _blocks(matrix: FloatArray) -> Iterator[FloatArray]:
    for start in range(0, len(matrix), BLOCK_ROWS):
        yield np.asarray(matrix[start : start + BLOCK_ROWS])


def _numbers(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))
