"""A suite: which algorithms on which data sets with which seeds and presets, read from TOML and checked before anything
runs.

    name = "pendulum"
    description = "What it is for."
    algorithms = ["bc", "bcq"]
    datasets = ["offline-vi/pendulum/mixed-v0"]      # or a table: label = ["FILE.hdf5", "MORE.hdf5"]
    seeds = [0, 1, 2]
    presets = ["fast"]                               # default: ["published"]

    [train]                                          # options of `offline-vi train` for every cell
    steps = 5000
    [algorithm.bcq]                                  # options and hyper-parameters of one algorithm
    phi = 0.05
    [behavior]                                       # share one model per data set and seed; options of `fit-behavior`
    model = "cvae"                                   # default: the one of the preset
    steps = 5000
    [machine]                                        # default: tried once, when the suite is started
    precision = "float32"
    products = "highest"
    [search.bcq]                                     # of `offline-vi tune`
    phi = { low = 0.0, high = 0.2 }
    lr = { low = 1e-4, high = 1e-3, log = true }
    num-candidates = [5, 10, 20]
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from offline_vi.algorithms import ALGORITHMS
from offline_vi.behavior import BEHAVIOR_MODELS
from offline_vi.errors import ConfigError, MissingInputError, OfflineVIError, unknown
from offline_vi.study.presets import PRESETS, preset

FOLDER = Path(__file__).resolve().parent / "suites"
MAX_BYTES = 1_000_000
PRODUCTS = ("highest", "medium")
PRECISIONS = ("float32", "bfloat16")
RESERVED = (
    "behavior-from",
    "dataset",
    "seed",
    "seeds",
    "seeds-at-once",
    "preset",
    "output",
    "resume",
    "overwrite",
    "quiet",
    "json",
    "threads",
)


class Cell(NamedTuple):
    """One run of a suite."""

    algorithm: str
    dataset: str  # label
    preset: str
    seed: int

    @property
    def name(self) -> str:
        """Of its run directory."""
        return f"{self.dataset.replace('/', '-')}_{self.algorithm}_{self.preset}_seed{self.seed}"


@dataclass(frozen=True)
class Suite:
    """What a suite's file says."""

    name: str
    algorithms: tuple[str, ...]
    datasets: Mapping[str, tuple[str, ...]]  # label -> names or files that are joined
    description: str = ""
    seeds: tuple[int, ...] = (0,)
    presets: tuple[str, ...] = ("published",)
    train: Mapping[str, Any] = field(default_factory=dict)
    algorithm: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    behavior: Mapping[str, Any] = field(default_factory=dict)  # empty: nothing is shared
    machine: Mapping[str, str] = field(default_factory=dict)
    search: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of `offline-vi tune`

    def cells(self) -> list[Cell]:
        """Seed by seed, so that a study that is cut has whole rows."""
        return [
            Cell(algorithm, dataset, preset, seed)
            for seed in self.seeds
            for dataset in self.datasets
            for preset in self.presets
            for algorithm in self.algorithms
        ]

    def model(self, cell: Cell) -> str:
        """The behaviour model that the cell is given; empty for an algorithm that uses none, or a suite that shares
        none."""
        published = preset(cell.preset).behavior_of(cell.algorithm)
        return str(self.behavior.get("model", published)) if self.behavior and published else ""

    def yardstick(self, cell: Cell) -> str:
        """The shared model by which the support of a cell without a model of its own is measured; empty: none."""
        if not self.behavior:
            return ""
        return str(self.behavior.get("model", PRESETS[cell.preset].behavior or "cvae"))

    def models(self, cell: Cell) -> str:
        """The shared model that has to be there before the cell."""
        return self.model(cell) or self.yardstick(cell)


def shipped() -> dict[str, Path]:
    """The suites of the package: name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def read_suite(name_or_file: str) -> Suite:
    """A shipped suite by name, or a TOML file of at most 1 MB.

    Raises UsageError for an unknown name, MissingInputError, and ConfigError where the file is no suite: an unknown
    key, a value of another type, an unknown algorithm, preset or model, a cell that is there twice.
    """
    path = Path(name_or_file)
    if path.suffix != ".toml":
        if name_or_file not in shipped():
            raise unknown(name_or_file, shipped(), "suite")
        path = shipped()[name_or_file]
    if not path.is_file():
        raise MissingInputError(f"there is no suite {path}", f"shipped are {', '.join(shipped())}")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES:,} bytes", "a suite is a page")
    try:
        record = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", "a suite is TOML; see `offline-vi benchmark --help`") from None
    return suite_from(record, path.stem)


def suite_from(record: Mapping[str, Any], name: str) -> Suite:
    """Raises ConfigError and UsageError as `read_suite`."""
    known = [field.name for field in fields(Suite)]
    for key in record:
        if key not in known:
            raise _no_such(key, known, "key of a suite")
    for key in ("algorithms", "datasets"):
        if not record.get(key):
            raise ConfigError(f"the suite {name} names no {key}", f'e.g. {key} = ["{EXAMPLES[key]}"]')
    suite = Suite(
        name=str(record.get("name", name)),
        description=str(record.get("description", "")),
        algorithms=_strings(record["algorithms"], "algorithms"),
        datasets=_datasets(record["datasets"]),
        seeds=_seeds(record.get("seeds", [0])),
        presets=_strings(record.get("presets", ["published"]), "presets"),
        train=_options(record.get("train", {}), "[train]"),
        algorithm={key: _options(value, f"[algorithm.{key}]") for key, value in _table(record, "algorithm").items()},
        behavior=_options(record.get("behavior", {}), "[behavior]"),
        machine=_machine(record.get("machine", {})),
        search={key: _search(value, key) for key, value in _table(record, "search").items()},
    )
    for names, table, kind in (
        (suite.algorithms, ALGORITHMS, "algorithm"),
        (tuple(suite.algorithm), suite.algorithms, "algorithm of this suite"),
        (tuple(suite.search), suite.algorithms, "algorithm of this suite"),
        (suite.presets, PRESETS, "preset"),
        ((suite.behavior["model"],) if "model" in suite.behavior else (), BEHAVIOR_MODELS, "behaviour model"),
    ):
        for one in names:
            if one not in table:
                raise unknown(str(one), table, kind)
    for name, times in Counter(cell.name for cell in suite.cells()).items():
        if times > 1:
            raise ConfigError(f"the cell {name} is there {times} times", "name each algorithm, data set and seed once")
    return suite


EXAMPLES = {"algorithms": "bcq", "datasets": "offline-vi/pendulum/mixed-v0"}


def _no_such(key: str, known: Sequence[str], kind: str) -> ConfigError:
    close = get_close_matches(key, known, n=1)
    return ConfigError(
        f"unknown {kind}: {key!r}", f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    )


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise ConfigError(f"{where} = {value!r} is no list of names", "e.g. " + f'{where} = ["..."]')
    return tuple(value)


def _datasets(value: Any) -> dict[str, tuple[str, ...]]:
    if isinstance(value, Mapping):
        return {label: _strings(files, f"datasets.{label}") for label, files in value.items()}
    names = _strings(value, "datasets")
    if len(set(names)) != len(names):
        raise ConfigError(f"the data set {Counter(names).most_common(1)[0][0]} is there twice", "name each once")
    return {Path(name).stem if name.endswith((".hdf5", ".h5")) else name: (name,) for name in names}


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(seed) is int and seed >= 0 for seed in value):
        raise ConfigError(f"seeds = {value!r} is no list of numbers from 0", "e.g. seeds = [0, 1, 2]")
    return tuple(value)


def _table(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} = {value!r} is no table", f"write [{key}.NAME]")
    return value


def _options(value: Any, where: str) -> dict[str, Any]:
    """Options under the names of their flags: "eval_every" and "eval-every" are one."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} = {value!r} is no table", f"write {where}, then lines like steps = 1000")
    options = {name.replace("_", "-"): entry for name, entry in value.items()}
    for name, entry in options.items():
        if name in RESERVED:
            raise ConfigError(f"{where}: {name} is the suite's to decide", "leave it out")
        if isinstance(entry, Mapping):
            raise ConfigError(f"{where}: {name} is a table", f'write "{name}.KEY" = VALUE')
    return options


def _machine(value: Any) -> dict[str, str]:
    options = _options(value, "[machine]")
    choices = {"precision": PRECISIONS, "products": PRODUCTS}
    for name, chosen in options.items():
        if name not in choices:
            raise _no_such(name, list(choices), "key of [machine]")
        if chosen not in choices[name]:
            raise ConfigError(f"{name} = {chosen!r}", f"one of {', '.join(choices[name])}")
    return options


def _search(value: Any, algorithm: str) -> dict[str, Any]:
    """name -> {low, high, log} or a list of choices."""
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"[search.{algorithm}] names nothing", "e.g. lr = { low = 1e-4, high = 1e-3, log = true }")
    ranges = {name.replace("_", "-"): entry for name, entry in value.items()}
    for name, entry in ranges.items():
        listed = isinstance(entry, list) and len(entry) > 1
        numbers = (int, float)
        ranged = isinstance(entry, Mapping) and set(entry) <= {"low", "high", "log"} and {"low", "high"} <= set(entry)
        if ranged and not all(type(entry[end]) in numbers for end in ("low", "high")):
            ranged = False
        if not listed and not (ranged and entry["low"] < entry["high"] and (entry["low"] > 0 or not entry.get("log"))):
            raise ConfigError(
                f"search.{algorithm}.{name} = {entry!r} is no range",
                "{ low = 1e-4, high = 1e-3, log = true }, or a list of choices",
            )
    return ranges


def flags(options: Mapping[str, Any]) -> list[str]:
    """Options as flags of the command."""
    return [text for name, value in options.items() for text in _flag(name, value)]


def _flag(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield f"--{name}" if value else f"--no-{name}"
        return
    yield f"--{name}"
    yield from map(str, value if isinstance(value, list) else [value])


def train_options(suite: Suite, cell: Cell) -> dict[str, Any]:
    """What the suite sets for a cell: [train], then [algorithm.NAME]."""
    return {**suite.train, **suite.algorithm.get(cell.algorithm, {})}


def train_arguments(suite: Suite, cell: Cell) -> list[str]:
    """Of `offline-vi train`, without the shared model's flags and the run directory."""
    options = {"dataset": list(suite.datasets[cell.dataset]), "preset": cell.preset, "seed": cell.seed}
    return [cell.algorithm, *flags({**options, **train_options(suite, cell)})]


def fit_arguments(suite: Suite, dataset: str, model: str, seed: int) -> list[str]:
    """Of `offline-vi fit-behavior`, without the run directory."""
    options = {"dataset": list(suite.datasets[dataset]), "seed": seed}
    rest = {name: value for name, value in suite.behavior.items() if name != "model"}
    return [model, *flags({**options, **_data_options(suite), **rest})]


def _data_options(suite: Suite) -> dict[str, Any]:
    """Of [train], what says how the data are read: the model sees the same."""
    names = ("env", "rows", "action-range", "on-nonfinite", "device")
    return {name: value for name, value in suite.train.items() if name in names}


def check_options(suite: Suite) -> None:
    """Every option and hyper-parameter of every cell, by parsing its command.

    Raises ConfigError with the nearest valid name, and CapabilityError where an algorithm cannot use the model.
    """
    from offline_vi.algorithms.build import config_class  # here and below: torch
    from offline_vi.behavior.pretrained import behavior_config
    from offline_vi.scripts import train_job
    from offline_vi.scripts.common import DataOptions, RunOptions
    from offline_vi.types import Spec

    shapes = Spec((1,), 1)

    def names(*parts: Any) -> list[str]:
        return [entry.name.replace("_", "-") for part in parts for entry in fields(part)]

    common = [name for name in names(DataOptions, RunOptions, train_job.TrainOptions) if name not in RESERVED]
    kinds = {(cell.algorithm, cell.preset): cell for cell in suite.cells()}  # data set and seed make no difference
    for cell in kinds.values():
        model = preset(cell.preset).behavior_of(cell.algorithm)
        known = [*common, "behavior", *names(config_class(cell.algorithm))]
        if model and not suite.behavior:
            known += [f"behavior.{name}" for name in names(type(behavior_config(model, shapes)))]
        for name in train_options(suite, cell):
            if name not in known:
                raise _no_such(name, known, f"option or hyper-parameter of {cell.algorithm}")
        _parse(partial(train_job.parse, cell.algorithm, {}), train_arguments(suite, cell))
        if suite.model(cell):
            _check_model(cell.algorithm, suite.model(cell))
    if suite.behavior:
        from offline_vi.scripts import fit_behavior_job

        for model in sorted({suite.models(cell) for cell in kinds.values()}):
            own = [*names(DataOptions, RunOptions, fit_behavior_job.FitOptions), "model"]
            known = [*own, *names(type(behavior_config(model, shapes)))]
            for name in suite.behavior:
                if name not in known:
                    raise _no_such(name, known, f"option or hyper-parameter of the behaviour model {model}")
            label = next(iter(suite.datasets))
            _parse(partial(fit_behavior_job.parse, model), fit_arguments(suite, label, model, 0))


def _check_model(algorithm: str, model: str) -> None:
    from typing import get_type_hints

    from offline_vi.algorithms.build import algorithm_class, entry
    from offline_vi.behavior import LatentModel
    from offline_vi.behavior.base import CAPABILITIES
    from offline_vi.errors import CapabilityError

    needed: Any = get_type_hints(algorithm_class(algorithm).__init__)["behavior"]
    found = BEHAVIOR_MODELS[model].model()
    views = entry(algorithm).proposals == "decoded" and issubclass(found, LatentModel)
    if not views and not issubclass(found, needed):
        raise CapabilityError(
            f"{algorithm} needs a behaviour model that {CAPABILITIES[needed]}, {model} is none",
            f"name another model in [behavior], or leave {algorithm} out",
        )


def _parse(parse: Callable[[list[str]], Any], arguments: list[str]) -> None:
    """Run a verb's parser for what it refuses; its box of text becomes one line. ``arguments`` begin with the name that
    the parser knows already."""
    told = StringIO()
    try:
        with redirect_stderr(told), redirect_stdout(told):
            parse(arguments[1:])
    except OfflineVIError:
        raise
    except SystemExit:
        words = " ".join(told.getvalue().translate(dict.fromkeys(map(ord, "│╭╮╰╯─"), " ")).split())
        raise ConfigError(f"{' '.join(arguments)}: {words[:200]}", "look at --help of the verb") from None
