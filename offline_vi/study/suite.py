"""A suite: which algorithms on which data sets with which seeds and presets, read from TOML and checked before anything
runs.

    name = "pendulum"
    description = "What it is for."
    algorithms = ["bc", "bcq"]
    datasets = ["offline-vi/pendulum/mixed-v0"]      # or a table: label = ["FILE.hdf5", "MORE.hdf5"]
    seeds = [0, 1, 2]
    presets = ["fast"]                               # default: ["published"]
    tuned = true                                     # per data set, as the papers did, where they did; default: false
    plugins = ["mine.py", "package.module"]          # code that registers algorithms, models, data sets; files relative
                                                     # to the suite's

    [train]                                          # options of `offline-vi train` for every cell
    steps = 5000
    [algorithm.bcq]                                  # options and hyper-parameters of one algorithm
    phi = 0.05
    [variant.bcq-wide]                               # an algorithm with other options, under a name of its own
    algorithm = "bcq"
    phi = 0.2
    preset = "likely"                                # default: each of `presets`
    [sweep.bcq-phi]                                  # a variant for each combination of the listed values
    algorithm = "bcq"
    phi = [0.0, 0.1]
    lr = [1e-4, 1e-3]
    [behavior]                                       # share one model per data set and seed; options of `fit-behavior`
    model = "cvae"                                   # default: the one of the preset
    steps = 5000
    [machine]                                        # default: chosen once, when the suite is started
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
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

from offline_vi import registry
from offline_vi.errors import ConfigError, MissingInputError, unknown
from offline_vi.plugins import load_plugin, origin
from offline_vi.study import suite_values as values
from offline_vi.study.presets import PRESETS, preset
from offline_vi.study.suite_values import Axis, Option, SearchSpace

FOLDER = Path(__file__).resolve().parent / "suites"
MAX_BYTES = 1_000_000
EXAMPLES = {"algorithms": "bcq", "datasets": "offline-vi/pendulum/mixed-v0"}


class Cell(NamedTuple):
    """One run of a suite: an algorithm on a data set with a preset and a seed."""

    algorithm: str  # its name
    dataset: str  # label
    preset: str  # its name
    seed: int  # of the run
    variant: str = ""  # empty: the algorithm as [train] and [algorithm.NAME] have it

    @property
    def name(self) -> str:
        """The name of its run directory."""
        method = self.variant or self.algorithm
        return f"{self.dataset.replace('/', '-')}_{method}_{self.preset}_seed{self.seed}"


@dataclass(frozen=True)
class Suite:
    """What a suite's file says."""

    name: str  # of the suite, and of its folder
    algorithms: tuple[str, ...]  # as they are, next to variants and sweeps
    datasets: Mapping[str, tuple[str, ...]]  # label -> names or files that are joined
    description: str = ""  # one line
    seeds: tuple[int, ...] = (0,)  # of every cell
    presets: tuple[str, ...] = ("published",)  # each with every algorithm, and every variant that names none
    tuned: bool = False  # start from what an algorithm's paper tuned for the data set, where it did (--tuned-for)
    plugins: tuple[str, ...] = ()  # modules, and absolute paths of files, that register what the suite names
    train: Mapping[str, Option] = field(default_factory=dict)  # options of `offline-vi train` for every cell
    algorithm: Mapping[str, Mapping[str, Option]] = field(default_factory=dict)  # name -> its options
    variant: Mapping[str, Mapping[str, Option]] = field(default_factory=dict)  # name -> "algorithm" and its options
    sweep: Mapping[str, Mapping[str, Axis]] = field(default_factory=dict)  # the same, lists of values to combine
    behavior: Mapping[str, Option] = field(default_factory=dict)  # empty: nothing is shared
    machine: Mapping[str, str] = field(default_factory=dict)  # precision and products; empty: chosen at the start
    search: Mapping[str, SearchSpace] = field(default_factory=dict)  # of `offline-vi tune`

    def cells(self) -> list[Cell]:
        """The cells, seed by seed, so that a study that is interrupted has whole rows."""
        return [
            Cell(algorithm, dataset, preset, seed, variant)
            for seed in self.seeds
            for dataset in self.datasets
            for algorithm, variant in self.methods()
            for preset in self.presets_of(variant)
        ]

    def methods(self) -> list[tuple[str, str]]:
        """(algorithm, variant) of everything that is compared; the algorithms as they are first."""
        plain = [(algorithm, "") for algorithm in self.algorithms]
        return plain + [(str(options["algorithm"]), name) for name, options in self.variants().items()]

    def variants(self) -> dict[str, Mapping[str, Option]]:
        """Name -> "algorithm" and options, of each variant and of each point of a sweep."""
        points = {name: values.grid(name, axes) for name, axes in self.sweep.items()}
        return {**self.variant, **{name: point for several in points.values() for name, point in several.items()}}

    def presets_of(self, variant: str) -> tuple[str, ...]:
        """The preset that a variant names, else those of the suite; of an algorithm as it is (empty) the suite's."""
        own = self.variants()[variant].get("preset") if variant else None
        return self.presets if own is None else (str(own),)

    def model(self, cell: Cell) -> str:
        """The behavior model that the cell is given; empty for an algorithm that uses none, or a suite that shares
        none."""
        published = preset(cell.preset).behavior_of(cell.algorithm)
        return str(self.behavior.get("model", published)) if self.behavior and published else ""

    def yardstick(self, cell: Cell) -> str:
        """The shared model that measures the support of a cell without a model of its own; empty: none."""
        if not self.behavior:
            return ""
        return str(self.behavior.get("model", PRESETS[cell.preset].behavior or "cvae"))

    def models(self, cell: Cell) -> str:
        """The shared model that must be fitted before the cell starts."""
        return self.model(cell) or self.yardstick(cell)


def shipped() -> dict[str, Path]:
    """The suites that come with the library: name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def read_suite(name_or_file: str) -> Suite:
    """A shipped suite by name, or a TOML file of at most 1 MB. Its plug-ins are loaded: they run with your rights.

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
    return suite_from(record, path.stem, path.parent)


def suite_from(record: Mapping[str, object], name: str, folder: Path | None = None) -> Suite:
    """The suite in a record. Its plug-ins, relative to ``folder``, are loaded and its names looked up. A plug-in that
    is loaded already (``--plugin``) and has one of these names becomes one of the suite's, for its cells load it too.

    Raises ConfigError and UsageError as `read_suite`.
    """
    suite = parse_suite(record, name, folder)
    own = set(plugin_hashes(suite).values())
    check_names(suite)
    used = [plugin for name in names(suite) if (plugin := origin(*name))]
    others = [values.plugin(plugin.name, Path()) for plugin in used if plugin.sha256 not in own]
    return replace(suite, plugins=(*suite.plugins, *dict.fromkeys(others)))


def names(suite: Suite) -> list[tuple[str, str]]:
    """(table, name) of every algorithm, behavior model and data set of the suite."""
    cells = suite.cells()
    return [
        *(("algorithm", cell.algorithm) for cell in cells),
        *(("behavior", suite.models(cell)) for cell in cells),
        *(("dataset", file) for files in suite.datasets.values() for file in files),
    ]


def parse_suite(record: Mapping[str, object], name: str, folder: Path | None = None) -> Suite:
    """The suite in a record, without loading anything or looking up a name. Raises ConfigError."""
    known = [field.name for field in fields(Suite)]
    for key in record:
        if key not in known:
            raise values.unknown_key(key, known, "key of a suite")
    others = bool(record.get("variant") or record.get("sweep"))
    for key in ("datasets",) if others else ("algorithms", "datasets"):
        if not record.get(key):
            raise ConfigError(f"the suite {name} names no {key}", f'e.g. {key} = ["{EXAMPLES[key]}"]')
    algorithm, search = values.table(record, "algorithm"), values.table(record, "search")
    return Suite(
        name=str(record.get("name", name)),
        description=str(record.get("description", "")),
        algorithms=values.strings(record["algorithms"], "algorithms") if record.get("algorithms") else (),
        datasets=values.datasets(record["datasets"]),
        seeds=values.seeds(record.get("seeds", [0])),
        presets=values.strings(record.get("presets", ["published"]), "presets"),
        tuned=values.flag(record.get("tuned", False), "tuned"),
        plugins=values.plugins(record.get("plugins", []), folder or Path()),
        train=values.options(record.get("train", {}), "[train]"),
        algorithm={key: values.options(value, f"[algorithm.{key}]") for key, value in algorithm.items()},
        variant={
            key: values.variant(value, f"[variant.{key}]") for key, value in values.table(record, "variant").items()
        },
        sweep={key: values.sweep(value, f"[sweep.{key}]") for key, value in values.table(record, "sweep").items()},
        behavior=values.options(record.get("behavior", {}), "[behavior]"),
        machine=values.machine(record.get("machine", {})),
        search={key: values.search_space(value, key) for key, value in search.items()},
    )


def plugin_hashes(suite: Suite) -> dict[str, str]:
    """Load the suite's plug-ins. Returns name or file -> SHA-256 of the file.

    Raises MissingInputError where one is not there, ConfigError where one cannot be loaded, UsageError where one
    registers nothing.
    """
    return {name: load_plugin(name).sha256 for name in suite.plugins}


def check_folders(suite: Suite) -> None:
    """Raises ConfigError where the suite or a cell has a name that a folder cannot have."""
    values.file_name(suite.name, "the name of the suite")
    for cell in suite.cells():
        values.file_name(cell.name, "the name of a cell")


def check_names(suite: Suite) -> None:
    """Raises UsageError for an unknown algorithm, preset or behavior model, ConfigError for a cell that is there
    twice."""
    used = list(dict.fromkeys(algorithm for algorithm, _ in suite.methods()))
    presets = [preset for _, variant in suite.methods() for preset in suite.presets_of(variant)]
    for names, table, kind in (
        (used, registry.trainable(), "algorithm"),
        (suite.algorithm, used, "algorithm of this suite"),
        (suite.search, used, "algorithm of this suite"),
        ([*suite.presets, *presets], PRESETS, "preset"),
        ([suite.behavior["model"]] if "model" in suite.behavior else [], registry.behavior_models(), "behavior model"),
    ):
        for one in names:
            if one not in table:
                raise unknown(str(one), table, kind)
    check_folders(suite)
    for name, times in Counter(cell.name for cell in suite.cells()).items():
        if times > 1:
            raise ConfigError(
                f"the cell {name} is there {times} times", "give each algorithm, variant, data set and seed once"
            )
