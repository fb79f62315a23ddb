"""Runs compared by the evaluations that `offline-vi evaluate` kept of them: more episodes than training scored, the
same for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

from offline_vi.errors import UsageError
from offline_vi.study.follow_up import near
from offline_vi.study.kept_evaluations import evaluations
from offline_vi.study.results import Run, Study
from offline_vi.study.scores import SCORE, Scores, integer, scores_from, table

ALIKE = ("episodes", "seed", "guard", "guard_states", "safe_action")
"""Of the options of an evaluation: those that all have in common that are compared."""
ON = ("env_id", "kwargs", "max_episode_steps")
"""The same of its record: what it was on."""


def with_kept_scores(study: Study) -> Study:
    """The study with the newest kept evaluation of each run in the place of its final score. Curves stay as they are.

    Raises UsageError where a run has none, or where those of two runs on one data set are not alike, ConfigError where
    one is malformed.
    """
    done = [run for run in study.runs if run.done]
    members = {run.path: count() for run in done}  # of a run that trained several seeds in parallel
    records = [newest(run, next(members[run.path])) for run in done]
    if without := [str(near(run.path)) for run, record in zip(done, records, strict=True) if not record]:
        raise UsageError(
            f"no evaluation is kept of {', '.join(dict.fromkeys(without))}",
            "`offline-vi evaluate RUN --episodes 100` for each run keeps one",
        )
    first: dict[str, tuple[Run, dict[str, object]]] = {}
    for run, record in zip(done, records, strict=True):
        before, settings = first.setdefault(run.cell.dataset, (run, settings_of(record)))
        if differing := [name for name, value in settings_of(record).items() if value != settings[name]]:
            raise UsageError(
                f"the newest evaluations of {near(before.path)} and {near(run.path)} differ in {', '.join(differing)}",
                "`offline-vi evaluate RUN` for each run, with the same options",
            )
    after = iter(rescored(run.scores, record) for run, record in zip(done, records, strict=True))
    return study._replace(runs=[replace(run, scores=next(after)) if run.done else run for run in study.runs])


def newest(run: Run, member: int) -> Mapping[str, object]:
    """The newest evaluation by rollouts of a run, of that one of its seeds; empty where there is none."""
    found = evaluations(run.path, "rollouts")
    return next((one for one in found if (integer(table(one, "options"), "seed_index") or 0) == member), {})


def settings_of(record: Mapping[str, object]) -> dict[str, object]:
    """What an evaluation has in common with those that it may be compared with."""
    options = table(record, "options")
    return {name: options.get(name) for name in ALIKE} | {name: record.get(name) for name in ON}


def rescored(before: Scores, record: Mapping[str, object]) -> Scores:
    """The scores of a run, with an evaluation as the final one. Raises ConfigError where it is malformed."""
    scores = {"normalized_scores": record.get("normalized")} if SCORE in record else {}
    after = scores_from({**record, **scores, "failed_episodes": list(table(record, "failures"))})
    return replace(
        before,
        measure=after.measure,
        final=after.final,
        mean_return=after.mean_return,
        episodes=after.episodes,
        over_episodes=after.over_episodes,
        failed_episodes=after.failed_episodes,
        ended=after.ended,
        length=after.length,
        env_id=after.env_id,
        data=after.data or before.data,
    )
