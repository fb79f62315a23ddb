"""offline-vi finetune RUN: go on training the policy of a run in its environment."""

from __future__ import annotations

import sys

from offline_vi.errors import UsageError

USAGE = """usage: offline-vi finetune RUN [options]

RUN is the directory of `offline-vi train`. Its policy goes on learning, from its data and from what it collects in the
environment; the run itself stays as it is.

`offline-vi finetune RUN --help` tells every option, and the hyper-parameters of the run's algorithm with their values.
"""


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    directory = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    if not directory:
        print(USAGE, end="")
        if not {"-h", "--help"} & set(arguments):
            raise UsageError("no run is given", "offline-vi finetune runs/NAME")
        return
    from offline_vi.scripts import finetune_job  # imports torch

    finetune_job.run(directory, arguments[1:])


if __name__ == "__main__":
    main()
