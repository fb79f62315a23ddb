"""The command ``offline-vi VERB``: one file per verb, found in this table without importing any of them."""

from __future__ import annotations

import importlib
import os
import sys

from offline_vi.errors import OfflineVIError, unknown

VERBS = {
    "train": "train an algorithm on a data set, score its policy",
    "train-online": "train an algorithm in its environment, keep what it saw",
    "train-pixels": "plan in the latent space of a model of images, from a data set of images",
    "finetune": "go on training the policy of a run in its environment",
    "fit-behavior": "fit a behaviour model alone and report its density",
    "evaluate": "score the policy of a run",
    "sweep-inference": "score one trained policy over candidates, Phi, clip and temperature",
    "benchmark": "run a suite: algorithms x data sets x seeds, resumable, on one machine or a cluster",
    "report": "tables and plots of a benchmark, beside the published numbers",
    "tune": "search hyper-parameters on a suite",
    "data": "list, describe, check, download and collect data sets",
    "demo": "the main job on the embedded data set, in minutes",
    "info": "versions, device, paths",
}


def usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {summary}" for verb, summary in VERBS.items())
    return (
        "usage: offline-vi VERB [options]        (offline-vi VERB --help tells them)\n\n"
        "Offline reinforcement learning centred on a generative behaviour model.\n\n"
        f"verbs:\n{verbs}\n\n"
        "options:\n"
        "  --version    print the version\n"
        "  --traceback  after VERB: show where an expected error came from\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; expected failures become one line, a hint and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    traceback = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    try:
        _dispatch(arguments)
    except OfflineVIError as error:
        if traceback:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `offline-vi data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return
    if arguments[0] in ("--version", "version"):
        from offline_vi import __version__

        print(f"offline-vi {__version__}")
        return
    verb, *rest = arguments
    if verb not in VERBS:
        raise unknown(verb, VERBS, "verb")
    importlib.import_module(f"offline_vi.scripts.{verb.replace('-', '_')}").main(rest)
