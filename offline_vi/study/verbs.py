"""The verbs that train, by name: from flags or a configuration to an experiment, its conduct and its report."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from offline_vi.errors import ConfigError, DeterminismWarning, UsageError, counted
from offline_vi.factories import check_kwargs, kwargs_from
from offline_vi.nn.precision import use_threads
from offline_vi.runs.files import read_json
from offline_vi.study.experiment import Experiment, Outcome, conduct
from offline_vi.study.flags import value_of
from offline_vi.study.run import SCHEMA, Record, RunOptions, missing_plugin, with_steps

PLACES = ("output", "resume", "overwrite")  # of `RunOptions`
Parse = Callable[[str, Record, Sequence[str]], Any]
"""(name, saved configuration, flags) -> options."""


class Verb(NamedTuple):
    """How a verb makes its experiment; its modules are imported when it runs."""

    parse: Parse
    make: Callable[[str, Any], Experiment]
    subject: str  # key of config.json that holds the name


def verb_of(name: str) -> Verb:
    """The verb of that name. Raises ConfigError for a name that is no verb that trains."""
    if name == "train":
        from offline_vi.study import train

        return Verb(train.parse_options, train.Training, "algorithm")
    if name == "train-online":
        from offline_vi.study import online

        return Verb(online.parse_options, online.OnlineTraining, "algorithm")
    if name == "train-pixels":
        from offline_vi.study import pixels

        return Verb(pixels.parse_options, pixels.PixelTraining, "algorithm")
    if name == "finetune":
        from offline_vi.study import finetune

        return Verb(finetune.parse_options, finetune.finetuning, "start")
    if name == "fit-behavior":
        from offline_vi.study import fit_behavior

        return Verb(fit_behavior.parse_options, fit_behavior.fitting, "behavior")
    raise ConfigError(f"{name!r} is no verb that trains", "use the config.json of a run")


def run(name: str, subject: str, file: str, arguments: Sequence[str]) -> Outcome | None:
    """A verb of the command: ``subject`` is the algorithm, model or run that it is about, ``file`` a saved
    configuration or empty. Prints what the flags ask for; None where that is the configuration alone."""
    saved = read_saved(file, name) if file else {}
    verb = verb_of(name)
    subject = subject or subject_of(saved, verb)
    options = verb.parse(subject, saved, arguments)
    check_environment(options, arguments)
    if name == "train" and options.train.print_config:
        from offline_vi.study.procedure import described

        print(described(subject, options))
        return None
    use_threads(options.run.threads)
    outcome = conduct(verb.make(subject, options), options.run)
    print_result(name, outcome, options.run)
    return outcome


def resume(directory: str, steps: int = 0, *, env: str = "", quiet: bool = False, as_json: bool = False) -> Outcome:
    """Go on with a run as it began, or up to ``steps`` gradient steps.

    Raises MissingInputError and ConfigError where there is no such run, or where it cannot be taken up by the command:
    a run that Python made from arrays goes on where it was made.
    """
    saved = read_json(Path(directory) / "config.json")
    name = str(saved.get("verb"))
    require_plugins(saved)
    refuse_places(saved)
    own = (saved.get("task") or {}).get("env_id")
    if env and env != own:
        raise UsageError(f"{directory} is trained on {own}, not on {env}", "--env allows the environment of the run")
    verb = verb_of(name)
    if saved.get("schema") != SCHEMA or not {"eval_options", "fit_options"} & saved.keys():
        raise ConfigError(
            f"{directory} cannot be taken up by the command",
            "go on where it was made: fit(..., run=DIRECTORY, resume=True), or `offline-vi train ... --resume`",
        )
    if steps:
        before, saved = saved, with_steps(saved, steps)
        warn_of_differences(name, before, steps)
    options = verb.parse(subject_of(saved, verb), saved, [])
    check_environment(options, [])
    going = replace(options.run, output=directory, resume=True, quiet=quiet, json=as_json)
    options = replace(options, run=going)
    outcome = conduct(verb.make(subject_of(saved, verb), options), going, extends=bool(steps))
    print_result(name, outcome, going)
    return outcome


def warn_of_differences(name: str, saved: Record, steps: int) -> None:
    """Say why a run that is extended will not end with the bytes of one that was begun with so many steps."""
    before, every = int(saved["steps"]), (saved.get("collection") or {}).get("save_every")
    why = ""
    if name == "fit-behavior":
        why = "the learning rate falls over all steps"
    elif every is not None and before % (every or before):
        why = f"the checkpoint at step {before:,} ended the running episodes"
    if why and steps > before:
        warnings.warn(f"{why}: a run of {steps:,} steps would have gone another way", DeterminismWarning, stacklevel=3)


def read_saved(file: str, name: str) -> Record:
    """Read a configuration of this verb. Raises ConfigError."""
    saved = read_json(Path(file))
    if saved.get("schema") not in (1, SCHEMA) or saved.get("verb") != name:
        raise ConfigError(
            f"{file} is not a configuration of `offline-vi {name}`, schema {SCHEMA}", "use a run's config.json"
        )
    if saved["schema"] == 1:
        from offline_vi.study import format_1

        saved = format_1.options(saved)
    require_plugins(saved)
    refuse_places(saved)
    return saved


def refuse_places(saved: Record) -> None:
    """A configuration says what to train, never where to write or what to delete. Raises ConfigError."""
    section = saved.get("run_options")
    options = section if isinstance(section, dict) else {}
    for name in PLACES:
        if options.get(name):
            raise ConfigError(
                f"the configuration says {name} = {options[name]!r}, which only a command may",
                f"take it out, and give --{name} yourself",
            )


def require_plugins(saved: Record) -> None:
    """See that the plug-ins of a run are loaded: not a file decides which code runs, but whoever gives the command.

    Raises ConfigError naming the flag.
    """
    if missing := missing_plugin(saved):
        raise ConfigError(
            f"the run was made with the plug-in {missing}, which is not loaded or has changed", f"--plugin {missing}"
        )


def check_environment(options: Any, arguments: Sequence[str]) -> None:
    """Raises UsageError where arguments of an environment's constructor come from a file, and are not taken from
    one."""
    for part in vars(options).values():
        words = vars(part).get("env_kwargs", ())
        if words and not value_of(arguments, "--env-kwargs"):
            check_kwargs(part.env or "the data's environment", kwargs_from(words))


def subject_of(saved: Record, verb: Verb) -> str:
    """The algorithm, model or run that a configuration is about."""
    subject = saved.get(verb.subject)
    subject = subject.get("run") if isinstance(subject, dict) else subject
    if not isinstance(subject, str) or not subject:
        raise ConfigError(f"the configuration names no {verb.subject}", "use a run's config.json")
    return subject


def print_result(name: str, outcome: Outcome, options: RunOptions) -> None:
    """Print the result on stdout, as the flags ask."""
    result = outcome.result
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    if name == "fit-behavior":
        from offline_vi.study.density import print_report

        print_report(result)
    elif "return_mean" in result:
        print(f"{score_line(result)}, final policy")
    elif "note" in result:
        print(result["note"])
    for seed, own in result.get("seeds", {}).items():
        print(f"  seed {seed}: {score_line(own) if 'return_mean' in own else 'not scored'}")
    print(f"run directory: {outcome.path}")


def score_line(result: Record) -> str:
    """The final policy in a few words: its score and return, or its return alone, over how many episodes, how these
    ended, and how many failed."""
    words = f"return {result['return_mean']:.2f}"
    if result.get("normalized_score") is not None:
        words = f"normalized score {result['normalized_score']:.2f} ({words})"
    words += f", mean of {counted(len(result['returns']), 'episode')}"
    if ended := sum(result.get("terminated", ())):
        length = sum(result["lengths"]) / len(result["lengths"])
        words += f", {ended} of them ended by the task, {length:.0f} steps on average"
    failed = len(result.get("failed_episodes", ()))
    return f"{words}, {failed} episodes failed" if failed else words
