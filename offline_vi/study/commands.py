"""The cells of a suite as commands: the words after ``offline-vi VERB``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offline_vi.datasets import reading
from offline_vi.study.suite import Cell, Suite
from offline_vi.study.suite_values import Option
from offline_vi.study.tuned import is_tuned

READING = (*(name.replace("_", "-") for name in reading.NAMES), "rows")  # options of reading; rows is a former name


def flags(options: Mapping[str, Option]) -> list[str]:
    """Options as flags of the command."""
    return [text for name, value in options.items() for text in _flag(name, value)]


def _flag(name: str, value: Option) -> Iterator[str]:
    if isinstance(value, bool):
        yield f"--{name}" if value else f"--no-{name}"
        return
    yield f"--{name}"
    yield from map(str, value if isinstance(value, list) else [value])


def plugin_flags(suite: Suite) -> list[str]:
    """--plugin for each of the suite's plug-ins."""
    return [word for name in suite.plugins for word in ("--plugin", name)]


def train_options(suite: Suite, cell: Cell) -> dict[str, Option]:
    """What the suite sets for a cell: [train], then [algorithm.NAME], then its variant."""
    own = suite.variants()[cell.variant] if cell.variant else {}
    varied = {name: value for name, value in own.items() if name not in ("algorithm", "preset")}
    return {**suite.train, **suite.algorithm.get(cell.algorithm, {}), **varied}


def train_flags(suite: Suite, cell: Cell) -> list[str]:
    """The flags of `offline-vi train ALGORITHM`, without plug-ins, the shared model's flags and the run directory."""
    files = suite.datasets[cell.dataset]
    options: dict[str, Option] = {"dataset": [*files], "preset": cell.preset, "seed": cell.seed}
    if suite.tuned and len(files) == 1 and is_tuned(cell.algorithm, files[0]):
        options["tuned-for"] = files[0]
    return flags({**options, **train_options(suite, cell)})


def train_arguments(suite: Suite, cell: Cell) -> list[str]:
    """The arguments of `offline-vi train`, without the shared model's flags and the run directory."""
    return [cell.algorithm, *plugin_flags(suite), *train_flags(suite, cell)]


def fit_flags(suite: Suite, dataset: str, seed: int) -> list[str]:
    """The flags of `offline-vi fit-behavior MODEL`, without plug-ins and the run directory."""
    options: dict[str, Option] = {"dataset": [*suite.datasets[dataset]], "seed": seed}
    rest = {name: value for name, value in suite.behavior.items() if name != "model"}
    device = {name: value for name, value in suite.train.items() if name == "device"}
    return flags({**options, **reading_options(suite), **device, **rest})


def fit_arguments(suite: Suite, dataset: str, model: str, seed: int) -> list[str]:
    """The arguments of `offline-vi fit-behavior`, without the run directory."""
    return [model, *plugin_flags(suite), *fit_flags(suite, dataset, seed)]


def reading_options(suite: Suite) -> dict[str, Option]:
    """What [train] says about how the data are read: models and algorithms see the same."""
    return {name: value for name, value in suite.train.items() if name in READING}
