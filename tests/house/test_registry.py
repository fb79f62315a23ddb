"""Other people's code: found by name, loaded because somebody named it, never because a file did."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import pendulum
from torch import Tensor

import offline_vi as ovi
from offline_vi import registry
from offline_vi.behavior.base import BehaviorModel, Proposals
from offline_vi.errors import ConfigError, DataError, MissingInputError, UsageError
from offline_vi.plugins import load_plugin
from offline_vi.rl.algorithm import Algorithm, OnlineAlgorithm
from offline_vi.types import Batch, Metrics, Spec


@dataclass(frozen=True)
class PlainConfig:
    lr: float = 1e-3


class Plain(Algorithm):
    """Does nothing, slowly.

    More about it.
    """

    def __init__(self, spec: Spec, config: PlainConfig | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(spec.action_dim))

    def update(self, batch: Batch) -> Metrics:
        return {}

    def act(self, obs: Tensor) -> Tensor:
        return self.weight.detach().expand(len(obs), -1)


def test_a_decorated_class_is_a_member_with_the_first_line_of_its_docstring() -> None:
    assert ovi.register_algorithm("plain")(Plain) is Plain
    row = registry.algorithm("plain")
    assert (row.load(), row.config(), row.summary) == (Plain, PlainConfig, "Does nothing, slowly")
    assert (row.behavior, row.explores) == ("", False)
    assert "plain" in registry.trainable()
    assert registry.name_of(Plain) == "plain"
    assert registry.class_of("plain") is Plain


def test_a_class_that_takes_proposals_or_explores_says_so_by_its_types() -> None:
    class Explorer(Plain, OnlineAlgorithm):
        def __init__(self, spec: Spec, where: Proposals, config: PlainConfig | None = None) -> None:
            super().__init__(spec, config)

        def explore(self, obs: Tensor) -> Tensor:
            return self.act(obs)

    Explorer.__init__.__annotations__ |= {"where": Proposals, "config": PlainConfig | None}
    ovi.register_algorithm("explorer")(Explorer)
    row = registry.algorithm("explorer")
    assert (row.behavior, row.explores, registry.proposals_argument(Explorer)) == ("cvae", True, "where")
    assert "explorer" in registry.explorers()


class Demanding(Plain):
    def __init__(self, spec: Spec, alpha: float, config: PlainConfig | None = None) -> None:
        super().__init__(spec, config)


class Unnamed(Plain):
    def __init__(self, spec: Spec, lr: float = 1e-3) -> None:
        super().__init__(spec)


@dataclass(frozen=True)
class NeedyConfig:
    lr: float


class Needy(Plain):
    def __init__(self, spec: Spec, config: NeedyConfig | None = None) -> None:
        super().__init__(spec)


@pytest.mark.parametrize(
    ("name", "cls", "word"),
    [
        ("bcq", Plain, "bcq"),
        ("Two Words", Plain, "Two Words"),
        ("int", int, "int"),
        ("demanding", Demanding, "alpha"),
        ("unnamed", Unnamed, "Unnamed"),
        ("needy", Needy, "lr"),
    ],
)
def test_what_the_command_could_not_build_is_refused_at_once(name: str, cls: type, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as refused:
        ovi.register_algorithm(name)(cls)
    assert refused.value.hint
    assert name not in registry.ALGORITHMS or registry.ALGORITHMS[name].load() is not cls


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError) as unknown:
        registry.algorithm("bqc")
    assert "bcq" in unknown.value.hint
    with pytest.raises(UsageError) as unknown:
        registry.behavior_model("cave")
    assert "cvae" in unknown.value.hint


def test_every_member_of_the_library_is_what_its_row_says() -> None:
    for row in registry.ALGORITHMS.values():
        cls = row.load()
        assert issubclass(cls, Algorithm)
        assert row.explores == issubclass(cls, OnlineAlgorithm) or row.kind == registry.Kind.WRAPPED or row.behavior
        assert bool(row.behavior) == bool(registry.proposals_argument(cls)) or row.kind != registry.Kind.BATCHES
    for entry in registry.BEHAVIOR_MODELS.values():
        assert issubclass(entry.load(), BehaviorModel)
        entry.config(Spec((3,), 2))


# ------------------------------------------------------------------ plug-ins

SOURCE = '''
from dataclasses import dataclass
import numpy as np
import torch
import offline_vi as ovi
from offline_vi.behavior import BehaviorModel

@dataclass(frozen=True)
class ConstantConfig:
    level: float = 0.5  # the action

@ovi.register_algorithm("constant")
class Constant(ovi.Algorithm):
    """The same action everywhere."""

    def __init__(self, spec: ovi.Spec, config: ConstantConfig | None = None):
        super().__init__()
        config = config or ConstantConfig()
        self.level = torch.nn.Parameter(torch.full((spec.action_dim,), config.level))
        self.updates = 0

    def update(self, batch):
        self.updates += 1
        return {}

    def act(self, obs):
        return self.level.detach().expand(len(obs), -1)

@ovi.register_dataset("lab/copy")
def copy():
    return ovi.datasets.load("data.hdf5", env="Pendulum-v1")

@ovi.register_dataset("lab/arrays")
def arrays():
    """Arrays, as they were logged."""
    rng = np.random.default_rng(0)
    flags = np.zeros(200, bool), np.arange(1, 201) % 50 == 0
    return {"observations": rng.normal(size=(200, 3)), "actions": 2 * rng.uniform(-1, 1, (200, 1)),
            "rewards": rng.normal(size=200), "terminals": flags[0], "timeouts": flags[1]}

@ovi.register_dataset("lab/wrong")
def wrong():
    return 5

@ovi.register_behavior("memory")
class Memory(BehaviorModel):
    """Actions that were seen, without a density; its loss remembers them."""

    def __init__(self, spec: ovi.Spec, config: ConstantConfig | None = None):
        super().__init__()
        self.spec, self.config = spec, config or ConstantConfig()
        self.register_buffer("kept", torch.zeros(64, spec.action_dim))
        self.shift = torch.nn.Parameter(torch.zeros(spec.action_dim))
        self.seen = 0

    def loss(self, obs, action):
        self.kept[(self.seen + torch.arange(len(action))) % 64] = action
        self.seen += len(action)
        return self.shift.square().sum(), {"seen": self.seen}

    def sample(self, obs, num_samples=1):
        return self.kept[torch.randint(64, (num_samples, len(obs)))]
'''


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with a plug-in and data."""
    (tmp_path / "lab.py").write_text(SOURCE)
    pendulum(tmp_path / "data.hdf5")
    return tmp_path


def command(lab: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of the command in a fresh process there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "offline_vi", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, cwd=lab, env=environment, timeout=240)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_a_plug_in_is_like_a_member_on_every_verb(lab: Path) -> None:
    plug = ["--plugin", "lab.py"]
    assert "constant" in command(lab, "train", "--help", *plug)[0]
    assert "--level" in command(lab, "train", "constant", "--help", *plug)[0]
    small = ["--steps", "4", "--eval-episodes", "1", "-q", "--output", "run"]
    command(lab, "train", "constant", "--dataset", "lab/copy", "--level", "0.25", *small, *plug)
    config = json.loads((lab / "run" / "config.json").read_text())
    assert config["agent"]["class"] == "constant" and config["agent"]["config"] == {"level": 0.25}
    assert [plugin["name"] for plugin in config["plugins"]] == ["lab.py"]
    assert "Pendulum-v1" in command(lab, "evaluate", "run", "--episodes", "1", "-q", *plug)[0]
    _, told = command(lab, "evaluate", "run", "--episodes", "1", "-q", code=ConfigError.exit_code)
    assert "--plugin lab.py" in told and "Traceback" not in told
    command(lab, "resume", "run", "--steps", "6", "-q", *plug)
    state = json.loads((lab / "run" / "checkpoints" / "step_00000006" / "state.json").read_text())
    assert state["state"]["algorithm"]["updates"] == 6
    command(lab, "finetune", "run", "--steps", "4", "--warmup", "8", "--eval-episodes", "1", "-q",
            "--output", "tuned", *plug)  # fmt: skip
    assert (lab / "tuned" / "result.json").exists()


def test_commands_that_are_shown_for_a_run_of_a_plug_in_work_as_they_stand(lab: Path) -> None:
    small = ["--steps", "4", "--unscored", "-q", "--plugin", "lab.py"]
    for seed in ("0", "1"):
        command(lab, "train", "constant", "--dataset", "data.hdf5", *small, "--seed", seed, "--output", f"run {seed}")
    command(lab, "report", "run 0", "run 1", "--output", "both")
    page = (lab / "both" / "report.md").read_text().splitlines()
    shown = [line for line in page if line.startswith("offline-vi ope")]
    _, verb, *words = shlex.split(shown[0])
    assert words == ["run 0", "run 1", "--plugin", "lab.py"]
    assert "the policy" in command(lab, verb, *words, "--steps", "4", "--fits", "1", "-q")[0]
    assert "&#39;run 0&#39;" in (lab / "both" / "report.html").read_text()
    plug = ["--plugin", "lab.py"]
    _, told = command(lab, "evaluate", "run 0", *plug, code=UsageError.exit_code)
    assert "`offline-vi ope 'run 0' --plugin lab.py`" in told
    again = ["train", "constant", "--dataset", "data.hdf5", *small, "--output", "run 0", "--resume", "--level", "0.75"]
    _, told = command(lab, *again, code=ConfigError.exit_code)
    assert "`offline-vi resume 'run 0' --plugin lab.py`" in told


def test_data_of_a_plug_in_are_read_like_a_file(lab: Path) -> None:
    plug = ["--plugin", "lab.py"]
    small = ["--steps", "4", "--eval-episodes", "1", "-q", *plug]
    command(lab, "train", "constant", "--dataset", "lab/arrays", "--env", "Pendulum-v1", "--output", "run", *small)
    assert json.loads((lab / "run" / "config.json").read_text())["task"]["action_high"] == [2.0]
    _, told = command(lab, "train", "constant", "--dataset", "lab/wrong", *small, code=65)
    assert "int" in told and "Traceback" not in told
    facts = json.loads(command(lab, "data", "info", "lab/copy", "--json", *plug)[0])
    assert facts["environment"].startswith("Pendulum-v1")


def test_functions_may_return_arrays_or_transitions(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "DATASETS", {})
    rng, cut = np.random.default_rng(0), np.arange(1, 201) % 50 == 0
    arrays = {"observations": rng.normal(size=(200, 3)), "actions": 2 * rng.uniform(-1, 1, (200, 1)),
              "rewards": rng.normal(size=200), "terminals": np.zeros(200, bool), "timeouts": cut}  # fmt: skip
    ovi.register_dataset("arrays")(lambda: arrays)
    ovi.register_dataset("copy")(lambda: ovi.datasets.load(lab / "data.hdf5", env="Pendulum-v1"))
    columns, task, source = ovi.datasets.read("arrays")
    assert (len(columns.obs), task, source.name) == (200, None, "arrays")
    with pytest.raises(DataError):  # to +-2, and nobody says that this is their range
        ovi.datasets.load("arrays")
    data = ovi.datasets.load("arrays", action_low=-2.0, action_high=2.0, next_obs="within_episode")
    assert len(data) == 196 and np.abs(data.action).max() <= 1.0
    again = ovi.datasets.read("copy")
    assert again.task and again.task.env_id == "Pendulum-v1"
    for options in ({"action_range": "data"}, {"next_obs": "within_episode"}, {"sha256": "0" * 64}):
        with pytest.raises(UsageError):
            ovi.datasets.load("copy", **options)  # type: ignore[arg-type]


def test_a_model_without_a_density_is_fitted_kept_and_used(lab: Path) -> None:
    small = ["--dataset", "lab/copy", "--steps", "4", "-q", "--plugin", "lab.py"]
    command(lab, "fit-behavior", "memory", *small, "--output", "memory")
    card = json.loads((lab / "memory" / "model" / "card.json").read_text())
    assert "loss" in card["held_out"] and card["state"]["seen"] == 4 * 256
    few = ["--eval-episodes", "1", "--batch-size", "8", "--hidden", "8"]
    command(lab, "train", "bcq", *small, *few, "--behavior-from", "memory", "--output", "bcq")
    _, told = command(lab, "train", "spot", *small, *few, "--behavior-from", "memory", code=ConfigError.exit_code)
    assert "Memory" in told and "Traceback" not in told


def test_a_changed_plug_in_does_not_go_on_with_a_run(lab: Path) -> None:
    small = ["--steps", "4", "--eval-episodes", "1", "-q", "--output", "run", "--plugin", "lab.py"]
    command(lab, "train", "constant", "--dataset", "lab/copy", *small)
    (lab / "lab.py").write_text(SOURCE + "\nVERSION = 2\n")
    _, told = command(lab, "resume", "run", "-q", "--plugin", "lab.py", code=ConfigError.exit_code)
    assert "lab.py" in told


def test_a_run_does_not_decide_which_code_is_loaded(lab: Path) -> None:
    small = ["--steps", "4", "--eval-episodes", "1", "-q", "--output", "run"]
    command(lab, "train", "bc", "--dataset", "data.hdf5", "--env", "Pendulum-v1", "--hidden", "8", *small)
    (lab / "evil.py").write_text("open('marker', 'w').close()\nclass Agent: ...\n")
    path = lab / "run" / "config.json"
    config = json.loads(path.read_text())
    for name in ("evil:Agent", "evil.Agent", "evil"):
        path.write_text(json.dumps({**config, "agent": {**config["agent"], "class": name}}))
        command(lab, "evaluate", "run", "--episodes", "1", "-q", code=ConfigError.exit_code)
    path.write_text(json.dumps({**config, "plugins": [{"name": "evil.py", "sha256": "0"}]}))
    command(lab, "resume", "run", "-q", code=ConfigError.exit_code)
    assert not (lab / "marker").exists()


def test_a_plug_in_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"nowhere\.py"):
        load_plugin(tmp_path / "nowhere.py")
    with pytest.raises(MissingInputError, match="no_such_module"):
        load_plugin("no_such_module")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UsageError, match=r"empty\.py"):
        load_plugin(tmp_path / "empty.py")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no')\n")
    with pytest.raises(ConfigError, match=r"broken\.py.*RuntimeError.*no"):
        load_plugin(tmp_path / "broken.py")


def test_what_a_package_offers_is_there_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def offered(group: str) -> list[metadata.EntryPoint]:
        mine = {"offline_vi.algorithms": f"{__name__}:Plain", "offline_vi.behavior": "no_such_package:Model"}
        return [metadata.EntryPoint("offered", mine[group], group)] if group in mine else []

    monkeypatch.setattr(metadata, "entry_points", lambda *, group: offered(group))
    registry._entry_points.cache_clear()
    try:
        assert "offered" in registry.trainable()
        assert registry.algorithm("offered").config() is PlainConfig
        with pytest.raises(ConfigError, match="no_such_package"):
            registry.behavior_model("offered").load()
    finally:
        registry._entry_points.cache_clear()
