"""offline-vi ope RUN: estimate from the data alone what a policy would earn, next to a clone and the data."""

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

    run: tyro.conf.Positional[str]
    """Run directory of `offline-vi train`. Its data are read again."""
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
    from offline_vi.nn.precision import use_threads
    from offline_vi.study.flags import parse
    from offline_vi.study.judging import JudgeOptions, curve_picture, judge, lines, recorded
    from offline_vi.study.kept_evaluations import keep_evaluation
    from offline_vi.study.plots import harmless

    given = sys.argv[2:] if arguments is None else arguments
    options = parse(
        {"own": OpeOptions(run=tyro.MISSING), "fit": JudgeOptions()}, given, "offline-vi ope", OpeOptions.__doc__ or ""
    )
    own, fit = options.own, options.fit
    use_threads(own.threads)
    found = judge(own.run, fit, progress=not own.quiet)
    if own.json:
        json.dump(recorded(found, fit), sys.stdout, indent=1)
        print()
    else:
        print("\n".join(lines(found)))
    with harmless("the file and the picture of this evaluation"):
        path = keep_evaluation(own.run, recorded(found, fit))
        curve_picture(found, Path(own.run) / "off_policy.png")
        if not own.json:
            print(f"  written to {path} and {Path(own.run) / 'off_policy.png'}")


if __name__ == "__main__":
    main()
