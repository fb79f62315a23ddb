"""offline-vi finetune RUN: go on training the policy of a run in its environment."""

from __future__ import annotations

import sys

from offline_vi.errors import UsageError
from offline_vi.scripts import import_torch
from offline_vi.scripts.arguments import first, taken

USAGE = """usage: offline-vi finetune RUN [options]

Take up the policy of a run of `offline-vi train` and its data, collect in the environment, go on training.
`offline-vi finetune RUN --help` lists every option and hyper-parameter.
"""


def main(arguments: list[str] | None = None) -> None:
    run, rest = first(sys.argv[1:] if arguments is None else arguments)
    file, rest = taken(rest, "--config")
    if not run and not file:
        print(USAGE, end="")
        if not {"-h", "--help"} & set(rest):
            raise UsageError("no run is given", "give the directory of `offline-vi train`")
        return
    import_torch()
    from offline_vi.study import verbs

    verbs.run("finetune", run, file, rest)


if __name__ == "__main__":
    main()
