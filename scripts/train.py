"""offline-vi train ALGORITHM --dataset NAME|FILE: train a policy, score it, keep everything in a run directory."""

from __future__ import annotations

import sys

from offline_vi import registry
from offline_vi.errors import UsageError, unknown
from offline_vi.scripts import import_torch
from offline_vi.scripts.arguments import first, overview, taken

USAGE = """usage: offline-vi train ALGORITHM --dataset NAME|FILE [MORE ...] [options]
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
    if name:  # before torch is imported
        if name not in registry.trainable():
            raise elsewhere(name)
        registry.algorithm(name)
    import_torch()
    from offline_vi.study import verbs

    verbs.run("train", name, file, rest)


def elsewhere(name: str) -> UsageError:
    """Why the verb does not train this algorithm."""
    if name not in registry.ALGORITHMS:
        return unknown(name, registry.trainable(), "algorithm")
    others = {
        registry.Kind.FRAMES: ("sequences of images", "offline-vi train-pixels"),
        registry.Kind.WRAPPED: ("the rewards of another algorithm", f"offline-vi train-online sac --bonus {name}"),
    }
    what, verb = others[registry.ALGORITHMS[name].kind]
    return UsageError(f"{name} does not learn from transitions but from {what}", verb)


if __name__ == "__main__":
    main()
