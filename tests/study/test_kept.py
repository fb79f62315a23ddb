"""What Python trains is kept, loaded, and read by every verb of the command."""

from __future__ import annotations

import csv
import json
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agents import built, small_choice
from torch import Tensor, nn

import offline_vi as ovi
from offline_vi import registry
from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.algorithms.sac import SAC, SACConfig
from offline_vi.algorithms.soft_q import SoftQ, SoftQConfig
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.algorithms.vime import VIME, VIMEConfig
from offline_vi.behavior import BehaviorModel, DecoderMeans, GaussianBehavior, GaussianBehaviorConfig
from offline_vi.data.transitions import Transitions
from offline_vi.datasets import environment
from offline_vi.errors import CapabilityError, ConfigError, RunExistsError, UsageError
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.state import snapshot
from offline_vi.rl.algorithm import Algorithm, Jointly
from offline_vi.scripts import main
from offline_vi.types import Batch, Metrics, Spec

SPEC = Spec((3,), 1)
TASK = environment("Pendulum-v1")
GAUSSIAN = GaussianBehaviorConfig(hidden=(8,), batch_size=16)


def rows(count: int = 300, *, scored: bool = True) -> Transitions:
    """Of Pendulum's shapes."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(count, 3)).astype(np.float32)
    reward = rng.normal(size=count).astype(np.float32)
    ends = np.arange(1, count + 1) % 50 == 0
    action = np.tanh(rng.normal(size=(count, 1))).astype(np.float32)
    data = Transitions(obs, action, reward, np.roll(obs, -1, 0), np.zeros(count, np.bool_), ends, SPEC)
    return replace(data, task=TASK) if scored else data


def same(first: Algorithm, second: Algorithm) -> None:
    """Every tensor, optimizer moment and counter."""
    ours, theirs = snapshot(first), snapshot(second)
    assert ours.values == theirs.values
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, tensor in ours.tensors.items():
        assert torch.equal(tensor, theirs.tensors[name]), name


def actions(agent: Any) -> Tensor:
    torch.manual_seed(5)
    found: Tensor = agent.act(torch.linspace(-1.0, 1.0, 12).reshape(4, 3))
    return found


def kept(agent: Algorithm, path: Path) -> None:
    """Trained a little, saved, loaded: the same in all that it is and does, now and later."""
    data = rows(scored=False)
    ovi.fit(agent, data, 3, progress=False)
    assert ovi.save(agent, path, task=TASK) == path
    again = ovi.load(path)
    assert type(again) is type(agent) and isinstance(again, Algorithm)
    assert not again.training and again.trained_steps == 3
    same(agent, again)
    assert torch.equal(actions(agent.eval()), actions(again))
    for each in (agent, again):
        ovi.fit(each, data, 3, seed=1, progress=False)
    same(agent, again)


# ------------------------------------------------------------------ save and load


@pytest.mark.parametrize("jointly", [False, True])
@pytest.mark.parametrize("name", registry.trainable())
def test_every_algorithm_is_kept_whole(name: str, jointly: bool, tmp_path: Path) -> None:
    kept(built(small_choice(name, SPEC, jointly=jointly), SPEC), tmp_path / "agent")


def test_wrappers_are_kept_whole(tmp_path: Path) -> None:
    model = GaussianBehavior(SPEC, GAUSSIAN)
    agent = Jointly(model, SoftQ(SPEC, model, SoftQConfig(hidden=(8,), batch_size=8)))
    kept(VIME(agent, SPEC, VIMEConfig(capacity=300, features=5)), tmp_path / "agent")


@dataclass(frozen=True)
class MeanConfig:
    """Of `Mean`."""

    rate: float = 0.1


class Mean(Algorithm):
    """Somebody's: state in plain tensors and numbers, a schedule, arguments of its own kind."""

    def __init__(self, spec: Spec, *names: str, config: MeanConfig | None = None) -> None:
        super().__init__()
        self.config, self.names, self.batch_size = config or MeanConfig(), names, 8
        self.inputs, self.net = Normalizer(spec), nn.Linear(spec.obs_dim, spec.action_dim)
        self.opt = torch.optim.SGD(self.net.parameters(), lr=self.config.rate, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.opt, step_size=2)
        self.mean, self.history, self.rng = torch.zeros(spec.action_dim), list[float](), np.random.default_rng(0)

    def update(self, batch: Batch) -> Metrics:
        loss = (self.act_with_gradient(batch.obs) - batch.action + float(self.rng.normal())).square().mean()
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        self.schedule.step()
        self.mean = 0.9 * self.mean + 0.1 * batch.action.mean(0)
        self.history.append(float(loss.detach()))
        return {"actor/loss": loss.detach()}

    def act_with_gradient(self, obs: Tensor) -> Tensor:
        return torch.tanh(self.net(self.inputs(obs)) + self.mean)

    def act(self, obs: Tensor) -> Tensor:
        with torch.no_grad():
            return self.act_with_gradient(obs)


def test_an_algorithm_of_other_people_is_kept_whole(tmp_path: Path) -> None:
    agent = Mean(SPEC, "a", "b", config=MeanConfig(0.5))
    agent.inputs.fit(rows().obs)
    kept(agent, tmp_path / "agent")
    again: Any = ovi.load(tmp_path / "agent")
    assert (again.names, again.config, len(again.history)) == (("a", "b"), MeanConfig(0.5), 3)


class Shapeless(Mean):
    """Nothing says which shapes it is of."""

    def __init__(self) -> None:
        super().__init__(SPEC)


@pytest.mark.parametrize(
    ("agent", "error"),
    [(lambda: Shapeless(), ConfigError), (lambda: SAC(SPEC, SACConfig(hidden=(8,)), lambda s, a: a), CapabilityError)],
)
def test_what_could_not_be_loaded_is_refused_before_anything_is_written(agent: Any, error: Any, tmp_path: Path) -> None:
    with pytest.raises(error):
        ovi.save(agent(), tmp_path / "agent")
    with pytest.raises(error):
        ovi.fit(agent(), rows(), 2, run=tmp_path / "agent", progress=False)
    assert not (tmp_path / "agent").exists()


def test_saving_replaces_nothing_unless_it_is_asked_to(tmp_path: Path) -> None:
    makers: list[Any] = [lambda: TD3BC(SPEC, TD3BCConfig(hidden=(8,))), lambda: GaussianBehavior(SPEC, GAUSSIAN)]
    for number, make in enumerate(makers):
        path, before, after = tmp_path / str(number), make(), make()
        ovi.save(before, path)
        with pytest.raises(RunExistsError):
            ovi.save(after, path)
        assert weights_of(ovi.load(path)) == weights_of(before) != weights_of(after)
        ovi.save(after, path, overwrite=True)
        assert weights_of(ovi.load(path)) == weights_of(after)


def weights_of(module: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in module.state_dict().items()}


def test_a_behavior_model_is_kept_too(tmp_path: Path) -> None:
    model = GaussianBehavior(SPEC, GAUSSIAN)
    ovi.fit_behavior(model, rows(scored=False), 3, progress=False)
    ovi.save(model, tmp_path / "model")
    again: Any = ovi.load(tmp_path / "model")
    assert isinstance(again, GaussianBehavior) and again.config == GAUSSIAN
    obs, action = torch.randn(4, 3), torch.rand(4, 1) - 0.5
    assert torch.equal(model.log_prob(obs, action), again.log_prob(obs, action))


# ------------------------------------------------------------------ fit, again


class Notes(TD3BC):
    """Remembers the rows of its batches."""

    def __init__(self, spec: Spec, config: TD3BCConfig | None = None) -> None:
        super().__init__(spec, config)
        self.seen: list[list[int]] = []

    def update(self, batch: Batch) -> Metrics:
        self.seen.append(batch.index.tolist())
        return super().update(batch)


def noting() -> Notes:
    torch.manual_seed(3)
    return Notes(SPEC, TD3BCConfig(hidden=(8,), batch_size=8))


@pytest.mark.parametrize("loaded", [False, True])
def test_a_second_call_of_fit_meets_fresh_batches(loaded: bool, tmp_path: Path) -> None:
    agent = noting()
    ovi.fit(agent, rows(scored=False), 4, progress=False)
    if loaded:
        ovi.save(agent, tmp_path / "agent")
        again = ovi.load(tmp_path / "agent")
        assert isinstance(again, Notes)
        agent = again
    ovi.fit(agent, rows(scored=False), 4, progress=False)
    assert agent.trained_steps == 8
    assert not any(batch in agent.seen[:4] for batch in agent.seen[4:])
    once, other = noting(), noting()
    ovi.fit(once, rows(scored=False), 8, progress=False)
    assert once.seen[:4] == agent.seen[:4] and once.seen[4:] != agent.seen[4:]
    ovi.fit(other, rows(scored=False), 4, progress=False)
    ovi.fit(other, rows(scored=False), 4, progress=False)
    assert other.seen == agent.seen  # the two calls, called again, do what they did
    same(other, agent)


class Sees(GaussianBehavior):
    """Remembers what it is fitted to."""

    transient = frozenset({"seen"})

    def __init__(self, spec: Spec, config: GaussianBehaviorConfig | None = None) -> None:
        super().__init__(spec, config)
        self.seen: list[Tensor] = []

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        self.seen.append(obs)
        return super().loss(obs, action)


def test_a_model_that_is_fitted_twice_meets_fresh_batches_too() -> None:
    def fitted(*steps: int) -> list[Tensor]:
        model = Sees(SPEC, GAUSSIAN)
        for count in steps:
            ovi.fit_behavior(model, rows(scored=False), count, progress=False)
        return model.seen

    twice, once = fitted(3, 3), fitted(6)
    assert all(torch.equal(a, b) for a, b in zip(twice[:3], once, strict=False))
    assert not any(torch.equal(a, b) for a in twice[:3] for b in twice[3:])


# ------------------------------------------------------------------ the directory that the command writes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that Python made, of rows that `offline-vi` could read again."""
    path = tmp_path_factory.mktemp("kept") / "run"
    data = ovi.datasets.load("offline-vi/pendulum/mixed-v0").with_reward(0.5, 1.0)
    with torch.random.fork_rng():
        ovi.set_seed(0)
        model = ovi.behavior.CVAE(data.spec, ovi.behavior.CVAEConfig(hidden=(8,)))
        agent = Jointly(model, BCQ(data.spec, DecoderMeans(model), BCQConfig(hidden=(8,), batch_size=16)))
        ovi.fit(agent, data, 20, run=path, log_every=10, save_every=10, progress=False)
    return path


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def test_python_writes_what_the_command_writes(run: Path, tmp_path: Path) -> None:
    flags = "--steps 20 --log-every 10 --save-every 10 --eval-every 20 --eval-episodes 1 --batch-size 16 --hidden 8 -q"
    data = ["--dataset", "offline-vi/pendulum/mixed-v0", "--reward-scale", "0.5", "--reward-shift", "1.0"]
    other = tmp_path / "run"
    main(
        ["train", "bcq", *data, "--behavior", "cvae", "--behavior.hidden", "8", *flags.split(), "--output", str(other)]
    )
    for name in ("config.json", "run.json", "result.json", "metrics.csv", "episodes.csv", "support.csv"):
        assert (run / name).is_file() and (other / name).is_file(), name
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (run, other))
    assert ours["agent"] == theirs["agent"]
    for key in ("schema", "verb", "algorithm", "task", "steps", "seed"):
        assert ours[key] == theirs[key], key
    for key in ("name", "sha256", "reward_scale", "reward_shift"):
        assert ours["data"][key] == theirs["data"][key], key
    assert ours["data_options"]["dataset"] == theirs["data_options"]["dataset"]
    results = [json.loads((path / "result.json").read_text()) for path in (run, other)]
    assert results[0].keys() == results[1].keys()
    assert (run / "metrics.csv").read_text().splitlines()[0] == (other / "metrics.csv").read_text().splitlines()[0]


def test_the_command_evaluates_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(command(capsys, "evaluate", str(run), "--episodes", "2", "--seed", "100", "--json", "-q"))
    result = json.loads((run / "result.json").read_text())
    assert found["returns"] == result["returns"][:2]
    flags = ["--episodes", "1", "--guard", "0.5", "--json", "-q"]
    guarded = json.loads(command(capsys, "evaluate", str(run), *flags))["guard"]
    assert guarded["threshold"] == result["support"]["0.5"]
    assert 0.0 <= guarded["share"] <= 1.0


def test_the_command_reports_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = command(capsys, "report", str(run), "--output", str(tmp_path))
    assert "left out" not in printed
    result = json.loads((run / "result.json").read_text())
    with (tmp_path / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["dataset"], row["algorithm"], row["seed"]) == ("offline-vi/pendulum/mixed-v0", "bcq", "0")
    assert float(row["final"]) == pytest.approx(result["normalized_score"])


def test_the_command_fine_tunes_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--steps 10 --warmup 5 --eval-every 10 --eval-episodes 1 --log-every 5 -q"
    command(capsys, "finetune", str(run), *flags.split(), "--output", str(tmp_path / "tuned"))
    tuned = ovi.load(tmp_path / "tuned")
    assert isinstance(tuned, Jointly) and isinstance(tuned.algorithm, BCQ)
    result = json.loads((tmp_path / "tuned" / "result.json").read_text())
    assert set(result["curve"]) == {"0", "10"}
    first = json.loads((run / "episodes.csv").read_text().splitlines()[1].split(",")[2])
    assert str(first) in (tmp_path / "tuned" / "episodes.csv").read_text().splitlines()[1]


def test_the_command_sweeps_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--candidates 2 --phi 0.1 --noise-clip 0.5 --temperature 1 --episodes 1 --json -q"
    record = json.loads(command(capsys, "sweep-inference", str(run), *flags.split(), "--output", str(tmp_path)))
    assert {row["axis"] for row in record["rows"]} >= {"candidates", "phi", "noise_clip", "temperature", "greedy"}


def test_a_run_in_memory_goes_on_where_it_was_made(tmp_path: Path) -> None:
    def agent() -> Impatient:
        torch.manual_seed(0)
        return Impatient(SPEC, TD3BCConfig(hidden=(8,), batch_size=8))

    whole, cut = agent(), agent()
    data = rows(scored=False)
    ovi.fit(whole, data, 20, run=tmp_path / "whole", save_every=10, progress=False)
    cut.patience = 15
    with pytest.raises(KeyboardInterrupt):
        ovi.fit(cut, data, 20, run=tmp_path / "cut", save_every=10, progress=False)
    again = agent()
    ovi.fit(again, data, 20, run=tmp_path / "cut", save_every=10, progress=False, resume=True)
    same(whole, again)
    loaded = ovi.load(tmp_path / "cut")
    assert isinstance(loaded, Impatient)
    same(whole, loaded)


class Impatient(TD3BC):
    """Somebody stops it in the middle."""

    transient = frozenset({"patience"})

    def __init__(self, spec: Spec, config: TD3BCConfig | None = None) -> None:
        super().__init__(spec, config)
        self.patience = 1_000

    def update(self, batch: Batch) -> Metrics:
        self.patience -= 1
        if self.patience < 0:
            raise KeyboardInterrupt
        return super().update(batch)


# ------------------------------------------------------------------ the model of a run


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the preset that fits its model first."""
    path = tmp_path_factory.mktemp("fast") / "run"
    flags = "--preset fast --steps 20 --behavior-steps 10 --eval-every 20 --eval-episodes 1 --hidden 8 -q"
    data = ["--dataset", "offline-vi/pendulum/mixed-v0", "--behavior.hidden", "8"]
    with torch.random.fork_rng():
        main(["train", "bcq", *data, *flags.split(), "--output", str(path)])
    return path


def test_the_fitted_model_of_a_run_is_a_model_for_other_runs(fast: Path, tmp_path: Path) -> None:
    models = [ovi.load(fast / "behavior"), ovi.load_behavior(fast / "behavior")]
    agent = ovi.load(fast)
    assert isinstance(agent, Algorithm)
    models.append(ovi.study.kept.behavior_of(agent))  # type: ignore[arg-type]
    for model in models:
        assert isinstance(model, BehaviorModel)
        for ours, theirs in zip(models[0].state_dict().values(), model.state_dict().values(), strict=True):
            assert torch.equal(ours, theirs)
    flags = "--steps 5 --eval-every 5 --eval-episodes 1 --hidden 8 -q"
    data = ["--dataset", "offline-vi/pendulum/mixed-v0", "--behavior-from", str(fast / "behavior")]
    main(["train", "emaq", *data, *flags.split(), "--output", str(tmp_path / "run")])
    other: Any = ovi.load(tmp_path / "run")
    for ours, theirs in zip(models[0].state_dict().values(), other.proposals.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_holds_no_policy_says_so(fast: Path) -> None:
    with pytest.raises(UsageError, match="behavior model"):
        ovi.study.kept.load_policy(fast / "behavior")


def test_a_model_that_python_fits_is_one_for_the_command(tmp_path: Path) -> None:
    data = ovi.datasets.load("offline-vi/pendulum/mixed-v0")
    model = GaussianBehavior(data.spec, GAUSSIAN)
    ovi.fit_behavior(model, data, 5, run=tmp_path / "fitted", progress=False)
    again: Any = ovi.load(tmp_path / "fitted")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    flags = "--steps 5 --eval-every 5 --eval-episodes 1 --hidden 8 -q"
    given = ["--dataset", "offline-vi/pendulum/mixed-v0", "--behavior-from", str(tmp_path / "fitted")]
    main(["train", "spot", *given, *flags.split(), "--output", str(tmp_path / "run")])
    assert (tmp_path / "run" / "support.csv").is_file()


def test_an_online_agent_that_python_trains_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = SAC(SPEC, SACConfig(hidden=(8,), batch_size=8))
    _, collected = ovi.fit_online(agent, TASK, SPEC, 10, warmup=10, run=tmp_path / "run", progress=False)
    assert len(collected) == 20
    again = ovi.load(tmp_path / "run")
    assert isinstance(again, SAC)
    same(agent, again)
    found = json.loads(command(capsys, "evaluate", str(tmp_path / "run"), "--episodes", "1", "--json", "-q"))
    assert found["env_id"] == "Pendulum-v1"


def test_a_class_that_is_not_loaded_is_reported_with_the_way_to_load_it(tmp_path: Path) -> None:
    """In Python, too: the hint is in the traceback."""
    path = ovi.save(TD3BC(SPEC, TD3BCConfig(hidden=(4,))), tmp_path / "kept")
    config = json.loads((path / "config.json").read_text())
    config["agent"]["class"], config["plugins"] = "bestof", [{"name": "mystuff.py", "sha256": "0" * 64}]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="bestof") as refused:
        ovi.load(path)
    assert "load(..., plugins=['mystuff.py'])" in "".join(traceback.format_exception(refused.value))
