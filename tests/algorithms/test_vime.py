"""VIME: what the bonus is, that it is never stored, and that it finds a goal which noise does not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from offline_vi import datasets
from offline_vi.algorithms.sac import SAC, SACConfig
from offline_vi.algorithms.vime import VIME, VIMEConfig, normalizer_of_pairs
from offline_vi.data.transitions import Transitions
from offline_vi.datasets import minari, recipes
from offline_vi.errors import UsageError
from offline_vi.rl.algorithm import Algorithm, OnlineAlgorithm, find_capability, normalizer_of
from offline_vi.scripts import main
from offline_vi.training.collector import Collection, Collector
from offline_vi.training.online import fit_online
from offline_vi.training.randomness import seeds, set_seed, torch_seed
from offline_vi.types import Batch, Metrics, Spec, Task

SPEC = Spec((2,), 1)


class Recorder(OnlineAlgorithm):
    """Keeps the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size, self.batches = 4, list[Batch]()

    def update(self, batch: Batch) -> Metrics:
        self.batches.append(batch)
        return {"recorder/reward": batch.reward.mean()}

    def explore(self, obs: Tensor) -> Tensor:
        return torch.full((len(obs), 1), 0.25)

    def act(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), 1)


def batch(index: list[int], seed: int = 0) -> Batch:
    """Rows of a fixed table of 50."""
    rng = np.random.default_rng(seed)
    table = torch.from_numpy(rng.normal(size=(50, 5))).float()
    rows, places = table[index], torch.tensor(index)
    zero = torch.zeros(len(index))
    return Batch(rows[:, :2], rows[:, 2:3].tanh(), zero + 7.0, rows[:, 3:], zero, places)


def gain_by_hand(wrapper: VIME, rows: Batch, learnt: Batch) -> np.ndarray:
    """log(1 + k / s2) for two outputs, from the features and a full matrix of the distinct rows."""
    belief: Any = wrapper.belief

    def features(rows: Batch) -> np.ndarray:
        x = torch.cat([rows.obs, rows.action], -1)
        values: np.ndarray = belief.model.features(wrapper.standardizer(x)).double().numpy()
        return values

    f = features(learnt)
    covariance = np.linalg.inv(np.eye(f.shape[1]) + f.T @ f / wrapper.config.noise)
    g = features(rows)
    gain: np.ndarray = np.log1p(np.einsum("bi,ij,bj->b", g, covariance, g) / wrapper.config.noise)
    return gain


def test_the_bonus_is_the_gain_of_what_was_learnt_once_in_units_of_its_median() -> None:
    agent = Recorder()
    wrapper = VIME(agent, SPEC, VIMEConfig(eta=0.5, features=20, capacity=50))
    wrapper.update(batch([3, 3, 8, 8]))  # equal rows count once
    wrapper.update(batch([8, 3, 11, 3]))  # and never again
    given, plain = agent.batches[-1], batch([8, 3, 11, 3])
    gain = gain_by_hand(wrapper, plain, batch([3, 8, 11]))
    first = np.median(gain_by_hand(wrapper, batch([3, 3, 8, 8]), batch([3, 8]))[[0, 2]])
    low = np.sort(gain_by_hand(wrapper, batch([3, 3, 8, 8]), batch([3, 8])))[1]  # torch's median is the lower one
    assert low <= first
    median = 0.99 * low + 0.01 * np.sort(gain)[1]
    np.testing.assert_allclose(given.reward.numpy(), 7.0 + 0.5 * gain / median, rtol=1e-5)
    for ours, theirs in zip(given._replace(reward=plain.reward), plain, strict=True):
        torch.testing.assert_close(ours, theirs)  # nothing else is touched


def test_the_bonus_is_computed_anew_for_every_batch() -> None:
    """A row pays less once others like it were seen, although it lay in the buffer before."""
    agent = Recorder()
    wrapper = VIME(agent, SPEC, VIMEConfig(features=20, capacity=50))
    wrapper.update(batch([0, 1]))
    before = wrapper.belief.gain(wrapper.standardized(batch([0, 1]))[0])
    wrapper.update(batch(list(range(2, 50))))
    after = wrapper.belief.gain(wrapper.standardized(batch([0, 1]))[0])
    assert (after < before).all()


@pytest.mark.parametrize("belief", ["conjugate", "mean-field"])
def test_a_snapshot_is_the_whole_wrapper(belief: str) -> None:
    config = VIMEConfig(belief=belief, features=20, capacity=50)
    sac = SACConfig(hidden=(8, 8), batch_size=8)
    first, second = (VIME(SAC(SPEC, sac), SPEC, config) for _ in range(2))
    first.update(batch([1, 2, 3, 4]))
    second.restore(first.snapshot())
    for wrapper in (first, second):
        torch.manual_seed(3)
        wrapper.update(batch([3, 4, 5, 6]))
    ours, theirs = first.snapshot(), second.snapshot()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    explorer = find_capability(first, OnlineAlgorithm)
    assert explorer is first.algorithm
    assert explorer.explore(torch.zeros(5, 2)).shape == first.act(torch.zeros(5, 2)).shape == (5, 1)


def test_the_mean_field_belief_learns_the_dynamics_and_its_gain_falls() -> None:
    """y = a linear map of x: where 400 rows were seen, one more teaches less than half of what it does far away."""
    wrapper = VIME(Recorder(), SPEC, VIMEConfig(belief="mean-field", capacity=400))
    obs, action, zero = torch.randn(400, 2), torch.rand(400, 1) * 2.0 - 1.0, torch.zeros(400)
    whole = Batch(obs, action, zero, 0.5 * obs, zero, torch.arange(400))
    for _ in range(600):
        metrics = wrapper.update(whole)
    assert all(value.isfinite() for value in metrics.values())
    x, _ = wrapper.standardized(whole)
    assert wrapper.belief.gain(x).mean() < 0.5 * wrapper.belief.gain(6.0 * x).mean()


# ------------------------------------------------------------------ E7: a car in a valley

CAR = Task("MountainCarContinuous-v0", (-1.0,), (1.0,))
LOW, HIGH = np.array([-1.2, -0.07]), np.array([0.6, 0.07])  # of the observation space


def car_agent(seed: int, bonus: VIMEConfig | None) -> Algorithm:
    """SAC as the specification has it, on observations in units of their box, with or without a bonus."""
    set_seed(seed)
    config = SACConfig(temperature=0.02, temperature_rate=0.0, lr=1e-3, tau=0.01, hidden=(64, 64), batch_size=128)
    mean, std = 0.5 * (LOW + HIGH), (HIGH - LOW) / math.sqrt(12.0)
    agent, pairs = SAC(SPEC, config), normalizer_of_pairs(SPEC)
    for normalizer in (agent.inputs, pairs):
        normalizer.mean[:2] = torch.from_numpy(mean)
        normalizer.std[:] = torch.tensor([*std, 1.0 / math.sqrt(3.0)])[: len(normalizer.std)]
    return agent if bonus is None else VIME(agent, SPEC, bonus, pairs)


def first_goal(agent: Algorithm, steps: int, seed: int) -> int | None:
    """Steps in the environment until the goal; None where it is not reached."""
    explorer = find_capability(agent, OnlineAlgorithm)
    assert explorer is not None
    collector = Collector(explorer, CAR, SPEC, 128, Collection(warmup=200), seed=seeds(seed)["batches"])
    torch.manual_seed(torch_seed(seeds(seed)["noise"]))
    while collector.replay.count < steps:
        agent.update(collector.sample())
        if collector.replay.tensors()["terminated"].any():
            return collector.replay.count
    return None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_information_gain_finds_the_goal_that_noise_does_not() -> None:
    """E7: within 5,000 steps on five seeds of five with the bonus; without it, not in 4,000."""
    bonus = VIMEConfig(capacity=5_000)
    found = [first_goal(car_agent(seed, bonus), 5_000, seed) for seed in range(5)]
    assert all(steps is not None for steps in found), found
    assert [first_goal(car_agent(seed, None), 4_000, seed) for seed in range(5)] == [None] * 5


def test_the_goal_is_found_in_one_seed() -> None:
    assert first_goal(car_agent(4, VIMEConfig(capacity=5_000)), 1_500, 4) is not None


@pytest.mark.slow
def test_white_noise_hardly_ever_reaches_the_goal() -> None:
    """N(0, 0.3): at most 2 of 200 episodes; gymnasium's dynamics, all episodes side by side."""
    rng = np.random.default_rng(0)
    place, speed = rng.uniform(-0.6, -0.4, 200), np.zeros(200)
    reached = np.zeros(200, np.bool_)
    for _ in range(999):
        force = np.clip(0.3 * rng.standard_normal(200), -1.0, 1.0)
        speed = np.clip(speed + 0.0015 * force - 0.0025 * np.cos(3.0 * place), -0.07, 0.07)
        place = np.clip(place + speed, -1.2, 0.6)
        speed = np.where((place == -1.2) & (speed < 0.0), 0.0, speed)
        reached |= place >= 0.45
    assert reached.sum() <= 2


# ------------------------------------------------------------------ the command, and the data that it leaves


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path


def test_the_command_explores_and_writes_what_it_saw(root: Path) -> None:
    run = root / "run"
    flags = "--steps 30 --warmup 20 --normalize --bonus vime --vime.features 10 --eval-episodes 1 --hidden 8"
    command = [
        "train-online",
        "sac",
        "--env",
        "MountainCarContinuous-v0",
        *flags.split(),
        "--batch-size",
        "8",
        "--output",
        str(run),
        "-q",
    ]
    main([*command, "--write", "own/valley-v0"])
    assert (run / "exploration.png").stat().st_size > 0
    with (run / "metrics.csv").open() as file:
        assert "vime/gain" in file.readline()
    data = datasets.load("own/valley-v0", next_obs="within_episode")
    assert len(data) == 50
    assert data.task is not None and data.task.env_id == "MountainCarContinuous-v0"
    policy: Any = __import__("offline_vi").load(run)
    assert isinstance(policy, VIME) and policy.act(torch.zeros(3, 2)).shape == (3, 1)
    assert policy.standardizer.std[1].item() == pytest.approx(0.14 / math.sqrt(12.0))  # the box, not what was seen
    assert normalizer_of(policy).std[1].item() == pytest.approx(0.14 / math.sqrt(12.0))
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--overwrite", "--write", "own/valley-v0"])
    assert exit_info.value.code == 2


def test_what_was_collected_is_what_minari_gives_back(root: Path) -> None:
    agent = Recorder()
    _, collected = fit_online(agent, CAR, SPEC, 1_300, warmup=5, progress=False)
    recipes.save("own/car-v0", collected, "for a test")
    read = datasets.load("own/car-v0", next_obs="within_episode")
    collected.episode_end[-1] = True  # a data set has no running episode
    for name in ("obs", "action", "reward", "next_obs", "terminated", "episode_end"):
        np.testing.assert_array_equal(getattr(read, name), getattr(collected, name), err_msg=name)
    assert isinstance(read, Transitions) and len(read.episode_slices()) == 2
    assert minari.is_local("own/car-v0")
    with pytest.raises(UsageError, match="exists"):
        recipes.save("own/car-v0", collected, "again")
