"""offline-vi train ALGORITHM --dataset NAME|FILE: train a policy, score it, keep everything in a run directory."""

from __future__ import annotations

import sys

from offline_vi.algorithms import ALGORITHMS
from offline_vi.errors import UsageError


def main(arguments: list[str] | None = None) -> None:
    name, file, rest = split(sys.argv[1:] if arguments is None else arguments)
    if not name and not file:
        print(overview(), end="")
        if not {"-h", "--help"} & set(rest):
            raise UsageError("no algorithm is given", f"choose from {', '.join(ALGORITHMS)}")
        return
    from offline_vi.scripts import train_job  # imports torch: not for the overview

    train_job.run(name, file, rest)


def overview() -> str:
    rows = "\n".join(f"  {name:<8}{row.summary}" for name, row in ALGORITHMS.items())
    return (
        "usage: offline-vi train ALGORITHM --dataset NAME|FILE.hdf5 [MORE ...] [options]\n"
        "       offline-vi train --config RUN/config.json\n\n"
        f"algorithms:\n{rows}\n\n"
        "`offline-vi train ALGORITHM --help` tells every option and hyper-parameter.\n"
    )


def split(arguments: list[str]) -> tuple[str, str, list[str]]:
    """(ALGORITHM, --config FILE, the rest)."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    rest = arguments[1:] if name else list(arguments)
    file = ""
    if "--config" in rest:
        at = rest.index("--config")
        if at + 1 >= len(rest):
            raise UsageError("--config needs a file", "e.g. --config runs/NAME/config.json")
        file = rest[at + 1]
        del rest[at : at + 2]
    return name, file, rest


if __name__ == "__main__":
    main()
