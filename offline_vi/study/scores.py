"""The content of a run's result.json, with types. A record of another shape is refused."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from offline_vi.errors import ConfigError
from offline_vi.ranges import short

SCORE, RETURN = "normalized_score", "return_mean"
"""What a policy is measured by, as result.json names it."""
LARGEST = 1e30


@dataclass(frozen=True)
class Scores:
    """The scores of one seed; None stands for what is not known."""

    measure: str = SCORE  # what the next four are of: normalized scores, or returns where a task has no references
    final: float | None = None  # of the final policy
    best: float | None = None  # of the best evaluation on the way: chosen by looking, never to be mixed with the final
    best_step: int | None = None  # when that was, in gradient steps
    curve: Mapping[int, float] = field(default_factory=dict)  # step -> mean over episodes
    mean_return: float | None = None  # undiscounted, of the final policy
    episodes: int = 0  # of the final evaluation, without those that failed
    over_episodes: float | None = None  # standard error of ``final`` over these episodes; of one nothing is known
    by_start: Mapping[int, float] = field(default_factory=dict)  # seed of an episode -> its score, where these are kept
    failed_episodes: int = 0  # of the final evaluation
    ended: int | None = None  # of its episodes those that the task ended; None where a run does not say
    length: float | None = None  # mean number of their steps
    steps: int | None = None  # gradient steps
    env_id: str = ""  # the environment of the final evaluation
    mujoco: str = ""  # version
    data: Mapping[str, float | None] = field(default_factory=dict)  # measure -> mean over the data's own episodes
    diagnostics: Mapping[str, float | None] = field(default_factory=dict)  # "support/outside", "q/start", ...


def scores_from(record: Mapping[str, object]) -> Scores:
    """The scores in result.json. Raises ConfigError if a value is of another type."""
    best, unscored = table(record, "best"), number(record, SCORE) is None and number(record, RETURN) is not None
    measure = text(record, "measure") or (RETURN if unscored else SCORE)  # older runs do not say it
    if measure not in (SCORE, RETURN):
        raise ConfigError(f"measure = {measure!r} is neither {SCORE} nor {RETURN}")
    return Scores(
        measure=measure,
        final=number(record, measure),
        best=number(best, measure),
        best_step=integer(best, "step"),
        curve=_curve(table(record, "curve")),
        mean_return=number(record, "return_mean"),
        episodes=_length(record, "returns"),
        over_episodes=_standard_error(record, "normalized_scores" if measure == SCORE else "returns"),
        failed_episodes=_length(record, "failed_episodes"),
        ended=_count(record, "terminated"),
        length=_mean(record, "lengths"),
        steps=integer(record, "steps"),
        env_id=text(record, "env_id"),
        mujoco=text(record, "mujoco"),
        data=numbers(table(record, "data")),
        diagnostics=numbers(table(record, "diagnostics")),
    )


def number(record: Mapping[str, object], key: str) -> float | None:
    """A finite number that can still be squared; None where there is none. Raises ConfigError."""
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST < value < LARGEST:
        raise ConfigError(f"{key} = {short(value)} is no number")
    return float(value)


def integer(record: Mapping[str, object], key: str) -> int | None:
    """A whole number; None where there is none. Raises ConfigError."""
    value = number(record, key)
    return None if value is None else int(value)


def text(record: Mapping[str, object], key: str) -> str:
    """A text; empty where there is none. Raises ConfigError."""
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{key} = {short(value)} is no text")
    return value


def table(record: Mapping[str, object], key: str) -> Mapping[str, object]:
    """A table; empty where there is none. Raises ConfigError."""
    value = record.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} = {short(value)} is no table")
    return value


def numbers(record: Mapping[str, object]) -> dict[str, float | None]:
    """A table of numbers. Raises ConfigError."""
    return {name: number(record, name) for name in record}


def by_start(record: Mapping[str, object], key: str) -> dict[int, float]:
    """Seed -> score of the episodes of a kept evaluation, whose scores are under ``key``. Raises ConfigError."""
    seeds, values = _known(record, "seeds"), _known(record, key)
    if len(seeds) != len(values):
        raise ConfigError(f"there are {len(seeds)} seeds of {len(values)} episodes")
    return {int(seed): value for seed, value in zip(seeds, values, strict=True)}


def _curve(record: Mapping[str, object]) -> dict[int, float]:
    try:
        return {int(step): score for step, score in numbers(record).items() if score is not None}
    except ValueError:
        raise ConfigError(f"curve = {short(dict(record))} has a step that is no number") from None


def _length(record: Mapping[str, object], key: str) -> int:
    value = record.get(key)
    if value is not None and not isinstance(value, list):
        raise ConfigError(f"{key} = {short(value)} is no list")
    return len(value or [])


def _known(record: Mapping[str, object], key: str) -> list[float]:
    """The numbers of a list that are known; none where there is no list."""
    value = record.get(key)
    found = [number({key: one}, key) for one in value] if isinstance(value, list) else []
    return [one for one in found if one is not None]


def _count(record: Mapping[str, object], key: str) -> int | None:
    """How many of a list are true; None where there is no list."""
    value = record.get(key)
    return sum(one is True for one in value) if isinstance(value, list) else None


def _mean(record: Mapping[str, object], key: str) -> float | None:
    """The mean of a list of numbers; None where there is none."""
    known = _known(record, key)
    return statistics.fmean(known) if known else None


def _standard_error(record: Mapping[str, object], key: str) -> float | None:
    """Of the mean of a list of numbers; None where there are fewer than two."""
    known = _known(record, key)
    return statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None
