"""What a run that goes on may change: every option of the verbs that train is in one class of five.

Options that words of the command line stand for in another way (the same file under another path) are compared by what
they make: the rows, the task, the agent. Hyper-parameters have to be the same, all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from offline_vi.errors import ConfigError
from offline_vi.nn.description import completed
from offline_vi.study.follow_up import command_on

Record = dict[str, Any]
"""A JSON object."""

FIXED = ("agent", "data", "task", "max_episode_steps", "steps", "seed", "collection", "start")  # of config.json
RESOLVED = {"precision": ("train_options", None), "graph": ("run_options", "off")}  # fields that "auto" may stand for
UNUSED = ("task.note", "task.name", "data.obs_names", "data.action_names")  # texts for tables and cards
STEPS = ("steps", "agent.steps")  # may grow where a run is extended: of the run, and of the fit of a behavior model


class OnResume(Enum):
    """What becomes of another value."""

    SAME = "must be the same"
    MORE = "may only grow: the run is trained for longer"
    ROWS = "may name the data otherwise, the rows must be the same"
    RECORDED = "may change, is recorded with its step"
    FREE = "of no effect on the run"


S, M, D, R, F = OnResume.SAME, OnResume.MORE, OnResume.ROWS, OnResume.RECORDED, OnResume.FREE
CLASSES: Mapping[str, Mapping[str, OnResume]] = {
    "run": {
        **dict.fromkeys(("output", "resume", "overwrite", "strict", "quiet", "json", "log"), F),
        **dict.fromkeys(("device", "threads", "log_every", "save_every"), R),  # save_every: see "collection"
        **dict.fromkeys(("seed", "graph"), S),
    },
    "data": {
        **dict.fromkeys(("dataset", "columns"), D),
        **dict.fromkeys(("max_dataset_bytes", "memory_budget", "sha256", "download"), F),
        **dict.fromkeys(("next_obs", "action_range", "on_nonfinite", "on_bad_episode", "discrete_actions"), S),
        **dict.fromkeys(("env", "env_kwargs", "unscored", "obs_keys", "max_episode_steps"), S),
        **dict.fromkeys(("action_low", "action_high", "action_units"), S),
    },
    "weights": dict.fromkeys(
        ("episode_weights", "best_share", "best_steps", "weight_alpha", "value_steps", "value_discount"), S
    ),
    "returns": dict.fromkeys(("returns", "critic_start_steps", "return_lambda", "return_steps"), S),
    "train": {
        "steps": M,
        **dict.fromkeys(("preset", "tuned_for", "behavior_model", "behavior_steps", "behavior_from"), S),
        **dict.fromkeys(("bank_period", "precision", "proposals", "noise_clip", "keep", "normalize"), S),
        **dict.fromkeys(("reward_scale", "reward_shift", "end_penalty", "num_seeds"), S),
        "support_from": R,
        "print_config": F,
    },
    "eval": dict.fromkeys(("eval_every", "eval_episodes", "eval_seed"), R) | {"env_processes": F},
    "fit": {"steps": M, "held_out": S, **dict.fromkeys(("iwae_samples", "max_rows", "policy_from"), R)},
    "where": dict.fromkeys(("env", "env_kwargs", "max_episode_steps", "normalize", "bonus"), S),
    "collect": {
        "steps": M,
        **dict.fromkeys(("warmup", "num_envs", "capacity"), S),
        **dict.fromkeys(("write", "keep_policies"), R),
    },
    "finetune": dict.fromkeys(("share", "sigma", "tuned_for", "seed_index"), S),
    "pixels": {
        **dict.fromkeys(("alignment", "env", "env_kwargs", "unscored", "max_episode_steps"), S),
        "steps": M,
        "dataset": D,
    },
}
HYPERPARAMETERS = ("algorithm", "behavior", "vime")


class Change(NamedTuple):
    """A value of config.json that is another one now."""

    option: str  # e.g. "eval_options.eval_episodes"
    before: Any
    now: Any


def class_of(section: str, name: str) -> OnResume:
    """The class of an option, in ``section`` of config.json without "_options"; SAME for one that nobody classed."""
    return CLASSES.get(section, {}).get(name, OnResume.SAME)


def recorded_changes(run: str | Path, before: Record, now: Record, *, extends: bool) -> list[Change]:
    """The changes between two configurations of one run that are to be recorded. With ``extends`` there may be more
    steps. Raises ConfigError for a change of what must be the same, naming the field and both values."""
    found = []
    for change in [*_of_results(before, now, extends), *_of_options(before, now, extends)]:
        section, _, name = change.option.partition("_options.")
        kind = class_of(section, name) if name else OnResume.SAME
        if kind in (OnResume.SAME, OnResume.MORE):  # `_of_options` passes over steps that a run may take
            raise refusal(run, change, before)
        if kind is OnResume.RECORDED:
            found.append(change)
    return found


def _of_results(before: Record, now: Record, extends: bool) -> Iterator[Change]:
    """What the options make: agent, rows, task."""
    for name in FIXED:
        old, new = (completed(record.get(name)) for record in (before, now))
        for change in changes(without_empty(old), without_empty(new), name):
            grows = extends and change.option in STEPS and isinstance(change.before, int) and change.before < change.now
            if not grows and change.option not in UNUSED:
                yield change
    for name, (section, default) in RESOLVED.items():
        chosen = {_table(record, section).get(name) for record in (before, now)}
        if chosen != {"auto"}:  # what auto stood for on the machine where the run began is kept
            yield from changes(before.get(name, default), now.get(name, default), name)


def _of_options(before: Record, now: Record, extends: bool) -> Iterator[Change]:
    """What the command line says. A field that an older version did not have is no difference."""
    for section in (f"{name}_options" for name in (*CLASSES, *HYPERPARAMETERS)):
        old, new = _table(before, section), _table(now, section)
        for name in old:
            if name in new and old[name] != new[name] and not (extends and name == "steps"):
                yield Change(f"{section}.{name}", old[name], new[name])


def _table(record: Record, name: str) -> Record:
    """A section of a configuration; empty where there is none."""
    section = record.get(name)
    return section if isinstance(section, dict) else {}


def with_changes(saved: Record, found: list[Change], step: int) -> Record:
    """A configuration that says what holds now, and under "changes" since which step."""
    record = dict(saved)
    for option, _, value in found:
        section, _, name = option.partition(".")
        if section in record:  # versions are in run.json
            record[section] = {**record[section], name: value}
    before = record.get("changes")
    news = [{"step": step, **one._asdict()} for one in found]
    return {**record, "changes": [*(before if isinstance(before, list) else []), *news]}


def changes(before: Any, now: Any, name: str) -> Iterator[Change]:
    """All that differs between two JSON values."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from changes(before.get(key), now.get(key), f"{name}.{key}")
    elif before != now:
        yield Change(name, before, now)


def without_empty(record: Any) -> Any:
    """The record without what is empty at any depth: a field that an older version did not have, and that is not used,
    is no difference."""
    if isinstance(record, dict):
        kept = {name: without_empty(value) for name, value in record.items()}
        return {name: value for name, value in kept.items() if value not in (None, "", [], {}, False)}
    return record


def shown(value: Any) -> str:
    """A value in a message, at most 60 characters of it."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def refusal(run: str | Path, change: Change, config: Record) -> ConfigError:
    """The error for a change that a run does not take; ``config`` is its config.json."""
    more = change.option.rpartition(".")[2] == "steps"
    command = command_on("resume", run, *(["--steps", str(change.now)] if more else []), config=config)
    return ConfigError(
        f"{run} was made with {change.option} = {shown(change.before)}, not {shown(change.now)}",
        f"`{command}` goes on as it began; --overwrite starts anew",
    )
