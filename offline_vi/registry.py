"""Names -> algorithms, behavior models, data sets. Importing this module imports no torch.

The library's own members are the rows below. Other people's code adds rows in one of three ways:

- a decorator: ``@register_algorithm("awac")``, ``@register_behavior("laplace")``, ``@register_dataset("lab/walks")``;
- an entry point of an installed package, in the group ``offline_vi.algorithms``, ``offline_vi.behavior`` or
  ``offline_vi.datasets``: ``awac = "my_package.awac:AWAC"``;
- ``--plugin FILE.py`` or ``--plugin package.module`` on the command line, which loads code with decorators in it.

What a *file* names (a run, a suite, a card) is looked up in these tables and never imported by name.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args, get_type_hints

from offline_vi.errors import ConfigError, UsageError, unknown

if TYPE_CHECKING:
    from offline_vi.behavior.base import BehaviorModel
    from offline_vi.rl.algorithm import Algorithm
    from offline_vi.types import Spec

Class = TypeVar("Class", bound=type)
Loader = TypeVar("Loader", bound=Callable[[], Any])
ProposalKind = Literal["samples", "decoder-means", "most-likely", "central"]
"""What an algorithm is given of its behavior model: full samples, decoder means at clipped noise, likely samples."""


class Kind:
    """What an algorithm learns from."""

    BATCHES = "batches"  # of transitions: `offline-vi train`
    FRAMES = "frames"  # sequences of images: `offline-vi train-pixels`
    WRAPPED = "wrapped"  # another algorithm, whose rewards it changes: `offline-vi train-online --bonus`


@dataclasses.dataclass(frozen=True)
class AlgorithmEntry:
    """One algorithm: where it is and how it is used where nobody says otherwise."""

    target: str  # "module:Class"
    summary: str  # one line for --help
    behavior: str = ""  # its default behavior model; empty where it uses none
    proposals: ProposalKind = "samples"  # what it is given of that model, where the model can
    normalize: bool = False  # whether its published results normalize the observations
    returns: bool = False  # whether its critics regress returns of the data's trajectories
    explores: bool = False  # whether it can collect its own data (`offline-vi train-online`)
    kind: str = Kind.BATCHES  # what it trains on: one of `Kind`
    complete: bool = True  # whether all of the above is known; of an entry point it is when the class is loaded

    def load(self) -> type[Algorithm]:
        """The class. Raises ConfigError where the module cannot be imported or has no such class."""
        found: type[Algorithm] = _load(self.target)
        return found

    def config(self) -> type[Any]:
        """The frozen dataclass of its hyper-parameters."""
        return config_class(self.load())


@dataclasses.dataclass(frozen=True)
class BehaviorEntry:
    """One configuration of one behavior model."""

    target: str  # "module:Class"
    summary: str  # one line for --help
    variant: str = "default"  # constructor of the configuration, called with the Spec

    def load(self) -> type[BehaviorModel]:
        """The class. Raises ConfigError where the module cannot be imported or has no such class."""
        found: type[BehaviorModel] = _load(self.target)
        return found

    def config(self, spec: Spec) -> Any:
        """The variant's configuration for data of these shapes; without such a constructor, the defaults."""
        cls = config_class(self.load())
        constructor = inspect.getattr_static(cls, self.variant, None)
        return cls() if constructor is None else getattr(cls, self.variant)(spec)


@dataclasses.dataclass(frozen=True)
class DatasetEntry:
    """A data set that a function loads."""

    target: str  # "module:function", without arguments; what it may return: `datasets.registered`
    summary: str = ""  # one line for `offline-vi data list`
    function: Callable[[], object] | None = None  # where it is loaded already, a lambda or a method perhaps

    def load(self) -> object:
        """Call the function."""
        return (self.function or _load(self.target))()


_ALGORITHMS, _BEHAVIOR = "offline_vi.algorithms", "offline_vi.behavior"

ALGORITHMS: dict[str, AlgorithmEntry] = {
    "bc": AlgorithmEntry(f"{_ALGORITHMS}.bc:BC", "behavior cloning: regress the data's action"),
    "bcq": AlgorithmEntry(
        f"{_ALGORITHMS}.bcq:BCQ",
        "batch-constrained Q-learning: perturb and rank a behavior model's samples",
        behavior="cvae-published",
        proposals="decoder-means",
    ),
    "bear": AlgorithmEntry(
        f"{_ALGORITHMS}.bear:BEAR",
        "policy within an MMD of the behavior's samples",
        behavior="cvae-published",
        proposals="decoder-means",
    ),
    "cql": AlgorithmEntry(f"{_ALGORITHMS}.cql:CQL", "soft actor-critic with critics pushed down off the data"),
    "ddpg": AlgorithmEntry(f"{_ALGORITHMS}.ddpg:DDPG", "online baseline: extrapolates, and diverges, offline"),
    "emaq": AlgorithmEntry(
        f"{_ALGORITHMS}.emaq:EMaQ",
        "expected-max Q-learning: the best of N behavior samples, no actor",
        behavior="cvae",
    ),
    "idql": AlgorithmEntry(
        f"{_ALGORITHMS}.idql:IDQL",
        "implicit critics that rank a behavior model's samples, no actor",
        behavior="cvae",
    ),
    "iql": AlgorithmEntry(f"{_ALGORITHMS}.iql:IQL", "implicit Q-learning: expectiles of Q over the data's actions"),
    "kl-sac": AlgorithmEntry(
        f"{_ALGORITHMS}.sac:KLSAC", "soft actor-critic whose action prior is the behavior model", behavior="cvae"
    ),
    "onestep": AlgorithmEntry(
        f"{_ALGORITHMS}.onestep:OneStep",
        "critics of the behavior, regressed on the data's returns, rank its samples: one step of improvement",
        behavior="gaussian",
        returns=True,
    ),
    "plas": AlgorithmEntry(
        f"{_ALGORITHMS}.plas:PLAS", "policy in the latent space of a behavior model", behavior="cvae-published"
    ),
    "rebrac": AlgorithmEntry(
        f"{_ALGORITHMS}.rebrac:ReBRAC", "TD3+BC with the penalty in the target too, and layer norm", behavior="cvae"
    ),
    "sac": AlgorithmEntry(
        f"{_ALGORITHMS}.sac:SAC",
        "online: soft actor-critic, the policy as a posterior of optimal actions",
        explores=True,
    ),
    "soft-q": AlgorithmEntry(
        f"{_ALGORITHMS}.soft_q:SoftQ", "soft Q-learning over a behavior model's samples, no actor", behavior="cvae"
    ),
    "spot": AlgorithmEntry(
        f"{_ALGORITHMS}.spot:SPOT",
        "TD3 under a penalty on the behavior's log-density",
        behavior="cvae-published",
        normalize=True,
    ),
    "td3": AlgorithmEntry(f"{_ALGORITHMS}.td3:TD3", "online baseline: two critics, smoothed targets, delayed actor"),
    "td3-bc": AlgorithmEntry(
        f"{_ALGORITHMS}.td3_bc:TD3BC", "TD3 with a squared distance to the data's action", normalize=True
    ),
    "latent-planning": AlgorithmEntry(
        f"{_ALGORITHMS}.latent_planning:LatentPlanning",
        "plan in the latent space of a model of images",
        kind=Kind.FRAMES,
    ),
    "vime": AlgorithmEntry(
        f"{_ALGORITHMS}.vime:VIME",
        "an online algorithm, paid for what its observations teach",
        kind=Kind.WRAPPED,
    ),
}

BEHAVIOR_MODELS: dict[str, BehaviorEntry] = {
    "cvae": BehaviorEntry(
        f"{_BEHAVIOR}.cvae:CVAE", "conditional VAE, tanh-Normal likelihood with a predicted scale, learned prior"
    ),
    "cvae-gaussian": BehaviorEntry(
        f"{_BEHAVIOR}.cvae:CVAE", "conditional VAE with one learned scale (sigma-VAE)", "gaussian"
    ),
    "cvae-published": BehaviorEntry(
        f"{_BEHAVIOR}.cvae:CVAE", "BCQ's conditional VAE: fixed sigma^2 = 1/8", "published"
    ),
    "gaussian": BehaviorEntry(
        f"{_BEHAVIOR}.gaussian:GaussianBehavior", "tanh-Normal from one network: one mode, exact density"
    ),
    "least-squares": BehaviorEntry(
        f"{_BEHAVIOR}.least_squares:LeastSquaresBehavior",
        "truncated Normal: mean by least squares, spread by likelihood, exact density",
    ),
    "mixture": BehaviorEntry(
        f"{_BEHAVIOR}.mixture:MixtureBehavior", "mixture of tanh-Normals: separate modes, exact density"
    ),
    "flow": BehaviorEntry(
        f"{_BEHAVIOR}.flow:FlowBehavior", "neural spline flow, exact density (needs the extra 'flows')"
    ),
    "flow-matching": BehaviorEntry(
        f"{_BEHAVIOR}.flow_matching:FlowMatchingBehavior", "ODE from noise to action, trained by flow matching"
    ),
}


class Plugin(NamedTuple):
    """Code that was loaded because somebody named it."""

    name: str  # as it was named: a file or a module
    sha256: str  # of its file


DATASETS: dict[str, DatasetEntry] = {}
"""What plug-ins add; the library's own data sets are in `offline_vi.datasets`."""

PLUGINS: dict[str, Plugin] = {}
"""What `load_plugin` loaded: module name -> plug-in."""


# ------------------------------------------------------------------ looking up


def algorithm(name: str) -> AlgorithmEntry:
    """The row of an algorithm. Raises UsageError for an unknown name, with the nearest one."""
    _entry_points()
    if name not in ALGORITHMS:
        raise _unknown(name, ALGORITHMS, "algorithm")
    if not ALGORITHMS[name].complete:
        cls = ALGORITHMS[name].load()  # its own decorator may say more about it
        if not ALGORITHMS[name].complete:
            register_algorithm(name)(cls)
    return ALGORITHMS[name]


def behavior_model(name: str) -> BehaviorEntry:
    """The row of a behavior model. Raises UsageError for an unknown name, with the nearest one."""
    _entry_points()
    if name not in BEHAVIOR_MODELS:
        raise _unknown(name, BEHAVIOR_MODELS, "behavior model")
    return BEHAVIOR_MODELS[name]


def trainable() -> dict[str, AlgorithmEntry]:
    """The algorithms that learn from batches of transitions, plug-ins included."""
    _entry_points()
    return {name: row for name, row in ALGORITHMS.items() if row.kind == Kind.BATCHES}


def explorers() -> dict[str, AlgorithmEntry]:
    """The algorithms that can collect their own data, plug-ins included."""
    return {name: row for name, row in trainable().items() if row.explores}


def behavior_models() -> dict[str, BehaviorEntry]:
    """All behavior models, plug-ins included."""
    _entry_points()
    return dict(BEHAVIOR_MODELS)


def data_sets() -> dict[str, DatasetEntry]:
    """The data sets that plug-ins registered."""
    _entry_points()
    return dict(DATASETS)


def config_class(cls: type) -> type[Any]:
    """The frozen dataclass that is the type of a class's argument ``config``. Raises ConfigError where it has none."""
    hint = get_type_hints(cls.__init__).get("config")  # type: ignore[misc]
    for candidate in (hint, *get_args(hint)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    raise ConfigError(
        f"{cls.__name__} has no hyper-parameters that can be named",
        f"give its constructor the argument `config: {cls.__name__}Config | None = None`, a frozen dataclass",
    )


def name_of(cls: type) -> str:
    """The name of a class in the tables, or "module:Class" where it is in none: see `class_of`."""
    reference = _target(cls)
    tables: tuple[Mapping[str, AlgorithmEntry | BehaviorEntry], ...] = (ALGORITHMS, BEHAVIOR_MODELS)
    names = [name for table in tables for name, row in table.items() if row.target == reference]
    return names[0] if names else reference


def class_of(reference: str) -> type:
    """The class that `name_of` named. A module is not imported for it: to get code of your own back, import it
    first, or name it with ``--plugin``.

    Raises ConfigError where the name is in no table and the module is not loaded.
    """
    _entry_points()
    for table in (ALGORITHMS, BEHAVIOR_MODELS):
        if reference in table:
            return table[reference].load()
    found = anywhere(reference)
    if isinstance(found, type):
        return found
    raise ConfigError(
        f"{reference!r} is neither registered nor loaded",
        "name the file or module that defines it: --plugin FILE.py on the command line, load_plugin(...) in Python",
    )


def function_of(reference: str) -> Callable[..., Any]:
    """The function "module:name" of a module that is loaded. Raises ConfigError where it is not."""
    found = anywhere(reference)
    if not inspect.isfunction(found):
        raise ConfigError(f"the function {reference!r} is not loaded", "import its module first, or use --plugin")
    return found


def anywhere(reference: str) -> Any:
    """What is `loaded`, or what a plug-in calls so: a class of a script is one of a plug-in now."""
    name = reference.partition(":")[2]
    places = [reference, *(f"{plugin}:{name}" for plugin in PLUGINS)]
    return next((found for place in places if (found := loaded(place)) is not None), None)


def loaded(reference: str) -> Any:
    """What "module:name" is where its module is loaded, None where it is not. Nothing is imported for it: an attribute
    that a module makes when it is asked for it is none."""
    module, _, name = reference.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found


# ------------------------------------------------------------------ registering


def register_algorithm(
    name: str,
    *,
    summary: str = "",
    behavior: str = "",
    proposals: ProposalKind = "samples",
    normalize: bool = False,
    returns: bool = False,
) -> Callable[[Class], Class]:
    """A decorator that makes an `Algorithm` known to the command, suites and reports under ``name``.

    Its constructor takes ``(spec, config=None)``, or ``(spec, proposals, config=None)`` where it uses a behavior model,
    whose annotation says which capability it needs; ``config`` is a frozen dataclass, whose fields become flags.
    ``behavior`` names the model that it takes where nobody says otherwise, "cvae" where this is left out; ``proposals``
    says what it is given of it; ``normalize`` and ``returns`` say whether observations are normalized and critics
    regress returns where nobody says otherwise; ``summary`` is its docstring's first line where left out.

    Raises ConfigError where the name is taken or the constructor has other arguments.
    """

    def register(cls: Class) -> Class:
        _check(name, cls, _load("offline_vi.rl.algorithm:Algorithm"), ALGORITHMS)
        takes = proposals_argument(cls)
        needed = list(inspect.signature(cls).parameters.values())
        extra = [p.name for p in needed if p.default is p.empty and p.name not in ("spec", takes)]
        if needed[0].name != "spec" or extra:
            call = f"{cls.__name__}(spec, {takes + ', ' if takes else ''}config)"
            raise ConfigError(
                f"{call} cannot be called: it needs {', '.join(extra) or 'spec first'}",
                f"give {', '.join(extra) or 'the first argument'} a default, or make it a field of the configuration",
            )
        ALGORITHMS[name] = AlgorithmEntry(
            _target(cls),
            summary or _first_line(cls),
            behavior=(behavior or "cvae") if takes else "",
            proposals=proposals,
            normalize=normalize,
            returns=returns,
            explores=issubclass(cls, _load("offline_vi.rl.algorithm:OnlineAlgorithm")),
        )
        return cls

    return register


def register_behavior(name: str, *, summary: str = "", variant: str = "default") -> Callable[[Class], Class]:
    """A decorator that makes a `BehaviorModel` known under ``name``.

    Its constructor takes ``(spec, config=None)``; ``variant`` names a class method of the configuration that is called
    with the Spec, where the defaults depend on the shapes. Raises ConfigError where the name is taken.
    """

    def register(cls: Class) -> Class:
        _check(name, cls, _load("offline_vi.behavior.base:BehaviorModel"), BEHAVIOR_MODELS)
        BEHAVIOR_MODELS[name] = BehaviorEntry(_target(cls), summary or _first_line(cls), variant)
        return cls

    return register


def register_dataset(name: str, *, summary: str = "") -> Callable[[Loader], Loader]:
    """A decorator that makes a data set known under ``name``: a function without arguments.

    It returns `Transitions`, or `Columns` or a dictionary of arrays under D4RL's keys, which are read by the options of
    `datasets.Reading` as a file is.

    Raises ConfigError where the name is taken.
    """

    def register(load: Loader) -> Loader:
        target = _target(load)
        _refuse_taken(name, target, DATASETS)
        DATASETS[name] = DatasetEntry(target, summary or _first_line(load), load)
        return load

    return register


def proposals_argument(cls: type) -> str:
    """The name of the constructor's argument that is a behavior model or other `Proposals`; empty where none is."""
    hints, proposals = get_type_hints(cls.__init__), _load("offline_vi.behavior.base:Proposals")  # type: ignore[misc]
    for name in inspect.signature(cls).parameters:
        kinds = (hints.get(name), *get_args(hints.get(name)))
        if any(isinstance(kind, type) and issubclass(kind, proposals) for kind in kinds):
            return name
    return ""


def _unknown(name: str, known: Mapping[str, object], kind: str) -> UsageError:
    error = unknown(name, known, kind)
    error.hint += "; --plugin FILE.py loads code of your own"
    return error


def _check(name: str, cls: type, base: type, table: Mapping[str, AlgorithmEntry | BehaviorEntry]) -> None:
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ConfigError(f"{cls!r} is not an {base.__name__}", f"derive it from offline_vi's {base.__name__}")
    _refuse_taken(name, _target(cls), table)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ConfigError(f"{name!r} cannot be a name", "use lower-case letters, digits and hyphens")
    config = config_class(cls)
    try:
        config()
    except TypeError as error:
        raise ConfigError(f"{config.__name__} has a field without a default ({error})", "give each field one") from None


def _refuse_taken(name: str, target: str, table: Mapping[str, Any]) -> None:
    if name in table and _qualified(table[name].target) != _qualified(target):
        raise ConfigError(f"the name {name!r} is taken by {table[name].target}", "choose another name")


def _target(thing: type | Callable[..., Any]) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _qualified(target: str) -> str:
    """Without the module: a file that is loaded as a script and as a plug-in defines the same class twice."""
    return target.partition(":")[2]


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").strip().partition("\n")[0].rstrip(".")


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{target} cannot be loaded ({error})", "is the package that offers it whole?") from error


@cache
def _entry_points() -> None:
    """Add what installed packages offer, once; nothing of theirs is imported before it is used."""
    for point in _points("algorithms"):
        package = point.dist.name if point.dist else point.value.partition(".")[0]
        ALGORITHMS.setdefault(point.name, AlgorithmEntry(point.value, f"from {package}", complete=False))
    for point in _points("behavior"):
        BEHAVIOR_MODELS.setdefault(point.name, BehaviorEntry(point.value, f"from {point.value.partition('.')[0]}"))
    for point in _points("datasets"):
        DATASETS.setdefault(point.name, DatasetEntry(point.value))


def _points(group: str) -> Iterator[metadata.EntryPoint]:
    yield from metadata.entry_points(group=f"offline_vi.{group}")
