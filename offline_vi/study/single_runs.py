"""Runs that belong to no suite, read as a study, so that one report serves both: what a run trained is taken from its
config.json and run.json."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from offline_vi.errors import ConfigError, MissingInputError, OfflineVIError
from offline_vi.factories import environment_title
from offline_vi.joined import short_name
from offline_vi.study.cells import is_done, status
from offline_vi.study.results import (
    DONE,
    FAILED,
    Failure,
    FittedModel,
    Method,
    Run,
    Study,
    facts_of,
    read_model,
    read_returns,
    state_of,
    why_not_done,
)
from offline_vi.study.scores import integer, number, scores_from, table, text
from offline_vi.study.suite import Cell, Suite

SEPARATE = (  # of config.json: no settings, or settings that the agent's description says again
    *("schema", "data", "task", "seed", "run_options", "data_options", "start", "plugins", "changes"),
    *("algorithm_options", "behavior_options"),
)
ELSEWHERE = ("spec", "seed", "behavior_from", "support_from")  # at any depth: they follow from the data and the seed
READ = ("next_obs", "action_range", "on_nonfinite", "on_bad_episode", "obs_keys", "action_units")  # of `Reading`
SECTIONS = (
    *("recipe", "agent", "algorithm", "config", "train_options", "online_options", "pixel_options"),
    *("collect_options", "finetune_options", "pixels_options", "eval_options"),
)


@dataclass(frozen=True)
class Described:
    """What a run is, according to its files."""

    path: Path  # its directory
    record: Mapping[str, object]  # run.json
    verb: str  # the command that made it, e.g. `train`
    algorithm: str  # empty: a behavior model alone
    model: str  # empty where it uses none
    preset: str  # of the command
    dataset: str  # or the environment, of a run that collects its own data
    files: tuple[str, ...]  # of data
    seed: int  # the first, where several were trained in parallel
    settings: Mapping[str, str]  # hyper-parameter -> value: what makes two commands different

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.path.resolve().name


def is_run(folder: Path) -> bool:
    """Whether it is a run directory."""
    return (folder / "config.json").exists()


def read_runs(folders: Sequence[str | Path]) -> Study:
    """Run directories as a study, each seed of a run of several for itself.

    Runs of one algorithm under one preset are one method, unless two of them differ on the same data set: then each
    setting is a method of its own, labeled by what differs.

    A run whose configuration cannot be read is left out with the reason. Raises MissingInputError where a folder is no
    run directory, ConfigError where no configuration can be read, or where two runs are the same seed of the same
    method.
    """
    paths = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    described, broken = described_runs(paths)
    described = with_short_names(described)
    trained = [one for one in described if one.algorithm]
    methods = methods_of_runs(trained)
    runs = [run for one in trained for run in runs_of_directory(one, methods[one.path])]
    refuse_twins(runs)
    models: list[FittedModel] = []
    for one in (one for one in described if not one.algorithm):
        try:
            models.append(model_of(one))
        except OfflineVIError as error:
            broken.append(Failure(one.name, str(error)))
    name = described[0].name if len(described) == 1 else f"{len(described)} runs"
    suite = Suite(
        name=name,
        algorithms=tuple(dict.fromkeys(one.algorithm for one in trained)),
        datasets={one.dataset: one.files for one in described},
        seeds=tuple(dict.fromkeys(run.cell.seed for run in runs)),
        presets=tuple(dict.fromkeys(one.preset for one in trained)),
    )
    unique = list(dict.fromkeys(methods.values()))
    environment = next((run.facts for run in runs if run.facts), {}) or environment_of(described[0])
    return Study(paths[0], suite, unique, runs, models, broken, environment)


def described_runs(paths: Sequence[Path]) -> tuple[list[Described], list[Failure]]:
    """Those of several runs that can be read, and why the others cannot. Raises MissingInputError where one is none,
    ConfigError where none can be read."""
    found, broken = [], list[Failure]()
    for path in paths:
        try:
            found.append(describe_run(path))
        except ConfigError as error:
            broken.append(Failure(path.name, f"cannot be read: {error}"))
    if not found and broken:
        raise ConfigError(f"{broken[0].name} {broken[0].error}", "is it a run of this library?")
    return found, broken


def with_short_names(described: Sequence[Described]) -> list[Described]:
    """The runs under short names of the data sets that were joined for them, where these tell them apart."""
    labels: dict[str, str] = {}
    for name in dict.fromkeys(one.dataset for one in described):
        short = short_name(name)
        labels[name] = name if short in labels.values() else short
    return [replace(one, dataset=labels[one.dataset]) for one in described]


def describe_run(path: Path) -> Described:
    """What config.json and run.json say. Raises MissingInputError, ConfigError."""
    from offline_vi.runs.files import read_json

    if not is_run(path):
        raise MissingInputError(
            f"{path} is neither a benchmark directory nor a run",
            "give the directory of `offline-vi benchmark`, or of `offline-vi train` and the like",
        )
    config, record = read_json(path / "config.json"), status(path)
    recipe, options = table(config, "recipe"), table(config, "train_options")
    data, task = table(config, "data"), table(config, "task")
    verb = text(config, "verb")
    model = text(recipe, "behavior") or text(options, "behavior_model") or text(config, "behavior")
    algorithm = text(config, "algorithm") or text(record, "algorithm") or text(recipe, "algorithm")
    dataset = text(data, "name") or text(task, "name") or text(task, "env_id") or "unknown"
    return Described(
        path=path,
        record=record,
        verb=verb,
        algorithm="" if verb == "fit-behavior" else algorithm or verb,
        model=model or text(record, "behavior"),
        preset=text(options, "preset"),
        dataset=dataset,
        files=(dataset,),
        seed=integer(config, "seed") or 0,
        settings=dict(flattened({key: value for key, value in config.items() if key not in SEPARATE}))
        | dict(flattened(reading_of(config))),
    )


def reading_of(config: Mapping[str, object]) -> dict[str, object]:
    """The environment that scores a run, what -1 and 1 stand for, and the options of reading that are not as by
    default."""
    from offline_vi.datasets.reading import Reading

    task, options = table(config, "task"), table(config, "data_options")
    default = json.loads(json.dumps(asdict(Reading())))
    changed = {name: options[name] for name in READ if options.get(name, default[name]) != default[name]}
    bounds = {name: task[name] for name in ("action_low", "action_high") if name in task}
    return {"environment": environment_title(text(task, "env_id"), table(task, "kwargs")), **bounds, **changed}


def flattened(record: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a configuration as JSON, each under its name, e.g. "phi" and "behavior_config.lr"."""
    for key, value in record.items():
        if key in ELSEWHERE:
            continue
        if isinstance(value, Mapping):
            yield from flattened(value, prefix if key in SECTIONS else f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value)


def methods_of_runs(runs: Sequence[Described]) -> dict[Path, Method]:
    """Run directory -> its method."""
    groups: dict[tuple[str, str, str, str], list[Described]] = {}
    for one in runs:
        groups.setdefault((one.verb, one.algorithm, one.preset, one.model), []).append(one)
    labels: dict[Path, tuple[str, str, str]] = {}  # algorithm, preset, label
    for key, group in groups.items():
        shown = shown_parts(key, list(groups))
        for one in group:
            parts = [*shown, *(f"{name} {one.settings.get(name, '–')}" for name in differing(group))]
            labels[one.path] = (one.algorithm, one.preset, ", ".join(parts))
    colors = {label: place for place, label in enumerate(dict.fromkeys(labels.values()))}
    return {path: Method(*label, colors[label]) for path, label in labels.items()}


def shown_parts(key: tuple[str, str, str, str], keys: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """The algorithm, and those of preset, model and verb in which the algorithm's groups differ."""
    verb, algorithm, preset, model = key
    same = [other for other in keys if other[1] == algorithm]
    parts = [(preset, 2), (model, 3), (verb, 0)]
    return [algorithm, *(part for part, place in parts if part and len({other[place] for other in same}) > 1)]


def differing(group: Sequence[Described]) -> list[str]:
    """The settings in which runs of the group differ on the same data set; none where they do not."""
    found: dict[str, None] = {}
    for dataset in {one.dataset for one in group}:
        same = [one.settings for one in group if one.dataset == dataset]
        names = dict.fromkeys(name for settings in same for name in settings)
        found |= {name: None for name in names if len({settings.get(name) for settings in same}) > 1}
    return list(found)


def runs_of_directory(one: Described, method: Method) -> list[Run]:
    """A run, or each of the seeds that were trained in parallel. One that cannot be read is not done, with the
    reason."""
    from offline_vi.runs.files import read_json

    command = shlex.join(["offline-vi", *command_words(one.record)])
    cell = Cell(one.algorithm, one.dataset, one.preset, one.seed)
    try:
        seconds = number(one.record, "wall_seconds") or 0.0
        if not is_done(one.path):
            error = why_not_done(one.path, one.record)
            return [Run(cell, method, one.path, state_of(one.path, one.record), error, command, seconds=seconds)]
        facts, result = facts_of(one.record), read_json(one.path / "result.json")
        note = text(table(read_json(one.path / "config.json"), "task"), "note")
        scores, seeds = scores_from(result), table(result, "seeds")
        run = Run(cell, method, one.path, DONE, "", command, scores, facts, note, seconds, read_returns(one.path))
        return [
            replace(
                run,
                cell=cell._replace(seed=int(seed)),
                scores=scores_from({**{key: result.get(key) for key in ("diagnostics", "data")}, **table(seeds, seed)}),
                seconds=seconds / len(seeds),
                returns=read_returns(one.path, int(seed)),
            )
            for seed in seeds
        ] or [run]
    except (OfflineVIError, ValueError) as error:
        return [Run(cell, method, one.path, FAILED, f"cannot be read: {error}", command)]


def command_words(record: Mapping[str, object]) -> list[str]:
    """The words after ``offline-vi`` that made the run, of run.json."""
    words = record.get("command")
    return [str(word) for word in words[1:]] if isinstance(words, list) else []


def refuse_twins(runs: Sequence[Run]) -> None:
    """Raises ConfigError where two runs are the same seed of the same method: they would count as two seeds."""
    seen: dict[tuple[Method, str, int], Run] = {}
    for run in runs:
        before = seen.setdefault((run.method, run.cell.dataset, run.cell.seed), run)
        if before is not run:
            raise ConfigError(
                f"{before.path.name} and {run.path.name} are the same seed of the same command",
                "leave one out, or train another seed: --seed 1, in Python set_seed(1) and fit(..., seed=1)",
            )


def model_of(one: Described) -> FittedModel:
    """A run of `offline-vi fit-behavior`. Raises ConfigError where it is not done or its result.json cannot be read."""
    if not is_done(one.path):
        raise ConfigError(why_not_done(one.path, one.record))
    model = read_model(one.path, one.dataset, one.model, one.seed, number(one.record, "wall_seconds") or 0.0)
    return replace(model, command=shlex.join(["offline-vi", *command_words(one.record)]))


def environment_of(one: Described) -> dict[str, str]:
    """What environment.txt says of a study; empty where run.json is malformed."""
    with suppress(ConfigError):
        return facts_of(one.record)
    return {}
