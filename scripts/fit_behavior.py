"""offline-vi fit-behavior MODEL --dataset NAME|FILE: fit a behaviour model alone and report its density."""

from __future__ import annotations

import sys

from offline_vi.behavior import BEHAVIOR_MODELS
from offline_vi.errors import UsageError, unknown


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    if not name:
        print(overview(), end="")
        if not {"-h", "--help"} & set(arguments):
            raise UsageError("no behaviour model is given", f"choose from {', '.join(BEHAVIOR_MODELS)}")
        return
    if name not in BEHAVIOR_MODELS:
        raise unknown(name, BEHAVIOR_MODELS, "behaviour model")
    from offline_vi.scripts import fit_behavior_job  # imports torch: not for the overview

    fit_behavior_job.run(name, arguments[1:])


def overview() -> str:
    rows = "\n".join(f"  {name:<17}{row.summary}" for name, row in BEHAVIOR_MODELS.items())
    return (
        "usage: offline-vi fit-behavior MODEL --dataset NAME|FILE.hdf5 [MORE ...] [options]\n\n"
        f"models:\n{rows}\n\n`offline-vi fit-behavior MODEL --help` tells every option and hyper-parameter.\n"
    )


if __name__ == "__main__":
    main()
