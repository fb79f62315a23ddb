"""Captured updates: the steps of the code as it is written, whatever the algorithm; the rest is refused unharmed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest
import torch
from agents import built, small_choice
from captures import SPEC, assert_same, recording, toy
from commands import PENDULUM, write_pendulum

from offline_vi import registry
from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.behavior import CVAE, CVAEConfig, DecoderMeans
from offline_vi.behavior.proposals import CandidateCache
from offline_vi.data.samplers import Sampler
from offline_vi.errors import CapabilityError, GraphWarning, Interrupted
from offline_vi.nn.optim import adam, gradient_step
from offline_vi.nn.precision import precision_of_targets, use_products, without_gradient
from offline_vi.rl.algorithm import Algorithm
from offline_vi.runs.directory import RunDirectory
from offline_vi.stopping import requests
from offline_vi.training import capture
from offline_vi.training.capture import Captured
from offline_vi.training.loop import fit
from offline_vi.training.randomness import seeds
from offline_vi.types import Batch, Metrics

CAPTURED = (
    "bc",
    "bcq",
    "ddpg",
    "emaq",
    "idql",
    "iql",
    "kl-sac",
    "onestep",
    "plas",
    "rebrac",
    "sac",
    "spot",
    "td3",
    "td3-bc",
)


def small(name: str) -> Algorithm:
    torch.manual_seed(3)
    return built(small_choice(name, SPEC), SPEC)


def trained(algorithm: Algorithm, steps: int, make: capture.Make | None) -> tuple[dict[str, torch.Tensor], Metrics]:
    """The state after some updates, as they are written or as programs, and the metrics of the last."""
    algorithm.train()
    batches, metrics = Sampler(toy(), 16, seed=5), Metrics()
    advance = Captured(algorithm, make) if make else algorithm.update
    torch.manual_seed(11)
    for _ in range(steps):
        metrics = advance(batches.sample())
    return algorithm.snapshot(), {name: value.clone() for name, value in metrics.items()}


@pytest.mark.parametrize("name", CAPTURED)
def test_a_program_takes_the_steps_of_the_code(name: str) -> None:
    (state, metrics), (own, expected) = trained(small(name), 4, recording), trained(small(name), 4, None)
    assert_same(state, own)
    assert_same(metrics, expected, within=1e-4)


def test_every_algorithm_that_says_when_its_updates_repeat_is_tried() -> None:
    declared = {name for name in registry.ALGORITHMS if (agent := _agent(name)) and agent.capture_phase() is not None}
    assert declared == set(CAPTURED)


def _agent(name: str) -> Algorithm | None:
    try:
        return small(name)
    except Exception:  # of algorithms that need other data, such as images
        return None


def test_the_rate_follows_its_cosine() -> None:
    def clone() -> Algorithm:
        torch.manual_seed(3)
        return BC(SPEC, BCConfig(hidden=(8,), decay_steps=6))

    (captured, _), (written, _) = trained(clone(), 7, recording), trained(clone(), 7, None)
    assert_same(captured, written)
    before, after = (trained(clone(), steps, recording)[0] for steps in (5, 8))
    weights = [name for name in captured if name.endswith("weight")]
    assert not any(torch.equal(before[name], captured[name]) for name in weights)
    assert all(torch.equal(after[name], captured[name]) for name in weights)  # the rate has come to 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_candidates_that_were_drawn_ahead_are_read_as_they_are_by_then(precision: str) -> None:
    states = []
    for make in (recording, None):
        torch.manual_seed(3)
        model = CVAE(SPEC, CVAEConfig(hidden=(8,))).eval().requires_grad_(False)
        candidates = CandidateCache(DecoderMeans(model), toy(), period=40, seed=0, device="cpu")
        agent = BCQ(SPEC, candidates, BCQConfig(hidden=(8,), batch_size=16))
        batches, advance = Sampler(toy(), 16, seed=5), Captured(agent, make) if make else agent.update
        with precision_of_targets(precision, torch.device("cpu")):
            for step in range(1, 101):
                candidates.advance(step)
                advance(batches.sample())
        states.append(agent.snapshot())
    assert_same(states[0], states[1], within=2e-3 if precision == "bfloat16" else 1e-4)


def test_seeds_in_parallel_are_captured_together() -> None:
    states = []
    for make in (recording, None):
        torch.manual_seed(3)
        agent = TD3BC(SPEC.stacked(2), TD3BCConfig(hidden=(8,)))
        advance = Captured(agent, make) if make else agent.update
        rows = [Sampler(toy(), 16, seed=seed) for seed in (1, 2)]
        for _ in range(4):
            one, two = (sampler.sample() for sampler in rows)
            advance(Batch(*(torch.stack(pair) for pair in zip(one, two, strict=True))))
        states.append(agent.snapshot())
    assert_same(states[0], states[1])


class Regressing(BC):
    """Regresses a large value from its mean, where the gradient is nothing but the rounding of the targets."""

    def __init__(self) -> None:
        super().__init__(SPEC, BCConfig(hidden=(8,)))
        self.bias = torch.nn.Parameter(torch.tensor([1201.2]))
        self.actor_opt = adam([self.bias], lr=1e-3)

    @without_gradient
    def target(self, batch: Batch) -> torch.Tensor:
        return (400.4 * torch.ones(len(batch.reward), 3) @ torch.ones(3, 1)).float()  # 1,201.2

    def update(self, batch: Batch) -> Metrics:
        loss = (self.bias - self.target(batch)).square().mean()
        gradient_step(self.actor_opt, loss)
        return {"loss": loss.detach()}


def test_a_step_that_is_only_rounding_may_be_rounded_in_another_way() -> None:
    agent, batch = Regressing(), Sampler(toy(), 16).sample()

    def unrounded(graph: Any, inputs: list[torch.Tensor], rows: slice) -> capture.Run:
        def run(*given: torch.Tensor) -> list[torch.Tensor]:
            with torch.enable_grad(), precision_of_targets("float32", torch.device("cpu")):
                return list(agent.update(Batch(*given[rows])).values())

        return run

    with precision_of_targets("bfloat16", torch.device("cpu")):
        Captured(agent, unrounded)(batch)  # another step by far, and as good a one


def test_products_are_not_rounded_while_a_program_is_compared() -> None:
    use_products("medium")
    agent, seen = BC(SPEC, BCConfig(hidden=(8,))), []

    def watched(graph: Any, inputs: list[torch.Tensor], rows: slice) -> capture.Run:
        def run(*given: torch.Tensor) -> Any:
            seen.append(torch.get_float32_matmul_precision())
            return graph(*given)

        return run

    update, batch = Captured(agent, watched), Sampler(toy(), 16).sample()
    update(batch)
    assert seen == ["highest", "medium"]
    assert torch.get_float32_matmul_precision() == "medium"


# ------------------------------------------------------------------ what is refused


class Counting(BC):
    """Changes its own Python value."""

    def __init__(self) -> None:
        super().__init__(SPEC, BCConfig(hidden=(8,)))
        self.count = 0

    def update(self, batch: Batch) -> Metrics:
        self.count += 1
        return super().update(batch)


class Branching(BC):
    """What it does depends on the values it meets."""

    def update(self, batch: Batch) -> Metrics:
        return super().update(batch if batch.reward.sum() > 0 else batch._replace(action=-batch.action))


class Changing(BC):
    """Another update than the one that was recorded: it keeps a number that no recording sees."""

    def update(self, batch: Batch) -> Metrics:
        noise = float(torch.rand(()).item())
        return super().update(batch._replace(action=batch.action * noise))


class Silent(BC):
    def capture_phase(self) -> Hashable:
        return None


@pytest.mark.parametrize("kind", [Counting, Branching, Changing])
def test_what_cannot_be_repeated_is_refused_and_nothing_has_changed(kind: type[BC]) -> None:
    torch.manual_seed(0)
    agent = kind() if kind is Counting else kind(SPEC, BCConfig(hidden=(8,)))
    batch, before = Sampler(toy(), 16).sample(), agent.snapshot()
    count, random = getattr(agent, "count", 0), torch.get_rng_state()
    with pytest.raises(CapabilityError):
        Captured(agent, recording)(batch)
    after = agent.snapshot()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(not after[name].any() for name in after.keys() - before.keys())  # moments of no step
    assert getattr(agent, "count", 0) == count
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("kind", [Silent, Branching])
def test_a_training_goes_on_as_written_and_says_so(kind: type[BC], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(capture.PROGRAMS, "compiled", (recording,))
    states = []
    for graph in ("compiled", "off"):
        torch.manual_seed(0)
        agent = kind(SPEC, BCConfig(hidden=(8,)))
        if graph == "off":
            fit(agent, toy(), 6, graph=graph, progress=False)
        else:
            with pytest.warns(GraphWarning):
                fit(agent, toy(), 6, graph=graph, progress=False)
        states.append(agent.snapshot())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_request_to_stop_while_a_program_is_made_changes_nothing() -> None:
    agent = BC(SPEC, BCConfig(hidden=(8,)))
    before, random = agent.snapshot(), torch.get_rng_state()

    def stopped(graph: Any, inputs: list[torch.Tensor], batch: slice) -> capture.Run:
        graph(*inputs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Captured(agent, stopped)(Sampler(toy(), 16).sample())
    after = agent.snapshot()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)


def test_other_optimizers_are_refused() -> None:
    agent = BC(SPEC, BCConfig(hidden=(8,)))
    agent.actor_opt = torch.optim.SGD(agent.parameters(), lr=0.1)
    with pytest.raises(CapabilityError):
        Captured(agent, recording)


# ------------------------------------------------------------------ in a training


def test_a_resumed_training_has_the_bytes_of_one_that_was_not_interrupted(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(capture.PROGRAMS, "compiled", (recording,))

    def agent() -> TD3BC:
        torch.manual_seed(0)
        return TD3BC(SPEC, TD3BCConfig(hidden=(8,), batch_size=16))

    whole = agent()
    fit(whole, toy(), 21, graph="compiled", progress=False)

    class Interrupting(Sampler):
        drawn = 0

        def sample(self) -> Batch:
            self.drawn += 1
            requests.signum = 15 if self.drawn == 11 else 0
            return super().sample()

    source = Interrupting(toy(), 16, seeds(0)["batches"])
    with RunDirectory.create(tmp_path / "run") as run, pytest.raises(Interrupted):
        fit(agent(), source, 21, graph="compiled", progress=False, run=run)
    requests.signum = 0
    resumed = agent()
    with RunDirectory.resume(tmp_path / "run") as run:
        fit(resumed, toy(), 21, graph="compiled", progress=False, run=run, resume=True)
    found, expected = resumed.snapshot(), whole.snapshot()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.parametrize(
    "make",
    [
        lambda: TD3BC(SPEC, TD3BCConfig(hidden=(8,), batch_size=16, policy_delay=1)),
        lambda: BC(SPEC, BCConfig(hidden=(8,), layer_norm=True, dropout=0.1, decay_steps=40)),
    ],
    ids=["td3-bc", "a regularized clone"],
)
def test_a_compiled_update_takes_the_steps_of_the_code(
    make: Callable[[], Algorithm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path))
    monkeypatch.delenv(capture.PLACE, raising=False)
    states = []
    for graph in ("compiled", "off"):
        torch.manual_seed(0)
        agent = make()
        with warnings.catch_warnings():
            warnings.simplefilter("error", GraphWarning)
            fit(agent, toy(), 30, graph=graph, progress=False)
        states.append(agent.snapshot())
    assert_same(states[0], states[1], within=1e-4)
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())  # it is another program
    assert any((tmp_path / "programs").iterdir())


@pytest.mark.slow  # a minute: four fresh interpreters, three of which compile
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_fresh_interpreters_end_with_the_same_bytes_also_when_killed(tmp_path: Path) -> None:
    write_pendulum(tmp_path / PENDULUM)
    words = f"train td3-bc --dataset {PENDULUM} --env Pendulum-v1 --max-episode-steps 5 --hidden 16 --batch-size 32 -q"
    words += " --steps 3000 --save-every 500 --eval-every 0 --eval-episodes 1 --graph compiled --output"
    home = {**os.environ, "OFFLINE_VI_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    home.pop(capture.PLACE, None)

    def start(*more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "offline_vi", *more], cwd=tmp_path, env=home)

    for name in ("one", "other"):
        assert start(*words.split(), name).wait() == 0
    killed = start(*words.split(), "killed")
    while killed.poll() is None and not list(tmp_path.glob("killed/checkpoints/step_*")):
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert start("resume", "killed", "-q").wait() == 0
    ended = [
        sorted((tmp_path / name / "checkpoints" / "step_00003000").iterdir()) for name in ("one", "other", "killed")
    ]
    bytes_of = [[(file.name, file.read_bytes()) for file in files] for files in ended]
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]


def test_short_trainings_are_not_worth_a_program() -> None:
    cpu = torch.device("cpu")
    assert capture.preferred_graph(cpu, capture.WORTH["cpu"] - 1) == "off"
    assert capture.preferred_graph(torch.device("cuda"), capture.WORTH["cuda"]) == "replayed"
    assert capture.preferred_graph(cpu, capture.WORTH["cpu"]) in ("off", "compiled")
