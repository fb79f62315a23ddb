"""Runs compared by the evaluations that `offline-vi evaluate` kept of them: more episodes than training scored, the
same for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from offline_vi.errors import UsageError
from offline_vi.study.follow_up import near
from offline_vi.study.kept_evaluations import evaluations
from offline_vi.study.results import Run, Study
from offline_vi.study.scores import SCORE, Scores, by_start, integer, scores_from, table

ALIKE: dict[str, object] = {
    "episodes": None,
    "seed": None,
    "guard": 0.0,
    "guard_states": 0.0,
    "safe_action": [],
    "deterministic": False,
}
"""The options that the evaluations of all compared runs share -> what an evaluation had that does not say it."""
ON = ("env_id", "kwargs", "max_episode_steps")
"""The fields of their records that they share, too: what the policies acted on."""

Record = Mapping[str, object]


def with_kept_scores(study: Study) -> Study:
    """The study with a kept evaluation of each run in the place of its final score: on each data set, the newest that
    all runs have with the same settings. Curves stay as they are.

    Raises UsageError where a run has none, or where there are none alike, ConfigError where one is malformed.
    """
    done = [run for run in study.runs if run.done]
    members = {run.path: count() for run in done}  # of a run that trained several seeds in parallel
    kept = {id(run): kept_of(run, next(members[run.path])) for run in done}
    if without := [str(near(run.path)) for run in done if not kept[id(run)]]:
        raise UsageError(
            f"no evaluation is kept of {', '.join(dict.fromkeys(without))}",
            "`offline-vi evaluate RUN --episodes 100` for each run keeps one",
        )
    chosen: dict[int, Record] = {}
    for dataset in {run.cell.dataset for run in done}:
        runs = [run for run in done if run.cell.dataset == dataset]
        settings = alike([kept[id(run)] for run in runs], runs)
        chosen |= {id(run): next(one for one in kept[id(run)] if settings_of(one) == settings) for run in runs}
    return study._replace(
        runs=[replace(run, scores=rescored(run.scores, chosen[id(run)])) if run.done else run for run in study.runs]
    )


def kept_of(run: Run, member: int) -> list[Record]:
    """The evaluations by rollouts of a run, of that one of its seeds, the newest first."""
    found = evaluations(run.path, "rollouts")
    return [one for one in found if (integer(table(one, "options"), "seed_index") or 0) == member]


def alike(kept: Sequence[Sequence[Record]], runs: Sequence[Run]) -> dict[str, object]:
    """The settings of the newest evaluation of the first run for which every other run has one with the same settings.
    Raises UsageError where there is none."""
    each = [[settings_of(record) for record in records] for records in kept]
    for settings in each[0]:
        if all(settings in others for others in each):
            return settings
    run, other = next((run, others[0]) for run, others in zip(runs, each, strict=True) if each[0][0] not in others)
    differing = [name for name, value in other.items() if value != each[0][0][name]]
    raise UsageError(
        f"no evaluations of all runs are alike: the newest of {near(runs[0].path)} and {near(run.path)} differ in "
        f"{', '.join(differing)}",
        "`offline-vi evaluate RUN` for each run, with the same options",
    )


def settings_of(record: Record) -> dict[str, object]:
    """What two evaluations have to share to be compared."""
    options = table(record, "options")
    return {name: options.get(name, before) for name, before in ALIKE.items()} | {name: record.get(name) for name in ON}


def rescored(before: Scores, record: Record) -> Scores:
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
        by_start=by_start(record, "normalized" if after.measure == SCORE else "returns"),
        failed_episodes=after.failed_episodes,
        ended=after.ended,
        length=after.length,
        env_id=after.env_id,
        data=after.data or before.data,
    )
