"""offline-vi train-online ALGORITHM --env ID: train a policy in its environment, keep what it saw."""

from __future__ import annotations

import sys

from offline_vi import registry
from offline_vi.errors import UsageError, unknown
from offline_vi.scripts import import_torch
from offline_vi.scripts.arguments import first, overview, taken

USAGE = "usage: offline-vi train-online ALGORITHM --env ID [options]\n"


def main(arguments: list[str] | None = None) -> None:
    name, rest = first(sys.argv[1:] if arguments is None else arguments)
    file, rest = taken(rest, "--config")
    known = registry.explorers()
    if not name and not file:
        print(overview(USAGE, "algorithm", known), end="")
        if not {"-h", "--help"} & set(rest):
            raise UsageError("no algorithm is given", f"choose from {', '.join(known)}")
        return
    if name and name not in known:
        raise unknown(name, known, "online algorithm")
    import_torch()
    from offline_vi.study import verbs

    verbs.run("train-online", name, file, rest)


if __name__ == "__main__":
    main()
