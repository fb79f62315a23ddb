"""Runs or studies against a baseline: finding the baseline, and the comparison as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from types import MappingProxyType
from typing import TYPE_CHECKING

from offline_vi.errors import UsageError, unknown
from offline_vi.study.report import Content, number, percent, span
from offline_vi.study.results import Method, Study

if TYPE_CHECKING:
    from offline_vi.study.tables import Against, FromStarts, ScoreRow


def against_baseline(study: Study, baseline: str) -> Study:
    """The study with another method first, which all others are compared with.

    ``baseline`` is the label of a method, the name of its algorithm or variant where only one has it, or one of its run
    directories. Raises UsageError where it is none of these, or where there is nothing to compare.
    """
    if not study.methods and study.models:
        raise UsageError(
            "these are behavior models, not policies", "`offline-vi report FOLDER ...` shows what each reached in nats"
        )
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
    if content.unscored:
        raise UsageError(
            "no run has a score, since no environment is known for its data",
            f"estimate what each policy is worth from the data alone: `{content.estimate}`",
        )
    wide = max(len(method.label) for method in content.methods) + 2
    for dataset in dict.fromkeys(row.dataset for row in content.scores):
        rows = [row for row in content.scores if row.dataset == dataset]
        yield f"{dataset}: {'return' if rows[0].by_return else 'normalized score'} of the final policies"
        yield from score_lines(rows, wide)
    for note in content.episode_notes:
        yield fill(note, 118, initial_indent="  ", subsequent_indent="  ")
    if not content.comparisons:
        yield "no two methods have a score on the same data set: there is nothing to compare"
    yield from against_lines(content.comparisons)
    yield from start_lines(content.from_starts)


def score_lines(
    rows: Sequence[ScoreRow], wide: int, others: Mapping[str, str] = MappingProxyType({}), digits: int | None = None
) -> Iterator[str]:
    """The methods on one data set, below what the data and ``others`` earned; names take ``wide`` columns. Decimals:
    ``digits``, or those of the rows."""
    digits = rows[0].digits if digits is None else digits
    yield f"  {'':<{wide}}{'seeds':>6}{'mean':>9}{'std':>8}{'IQM':>9}  95 % interval of the IQM"
    for name, mean in {"the data": number(rows[0].data, digits), **others}.items():
        yield f"  {name:<{wide}}{'':>6}{mean:>9}"
    for row in rows:
        iqm, interval = (row.iqm, span(row.iqm, digits) if row.seeds > 1 else "–")
        covers = "" if row.coverage is None else f" (covers {percent(row.coverage)})"
        yield (
            f"  {row.method.label:<{wide}}{row.seeds:>6}{number(row.mean, digits):>9}{number(row.std, digits):>8}"
            f"{number(iqm.value if iqm else None, digits):>9}  {interval}{covers}"
        )
    if any(row.coverage is not None for row in rows):
        yield "  covers: how often an interval from so few seeds contains the truth, of simulated normal scores"


SHOWN = 0.05  # the p-value from which on a difference is usually believed


def against_lines(comparisons: Sequence[Against], digits: int | None = None) -> Iterator[str]:
    """Methods against the baseline; nothing where there are no two. Decimals as in `score_lines`."""
    if comparisons:
        yield f"against {comparisons[0].baseline.label}: difference of the IQM, chance that a run is better"
    wide = max((len(one.method.label) for one in comparisons), default=0) + 2
    for one in comparisons:
        found, several = one.found, one.fewest > 1
        decimals = one.digits if digits is None else digits
        gain = number(found.difference.value, decimals)
        ahead = "" if found.wins is None else f", ahead in {found.wins} of {found.runs[0]} seeds"
        start = f"  {one.method.label:<{wide}}{one.dataset}{'  ' if one.dataset else ''}{gain}"
        if found.runs == (1, 1):
            yield start
            continue
        yield (
            f"{start}{f' ({span(found.difference, decimals)})' if several else ''}{ahead}, P(better) "
            f"{number(found.improvement.value, 2)}{f' ({span(found.improvement, 2)})' if several else ''}, "
            f"p {number(found.p_value, 4)} (smallest possible {number(found.smallest_p, 4)})"
        )
    if comparisons and all(one.found.runs == (1, 1) for one in comparisons):
        yield "  one run against one: there is no test; whether another seed would do the same is not known"
    elif any(one.found.smallest_p > SHOWN for one in comparisons):
        yield f"  smallest possible p above {SHOWN}: with so few runs, no p-value can show a difference"


def start_lines(rows: Sequence[FromStarts]) -> Iterator[str]:
    """Methods against the baseline, from the same starts; nothing where the scores of single episodes are not kept."""
    if not rows:
        return
    wide = max(len(row.method.label) for row in rows) + 2
    yield f"against {rows[0].baseline.label}, from the same starts: mean difference, 95 % interval over starts"
    for row in rows:
        found = row.found
        yield (
            f"  {row.method.label:<{wide}}{row.dataset}  {number(found.difference.value, row.digits)} "
            f"({span(found.difference, row.digits)}), better from {found.wins} of {found.starts} starts, "
            f"p {number(found.p_value, 4)}"
        )
    yield "  These intervals are of the policies at hand. Other training seeds would give other policies."
