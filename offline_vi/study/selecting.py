"""Choosing one of several trained policies: off-policy estimates as a prior, a bandit over a budget of rollouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from offline_vi.console import as_drawn, standard_error
from offline_vi.errors import UsageError, counted
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.evaluation.selection import Bandit, BanditConfig, RegretCurve, regret_curve
from offline_vi.runs.files import write_json
from offline_vi.runs.ownership import claim
from offline_vi.study.follow_up import command_on
from offline_vi.study.judging import POLICY, JudgeOptions, measure
from offline_vi.study.kept import load_policy, read_config
from offline_vi.study.kept_evaluations import evaluations
from offline_vi.study.plots import ACCENT, INK, MUTED, harmless, save_figure
from offline_vi.study.scores import number, table
from offline_vi.study.scoring import task_of_run
from offline_vi.types import Task


@dataclass(frozen=True)
class SelectOptions:
    """How policies are tried and chosen."""

    rollouts: int = 50
    """Number of episodes to run, of all policies together."""
    seed: int = 1000
    """Seed of the first episode of each policy; its n-th has seed + n, so that policies meet the same starts."""
    alpha: float = 2.0
    """Exploration: the bonus of a policy is s sqrt(alpha log t / (w + n)), where w is --prior-rollouts and n the number
    of its rollouts so far."""
    prior_rollouts: float = 1.0
    """How many rollouts an off-policy estimate counts for; 0: no prior."""


class Estimated(NamedTuple):
    """What the newest `offline-vi ope` of a run says of its policy."""

    value: float | None  # None: the fit ended at no finite number
    discount: float | None
    horizon: str  # of `JudgeOptions`
    dataset: str | None  # from whose first states
    converged: bool

    @property
    def usable(self) -> bool:
        """Whether it converged, at a number."""
        return self.converged and self.value is not None

    def text(self) -> str:
        """The value, for a table; a question mark where it is not usable."""
        value = "–" if self.value is None else f"{self.value:.2f}"
        return value if self.usable else f"{value} ?"


class Prior(NamedTuple):
    """The estimates of several policies, one for each, None for a policy without one."""

    estimates: list[Estimated | None]
    doubt: str  # why they may not be compared; empty where they may

    @property
    def values(self) -> list[float] | None:
        """The estimates where they may be compared, else None."""
        return None if self.doubt else [one.value for one in self.estimates if one and one.value is not None]


class Tried(NamedTuple):
    """A policy and what was seen of it."""

    run: str
    estimate: Estimated | None
    returns: list[float]  # of its rollouts
    ended: int  # how many of them the task ended, before the time limit

    def to_json(self) -> dict[str, Any]:
        """The policy, JSON-ready."""
        return {**self._asdict(), "estimate": self.estimate._asdict() if self.estimate else None}


class Selection(NamedTuple):
    """The outcome of a selection."""

    tried: list[Tried]
    best: int  # its number
    doubt: str  # why the estimates were not used; empty where they were
    next_seed: int  # of an episode from a start that no policy has had

    def to_json(self) -> dict[str, Any]:
        """The selection, JSON-ready."""
        return {
            "selected": self.tried[self.best].run,
            "prior": not self.doubt,
            "why_no_prior": self.doubt,
            "runs": [one.to_json() for one in self.tried],
        }


def select(runs: Sequence[str], options: SelectOptions, env: str = "", *, progress: bool = False) -> Selection:
    """Try episodes of the runs' policies one at a time, and return the policy that looks best; ``progress`` shows a bar
    on a terminal.

    Raises UsageError for fewer than two runs and for runs on different environments, and what loading and `evaluate`
    raise.
    """
    tasks, policies = [task_in(run, env) for run in runs], [load_policy(run) for run in runs]
    if len(runs) < 2 or len({(task.env_id, str(task.kwargs)) for task in tasks}) > 1:
        raise UsageError("there are not at least two runs on one environment", "give runs on one environment")
    prior = prior_of(runs, options)
    bandit = Bandit(len(runs), prior.values, BanditConfig(options.alpha, options.prior_rollouts))
    returns: list[list[float]] = [[] for _ in runs]
    ended = [0] * len(runs)
    drawing = standard_error(as_drawn)
    shown = progress and drawing.isatty()
    for _ in tqdm(range(options.rollouts), unit="rollout", disable=not shown, dynamic_ncols=True, file=drawing):
        arm = bandit.choose()
        episode = evaluate(policies[arm], tasks[arm], 1, options.seed + len(returns[arm]))
        returns[arm].append(episode.mean_return)
        ended[arm] += int(episode.terminated.sum())
        bandit.observe(arm, episode.mean_return)
    tried = [Tried(*one) for one in zip(runs, prior.estimates, returns, ended, strict=True)]
    return Selection(tried, bandit.best, prior.doubt, options.seed + options.rollouts)


def task_in(run: str, env: str) -> Task:
    """The task of a run, on ``env`` where that is given."""
    return task_of_run(read_config(run).record, env, run=run)


def estimate_of(run: str) -> Estimated | None:
    """The newest off-policy estimate that is kept in a run; None where there is none."""
    record = next(evaluations(run, "off-policy"), None)
    if record is None:
        return None
    policy, dataset, horizon = table(record, POLICY), record.get("dataset"), record.get("horizon")
    return Estimated(
        number(policy, "value"),
        number(record, "discount"),
        horizon if isinstance(horizon, str) else JudgeOptions.horizon,
        dataset if isinstance(dataset, str) else None,
        policy.get("converged") is True,
    )


def prior_of(runs: Sequence[str], options: SelectOptions) -> Prior:
    """The estimates of the runs, and why they may not be compared: only those that converged, of one horizon and
    discount and of the first states of one data set, say which policy may be better."""
    estimates = [estimate_of(run) for run in runs]
    without = [run for run, one in zip(runs, estimates, strict=True) if one is None]
    known = [one for one in estimates if one is not None]
    moving = [run for run, one in zip(runs, estimates, strict=True) if one and not one.usable]
    discounts = sorted({one.discount or 0.0 for one in known})
    doubt = ""
    if not options.prior_rollouts:
        doubt = "--prior-rollouts is 0"
    elif without:
        doubt = (
            f"missing for {', '.join(without)}: {command_on('ope', *without, config=read_config(without[0]).record)}"
        )
    elif moving:
        doubt = f"not converged for {', '.join(moving)}: `offline-vi ope` says how many --steps to take"
    elif len({one.dataset for one in known}) > 1:
        doubt = "they start from the first states of different data sets"
    elif len({one.horizon for one in known}) > 1:
        doubt = "some are of whole episodes, others are not: `offline-vi ope` takes one --horizon for all runs"
    elif len(discounts) > 1:
        gammas = " and ".join(f"{gamma:g}" for gamma in discounts)
        doubt = f"their discounts are {gammas}: `offline-vi ope` takes one for all runs with --discount"
    return Prior(estimates, doubt)


class Simulation(NamedTuple):
    """What simulated selections lose."""

    episodes: dict[str, int]  # run -> how many its newest evaluation has; rollouts are drawn from them
    curves: dict[str, RegretCurve]  # without and, where they may be compared, with off-policy estimates
    doubt: str  # why the estimates were not used; empty where they were


def simulated(runs: Sequence[str], options: SelectOptions) -> Simulation:
    """The regret of choosing after each number of rollouts, drawn from the episodes that `offline-vi evaluate` kept in
    each run: without a prior, and with the estimates where every run has one.

    Raises UsageError where a run holds no evaluation by rollouts, MissingInputError where it is none.
    """
    returns = []
    for run in runs:
        record = next(evaluations(run, "rollouts"), {})
        values = record.get("returns")
        if not isinstance(values, list) or not values:
            command = command_on("evaluate", run, config=read_config(run).record)
            raise UsageError(f"{run} holds no evaluation", command)
        returns.append(values)
    prior = prior_of(runs, options)
    config = BanditConfig(options.alpha, options.prior_rollouts)
    curves = {"rollouts alone": regret_curve(returns, options.rollouts)}
    if prior.values is not None:
        curves["with off-policy estimates"] = regret_curve(returns, options.rollouts, prior=prior.values, config=config)
    return Simulation({run: len(values) for run, values in zip(runs, returns, strict=True)}, curves, prior.doubt)


def lines(found: Selection) -> Iterator[str]:
    """The lines of a selection for a terminal."""
    wide = max(len(one.run) for one in found.tried) + 2
    yield f"  {'':<{wide}}{'off-policy':>12}{'rollouts':>10}{'ended':>8}{'mean return':>14}{'std':>10}"
    for place, one in enumerate(found.tried):
        estimate = one.estimate.text() if one.estimate else "–"
        mean = f"{np.mean(one.returns):.2f}" if one.returns else "–"
        std = f"{np.std(one.returns, ddof=1):.2f}" if len(one.returns) > 1 else "–"
        mark = "  selected" if place == found.best else ""
        yield f"  {one.run:<{wide}}{estimate:>12}{len(one.returns):>10}{one.ended:>8}{mean:>14}{std:>10}{mark}"
    first, selected = found.tried[0].estimate, found.tried[found.best]
    yield "  ended: rollouts that the task ended before the time limit; std: over rollouts."
    if selected.ended:
        yield (
            f"  The task ended {selected.ended} of {counted(len(selected.returns), 'rollout')} of the selected policy. "
            "The choice goes by returns alone: if such an end is a failure, look at it first."
        )
    if found.doubt:
        yield f"  The off-policy estimates were not used: {found.doubt}"
    elif first and first.discount is not None:
        yield f"  off-policy: the newest estimate of each run, a {measure(first.horizon, first.discount)}."
        yield "  It says where to begin. The more rollouts a policy has, the less its estimate counts."
    if untried := [one.run for one in found.tried if not one.returns]:
        yield f"  Never tried: {', '.join(untried)}. With --prior-rollouts 0 and a rollout for each, all are."
    words = command_on(
        "evaluate", selected.run, "--seed", str(found.next_seed), config=read_config(selected.run).record
    )
    yield f"  The selected policy's own mean is optimistic. This scores it from other starts: `{words}`"


def keep_selection(found: Selection, options: SelectOptions, folder: Path) -> list[Path]:
    """Write selection.json and selection.png into a folder; returns their paths. Raises OutputDirError and
    CheckpointWriteError."""
    record, picture = folder / "selection.json", folder / "selection.png"
    claim(folder, "report", [record.name, picture.name])
    write_json(record, {**found.to_json(), "options": asdict(options)})
    with harmless("the picture"):
        selection_picture(found, picture)
    return [path for path in (record, picture) if path.exists()]


def selection_picture(found: Selection, path: Path) -> None:
    """Write the return of each rollout, a row for each policy with its mean, as a PNG file."""
    from matplotlib.figure import Figure

    count = len(found.tried)
    figure = Figure(figsize=(6.4, 1.2 + 0.4 * count), layout="constrained")
    ax = figure.subplots()
    for place, one in enumerate(found.tried):
        color = ACCENT if place == found.best else MUTED
        ax.scatter(one.returns, [place] * len(one.returns), s=18, color=color, alpha=0.5, linewidths=0)
        if one.returns:
            ax.plot([float(np.mean(one.returns))] * 2, [place - 0.3, place + 0.3], color=color, linewidth=2)
    names = [f"{one.run} ({counted(len(one.returns), 'rollout')})" for one in found.tried]
    ax.set_yticks(range(count), names)
    ax.get_yticklabels()[found.best].set_fontweight("bold")
    ax.set_ylim(count - 0.5, -0.5)
    ax.set_xlabel("return of a rollout; bars are means, bold is the selected policy")
    ax.grid(axis="x", alpha=0.25)
    save_figure(figure, path)


def regret_lines(found: Simulation) -> Iterator[str]:
    """The regret at some numbers of rollouts."""
    yield "mean regret in units of the return, with the 95 % interval of that mean over simulated selections"
    drawn = ", ".join(f"{run} ({counted(number, 'episode')})" for run, number in found.episodes.items())
    yield f"  rollouts drawn from the newest evaluation of each run: {drawn}"
    for name, curve in found.curves.items():
        yield f"  {name}"
        marks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if n < len(curve.rollouts)] + [len(curve.rollouts)]
        for n in marks:
            regret, low, high = (column[n - 1] for column in (curve.regret, curve.low, curve.high))
            yield f"    after {n:>4} rollouts {regret:>10.2f}  ({low:.2f} to {high:.2f})"
    if found.doubt:
        yield f"  The off-policy estimates were not used: {found.doubt}"


def regret_to_json(curves: dict[str, RegretCurve]) -> dict[str, dict[str, list[float]]]:
    """Name -> the columns of its curve, for files."""
    return {
        name: {column: values.tolist() for column, values in curve._asdict().items()} for name, curve in curves.items()
    }


def regret_picture(curves: dict[str, RegretCurve], path: Path) -> None:
    """Write the regret over rollouts as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    ax = figure.subplots()
    for (name, curve), color in zip(curves.items(), (INK, ACCENT), strict=False):
        ax.plot(curve.rollouts, curve.regret, color=color, label=name)
        ax.fill_between(curve.rollouts, curve.low, curve.high, color=color, alpha=0.18)
    ax.set_xlabel("rollouts of all policies together")
    ax.set_ylabel("regret, in units of the return")
    ax.set_ylim(bottom=0.0)
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    save_figure(figure, path)
