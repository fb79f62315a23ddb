"""offline-vi resume RUN [--steps N]: go on with a run that was interrupted, or train it for longer."""

from __future__ import annotations

import argparse

from offline_vi.scripts import import_torch


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="offline-vi resume",
        description="Go on with a run from its newest checkpoint, as it began. With --steps a run that is done, too, "
        "is trained up to that number of gradient steps, and ends with the bytes of a run that was begun with it.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("--steps", type=int, default=0, help="gradient steps in all (default: as the run was begun)")
    parser.add_argument("--env", default="", help="allow the run's environment, where it is code: module:Id")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    options = parser.parse_args(arguments)
    import_torch()
    from offline_vi.study import verbs

    verbs.resume(options.run, options.steps, env=options.env, quiet=options.quiet, as_json=options.json)


if __name__ == "__main__":
    main()
