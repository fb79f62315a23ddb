"""The policy that made a data set, read from its file: against the densities stored beside it, and refused when odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import real_data
from scipy import stats

from offline_vi.datasets.policy import TanhGaussianPolicy, read_policy, share_off_support, support_threshold
from offline_vi.errors import (
    DatasetFormatError,
    DatasetTooLargeError,
    MissingInputError,
    NonFiniteDataError,
    UnsafeDatasetError,
)

LAYOUT = "hopper-medium-v2-layout.hdf5"


def weights(rng: np.random.Generator) -> dict[str, Any]:
    """A policy of 3-d observations and 2-d actions in D4RL's layout."""
    sizes = {"fc0": (6, 3), "fc1": (5, 6), "last_fc": (2, 5), "last_fc_log_std": (2, 5)}
    found: dict[str, Any] = {"nonlinearity": np.bytes_("relu"), "output_distribution": np.bytes_("tanh_gaussian")}
    for name, shape in sizes.items():
        found[f"{name}/weight"] = 0.5 * rng.standard_normal(shape).astype(np.float32)
        found[f"{name}/bias"] = 0.5 * rng.standard_normal(shape[:1]).astype(np.float32)
    return found


def write(path: Path, group: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        file["metadata/algorithm"] = np.bytes_("SAC")
        for key, value in group.items():
            file[f"metadata/policy/{key}"] = value
    return path


@pytest.fixture
def policy(tmp_path: Path) -> TanhGaussianPolicy:
    return read_policy(write(tmp_path / "made.hdf5", weights(np.random.default_rng(0))))


def test_the_stored_log_probabilities_are_recomputed() -> None:
    path = real_data(LAYOUT)
    policy = read_policy(path)
    with h5py.File(path) as file:
        obs, action, stored = (file[key][()] for key in ("observations", "actions", "infos/action_log_probs"))
    assert (policy.obs_dim, policy.action_dim) == (11, 3)
    error = np.abs(policy.log_prob(obs, action) - stored)
    inside = np.abs(action).max(-1) < 0.9999  # nearer to 1 a float32 does not tell the action before the tanh
    assert inside.mean() > 0.98
    assert error[inside].max() < 1e-3
    assert np.median(error) < 1e-5


def test_the_policys_own_samples_lie_on_its_support_and_others_do_not() -> None:
    path = real_data(LAYOUT)
    policy = read_policy(path)
    with h5py.File(path) as file:
        obs, action = file["observations"][()], file["actions"][()]
    threshold = support_threshold(policy, obs, action)
    assert share_off_support(policy, obs, action, threshold) == pytest.approx(0.01, abs=1e-3)
    assert share_off_support(policy, obs, policy.sample(obs, 4), threshold) == pytest.approx(0.01, abs=0.004)
    shuffled = np.random.default_rng(0).permutation(action)
    assert share_off_support(policy, obs, shuffled, threshold) > 0.5


def test_the_density_is_that_of_a_tanh_of_a_normal(policy: TanhGaussianPolicy) -> None:
    rng = np.random.default_rng(1)
    obs, action = rng.standard_normal((4, 3)), rng.uniform(-0.99, 0.99, (7, 4, 2))
    mean, log_std = policy.parameters_of(obs)
    expected = stats.norm(mean, np.exp(log_std)).logpdf(np.arctanh(action)) - np.log1p(-(action**2))
    np.testing.assert_allclose(policy.log_prob(obs, action), expected.sum(-1), rtol=1e-12, atol=1e-12)


def test_the_network_is_the_one_in_the_file(tmp_path: Path) -> None:
    made = weights(np.random.default_rng(0))
    policy = read_policy(write(tmp_path / "made.hdf5", made))
    obs = np.random.default_rng(2).standard_normal((4, 3))
    h = obs
    for name in ("fc0", "fc1"):
        h = np.maximum(np.einsum("oi,bi->bo", made[f"{name}/weight"].astype(float), h) + made[f"{name}/bias"], 0.0)
    mean, log_std = policy.parameters_of(obs)
    np.testing.assert_allclose(mean, h @ made["last_fc/weight"].T + made["last_fc/bias"])
    raw = h @ made["last_fc_log_std/weight"].T + made["last_fc_log_std/bias"]
    np.testing.assert_allclose(log_std, np.clip(raw, -20.0, 2.0))
    assert raw.max() > 2.0  # so that the clamp is seen


def test_samples_follow_the_density_and_the_seed(policy: TanhGaussianPolicy) -> None:
    obs = 0.1 * np.random.default_rng(3).standard_normal((2, 3))
    samples = policy.sample(obs, 20_000, seed=1)
    assert samples.shape == (20_000, 2, 2)
    mean, log_std = policy.parameters_of(obs)
    u = np.arctanh(samples)
    np.testing.assert_allclose(u.mean(0), mean, atol=5 * np.exp(log_std).max() / np.sqrt(20_000))
    np.testing.assert_allclose(u.std(0), np.exp(log_std), rtol=0.03)
    np.testing.assert_array_equal(samples, policy.sample(obs, 20_000, seed=1))
    assert not np.array_equal(samples, policy.sample(obs, 20_000, seed=2))


def test_actions_on_the_border_have_a_finite_density(policy: TanhGaussianPolicy) -> None:
    obs, corners = np.zeros((4, 3)), np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 0.0], [-1.0, -1.0]], np.float32)
    assert np.isfinite(policy.log_prob(obs, corners)).all()


def test_a_file_without_a_policy_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="does not hold the policy"):
        read_policy(write(tmp_path / "none.hdf5", {}))
    with pytest.raises(MissingInputError, match="not there"):
        read_policy(tmp_path / "absent.hdf5")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"nonlinearity": np.bytes_("tanh")}, "nonlinearity is 'tanh'"),
        ({"output_distribution": np.bytes_("gaussian")}, "output_distribution is 'gaussian'"),
        ({"nonlinearity": np.float32(1.0)}, "not a name"),
        ({"nonlinearity": np.bytes_("x" * 65)}, "not a name"),
        ({"nonlinearity": "relu"}, "not a name"),  # a string of variable length
        ({"nonlinearity": None}, "'metadata/policy/nonlinearity' is missing"),
        ({"last_fc/bias": None}, "'metadata/policy/last_fc/bias' is missing"),
        ({"last_fc/weight": None, "last_fc/bias": None}, "'metadata/policy/last_fc/weight' is missing"),
        ({"fc1/weight": np.zeros((5, 7), np.float32)}, "fc1' takes 7 inputs and is given 6"),
        ({"last_fc/weight": np.zeros((2, 4), np.float32)}, "last_fc' takes 4 inputs and is given 5"),
        ({"fc0/bias": np.zeros(3, np.float32)}, "a bias of shape \\(3,\\)"),
        ({"last_fc_log_std/weight": np.zeros((2, 4), np.float32)}, "its log-scale \\(2, 4\\)"),
        ({"fc0/weight": np.full((6, 3), b"a")}, "not numbers"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    group = {key: value for key, value in {**weights(np.random.default_rng(0)), **change}.items() if value is not None}
    with pytest.raises(DatasetFormatError, match=message):
        read_policy(write(tmp_path / "odd.hdf5", group))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    group = weights(np.random.default_rng(0)) | {"fc0/bias": np.full(6, np.nan, np.float32)}
    with pytest.raises(NonFiniteDataError, match="fc0/bias"):
        read_policy(write(tmp_path / "nan.hdf5", group))


def test_the_guard_of_data_files_holds_for_policies(tmp_path: Path) -> None:
    path = write(tmp_path / "linked.hdf5", weights(np.random.default_rng(0)))
    with h5py.File(path, "a") as file:
        file["metadata/policy/fc2"] = h5py.ExternalLink("elsewhere.hdf5", "/fc2")
    with pytest.raises(UnsafeDatasetError, match="link"):
        read_policy(path)
    path = write(tmp_path / "large.hdf5", weights(np.random.default_rng(0)))
    with pytest.raises(DatasetTooLargeError):
        read_policy(path, max_bytes=100)
