"""Runs or studies against a baseline: finding the baseline, and the comparison as plain text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from offline_vi.errors import UsageError, unknown
from offline_vi.study.report import Content, number, span
from offline_vi.study.results import Method, Study


def against_baseline(study: Study, baseline: str) -> Study:
    """The study with another method first, which all others are compared with.

    ``baseline`` is the label of a method, the name of its algorithm or variant where only one has it, or one of its run
    directories. Raises UsageError where it is none of these, or where there is nothing to compare.
    """
    if len(study.methods) < 2:
        raise UsageError(
            f"all runs are of one method ({study.methods[0].label})" if study.methods else "there are no policies",
            "give runs of at least two methods",
        )
    first = method_named(study, baseline) if baseline else study.methods[0]
    return study._replace(methods=[first, *(method for method in study.methods if method != first)])


def method_named(study: Study, name: str) -> Method:
    """The method of that name. Raises UsageError for an unknown or ambiguous name."""
    labels = [method for method in study.methods if name == method.label]
    names = [method for method in study.methods if name == (method.variant or method.algorithm)]
    paths = [run.method for run in study.runs if name == run.path.name or Path(name).resolve() == run.path.resolve()]
    for found in (labels, names, paths):
        if len(set(found)) == 1:
            return found[0]
        if found:
            raise UsageError(f"{name!r} are several methods", " or ".join(repr(one.label) for one in found))
    raise unknown(name, [method.label for method in study.methods], "baseline")


def lines(content: Content) -> Iterator[str]:
    """A comparison for a terminal. Raises UsageError where no run has a score."""
    if all(row.mean is None for row in content.scores):
        raise UsageError(
            "no run has a score, since no environment is known for its data",
            "estimate what each policy is worth from the data alone: offline-vi ope RUN",
        )
    wide = max(len(method.label) for method in content.methods) + 2
    for dataset in dict.fromkeys(row.dataset for row in content.scores):
        rows = [row for row in content.scores if row.dataset == dataset]
        yield f"{dataset}: {'return' if rows[0].by_return else 'normalized score'} of the final policies"
        yield f"  {'':<{wide}}{'seeds':>6}{'mean':>9}{'std':>8}{'IQM':>9}  95 % interval of the IQM"
        yield f"  {'the data':<{wide}}{'':>6}{number(rows[0].data):>9}"
        for row in rows:
            iqm, interval = (row.iqm, span(row.iqm) if row.seeds > 1 else "–")
            yield (
                f"  {row.method.label:<{wide}}{row.seeds:>6}{number(row.mean):>9}{number(row.std):>8}"
                f"{number(iqm.value if iqm else None):>9}  {interval}"
            )
    if not content.comparisons:
        yield "no two methods have a score on the same data set: there is nothing to compare"
        return
    yield f"against {content.comparisons[0].baseline.label}: difference of the IQM, chance that a run is better"
    for one in content.comparisons:
        found, several = one.found, one.fewest > 1
        ahead = "" if found.wins is None else f", ahead in {found.wins} of {found.runs[0]} seeds"
        yield (
            f"  {one.method.label:<{wide}}{one.dataset}{'  ' if one.dataset else ''}{number(found.difference.value)}"
            f"{f' ({span(found.difference)})' if several else ''}{ahead}, P(better) "
            f"{number(found.improvement.value, 2)}{f' ({span(found.improvement, 2)})' if several else ''}, "
            f"p {number(found.p_value, 4)} (at best {number(found.smallest_p, 4)})"
        )
