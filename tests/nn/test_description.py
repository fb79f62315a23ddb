"""An agent as a JSON record: nothing is lost on the way there and back, and no record runs or imports anything."""

from __future__ import annotations

import copy
import enum
import inspect
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from agents import built, small_choice, small_model, small_settings
from hypothesis import given, strategies as st
from torch import Tensor, nn

from offline_vi import registry
from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.algorithms.latent_planning import LatentPlanning, LatentPlanningConfig
from offline_vi.algorithms.sac import SAC, SACConfig
from offline_vi.algorithms.soft_q import DiscreteSAC, DiscreteSACConfig, SoftQ, SoftQConfig
from offline_vi.algorithms.vime import VIME, VIMEConfig, normalizer_of_pairs
from offline_vi.behavior import (
    BehaviorModel,
    CandidateCache,
    CentralActions,
    DecoderMeans,
    EveryAction,
    GaussianBehavior,
    GaussianBehaviorConfig,
    LatentModel,
    MostLikelySamples,
    Proposals,
    UniformBox,
)
from offline_vi.data.transitions import Transitions
from offline_vi.errors import CapabilityError, ConfigError, UsageError
from offline_vi.inference.optimality import uniform
from offline_vi.nn.description import OWN as NAMED, Record, describe, rebuild, single_seed, spec_of
from offline_vi.nn.recorded import Recorded
from offline_vi.rl.algorithm import Algorithm, Jointly
from offline_vi.training.behavior import BehaviorFit
from offline_vi.types import Batch, Metrics, Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEC = Spec((4,), 2)


def written(thing: Recorded) -> Record:
    """The record as a file holds it."""
    record: Record = json.loads(json.dumps(describe(thing), allow_nan=False))
    return record


def layout(thing: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in thing.state_dict().items()}


def there_and_back(thing: Recorded) -> Any:
    """The object that the record of ``thing`` describes, after a look at both."""
    record = written(thing)
    again = rebuild(record)
    assert type(again) is type(thing)
    assert written(again) == record
    assert layout(again) == layout(thing)
    return again


# ------------------------------------------------------------------ the library's own


@pytest.mark.parametrize("jointly", [False, True])
@pytest.mark.parametrize("model", registry.behavior_models())
@pytest.mark.parametrize("name", [name for name, row in registry.trainable().items() if row.behavior])
def test_every_algorithm_on_every_model_comes_back(name: str, model: str, jointly: bool) -> None:
    choice = small_choice(name, SPEC, behavior=model, jointly=jointly)
    choice = replace(choice, behavior_config=small_settings(model, SPEC, quick=True))
    try:
        agent = built(choice, SPEC)
    except CapabilityError:
        assert (name, model) in [("plas", "mixture"), ("plas", "least-squares")]
        return
    again = there_and_back(agent)
    if jointly:  # one model again, not two
        argument = registry.proposals_argument(type(again.algorithm))
        assert again.behavior in again.algorithm.arguments()[argument].modules()
        assert len(list(again.parameters())) == len(list(agent.parameters()))
    assert spec_of(written(agent)) == SPEC


@pytest.mark.parametrize("name", [name for name, row in registry.trainable().items() if not row.behavior])
def test_every_algorithm_without_a_model_comes_back(name: str) -> None:
    there_and_back(built(small_choice(name, SPEC), SPEC))


def sac(log_prior: Any = uniform) -> SAC:
    return SAC(SPEC, SACConfig(hidden=(8,)), log_prior)


def gaussian() -> GaussianBehavior:
    return GaussianBehavior(SPEC, GaussianBehaviorConfig(hidden=(8,)))


def rows() -> Transitions:
    obs = np.zeros((5, 4), np.float32)
    ends = np.zeros(5, np.bool_)
    return Transitions(obs, obs[:, :2].copy(), obs[:, 0].copy(), obs, ends, ends, SPEC)


def jointly_with_a_bonus() -> VIME:
    model = gaussian()
    agent = Jointly(model, SoftQ(SPEC, model, SoftQConfig(hidden=(8,))))
    return VIME(agent, SPEC, VIMEConfig(capacity=10, features=4), normalizer_of_pairs(SPEC))


OWN: dict[str, Callable[[], Recorded]] = {
    "a function of the library": sac,
    "DecoderMeans": lambda: DecoderMeans(small_model("cvae", SPEC), math.inf),
    "CentralActions": lambda: CentralActions(gaussian()),
    "MostLikelySamples": lambda: MostLikelySamples(gaussian(), keep=0.5),
    "CandidateCache": lambda: CandidateCache(gaussian().requires_grad_(False), rows(), period=7, seed=3),
    "BehaviorFit": lambda: BehaviorFit(gaussian(), 10, lr=0.1),
    "VIME": lambda: VIME(sac(), SPEC, VIMEConfig(capacity=10, features=4)),
    "VIME on Jointly": jointly_with_a_bonus,
    "UniformBox": lambda: UniformBox(SPEC),
    "EveryAction": lambda: SoftQ(SPEC, EveryAction(SPEC), SoftQConfig(hidden=(8,), num_candidates=2)),
    "DiscreteSAC": lambda: DiscreteSAC(replace(SPEC, discrete=True), DiscreteSACConfig(hidden=(8,))),
    "latent planning": lambda: LatentPlanning(
        Spec((1, 8, 8), 2, "uint8"),
        LatentPlanningConfig(latent_dim=3, hidden=(8,), features=8, channels=(4,), ensemble=2, belief=8, stack=2),
    ),
    "defaults": lambda: BCQ(SPEC, DecoderMeans(small_model("cvae-published", SPEC))),
    "several seeds": lambda: BCQ(SPEC.stacked(3), gaussian(), BCQConfig(hidden=(8,))),
}


@pytest.mark.parametrize("case", OWN)
def test_what_the_library_offers_comes_back(case: str) -> None:
    there_and_back(OWN[case]())


def test_a_cache_comes_back_without_its_table_and_draws_for_every_batch() -> None:
    again = there_and_back(OWN["CandidateCache"]())
    assert (again.period, again.seed) == (7, 3)
    obs, zero = torch.zeros(3, 4), torch.zeros(3)
    batch = Batch(obs, torch.zeros(3, 2), zero, obs, zero, torch.arange(3))
    assert again.at_next_obs(batch, 2).shape == (2, 3, 2)


def test_one_seed_of_several_has_no_axis_and_keeps_its_frames() -> None:
    one = single_seed(written(OWN["several seeds"]()))
    assert layout(rebuild(one)) == layout(BCQ(SPEC, gaussian(), BCQConfig(hidden=(8,))))
    planner = written(OWN["latent planning"]())
    assert single_seed(planner) == planner  # whose configuration has a field of the name of that axis


def subclasses(cls: Any) -> Iterator[Any]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_class_of_the_library_has_a_name_that_needs_no_import() -> None:
    for name in registry.ALGORITHMS:
        registry.algorithm(name).load()
    for name in registry.BEHAVIOR_MODELS:
        registry.behavior_model(name).load()
    kinds = (*subclasses(Algorithm), *subclasses(Proposals))
    own = {cls for cls in kinds if cls.__module__.startswith("offline_vi.") and not inspect.isabstract(cls)}
    assert len(own) > 25
    for cls in own:
        assert ":" not in registry.name_of(cls) or cls.__name__ in NAMED or cls.__name__ == "FittedQ"  # kept by nobody


def test_a_fresh_interpreter_knows_the_classes_that_are_in_no_table() -> None:
    records = [written(OWN[case]()) for case in ("UniformBox", "DiscreteSAC", "BehaviorFit", "VIME on Jointly")]
    code = "import json, sys; from offline_vi.nn.description import describe, rebuild\n"
    code += "print(json.dumps([describe(rebuild(record)) for record in json.load(sys.stdin)]))"
    found = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(records), capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == records


# ------------------------------------------------------------------ other people's


class Kind(enum.Enum):
    ROUND = "round"
    SQUARE = "square"


class Level(enum.IntEnum):
    LOW = 1


def squash(x: Tensor) -> Tensor:
    return torch.tanh(x)


@dataclass(frozen=True)
class Inner:
    """Without a default."""

    weight: float
    kind: Kind = Kind.ROUND


@dataclass(frozen=True)
class OddConfig:
    """Fields whose names a record uses itself, and values that JSON does not have."""

    number: int = 3
    function: str = "none"
    fields: tuple[int, ...] = (1, 2)
    limit: float = math.inf
    level: Level = Level.LOW
    inner: Inner = Inner(2.0, Kind.SQUARE)
    maybe: float | None = None


class Odd(BehaviorModel):
    """Arguments by place alone, as many as one likes, by name alone, in containers."""

    def __init__(
        self,
        spec: Spec,
        /,
        *widths: int,
        config: OddConfig | None = None,
        squash: Any = squash,
        table: dict[str, list[float]] | None = None,
        **extra: float,
    ) -> None:
        super().__init__()
        self.spec, self.config, self.squash, self.table, self.extra = spec, config or OddConfig(), squash, table, extra
        self.nets = nn.ModuleList(nn.Linear(spec.obs_dim, width) for width in widths)
        self.head = nn.Linear(spec.obs_dim, spec.action_dim)

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        loss = (self.squash(self.head(obs)) - action).square().mean()
        return loss, {"behavior/loss": loss.detach()}

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        found: Tensor = self.squash(self.head(obs)).detach().expand(num_samples, -1, -1)
        return found


class Passes(BCQ):
    """Hands on whatever it gets, and is annotated for type checkers alone."""

    def __init__(self, *args: Any, sizes: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sizes = sizes


class Ensemble(Proposals):
    """Of several models, one of them perhaps twice."""

    def __init__(self, models: list[BehaviorModel], favorite: BehaviorModel) -> None:
        super().__init__()
        models = [*models, favorite]
        self.spec, self.models, self.favorite = favorite.spec, nn.ModuleList(models), favorite

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return self.favorite.sample(obs, num_samples)


def odd() -> Odd:
    config = OddConfig(number=5, fields=(4,), limit=-math.inf, inner=Inner(0.5))
    return Odd(SPEC, 3, 5, config=config, table={"a": [1.0, math.inf], "class": []}, scale=0.5)


def test_odd_constructors_get_what_they_got() -> None:
    again = there_and_back(odd())
    assert again.config == odd().config and type(again.config.inner.kind) is Kind
    assert (again.table, again.extra) == ({"a": [1.0, math.inf], "class": []}, {"scale": 0.5})
    assert again.squash is squash
    default = there_and_back(Odd(SPEC))
    assert default.config == OddConfig() and type(default.config.level) is Level


def test_arguments_that_are_handed_on_are_kept() -> None:
    model = gaussian()
    again = there_and_back(Jointly(model, Passes(SPEC, model, config=BCQConfig(hidden=(6,)), sizes=(1, 2))))
    assert again.algorithm.config == BCQConfig(hidden=(6,)) and again.algorithm.sizes == (1, 2)
    assert again.behavior is again.algorithm.proposals


def test_one_object_in_many_places_is_one_object_again() -> None:
    shared, other = gaussian(), odd()
    again = there_and_back(Ensemble([shared, other, shared], shared))
    assert again.models[0] is again.models[2] is again.models[3] is again.favorite
    assert again.models[1] is not again.favorite
    assert spec_of(written(Ensemble([shared], shared))) == SPEC


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("log_prior", lambda: sac(lambda obs, action: action[..., 0])),
        ("squash", lambda: Odd(SPEC, squash=open(__file__))),  # noqa: SIM115
        ("squash", lambda: Odd(SPEC, squash=nn.Tanh())),
        ("squash", lambda: Odd(SPEC, squash=gaussian().sample)),
        ("table", lambda: Odd(SPEC, table={1: [2.0]})),  # type: ignore[dict-item]
        ("table", lambda: Odd(SPEC, table={"a": [object()]})),  # type: ignore[list-item]
        ("widths", lambda: Odd(SPEC, np.int64(3))),  # type: ignore[arg-type]
        ("config", lambda: Odd(SPEC, config=OddConfig(maybe=Path("x")))),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_written_down_is_refused_by_name(argument: str, make: Callable[[], Recorded]) -> None:
    thing = make()
    with pytest.raises(CapabilityError, match=argument):
        describe(thing)


def test_a_class_that_could_not_be_found_again_is_refused() -> None:
    class Local(GaussianBehavior):
        pass

    with pytest.raises(CapabilityError, match="Local"):
        describe(Local(SPEC))


def test_what_has_no_shapes_says_so() -> None:
    with pytest.raises(ConfigError, match="Odd"):
        spec_of({"class": "Odd", "widths": []})


# ------------------------------------------------------------------ records that nobody wrote


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a module that could be imported, and would tell."""
    folder = tmp_path_factory.mktemp("importable")
    (folder / "ovi_marker_module.py").write_text("class Thing: ...\n\n\ndef thing(): ...\n")
    sys.path.insert(0, str(folder))
    yield "ovi_marker_module"
    sys.path.remove(str(folder))


def bcq_record() -> Record:
    model = small_model("cvae", SPEC)
    return written(Jointly(model, BCQ(SPEC, DecoderMeans(model), BCQConfig(hidden=(8,)))))


def changed(record: Record, path: tuple[Any, ...], value: Any) -> Record:
    copied: Any = copy.deepcopy(record)
    place: Any = copied
    for key in path[:-1]:
        place = place[key]
    if value is DROPPED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copied  # type: ignore[no-any-return]


DROPPED = object()
INNER, MODEL = ("algorithm",), ("behavior",)
MIXTURE = {"class": "mixture", "spec": {"obs_shape": [4], "action_dim": 2}}
REFUSED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "an unknown class": ((*INNER, "class"), "bqc"),
    "a class of a module that is not loaded": ((*INNER, "class"), "ovi_marker_module:Thing"),
    "a class that is no module of ours": ((*INNER, "class"), "pathlib:Path"),
    "a built-in": ((*INNER, "class"), "builtins:dict"),
    "an abstract class": ((*INNER, "class"), "offline_vi.rl.algorithm:Algorithm"),
    "a part that is made when it is asked for": ((*INNER, "class"), "offline_vi:study"),
    "a number for a class": ((*INNER, "class"), 3),
    "a list for a class": ((*INNER, "class"), ["bcq"]),
    "no class": ((*INNER, "class"), DROPPED),
    "a wrong field": ((*INNER, "config", "hiden"), [8]),
    "a wrong type": ((*INNER, "config", "tau"), "much"),
    "text for a configuration": ((*INNER, "config"), "default"),
    "an object for a configuration": ((*INNER, "config"), {"same_as": 0}),
    "a missing argument": ((*INNER, "proposals"), DROPPED),
    "one argument too many": ((*INNER, "bank"), 1),
    "an argument of another kind": ((*INNER, "proposals"), 1.5),
    "shapes of text": ((*MODEL, "spec", "obs_shape"), "large"),
    "no shapes": ((*MODEL, "spec", "obs_shape"), DROPPED),
    "negative shapes": ((*MODEL, "spec", "action_dim"), -2),
    "an object that comes later": ((*INNER, "proposals", "model", "same_as"), 7),
    "an object that is not finished": ((*INNER, "proposals", "model", "same_as"), 0),
    "an object from the end": ((*INNER, "proposals", "model", "same_as"), -3),
    "a place that is no number": ((*INNER, "proposals", "model", "same_as"), True),
    "an unknown number": ((*INNER, "config", "tau"), {"number": "many"}),
    "a class as an enumeration": ((*INNER, "config", "tau"), {"enum": "builtins:list", "name": "x"}),
    "a class as a dataclass": ((*INNER, "config"), {"dataclass": "pathlib:Path", "fields": {}}),
    "a function of a module that is not loaded": ((*INNER, "config"), {"function": "ovi_marker_module:thing"}),
    "a built-in function": ((*INNER, "config"), {"function": "builtins:print"}),
    "a table where none belongs": ((*INNER, "proposals"), {"anything": 1}),
    "a mapping of a list": ((*INNER, "proposals"), {"mapping": [1]}),
    "a model that decodes nothing": ((*INNER, "proposals", "model"), MIXTURE),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_record_that_describes_nothing_is_refused(case: str, marker: str) -> None:
    record = bcq_record()
    rebuild(record)
    before = set(sys.modules)
    with pytest.raises((ConfigError, CapabilityError, UsageError)):
        rebuild(changed(record, *REFUSED[case]))
    assert set(sys.modules) == before and marker not in before


@pytest.mark.parametrize("record", [None, 1, "bcq", [], {}, {"same_as": 0}, [{"class": "bcq"}]])
def test_what_is_no_record_is_refused(record: Any) -> None:
    with pytest.raises(ConfigError):
        rebuild(record)


WORDS = st.sampled_from(
    ["bcq", "cvae", "DecoderMeans", "class", "same_as", "number", "inf", "mapping", "list", "enum", "name", "function",
     "dataclass", "fields", "spec", "config", "proposals", "model", "hidden", "obs_shape", "ovi_marker_module:Thing",
     "ovi_marker_module:thing", "ovi_marker_module", "pathlib:Path", "builtins:list", "offline_vi:study", "os:path"]
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | WORDS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every entry, from the outside in."""
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        yield from places(entry, (*path, key))


with torch.random.fork_rng():
    RECORDS = [bcq_record(), written(sac()), written(odd()), written(jointly_with_a_bonus())]


@given(st.data())
def test_no_change_of_a_record_does_more_than_be_refused(marker: str, data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(RECORDS))
    rebuild(record)
    before = set(sys.modules)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(record))))
        added = data.draw(st.booleans()) and isinstance(path[-1], str)
        path = (*path[:-1], data.draw(WORDS)) if added else path
        record = changed(record, path, data.draw(JSON | (st.nothing() if added else st.just(DROPPED))))
    try:
        found = rebuild(record)
    except (ConfigError, CapabilityError, UsageError) as error:
        assert str(error)
    else:
        assert isinstance(found, nn.Module)
    assert set(sys.modules) == before and marker not in before


def test_latent_models_are_what_decoder_means_want() -> None:
    """The one capability that a record may lack is asked for where the object is built."""
    record = written(DecoderMeans(small_model("cvae", SPEC)))
    record["model"] = written(small_model("mixture", SPEC))
    assert not isinstance(rebuild(record["model"]), LatentModel)
    with pytest.raises(CapabilityError, match="MixtureBehavior"):
        rebuild(record)
