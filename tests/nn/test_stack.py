"""Several seeds side by side: the axis S changes no seed's mathematics and mixes no two of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agents import built, small_choice
from torch import Tensor

from offline_vi import registry
from offline_vi.behavior import CVAE, BehaviorModel, CVAEConfig, DecoderMeans, MixtureBehavior
from offline_vi.behavior.proposals import CandidateCache
from offline_vi.data.samplers import Sampler, StackedSampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError, NonFiniteLossError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.nn.networks import Critic, mlp
from offline_vi.nn.stack import stack_, unstack_
from offline_vi.rl.algorithm import Algorithm
from offline_vi.runs.directory import RunDirectory
from offline_vi.scripts import main
from offline_vi.study.agents import AgentChoice, build_agents, new_model
from offline_vi.study.kept import load
from offline_vi.training.loop import fit
from offline_vi.types import Batch, Spec, Task

SPEC, SEEDS, ROWS = Spec((4,), 2), 3, 200
ALGORITHMS = registry.trainable()


def transitions() -> Transitions:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(ROWS, 4)).astype(np.float32)
    return Transitions(
        obs=obs,
        action=np.tanh(rng.normal(size=(ROWS, 2))).astype(np.float32),
        reward=rng.normal(size=ROWS).astype(np.float32),
        next_obs=np.roll(obs, -1, 0),
        terminated=rng.random(ROWS) < 0.1,
        episode_end=np.arange(ROWS) % 50 == 49,
        spec=SPEC,
    )


def choice_of(name: str, *, jointly: bool = False) -> AgentChoice:
    """Small networks; warm-ups over at once."""
    choice = small_choice(name, SPEC, jointly=jointly, hidden=(16, 16), batch_size=8)
    quick = {"warmup": 0, "policy_delay": 1, "dropout": 0.0}
    config = replace(choice.config, **{key: value for key, value in quick.items() if key in vars(choice.config)})
    return replace(choice, config=config)


def build(name: str, spec: Spec, shared: BehaviorModel | None = None, *, jointly: bool = False) -> Algorithm:
    return built(choice_of(name, jointly=jointly), spec, shared)


def pair(name: str, *, jointly: bool = False) -> tuple[Algorithm, list[Algorithm]]:
    """S algorithms and their stack, on one frozen model or each with its own."""
    shared = None
    if ALGORITHMS[name].behavior and not jointly:
        shared = CVAE(SPEC, CVAEConfig(hidden=(16, 16))).requires_grad_(False).eval()
    singles = [build(name, SPEC, shared, jointly=jointly) for _ in range(SEEDS)]
    stacked = build(name, SPEC.stacked(SEEDS), shared, jointly=jointly)
    stack_(stacked, singles)
    return stacked, singles


def row_of(batch: Batch, seed: int) -> Batch:
    return Batch(*(part[seed] for part in batch))


class SameNoise:
    """Every draw is zero: what remains of an update is the same for the stack and for one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "randn", lambda *shape, **kw: torch.zeros(*shape, **_known(kw)))
        monkeypatch.setattr(torch, "randn_like", lambda x, **_: torch.zeros_like(x))
        monkeypatch.setattr(torch, "rand_like", lambda x, **_: torch.full_like(x, 0.25))
        monkeypatch.setattr(torch, "normal", _mean)
        monkeypatch.setattr("torch.distributions.utils._standard_normal", _zeros)
        monkeypatch.setattr("torch.distributions.normal._standard_normal", _zeros)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in ("dtype", "device")}


def _zeros(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def _mean(mean: Tensor, std: Tensor, **_: Any) -> Tensor:
    return mean.expand(std.shape).clone()


# ------------------------------------------------------------------ networks


def test_a_stacked_network_is_its_seeds_beside_each_other() -> None:
    singles = [mlp([3, 8, 2]).double() for _ in range(SEEDS)]
    stacked = mlp([3, 8, 2], stack=(SEEDS,)).double()
    stack_(stacked, singles)
    assert stacked[0].weight.shape == (SEEDS, 3, 8)
    x = torch.randn(5, SEEDS, 7, 3, dtype=torch.float64)
    expected = torch.stack([single(x[:, seed]) for seed, single in enumerate(singles)], 1)
    torch.testing.assert_close(stacked(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(stacked(x[0]), expected[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_stacked_critic_is_its_seeds_beside_each_other(layer_norm: bool) -> None:
    singles = [Critic(Spec((3,), 2), (8, 8), 4, layer_norm=layer_norm).double() for _ in range(SEEDS)]
    stacked = Critic(Spec((3,), 2).stacked(SEEDS), (8, 8), 4, layer_norm=layer_norm).double()
    stack_(stacked, singles)
    obs = torch.randn(SEEDS, 7, 3, dtype=torch.float64)
    action = torch.randn(5, SEEDS, 7, 2, dtype=torch.float64)
    q = stacked(obs, action)
    assert q.shape == (4, 5, SEEDS, 7)
    expected = torch.stack([single(obs[seed], action[:, seed]) for seed, single in enumerate(singles)], 2)
    torch.testing.assert_close(q, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(stacked.q1(obs, action), expected[0], rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------ algorithms


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_stacked_update_is_each_seeds_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stacked, singles = pair(name)
    for module in (stacked, *singles):
        module.double()
    data = transitions()
    SameNoise(monkeypatch)
    sampler = StackedSampler(data, 8, list(range(SEEDS)))
    one = build(name, SPEC, _shared(stacked)).double()
    for _ in range(3):
        batch = Batch(*(x.double() if x.is_floating_point() else x for x in sampler.sample()))
        metrics = stacked.update(batch)
        for seed, single in enumerate(singles):
            for key, value in single.update(row_of(batch, seed)).items():
                got = metrics[key][seed] if metrics[key].ndim else metrics[key]
                torch.testing.assert_close(got, value, rtol=1e-9, atol=1e-10, msg=f"{key}: {got} is not {value}")
    for seed, single in enumerate(singles):
        unstack_(one, stacked, seed)
        for key, value in single.state_dict().items():
            torch.testing.assert_close(one.state_dict()[key], value, rtol=1e-8, atol=1e-9)


def _shared(algorithm: Algorithm) -> Any:
    own = dict(algorithm.named_children())
    behavior = own.get("proposals", own.get("behavior"))
    return behavior.model if isinstance(behavior, DecoderMeans) else behavior


@pytest.mark.parametrize("name", ["bcq", "plas", "spot"])
def test_models_train_beside_each_other_too(name: str) -> None:
    stacked, _ = pair(name, jointly=True)
    fit(stacked, StackedSampler(transitions(), 8, [1, 2, 3]), 20, progress=False)
    one = build(name, SPEC, jointly=True)
    losses = []
    for seed in range(SEEDS):
        unstack_(one, stacked, seed)
        model: Any = one.get_submodule("behavior")
        losses.append(float(model.loss(*_some())[0].detach()))
    assert len(set(losses)) == SEEDS
    assert one.act(torch.zeros(2, 4)).shape == (2, 2)


def _some() -> tuple[Tensor, Tensor]:
    data = transitions()
    return torch.from_numpy(data.obs), torch.from_numpy(data.action)


def test_no_two_seeds_share_a_batch_and_each_has_that_of_its_stream() -> None:
    data, seeds = transitions(), [11, 12, 13]
    stacked = StackedSampler(data, 8, seeds)
    samplers = [Sampler(data, 8, seed) for seed in seeds]
    for _ in range(3):
        batch = stacked.sample()
        for seed, sampler in enumerate(samplers):
            for got, expected in zip(row_of(batch, seed), sampler.sample(), strict=True):
                assert torch.equal(got, expected)
        assert not any(torch.equal(batch.index[0], batch.index[seed]) for seed in (1, 2))


def trained(name: str, seeds: list[int], poison: int | None = None, steps: int = 25) -> dict[str, Tensor]:
    """Snapshots after training a stack whose seed s is initialised and fed from ``seeds[s]``."""
    shared = None
    if ALGORITHMS[name].behavior:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            shared = CVAE(SPEC, CVAEConfig(hidden=(16, 16))).requires_grad_(False).eval()
    singles = []
    for seed in seeds:
        torch.manual_seed(seed)
        singles.append(build(name, SPEC, shared))
    stacked = build(name, SPEC.stacked(len(seeds)), shared)
    stack_(stacked, singles)
    if poison is not None:
        with torch.no_grad():
            for parameter in stacked.parameters():
                if parameter.ndim >= 3 and parameter.requires_grad:
                    parameter.select(parameter.ndim - 3, poison).fill_(torch.nan)
    fit(stacked, StackedSampler(transitions(), 8, seeds), steps, seed=5, progress=False)
    return stacked.snapshot()


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("change", ["replace", "poison"])
def test_what_happens_to_one_seed_leaves_the_others_bytes_alone(name: str, change: str) -> None:
    before = trained(name, [0, 1, 2])
    after = trained(name, [0, 7, 2]) if change == "replace" else trained(name, [0, 1, 2], poison=1)
    moved = 0
    for key, tensor in before.items():
        axis = max(tensor.ndim - 3, 0)
        if tensor.shape[axis : axis + 1] != (3,):
            continue
        for seed in (0, 2):
            assert torch.equal(tensor.select(axis, seed), after[key].select(axis, seed)), key
        moved += not torch.equal(tensor.select(axis, 1), after[key].select(axis, 1))
    assert moved > 0


def test_training_goes_on_while_one_seed_is_left() -> None:
    stacked, _ = pair("td3-bc")
    with torch.no_grad():
        stacked.get_parameter("critic.net.layers.0.weight")[:, 1] = torch.nan
    history = fit(stacked, StackedSampler(transitions(), 8, [1, 2, 3]), 200, log_every=100, progress=False)
    assert np.isnan(history.column("critic/loss.1")).all()
    assert np.isfinite(history.column("critic/loss.0")).all()
    with torch.no_grad():
        stacked.get_parameter("critic.net.layers.0.weight")[:] = torch.nan
    with pytest.raises(NonFiniteLossError, match="critic/loss"):
        fit(stacked, StackedSampler(transitions(), 8, [1, 2, 3]), 200, progress=False)


def test_a_stack_is_one_checkpoint_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    data = transitions()

    def run(path: Path, *cuts: int) -> dict[str, Tensor]:
        with RunDirectory.create(path) as directory:
            for number, steps in enumerate((*cuts, 60)):
                torch.manual_seed(0)
                stacked, _ = pair("bcq", jointly=True)
                source = StackedSampler(data, 8, [1, 2, 3])
                fit(stacked, source, steps, seed=3, run=directory, resume=number > 0, progress=False, log_every=20)
        return stacked.snapshot()

    whole, cut = run(tmp_path / "whole"), run(tmp_path / "cut", 20, 40)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_one_table_of_candidates_serves_every_seed() -> None:
    data = transitions()
    frozen = DecoderMeans(CVAE(SPEC, CVAEConfig(hidden=(16, 16))).requires_grad_(False).eval())
    cache = CandidateCache(frozen, data, period=100)
    batch = StackedSampler(data, 8, [1, 2, 3]).sample()
    candidates = cache.at_next_obs(batch, 5)
    assert candidates.shape == (5, SEEDS, 8, 2)
    for seed in range(SEEDS):
        assert torch.equal(candidates[:, seed], cache.at_next_obs(row_of(batch, seed), 5))


def test_seeds_that_share_a_frozen_model_start_from_their_own_networks() -> None:
    """Also where the stack draws candidates from a cache that the single agents do not have."""
    chosen = small_choice("bcq", SPEC, jointly=False, proposals="most-likely")
    model = new_model(chosen, SPEC).requires_grad_(False)
    agents = build_agents(chosen, SPEC, (3, 4), model, lambda proposals: CandidateCache(proposals, transitions()))
    for seed, one in agents.each():
        alone = build_agents(chosen, SPEC, (seed,), model, lambda proposals: proposals).algorithm
        assert all(torch.equal(one.state_dict()[name], tensor) for name, tensor in alone.state_dict().items())


def test_models_without_an_axis_for_seeds_say_so() -> None:
    with pytest.raises(ConfigError, match="one seed at a time"):
        MixtureBehavior(SPEC.stacked(2))


# ------------------------------------------------------------------ the command


def test_the_command_trains_scores_and_keeps_every_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train(output: str, *flags: str) -> dict[str, Any]:
        small = ["--steps", "20", "--eval-every", "20", "--eval-episodes", "2", "--log-every", "10", "-q"]
        data = ["--dataset", "offline-vi/pendulum/mixed-v0", "--output", str(tmp_path / output)]
        main(["train", "td3-bc", *data, *small, "--hidden", "8", "8", *flags])
        result: dict[str, Any] = json.loads((tmp_path / output / "result.json").read_text())
        return result

    together = train("together", "--parallel-seeds", "2", "--seed", "4")
    assert list(together["seeds"]) == ["4", "5"]
    for index, own in enumerate(together["seeds"].values()):
        policy = load(tmp_path / "together", index)
        assert isinstance(policy, Algorithm)
        task = Task.from_json(json.loads((tmp_path / "together" / "config.json").read_text())["task"])
        np.testing.assert_array_equal(evaluate(policy, task, 2, 100).returns, own["returns"])
        alone = train(f"alone-{index}", "--seed", str(4 + index), "--steps", "1", "--eval-every", "1")
        first = train(f"first-{index}", "--parallel-seeds", "2", "--seed", "4", "--steps", "1", "--eval-every", "1")
        mine = list(first["seeds"].values())[index]["returns"]
        np.testing.assert_allclose(mine, alone["returns"], rtol=1e-2)  # the same initial weights and first batch
    columns = (tmp_path / "together" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"critic/loss.0", "critic/loss.1"} <= set(columns)
    with pytest.raises(ConfigError, match="no seed number 2"):
        load(tmp_path / "together", 2)
