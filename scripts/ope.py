"""offline-vi ope RUN ...: estimate from the data alone what a policy would earn, next to a clone and the data."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from offline_vi.scripts import import_torch


@dataclass(frozen=True)
class OpeOptions:
    """Estimate what a policy would earn, without an environment. Fitted Q evaluation judges the policy of a run and a
    clone of its data, over several seeds of the fit, next to what the data's own episodes earned. An estimate that has
    not converged is marked."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Run directories of `offline-vi train`, or a directory of `offline-vi benchmark`, which means all of its runs.
    Their data are read again. Several runs that differ only in their seed are one method; methods are compared with the
    first."""
    env: str = ""
    """Allow the run's environment to be imported, where it is code of yours: module:Id. It is not simulated."""
    threads: int = 1
    """CPU threads of torch."""
    json: bool = False
    """Machine-readable output on stdout."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Show no progress on stderr."""


def main(arguments: list[str] | None = None) -> None:
    import_torch()
    from offline_vi.errors import UsageError
    from offline_vi.nn.precision import use_threads
    from offline_vi.study import estimates
    from offline_vi.study.flags import parse
    from offline_vi.study.judging import Clones, JudgeOptions, Judgment, curve_picture, judge, lines, recorded
    from offline_vi.study.kept_evaluations import keep_evaluation
    from offline_vi.study.plots import harmless

    given = sys.argv[2:] if arguments is None else arguments
    about = "Estimate from the data alone what the policies of runs would earn."
    options = parse({"ope": OpeOptions(runs=()), "fit": JudgeOptions()}, given, "offline-vi ope", about)
    own, fit = options.ope, options.fit
    use_threads(own.threads)
    if not own.runs:
        raise UsageError("no run is given", "offline-vi ope runs/A, or several: offline-vi ope runs/A runs/B")
    runs = estimates.runs_in(own.runs)
    if len(runs) > 1:
        estimates.check_comparable(runs, fit)
    clones: Clones = {}
    judged: dict[str, Judgment] = {}
    for run in runs:
        judged[run] = found = judge(run, fit, progress=not own.quiet, clones=clones)
        if not own.json:
            print("\n".join([f"{run}:"] * (len(runs) > 1) + [*lines(found)]))
        with harmless("the file and the picture of this evaluation"):
            path = keep_evaluation(run, recorded(found, fit))
            curve_picture(found, Path(run) / "off_policy.png")
            if not own.json:
                print(f"  written to {path} and {Path(run) / 'off_policy.png'}")
    if own.json:
        json.dump(recorded(found, fit) if len(judged) == 1 else estimates.to_json(judged), sys.stdout, indent=1)
        print()
    elif len(judged) > 1:
        print("\n".join(estimates.lines(judged)))


if __name__ == "__main__":
    main()
