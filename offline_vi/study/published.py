"""Scores that others published, and whether a run was made as theirs were."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from offline_vi.datasets import tasks as task_table

LAST = "the last evaluation"
USUAL = {"weights_options.episode_weights": "all", "data_options.next_obs": "following_row"}
"""What every published score has in common, as fields of a run's config.json."""


class Published(NamedTuple):
    """A final score that was read in a file."""

    score: float
    source: str


class Unlike(NamedTuple):
    """A published score at other settings than a run's."""

    dataset: str
    algorithm: str
    published: Published
    reasons: tuple[str, ...]


class Claim(NamedTuple):
    """A published score and how it came about."""

    published: Published
    rule: str  # which evaluations count
    settings: Mapping[str, Any]  # fields of a run's config.json, such as "algorithm_options.lr"
    differs: str  # what no setting makes equal; empty: nothing that is known


@cache
def claims() -> dict[tuple[str, str], list[Claim]]:
    """(data set, algorithm) -> the final scores that were read in a file."""
    record = json.loads((Path(task_table.__file__).parent / "published_scores.json").read_text())
    found: dict[tuple[str, str], list[Claim]] = {}
    for row in record["scores"]:
        published = Published(row["score"], row["source"])
        claim = Claim(published, row.get("rule", LAST), row.get("settings", {}), row.get("differs", ""))
        found.setdefault((row["dataset"], row["algorithm"]), []).append(claim)
    return found


def reasons(claim: Claim, config: Mapping[str, Any]) -> Iterator[str]:
    """What differs between a claim and a run with this config.json; nothing where the run repeats it."""
    if claim.differs:
        yield claim.differs
    if claim.rule != LAST:
        yield f"there {claim.rule} counts, here {LAST}"
    for name, theirs in {**USUAL, **claim.settings}.items():
        ours: Any = config
        for key in name.split("."):
            ours = ours.get(key) if isinstance(ours, Mapping) else None
        if ours != theirs:
            yield f"{name.partition('.')[2] or name} is {json.dumps(theirs)} there, {json.dumps(ours)} here"
