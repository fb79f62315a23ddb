"""offline-vi train-online ALGORITHM --env ID: train a policy in its environment, keep what it saw."""

from __future__ import annotations

import sys

from offline_vi.errors import UsageError, unknown

ONLINE = ("sac",)  # the algorithms that explore


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    if not name:
        print(
            "usage: offline-vi train-online ALGORITHM --env ID [options]\n\n"
            f"algorithms: {', '.join(ONLINE)}\n\n"
            "`offline-vi train-online ALGORITHM --help` tells every option and hyper-parameter."
        )
        if not {"-h", "--help"} & set(arguments):
            raise UsageError("no algorithm is given", f"choose from {', '.join(ONLINE)}")
        return
    if name not in ONLINE:
        raise unknown(name, ONLINE, "online algorithm")
    from offline_vi.scripts import train_online_job  # imports torch

    train_online_job.run(name, arguments[1:])


if __name__ == "__main__":
    main()
