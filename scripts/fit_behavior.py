"""offline-vi fit-behavior MODEL --dataset NAME|FILE: fit a behavior model alone and report its density."""

from __future__ import annotations

import sys

from offline_vi import registry
from offline_vi.errors import UsageError
from offline_vi.scripts import import_torch
from offline_vi.scripts.arguments import first, overview, taken

USAGE = "usage: offline-vi fit-behavior MODEL --dataset NAME|FILE [MORE ...] [options]\n"


def main(arguments: list[str] | None = None) -> None:
    name, rest = first(sys.argv[1:] if arguments is None else arguments)
    file, rest = taken(rest, "--config")
    if not name and not file:
        print(overview(USAGE, "model", registry.behavior_models()), end="")
        if not {"-h", "--help"} & set(rest):
            raise UsageError("no behavior model is given", f"choose from {', '.join(registry.behavior_models())}")
        return
    if name:
        registry.behavior_model(name)  # before torch is imported
    import_torch()
    from offline_vi.study import verbs

    verbs.run("fit-behavior", name, file, rest)


if __name__ == "__main__":
    main()
