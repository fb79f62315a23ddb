"""Methods compared without an environment: each run counts as one number, the estimate of what its policy earns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from offline_vi.errors import UsageError
from offline_vi.study import tables
from offline_vi.study.compare import against_lines, score_lines
from offline_vi.study.judging import CLONE, DATA, POLICY, JudgeOptions, Judgment, discount_for
from offline_vi.study.kept import read_config
from offline_vi.study.report import number
from offline_vi.study.results import DONE, FAILED, Method, Run, Study, is_study, read_study
from offline_vi.study.scores import RETURN, Scores
from offline_vi.study.single_runs import read_runs

DIGITS = 2  # after the point: the rewards have any size


def runs_in(folders: Sequence[str]) -> list[str]:
    """Run directories as they are; of a benchmark directory, those of its runs that are done.

    Raises UsageError where none of its runs is, and what `read_study` raises.
    """
    found: list[str] = []
    for folder in folders:
        if not is_study(Path(folder)):
            found.append(folder)
            continue
        done = [str(run.path) for run in read_study(folder).runs if run.done]
        if not done:
            raise UsageError(f"no run of {folder} is done", f"offline-vi report {folder} says why")
        found += done
    return list(dict.fromkeys(found))


def check_comparable(runs: Sequence[str], options: JudgeOptions) -> None:
    """Raises UsageError where the returns of the runs have different discounts, and what `read_runs` raises: before
    anything is fitted."""
    read_runs(runs)
    discounts = {discount_for(read_config(run), options) for run in runs}
    if len(discounts) > 1:
        found = " and ".join(f"{discount:g}" for discount in sorted(discounts))
        raise UsageError(f"the runs were trained with the discounts {found}", "give runs of one discount at a time")


def study_of(judged: Mapping[str, Judgment]) -> Study:
    """The runs, by their directories, with the estimates in the place of scores; methods are grouped as `read_runs`
    does. An estimate that diverged counts as a run without a score. Of several seeds that were trained in parallel the
    first is the one that is judged."""
    study = read_runs(list(judged))
    by_path = {Path(run).resolve(): one for run, one in judged.items()}
    first: dict[Path, Run] = {}
    for run in study.runs:
        first.setdefault(run.path.resolve(), run)
    runs = [
        replace(run, state=FAILED if by_path[path].fitted[POLICY].diverged else DONE, scores=scores_of(by_path[path]))
        for path, run in first.items()
    ]
    return study._replace(runs=runs)


def scores_of(judged: Judgment) -> Scores:
    """An estimate as the score of a run."""
    return Scores(measure=RETURN, final=judged.fitted[POLICY].value, data={RETURN: judged.data.value})


def lines(judged: Mapping[str, Judgment]) -> Iterator[str]:
    """The comparison for a terminal."""
    study = study_of(judged)
    wide = max(len(method.label) for method in study.methods) + 2
    rows = tables.score_rows(study)
    policies = {run: one.fitted[POLICY] for run, one in judged.items()}
    diverged = [run for run, one in policies.items() if one.diverged]
    doubtful = sum(not one.converged for one in policies.values()) - len(diverged)
    if diverged:
        yield f"{len(diverged)} of {len(judged)} estimates diverged and are in no number: {', '.join(diverged)}"
    if doubtful:
        yield f"{doubtful} of {len(judged)} estimates have not converged: take more --steps"
    for dataset in dict.fromkeys(row.dataset for row in rows):
        here = [judged[run] for run in judged if judged[run].dataset == dataset]
        clone = tables.mean_of([one.fitted[CLONE].value for one in here])
        measure = next(iter(judged.values())).measure
        yield f"{dataset}: estimated {measure} of the final policies, one number for each run"
        yield from score_lines(
            [row for row in rows if row.dataset == dataset], wide, {CLONE: number(clone, DIGITS)}, DIGITS
        )
    if left := left_out(study, judged):
        why = "diverged" if not doubtful else "has not converged" if not diverged else "diverged or has not converged"
        yield f"not compared, because an estimate {why}: {', '.join(sorted(method.label for method in left))}"
    yield from against_lines(compared(study, judged), DIGITS)
    yield f"  The intervals are over runs. They do not contain the bias of the method: look at {CLONE} and {DATA}."


def left_out(study: Study, judged: Mapping[str, Judgment]) -> set[Method]:
    """The methods of which an estimate diverged or has not converged: the others that they have are those that went
    well."""
    sound = {Path(run).resolve() for run, one in judged.items() if one.fitted[POLICY].converged}
    return {run.method for run in study.runs if run.path.resolve() not in sound}


def compared(study: Study, judged: Mapping[str, Judgment]) -> list[tables.Against]:
    """The methods of which every estimate converged, against the first of them."""
    left = left_out(study, judged)
    return tables.comparisons(study._replace(methods=[method for method in study.methods if method not in left]))


def to_json(judged: Mapping[str, Judgment]) -> dict[str, Any]:
    """JSON-ready."""
    study = study_of(judged)
    methods = [
        {
            "dataset": row.dataset,
            "method": row.method.label,
            "estimates": row.per_seed,
            "iqm": list(row.iqm) if row.iqm else None,
            "coverage": row.coverage,
        }
        for row in tables.score_rows(study)
    ]
    comparisons = [
        {
            "dataset": row.dataset,
            "method": row.method.label,
            "baseline": row.baseline.label,
            "difference": list(row.found.difference),
            "p_value": row.found.p_value,
        }
        for row in compared(study, judged)
    ]
    runs = {run: one.to_json() for run, one in judged.items()}
    return {"runs": runs, "methods": methods, "comparisons": comparisons}
