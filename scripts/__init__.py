"""The command ``offline-vi VERB``: one file per verb, found in this table without importing any of them."""

from __future__ import annotations

import gc
import importlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from offline_vi.console import Console
from offline_vi.errors import Interrupted, OfflineVIError, OfflineVIWarning, SystemRefusal, memory_error, unknown
from offline_vi.escaping import one_line
from offline_vi.factories import allow
from offline_vi.plugins import load_plugin
from offline_vi.stopping import Stop, listening

VERBS = {
    "train": "train an algorithm on a data set, and score its policy",
    "train-online": "train an algorithm in an environment, and keep what it saw",
    "train-pixels": "plan in the latent space of a model of images, from a data set of images",
    "finetune": "go on training the policy of a run in its environment",
    "resume": "go on with a run that was interrupted, or train it for longer",
    "fit-behavior": "fit a behavior model alone and report its density",
    "evaluate": "score the policy of a run",
    "export": "write the policy of a run to one file that runs without this library",
    "fit-guard": "fit the density of a run's states, so that a guard recognizes unfamiliar ones",
    "ope": "estimate what a policy would earn from its data alone, next to a clone and the data",
    "select": "choose one of several policies under a budget of rollouts",
    "sweep-inference": "score one trained policy over numbers of candidates, Phi, clip and temperature",
    "benchmark": "run a suite: algorithms x data sets x seeds, resumable, on one machine or a cluster",
    "report": "show a benchmark or single runs in tables and plots, next to published scores",
    "compare": "compare runs or methods with a baseline: intervals, probability of improvement, tests",
    "tune": "search hyper-parameters on a suite",
    "data": "list, describe, check, convert, download and collect data sets",
    "demo": "train clones, BCQ and the recommended preset on an embedded data set, in minutes",
    "info": "print versions, device and paths",
}

MODULES = {"select": "select_policy"}  # a file select.py next to a script that is run hides the standard library's


def usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {summary}" for verb, summary in VERBS.items())
    return (
        "usage: offline-vi VERB [options]        (offline-vi VERB --help lists them)\n\n"
        "Offline reinforcement learning centered on a generative behavior model.\n\n"
        f"verbs:\n{verbs}\n\n"
        "options:\n"
        "  --version            print the version\n"
        "  --plugin FILE.py     after VERB: load your own algorithms, models and data sets, from a file or a module\n"
        "  --traceback          after VERB: show where an expected error came from\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; expected failures become one line, a hint and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    traceback = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    with consoles(), plain_warnings():
        try:
            with listening():
                _dispatch(arguments)
        except BaseException as error:
            told = expected(error)
            if traceback or told is None:
                raise
            print(f"error: {one_line(str(told))}", file=sys.stderr)
            if told.hint:
                print(f"hint: {as_flags(told.hint)}", file=sys.stderr)
            sys.exit(told.exit_code)


def expected(error: BaseException) -> OfflineVIError | None:
    """The error of ours that another one stands for: what a system refuses is nobody's bug. None where there is
    none."""
    if isinstance(error, OfflineVIError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(error.signum if isinstance(error, Stop) else signal.SIGINT)
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return SystemRefusal(f"{where}{error.strerror}", "what was saved before is intact")
    return memory_error(error)


@contextmanager
def consoles() -> Iterator[None]:
    """Standard streams that end nothing and that no file controls (`Console`). Raises SystemExit where output is lost
    that somebody expects, as on a full disk; `offline-vi data list | head` loses nothing."""
    before = sys.stdout, sys.stderr
    out, err = Console(sys.stdout), Console(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield
        out.flush()
        if out.lost is not None:
            print(f"error: the output could not be written: {out.lost.strerror}", file=err)
            sys.exit(SystemRefusal.exit_code)
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
        for console in (out, err):
            if console.failure is not None:  # what is left in the buffer of the stream goes nowhere
                with suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), console.fileno())


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Within it, the library's own warnings are one line each, without the file and the line of code they come from."""
    before, seen = warnings.formatwarning, set[str]()  # a line says nothing new when it is said again

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, OfflineVIWarning):
            text = f"warning: {as_flags(one_line(str(message)))}\n"
            new = "" if text in seen else text
            seen.add(text)
            return new
        return before(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = before


def as_flags(hint: str) -> str:
    """A hint or a warning in the words of the command: ``action_range="clip"`` becomes ``--action-range clip``,
    ``unscored=True`` becomes ``--unscored``."""
    from offline_vi.datasets.reading import NAMES

    names = "|".join((*NAMES, "alignment", "overwrite", "guard_states"))  # of `load`, `save`, `export_run`
    return re.sub(
        rf'\b({names})=(?:"([^"]*)"|([\w.-]*\w))?',
        lambda found: f"--{found[1].replace('_', '-')} {_value(found[2] or found[3] or '')}".rstrip(),
        hint,
    )


def _value(text: str) -> str:
    """Of a flag; True is the flag itself."""
    return "" if text == "True" else text


def allow_environments(arguments: list[str]) -> None:
    """Code that ``--env module:NAME`` names may be imported: whoever gives the command says so, no file."""
    for flag, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if flag == "--env" or flag.startswith("--env="):
            allow(following if flag == "--env" else flag.partition("=")[2])


def with_plugins(arguments: list[str]) -> list[str]:
    """Load what ``--plugin FILE.py|module`` names, wherever it is; returns the other arguments."""
    from offline_vi.scripts.arguments import taken

    while "--plugin" in arguments:
        name, arguments = taken(arguments, "--plugin")
        load_plugin(name)
    return arguments


def import_torch() -> None:
    """For a verb that computes: import torch and exempt what it made from garbage collection, which would look at it
    again several times before the first line is printed."""
    import torch  # noqa: F401

    gc.freeze()


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return
    if arguments[0] in ("--version", "version"):
        from offline_vi import __version__

        print(f"offline-vi {__version__}")
        return
    verb, *rest = with_plugins(arguments)
    if verb not in VERBS:
        raise unknown(verb, VERBS, "verb")
    allow_environments(rest)
    module = MODULES.get(verb, verb.replace("-", "_"))
    importlib.import_module(f"offline_vi.scripts.{module}").main(rest)
