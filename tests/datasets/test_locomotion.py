"""Data sets of the library's own policies: what is in them is what was done, and the seed says what that is."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco", reason="MuJoCo is not installed")

from offline_vi.behavior import GaussianBehavior
from offline_vi.behavior.pretrained import load_behavior
from offline_vi.datasets import environment, load, locomotion
from offline_vi.datasets.tasks import LEVELS, ROBOTS
from offline_vi.distributions.squashed import log_dtanh
from offline_vi.environments import make_env
from offline_vi.scripts import main

VERSIONS = sorted(folder.name for folder in locomotion.POLICIES.iterdir())
SETS = [(version, robot, level) for version in VERSIONS for robot in ROBOTS for level in LEVELS[version]]
SHIPPED = [
    (version, robot, name)
    for version in VERSIONS
    for robot in ROBOTS
    for name in ("medium", "expert", *locomotion.stages(version, robot, "medium-replay"))
]
SCORES = {"hopper": 3234.3, "halfcheetah": 12135.0, "walker2d": 4592.3}  # D4RL's, of 100


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def made(robot: str, level: str, version: str = "v0", rows: int = 600, seed: int = 0) -> Path:
    return locomotion.collect(f"offline-vi/{robot}/{level}-{version}", rows, seed)


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_same_seed_gives_the_same_file_and_another_one_does_not(robot: str, tmp_path: Path) -> None:
    hashes = []
    for seed in (0, 0, 1):
        folder = made(robot, "medium", seed=seed)
        hashes.append(sha256((folder / "data" / "main_data.hdf5").read_bytes()).hexdigest())
        folder.rename(tmp_path / f"aside-{len(hashes)}")
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(("version", "robot", "level"), SETS)
def test_rows_are_what_the_policies_did(version: str, robot: str, level: str) -> None:
    """Simulated again from the data's own seeds and actions, and scored by the policies' own densities."""
    policies = locomotion.stages(version, robot, level)
    rows_made = 60 * len(policies)
    folder = made(robot, level, version, rows_made)
    data = load(f"offline-vi/{robot}/{level}-{version}")
    assert len(data) == rows_made
    assert data.task is not None
    task = environment(ROBOTS[robot])
    assert (data.task.env_id, data.task.kwargs, data.task.ref_max) == (task.env_id, task.kwargs, SCORES[robot])
    assert not data.terminated[~data.episode_end].any()
    share = rows_made // len(policies)
    for stage, name in enumerate(policies):
        rows = slice(stage * share, (stage + 1) * share)
        policy = locomotion.policy_of(version, robot, name, data.spec.action_dim)
        obs, action = torch.from_numpy(data.obs[rows]), torch.from_numpy(data.action[rows])
        with torch.no_grad():
            expected = policy.log_prob(obs, action).numpy()
        assert data.behavior_log_prob is not None
        np.testing.assert_allclose(data.behavior_log_prob[rows], expected, rtol=1e-4, atol=1e-3)
    env = make_env(task)
    seed = json.loads((folder / "data" / "metadata.json").read_text())  # Minari keeps each episode's seed in the file
    assert seed["total_steps"] == rows_made
    first = data.episode_slices()[0]
    obs, _ = env.reset(seed=minari_seed(folder))
    for row in range(first.stop):
        np.testing.assert_allclose(data.obs[row], obs, rtol=1e-5, atol=1e-6)
        obs, reward, terminated, _, _ = env.step(data.action[row])
        assert data.reward[row] == pytest.approx(reward, rel=1e-5)
        assert data.terminated[row] == terminated
    env.close()


def minari_seed(folder: Path) -> int:
    import h5py

    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        return int(file["episode_0"].attrs["seed"])


@pytest.mark.parametrize(("version", "robot", "name"), SHIPPED)
def test_densities_integrate_to_one(version: str, robot: str, name: str) -> None:
    """In a state that the policy meets, over a grid of u, the action before the tanh. Of more than three actions over
    three at a time: the others stand still, where the density of a mean-field policy is a known factor."""
    task = environment(ROBOTS[robot])
    policy = load_behavior(locomotion.POLICIES / version / robot / name)
    assert isinstance(policy, GaussianBehavior)
    env = make_env(task)
    obs = torch.from_numpy(env.reset(seed=0)[0][None].astype(np.float32))
    env.close()
    normal = policy.distribution(obs).base  # says where the mass is, and nothing else
    line = torch.linspace(-5.0, 5.0, 31)
    grid = torch.cartesian_prod(line, line, line)
    for first in range(0, len(task.action_low), 3):
        moved = torch.zeros(len(grid), len(task.action_low))
        moved[:, first : first + 3] = grid
        u = normal.loc + normal.stddev * moved
        still = np.prod([2.5066282746 * float(s) for d, s in enumerate(normal.stddev[0]) if not first <= d < first + 3])
        with torch.no_grad():
            log_prob = policy.log_prob(obs.expand(len(u), -1), torch.tanh(u)) + log_dtanh(u).sum(-1)
        cell = (normal.stddev[0, first : first + 3] * (line[1] - line[0])).prod()
        assert float(log_prob.double().exp().sum() * cell) * still == pytest.approx(1.0, abs=3e-3)


def test_policies_are_small() -> None:
    files = [*locomotion.POLICIES.rglob("*.safetensors")]
    assert {file.parent.relative_to(locomotion.POLICIES).parts for file in files} == set(SHIPPED)
    assert set(VERSIONS) == set(LEVELS)  # a recipe in the list has its policies
    assert max(file.stat().st_size for file in files) <= 300_000


def test_the_command_collects_as_many_rows_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "collect", "offline-vi/hopper/random-v0", "--rows", "200", "--seed", "3"])
    data = load("offline-vi/hopper/random-v0")
    assert len(data) == 200
    assert data.behavior_log_prob is not None
    np.testing.assert_allclose(data.behavior_log_prob, -3.0 * np.log(2.0), rtol=1e-6)
