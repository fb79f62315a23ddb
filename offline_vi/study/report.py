"""The report of a study or of single runs: tables and plots next to published scores, as HTML, Markdown and CSV."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_vi.errors import MissingDependencyError, OfflineVIError
from offline_vi.escaping import code, latex, markdown, visible
from offline_vi.runs.files import read_json, write_text
from offline_vi.runs.ownership import claim
from offline_vi.study.cells import status
from offline_vi.study.follow_up import command_on, entries, near
from offline_vi.study.report_plots import ReportPlots, report_plots
from offline_vi.study.results import Failure, Method, Run, Study, is_study, read_study, write_results
from offline_vi.study.single_runs import read_runs
from offline_vi.study.suite import Suite

if TYPE_CHECKING:
    from offline_vi.evaluation.statistics import Interval
    from offline_vi.study.published import Unlike
    from offline_vi.study.tables import Against, AggregateRow, DensityRow, FromStarts, ScoreRow, SupportRow

TEMPLATES = Path(__file__).resolve().parent / "templates"
PAGES = ("report.html", "report.md")
LATEX = "report.tex"


def read_any(folders: Sequence[str | Path]) -> Study:
    """Read a benchmark directory, or run directories. Of several benchmark directories, all runs are read.

    Raises MissingInputError where a folder is neither, ConfigError where what it holds cannot be read.
    """
    if len(folders) == 1 and is_study(Path(folders[0])):
        return read_study(folders[0])
    return read_runs([run for folder in folders for run in runs_in(Path(folder))])


def runs_in(folder: Path) -> list[Path]:
    """The run directories of a benchmark directory; of anything else the folder itself."""
    if not is_study(folder):
        return [folder]
    return [path for path in sorted((folder / "runs").iterdir()) if path.is_dir()]


def write_report(study: Study, folder: Path, pages: Sequence[str] = PAGES) -> list[Path]:
    """Write results.csv and the pages into ``folder``, and return their paths. Raises MissingDependencyError without
    jinja2, and OutputDirError if the folder holds files of these names that are not the library's."""
    claim(folder, "report", ["results.csv", *pages])
    results = write_results(study, folder)
    content = vars(contents(study)) if pages else {}
    for name in pages:
        write_text(folder / name, render(name, content))
    return [results, *(folder / name for name in pages)]


def render(name: str, content: Mapping[str, object]) -> str:
    """Fill in a template. Text that comes from files is escaped, in HTML and in Markdown."""
    environment: Any = environment_of(Path(name).suffix)
    text: str = environment.get_template(name).render(content)
    return text


@cache
def environment_of(suffix: str) -> object:
    """Jinja2's environment for files of a kind: whatever a template writes goes through its escape."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise MissingDependencyError("a report needs jinja2", "pip install 'offline-vi[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=suffix == ".html",
        finalize=ESCAPES[suffix],
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    return environment


def shown(value: object) -> object:
    """A value for HTML, which Jinja2 escapes: its plain text without control characters."""
    return visible(value) if type(value) is str else value


ESCAPES: dict[str, Callable[[object], object]] = {".html": shown, ".md": markdown, ".tex": latex}


@dataclass(frozen=True)
class Content:
    """Everything that the templates show, under the names that they use."""

    suite: Suite  # what was to be run
    environment: Mapping[str, str]  # versions and the like
    methods: list[Method]  # in the suite's order
    runs: list[Run]  # every run, done or not
    done: int  # runs
    left: int  # runs and shared behavior models that are not done
    failures: list[Failure]  # the same, those that did not begin counted for each method
    going_on: list[str]  # commands that go on with them
    scores: list[ScoreRow]  # one row for each data set
    unscored: bool  # whether no run has a score
    estimate: str  # the command that estimates from the data alone what the policies are worth
    normalized: bool  # whether any score is normalized
    episode_notes: list[str]  # what the intervals over seeds leave out
    by_return: list[str]  # data sets without normalized scores: returns stand in their place
    failed_episodes: int  # of all final evaluations
    single: bool  # whether each row has one seed, so that there is no interval
    sources: list[str]  # of published numbers
    unlike: list[Unlike]  # published scores at other settings than the runs'
    aggregates: list[AggregateRow]  # of each method, over all data sets
    data_aggregates: Mapping[str, float]  # the same of the data's own scores; empty where they are not known
    fewest: int  # runs of a method on a data set, at least
    aggregate_coverage: float | None  # how often such an interval contains the truth, by simulation
    comparable: list[str]  # data sets on which every method has a score
    comparisons: list[Against]  # of each method with the baseline
    from_starts: list[FromStarts]  # the same, over the episodes that all runs share
    model_commands: list[str]  # that fit the behavior models again
    densities: list[DensityRow]  # held-out log-density of each behavior model
    supports: list[SupportRow]  # how many actions of each method lie outside the data's support
    hours: float  # of all runs, on one core
    model_hours: float  # of the fits of behavior models, on one core
    notes: list[str]  # what the runs of a data set say about it
    plots: ReportPlots  # the figures


def contents(study: Study) -> Content:
    """Everything that the templates show."""
    from offline_vi.study import tables  # torch

    many = len(study.suite.datasets) > 1 or len(study.methods) > 1
    scores, aggregates = tables.score_rows(study), tables.aggregate_rows(study) if many else []
    return Content(
        suite=study.suite,
        environment={**study.environment, **facts_of_runs(study.runs)},
        methods=study.methods,
        runs=study.runs,
        done=sum(run.done for run in study.runs),
        left=sum(not run.done for run in study.runs) + len(study.broken_models),
        failures=study.failures,
        going_on=going_on(study),
        scores=scores,
        unscored=bool(scores) and all(row.mean is None for row in scores),
        estimate=command_for("ope", study),
        normalized=any(not row.by_return for row in scores),
        episode_notes=tables.episode_notes(scores),
        by_return=sorted({row.dataset for row in scores if row.by_return}),
        failed_episodes=sum(row.failed_episodes for row in scores),
        single=bool(scores) and max(row.seeds for row in scores) == 1,
        sources=sorted({one.source for row in scores for one in row.published}),
        unlike=[one for row in scores for one in row.unlike],
        aggregates=aggregates,
        data_aggregates=tables.data_aggregates(study),
        fewest=tables.fewest_runs(study),
        aggregate_coverage=tables.aggregate_coverage(study) if aggregates else None,
        comparable=tables.comparable(study),
        comparisons=tables.comparisons(study),
        from_starts=tables.from_starts(study),
        model_commands=list(dict.fromkeys(model.command for model in study.models if model.command)),
        densities=tables.density_rows(study),
        supports=tables.support_rows(study),
        hours=sum(run.seconds for run in study.runs) / 3600.0,
        model_hours=sum(model.seconds for model in study.models) / 3600.0,
        notes=sorted({f"{run.cell.dataset}: {run.note}" for run in study.runs if run.note}),
        plots=report_plots(study, aggregates),
    )


def facts_of_runs(runs: Sequence[Run]) -> dict[str, str]:
    """Precision and path of matrix products that the runs had, where they say so: `machine.json` of a benchmark says
    what it would give to runs that leave the choice open."""
    names = ("precision", "products")
    found = {name: sorted({run.facts[name] for run in runs if name in run.facts}) for name in names}
    return {name: ", ".join(values) for name, values in found.items() if values}


MOST = 8  # runs that a command names one by one


def command_for(verb: str, study: Study) -> str:
    """A verb of the command on the runs of a study that are done: on its folder, or on each where they are few."""
    done = [run.path for run in study.runs if run.done]
    configs = [record_of(path) for path in done]
    plugins = {str(entry): entry for config in configs for entry in entries(config)}
    task = next((config["task"] for config in configs if config.get("task")), None)
    each: list[str | Path] = [near(path) for path in done] if len(done) <= MOST else ["RUN", "..."]
    runs = [near(study.folder)] if is_study(study.folder) else each
    return command_on(verb, *runs, config={"plugins": list(plugins.values()), "task": task})


def going_on(study: Study) -> list[str]:
    """The commands that go on with the runs that are not done: of a benchmark it is the one that began it."""
    left = [run.path for run in study.runs if not run.done]
    if not study.failures:
        return []
    if is_study(study.folder):
        return [f"offline-vi benchmark SUITE --output {shlex.quote(str(near(study.folder)))}"]
    begun = [path for path in left if status(path).get("status") == "interrupted"]
    return [command_on("resume", near(path), config=record_of(path)) for path in begun]


def record_of(run: Path) -> Mapping[str, object]:
    """A run's config.json; empty where it cannot be read."""
    with suppress(OfflineVIError):
        return read_json(run / "config.json")
    return {}


# ------------------------------------------------------------------ how numbers look


def number(value: float | None, digits: int = 1) -> str:
    """One decimal, as scores are given; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def span(interval: Interval | None, digits: int = 1) -> str:
    """The bounds of an interval, as "1.0 to 2.0"."""
    return "–" if interval is None else f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share in percent."""
    return "–" if value is None else f"{100.0 * value:.{digits}f} %"


def clock(seconds: float | None) -> str:
    """A duration: seconds below two minutes, then minutes, then hours."""
    if seconds is None:
        return "–"
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.1f} h"


def thousands(value: float | None) -> str:
    """A whole number with separators, as 30,000."""
    return "–" if value is None else f"{value:,.0f}"


FILTERS: dict[str, Callable[..., object]] = {
    "number": number,
    "span": span,
    "percent": percent,
    "clock": clock,
    "thousands": thousands,
    "code": code,
}
