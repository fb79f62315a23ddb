"""offline-vi resume RUN [--steps N]: go on with a run that was interrupted, or train it for longer."""

from __future__ import annotations

import argparse

from offline_vi.scripts import import_torch


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="offline-vi resume",
        description="Continue a run from its newest checkpoint, with the options that it was begun with. --steps N "
        "trains it to N gradient steps in total, even if it is done. The result is, byte for byte, that of a run begun "
        "with N.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument(
        "--steps", type=int, default=0, help="gradient steps in total, those taken included (default: as it was begun)"
    )
    parser.add_argument("--env", default="", help="allow the run's environment, where it is code: module:Id")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    options = parser.parse_args(arguments)
    import_torch()
    from offline_vi.study import verbs

    verbs.resume(options.run, options.steps, env=options.env, quiet=options.quiet, as_json=options.json)


if __name__ == "__main__":
    main()
