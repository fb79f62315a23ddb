"""Choosing one of several trained policies: off-policy estimates as a prior, a bandit over a budget of rollouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offline_vi.errors import UsageError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.evaluation.selection import Bandit, BanditConfig, RegretCurve, regret_curve
from offline_vi.study.follow_up import command_on
from offline_vi.study.judging import POLICY
from offline_vi.study.kept import load_policy, read_config
from offline_vi.study.kept_evaluations import evaluations
from offline_vi.study.plots import ACCENT, INK, save_figure
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


class Tried(NamedTuple):
    """A policy and what was seen of it."""

    run: str
    estimate: float | None  # of the newest `offline-vi ope`; None where there is none
    returns: list[float]  # of its rollouts


class Selection(NamedTuple):
    """The outcome of a selection."""

    tried: list[Tried]
    best: int  # its number
    prior: bool  # whether estimates were used

    def to_json(self) -> dict[str, Any]:
        """The selection, JSON-ready."""
        return {
            "selected": self.tried[self.best].run,
            "prior": self.prior,
            "runs": [one._asdict() for one in self.tried],
        }


def select(runs: Sequence[str], options: SelectOptions, env: str = "") -> Selection:
    """Try episodes of the runs' policies one at a time, and return the policy that looks best.

    Raises UsageError for fewer than two runs and for runs on different environments, and what loading and `evaluate`
    raise.
    """
    tasks, policies = [task_in(run, env) for run in runs], [load_policy(run) for run in runs]
    if len(runs) < 2 or len({(task.env_id, str(task.kwargs)) for task in tasks}) > 1:
        raise UsageError("there are not at least two runs on one environment", "give runs on one environment")
    estimates = [estimate_of(run) for run in runs]
    prior = prior_of(estimates, options)
    bandit = Bandit(len(runs), prior, BanditConfig(options.alpha, options.prior_rollouts))
    returns: list[list[float]] = [[] for _ in runs]
    for _ in range(options.rollouts):
        arm = bandit.choose()
        earned = evaluate(policies[arm], tasks[arm], 1, options.seed + len(returns[arm])).mean_return
        returns[arm].append(earned)
        bandit.observe(arm, earned)
    tried = [Tried(*one) for one in zip(runs, estimates, returns, strict=True)]
    return Selection(tried, bandit.best, prior is not None)


def task_in(run: str, env: str) -> Task:
    """The task of a run, on ``env`` where that is given."""
    return task_of_run(read_config(run).record, env, run=run)


def estimate_of(run: str) -> float | None:
    """The newest off-policy estimate that is kept in a run; None where there is none."""
    record = next(evaluations(run, "off-policy"), {})
    return number(table(record, POLICY), "value")


def prior_of(estimates: Sequence[float | None], options: SelectOptions) -> list[float] | None:
    """The estimates where every policy has one and they are to be used, else None."""
    known = [value for value in estimates if value is not None]
    return known if len(known) == len(estimates) and options.prior_rollouts > 0 else None


def simulated(runs: Sequence[str], options: SelectOptions) -> dict[str, RegretCurve]:
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
    prior = prior_of([estimate_of(run) for run in runs], options)
    config = BanditConfig(options.alpha, options.prior_rollouts)
    curves = {"rollouts alone": regret_curve(returns, options.rollouts)}
    if prior is not None:
        curves["with off-policy estimates"] = regret_curve(returns, options.rollouts, prior=prior, config=config)
    return curves


def lines(found: Selection) -> Iterator[str]:
    """The lines of a selection for a terminal."""
    wide = max(len(one.run) for one in found.tried) + 2
    yield f"  {'':<{wide}}{'off-policy':>12}{'rollouts':>10}{'mean return':>14}{'std':>10}"
    for place, one in enumerate(found.tried):
        estimate = "–" if one.estimate is None else f"{one.estimate:.2f}"
        mean = f"{np.mean(one.returns):.2f}" if one.returns else "–"
        std = f"{np.std(one.returns, ddof=1):.2f}" if len(one.returns) > 1 else "–"
        mark = "  selected" if place == found.best else ""
        yield f"  {one.run:<{wide}}{estimate:>12}{len(one.returns):>10}{mean:>14}{std:>10}{mark}"
    if not found.prior:
        yield "  without a prior: `offline-vi ope RUN` of every run gives one"
    yield "  The selected policy's own mean is optimistic: score it again with `offline-vi evaluate` on other seeds."


def regret_lines(curves: dict[str, RegretCurve]) -> Iterator[str]:
    """The regret at some numbers of rollouts."""
    yield "mean regret in units of the return, with the 95 % interval of that mean over simulated selections"
    for name, curve in curves.items():
        yield f"  {name}"
        marks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if n < len(curve.rollouts)] + [len(curve.rollouts)]
        for n in marks:
            regret, low, high = (column[n - 1] for column in (curve.regret, curve.low, curve.high))
            yield f"    after {n:>4} rollouts {regret:>10.2f}  ({low:.2f} to {high:.2f})"


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
