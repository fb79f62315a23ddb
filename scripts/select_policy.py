"""offline-vi select RUN ...: choose the policy to deploy under a budget of rollouts."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from offline_vi.scripts import import_torch

DEFAULT = Path("runs") / "select"


@dataclass(frozen=True)
class Options:
    """Choose one of several policies with a bandit over a number of episodes. Each episode goes to the policy that may
    still be the best. If every run holds an estimate of `offline-vi ope`, the estimates say where to begin."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN RUN ...")]
    """Run directories of `offline-vi train`, all on one environment."""
    env: str = ""
    """Environment, if it is not the runs' own: a Gymnasium id, or code of yours as module:Id."""
    regret: bool = False
    """Run no episode. Simulate, from the episodes that `offline-vi evaluate` kept, how much is lost by choosing after
    each number of rollouts."""
    picture: str = ""
    """PNG file for the curve of --regret."""
    output: str = ""
    """Folder for selection.json and selection.png; default: a new one, runs/select, then runs/select-2 and so on."""
    threads: int = 1
    """CPU threads of torch."""
    json: bool = False
    """Machine-readable output on stdout."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Show no progress on stderr."""


def main(arguments: list[str] | None = None) -> None:
    import_torch()
    from offline_vi.nn.precision import use_threads
    from offline_vi.study import selecting
    from offline_vi.study.flags import parse
    from offline_vi.study.names import new_folder
    from offline_vi.study.plots import harmless

    given = sys.argv[2:] if arguments is None else arguments
    parts = {"select": Options(runs=()), "bandit": selecting.SelectOptions()}
    about = "Choose one of several policies with a bandit over a number of episodes."
    options = parse(parts, given, "offline-vi select", about)
    own, how = options.select, options.bandit
    use_threads(own.threads)
    if own.regret:
        simulation = selecting.simulated(own.runs, how)
        if own.json:
            json.dump(selecting.regret_to_json(simulation.curves), sys.stdout, indent=1)
            print()
        else:
            print("\n".join(selecting.regret_lines(simulation)))
        if own.picture:
            selecting.regret_picture(simulation.curves, Path(own.picture))
        return
    found = selecting.select(own.runs, how, own.env, progress=not own.quiet)
    if own.json:
        json.dump(found.to_json(), sys.stdout, indent=1)
        print()
    else:
        print("\n".join(selecting.lines(found)))
    with harmless("the file and the picture of this selection"):
        for path in selecting.keep_selection(found, how, Path(own.output) if own.output else new_folder(DEFAULT)):
            if not own.json:
                print(path)


if __name__ == "__main__":
    main()
