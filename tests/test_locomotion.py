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
from offline_vi.datasets import environment, load, locomotion
from offline_vi.distributions import log_dtanh
from offline_vi.evaluation import make_env
from offline_vi.scripts import main
from offline_vi.share import load_behavior

SHIPPED = sorted({name for names in locomotion.LEVELS.values() for name in names if name})


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def made(level: str, rows: int = 600, seed: int = 0) -> Path:
    return locomotion.collect(f"offline-vi/hopper/{level}-v0", rows, seed)


def test_the_same_seed_gives_the_same_file_and_another_one_does_not(tmp_path: Path) -> None:
    hashes = []
    for seed in (0, 0, 1):
        folder = made("medium", seed=seed)
        hashes.append(sha256((folder / "data" / "main_data.hdf5").read_bytes()).hexdigest())
        folder.rename(tmp_path / f"aside-{len(hashes)}")
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("level", locomotion.LEVELS)
def test_rows_are_what_the_policies_did(level: str) -> None:
    """Simulated again from the data's own seeds and actions, and scored by the policies' own densities."""
    policies = locomotion.LEVELS[level]
    folder = made(level)
    data = load(f"offline-vi/hopper/{level}-v0")
    assert len(data) == 600
    assert data.task is not None
    assert (data.task.env_id, data.task.ref_max) == ("Hopper-v5", 3234.3)
    assert not data.terminated[~data.episode_end].any()
    share = 600 // len(policies)
    for stage, name in enumerate(policies):
        rows = slice(stage * share, (stage + 1) * share)
        policy = locomotion.policy_of("hopper", name, 3)
        obs, action = torch.from_numpy(data.obs[rows]), torch.from_numpy(data.action[rows])
        with torch.no_grad():
            expected = policy.log_prob(obs, action).numpy()
        assert data.behavior_log_prob is not None
        np.testing.assert_allclose(data.behavior_log_prob[rows], expected, rtol=1e-4, atol=1e-3)
    env = make_env(environment("Hopper-v5"))
    seed = json.loads((folder / "data" / "metadata.json").read_text())  # Minari keeps each episode's seed in the file
    assert seed["total_steps"] == 600
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


@pytest.mark.parametrize("name", SHIPPED)
def test_densities_integrate_to_one(name: str) -> None:
    """Over the box of three actions, in a state that the policy meets: a grid of u, the action before the tanh."""
    policy = load_behavior(locomotion.POLICIES / "hopper" / name)
    assert isinstance(policy, GaussianBehavior)
    env = make_env(environment("Hopper-v5"))
    obs = torch.from_numpy(env.reset(seed=0)[0][None].astype(np.float32))
    env.close()
    normal = policy.distribution(obs).base  # says where the mass is, and nothing else
    line = torch.linspace(-5.0, 5.0, 31)
    u = normal.loc + normal.stddev * torch.cartesian_prod(line, line, line)
    with torch.no_grad():
        log_prob = policy.log_prob(obs.expand(len(u), -1), torch.tanh(u)) + log_dtanh(u).sum(-1)
        cell = (normal.stddev * (line[1] - line[0])).prod()
        assert float(log_prob.double().exp().sum() * cell) == pytest.approx(1.0, abs=2e-3)


def test_policies_are_small() -> None:
    files = [*locomotion.POLICIES.rglob("*.safetensors")]
    assert {file.parent.name for file in files} >= set(SHIPPED)
    assert max(file.stat().st_size for file in files) <= 300_000


def test_the_command_collects_as_many_rows_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "collect", "offline-vi/hopper/random-v0", "--rows", "200", "--seed", "3"])
    data = load("offline-vi/hopper/random-v0")
    assert len(data) == 200
    assert data.behavior_log_prob is not None
    np.testing.assert_allclose(data.behavior_log_prob, -3.0 * np.log(2.0), rtol=1e-6)
