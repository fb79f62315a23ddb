"""What a study will run: everything is checked, and nothing has started."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from offline_vi.errors import ConfigError, DataError, MissingInputError, OfflineVIError, OutputDirError, UsageError
from offline_vi.factories import check_kwargs, kwargs_from
from offline_vi.runs.files import read_json, write_json, write_text
from offline_vi.runs.ownership import claim, refuse_others
from offline_vi.study.cells import JOURNAL, Job, inherited, note
from offline_vi.study.checks import check_building, check_options
from offline_vi.study.commands import fit_arguments, flags, reading_options, train_arguments, train_options
from offline_vi.study.flags import parse
from offline_vi.study.presets import preset
from offline_vi.study.suite import Cell, Suite, plugin_hashes
from offline_vi.study.versions import git_revision, versions

if TYPE_CHECKING:
    from offline_vi.data.transitions import Transitions

SCHEMA = 1  # of suite.json
WRITTEN = ("suite.json", "machine.json", "environment.txt", "journal.csv", "results.csv")


class Plan(NamedTuple):
    """A study that has been checked and may start."""

    suite: Suite  # what is run
    folder: Path  # where it goes
    machine: Mapping[str, str]  # precision and products, the same for every cell
    missing: Mapping[str, OfflineVIError]  # data sets that are left out, and why
    data: Mapping[str, str] = {}  # data set -> SHA-256 over its rows (`fingerprint`)

    def commands(self) -> dict[str, list[str]]:
        """Cell -> the command that repeats it, without the output folder."""
        return {cell.name: ["offline-vi", "train", *self.train_words(cell)] for cell in self.suite.cells()}

    def model_commands(self) -> dict[str, list[str]]:
        """Shared behavior model -> the command that fits it again, without the output folder."""
        jobs = (job for job in self.jobs() if job.arguments[0] == "fit-behavior")
        return {job.path.name: ["offline-vi", *job.arguments] for job in jobs}

    def train_words(self, cell: Cell) -> list[str]:
        """The words of `offline-vi train` for a cell, without the run directory."""
        words = train_arguments(self.suite, cell)
        model, yardstick = self.suite.model(cell), self.suite.yardstick(cell)
        options = {**preset(cell.preset).options(cell.algorithm, model), **train_options(self.suite, cell)}
        if options.get("precision") == "auto":
            words += ["--precision", self.machine["precision"]]
        if model:
            words += ["--behavior-from", str(self.model_path(cell, model))]
        elif yardstick:
            words += ["--support-from", str(self.model_path(cell, yardstick))]
        return words

    def model_path(self, cell: Cell, model: str) -> Path:
        """The run directory of a shared behavior model."""
        return self.folder / "behavior" / model_name(cell, model)

    def jobs(self) -> list[Job]:
        """The jobs of the study: first the shared behavior models, then the cells that use them."""
        environment = tuple({**inherited(), "OFFLINE_VI_PRODUCTS": self.machine["products"]}.items())
        fits, cells = {}, []
        for cell in self.suite.cells():
            model = self.suite.models(cell)
            after = (self.model_path(cell, model).resolve(),) if model else ()
            for path in after:
                arguments = ("fit-behavior", *fit_arguments(self.suite, cell.dataset, model, cell.seed))
                fits[path] = Job(path, arguments, (), environment, os.getcwd())
            arguments = ("train", *self.train_words(cell))
            cells.append(Job((self.folder / "runs" / cell.name).resolve(), arguments, after, environment, os.getcwd()))
        return [*fits.values(), *cells]


def model_name(cell: Cell, model: str) -> str:
    """The name of the run directory of a shared behavior model."""
    return f"{cell.dataset.replace('/', '-')}_{model}_seed{cell.seed}"


def plan_study(suite: Suite, folder: Path, *, skip_missing: bool = False) -> Plan:
    """Check every option, the data sets, the folder, and what the folder holds already.

    ``skip_missing`` leaves out the data sets that cannot be had; they are in `Plan.missing`.

    Raises OutputDirError, ConfigError and CapabilityError (options; a study that was started with others), UsageError
    (names), DataError and MissingInputError (data sets).
    """
    refuse_others(writable(folder), WRITTEN)
    check_options(suite)
    rows, missing = read_data(suite)
    if missing and not (skip_missing and len(missing) < len(suite.datasets)):
        raise cannot_be_used(suite, missing)
    kept = {label: files for label, files in suite.datasets.items() if label not in missing}
    plan = Plan(replace(suite, datasets=kept), folder, machine_of(suite, folder), missing, rows)
    check_unchanged(plan)
    return plan


def writable(folder: Path) -> Path:
    """The folder, which is made if it is missing. Raises OutputDirError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OutputDirError(f"{folder} cannot be written ({error.strerror})", "choose another --output") from error


def read_data(suite: Suite) -> tuple[dict[str, str], dict[str, OfflineVIError]]:
    """(data set -> SHA-256 over its rows, data set that cannot be used -> why). Each is found, collected or downloaded,
    read once, its spaces are compared with the environment's, and every agent is built for its shapes.

    Raises UsageError for an unknown name, and what `check_building` raises.
    """
    from offline_vi.study.run import fingerprint  # here and below: torch
    from offline_vi.types import Spec

    rows, wrong, built = dict[str, str](), dict[str, OfflineVIError](), set[Spec]()
    for label, files in suite.datasets.items():
        try:
            data = check_data(suite, files)
        except UsageError:
            raise
        except OfflineVIError as error:
            wrong[label] = error
        else:
            if data.spec not in built:
                check_building(suite, label, data.spec)
            built.add(data.spec)
            rows[label] = fingerprint(data)
    return rows, wrong


def check_data(suite: Suite, files: tuple[str, ...]) -> Transitions:
    """Read one data set as its cells will. Raises what reading and `check_spaces` raise."""
    from offline_vi import datasets
    from offline_vi.study.data import DataOptions, check_task

    words = flags({"dataset": list(files), **reading_options(suite)})
    reading = parse({"data": DataOptions()}, words, "offline-vi benchmark", "").data
    check_kwargs(reading.env or "the data's environment", kwargs_from(reading.env_kwargs))
    for file in files:
        datasets.ensure(file)
    data: Transitions = reading.load()
    check_task(data)
    return data


def cannot_be_used(suite: Suite, missing: Mapping[str, OfflineVIError]) -> OfflineVIError:
    """The error for all data sets that cannot be used: DataError where each is there but bad, else
    MissingInputError."""
    kind = DataError if all(isinstance(error, DataError) for error in missing.values()) else MissingInputError
    reasons = "; ".join(f"{label} ({error})" for label, error in missing.items())
    return kind(
        f"{len(missing)} of {len(suite.datasets)} data sets cannot be used: {reasons}",
        next(iter(missing.values())).hint + (", or --skip-missing" if len(missing) < len(suite.datasets) else ""),
    )


def machine_of(suite: Suite, folder: Path) -> dict[str, str]:
    """Precision and path of matrix products of all cells: as the suite says, as the study began, or as this processor
    has them."""
    if (folder / "machine.json").exists():
        return {**{name: str(value) for name, value in read_json(folder / "machine.json").items()}, **suite.machine}
    import torch

    from offline_vi.nn.precision import exact_products, preferred_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"precision": preferred_precision(device), "products": exact_products(), **suite.machine}


# ------------------------------------------------------------------ what the folder holds


class Written(TypedDict):
    """suite.json: ``schema`` (its version), ``suite`` (the fields of `Suite`), ``commands`` (cell -> words of its
    command), ``models`` (run directory of a shared behavior model -> `WrittenModel`), ``plugins`` (name or file ->
    SHA-256) and ``data`` (label -> SHA-256 over its rows)."""

    schema: int
    suite: dict[str, Any]  # the fields of `Suite`
    commands: dict[str, list[str]]  # cell -> words
    models: dict[str, WrittenModel]  # run directory of a shared behavior model -> what it is
    plugins: dict[str, str]  # name or file -> SHA-256
    data: dict[str, str]  # label -> SHA-256 over its rows


class WrittenModel(TypedDict):
    """A shared behavior model in suite.json: ``dataset`` (its label), ``model`` (its name), ``seed``, and ``command``
    (the words of the command that fits it)."""

    dataset: str  # label
    model: str
    seed: int
    command: list[str]


def check_unchanged(plan: Plan) -> None:
    """See that no finished run would mean something else now: a study may only grow. Raises ConfigError."""
    folder = plan.folder
    if not (folder / "suite.json").exists():
        return
    if read_json(folder / "machine.json") != plan.machine:
        raise ConfigError(f"{folder} was started with another [machine]", "choose another --output")
    before = read_json(folder / "suite.json")
    models = {name: model["command"] for name, model in before.get("models", {}).items()}
    for part, old, new in (
        ("runs", before["commands"], plan.commands()),
        ("behavior", models, plan.model_commands()),
    ):
        for name, words in new.items():
            if name in old and old[name] != words and (folder / part / name).exists():
                raise ConfigError(
                    f"{folder} holds the run {name} with other options: {' '.join(old[name])}",
                    f"choose another --output, or remove {folder / part / name}",
                )
    hashes = before.get("plugins", {})
    for name, digest in plugin_hashes(plan.suite).items():
        if hashes.get(name, digest) != digest and any((folder / "runs").glob("*")):
            raise ConfigError(f"the plug-in {name} has changed since {folder} was started", "choose another --output")
    refuse_other_rows(plan, before.get("data", {}))


def refuse_other_rows(plan: Plan, before: Mapping[str, str]) -> None:
    """Raises ConfigError where a data set has other rows than the runs in the folder were trained on."""
    started = {cell.dataset for cell in plan.suite.cells() if (plan.folder / "runs" / cell.name).exists()}
    for label in sorted(started):
        if before.get(label, plan.data[label]) != plan.data[label]:
            raise ConfigError(
                f"the data set {label} has other rows now than when {plan.folder} was started",
                f"put the former data back, choose another --output, or remove the runs on {label} from it",
            )


def write_plan(plan: Plan) -> None:
    """Write suite.json, machine.json, environment.txt, and the journal's first line."""
    folder = plan.folder
    claim(folder, "study", WRITTEN)
    write_json(folder / "machine.json", plan.machine)
    before = read_json(folder / "suite.json") if (folder / "suite.json").exists() else {}
    record: Written = {
        "schema": SCHEMA,
        "suite": asdict(plan.suite),
        "commands": {**before.get("commands", {}), **plan.commands()},
        "models": {**before.get("models", {}), **written_models(plan)},
        "plugins": plugin_hashes(plan.suite),
        "data": {**before.get("data", {}), **plan.data},
    }
    write_json(folder / "suite.json", record)
    facts = {**versions(), "platform": platform.platform(), "revision": git_revision(), **plan.machine}
    write_text(folder / "environment.txt", "".join(f"{name} {value}\n" for name, value in facts.items()))
    if not (folder / "journal.csv").exists():
        note(folder / "journal.csv", *JOURNAL)


def written_models(plan: Plan) -> dict[str, WrittenModel]:
    """The shared behavior models, for suite.json."""
    commands, models = plan.model_commands(), {}
    for cell in plan.suite.cells():
        if model := plan.suite.models(cell):
            name = model_name(cell, model)
            about = WrittenModel(dataset=cell.dataset, model=model, seed=cell.seed, command=commands[name])
            models[name] = about
    return models
