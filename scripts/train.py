"""offline-vi train ALGORITHM --dataset NAME|FILE: train a policy, score it, keep everything in a run directory."""

from __future__ import annotations

import sys

from offline_vi import registry
from offline_vi.errors import UsageError
from offline_vi.scripts import import_torch
from offline_vi.scripts.arguments import first, overview, taken

USAGE = """usage: offline-vi train ALGORITHM --dataset NAME|FILE.hdf5 [MORE ...] [options]
       offline-vi train --config RUN/config.json
"""


def main(arguments: list[str] | None = None) -> None:
    name, rest = first(sys.argv[1:] if arguments is None else arguments)
    file, rest = taken(rest, "--config")
    if not name and not file:
        print(overview(USAGE, "algorithm", registry.trainable()), end="")
        if not {"-h", "--help"} & set(rest):
            raise UsageError("no algorithm is given", f"choose from {', '.join(registry.trainable())}")
        return
    if name:
        registry.algorithm(name)  # before torch is imported
    import_torch()
    from offline_vi.study import verbs

    verbs.run("train", name, file, rest)


if __name__ == "__main__":
    main()
