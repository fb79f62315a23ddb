"""Every verb on runs that normalize observations or change rewards: nothing that a policy can do gets lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TINY, run
from small_data import pendulum
from test_cli import TINY_BCQ, config_of

import offline_vi
from offline_vi import datasets
from offline_vi.algorithms.sac import SAC
from offline_vi.behavior import GaussianBehavior
from offline_vi.behavior.pretrained import load_behavior
from offline_vi.rl.algorithm import find_capability, normalizer_of
from offline_vi.rl.policies import q_value
from offline_vi.scripts import main

PENDULUM = ["--env", "Pendulum-v1"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return pendulum(tmp_path / "pendulum.hdf5")


@pytest.mark.parametrize("flags", [["--normalize"], ["--reward-scale", "10", "--reward-shift", "-1"]])
def test_a_run_with_preprocessing_is_swept(
    flags: list[str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    train = ["--dataset", data, *PENDULUM, *TINY_BCQ, *flags, "--output", str(output)]
    assert run(["train", "bcq", *train], capsys)[0] == 0
    axes = ["--candidates", "1", "3", "--phi", "0", "--noise-clip", "inf", "--temperature", "0", "inf", "-q"]
    code, out, _ = run(["sweep-inference", str(output), "--episodes", "1", "--json", *axes], capsys)
    assert code == 0
    rows = {row["axis"]: row for row in json.loads(out)["rows"]}
    assert rows["cloning"]["scores"] == rows["direct cloning"]["scores"]
    assert rows["greedy"]["scores"] == rows["direct greedy"]["scores"]
    assert {"candidates", "phi", "noise_clip", "temperature"} <= rows.keys()
    assert (rows["greedy"]["num_candidates"], rows["greedy"]["phi"], rows["greedy"]["noise_clip"]) == (100, 0.05, 0.5)


def test_a_sweep_has_the_axes_of_its_algorithm(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """EMaQ on full samples moves nothing and clips no noise."""
    output = tmp_path / "run"
    train = ["--dataset", data, *PENDULUM, *TINY_BCQ, "--behavior", "gaussian", "--output", str(output)]
    assert run(["train", "emaq", *train], capsys)[0] == 0
    flags = ["--episodes", "1", "--json", "--candidates", "2", "--temperature", "0", "-q"]
    code, out, _ = run(["sweep-inference", str(output), *flags], capsys)
    assert code == 0
    rows = json.loads(out)["rows"]
    assert {row["axis"] for row in rows} == {
        "cloning",
        "candidates",
        "temperature",
        "greedy",
        "direct cloning",
        "direct greedy",
    }
    assert all(row["phi"] is row["noise_clip"] is None for row in rows)


@pytest.mark.parametrize("flags", [["--normalize"], ["--bonus", "vime", "--vime.features", "10"]])
def test_policies_are_kept_whatever_wraps_them_and_with_their_normalizer(flags: list[str], tmp_path: Path) -> None:
    small = ["--steps", "20", "--eval-every", "10", "--eval-episodes", "1", "--warmup", "8", "--hidden", "8", "-q"]
    path = tmp_path / "run"
    main(["train-online", "sac", *PENDULUM, *small, *flags, "--keep-policies", "--output", str(path)])
    kept = load_behavior(path / "policies" / "step_00000020")
    trained = find_capability(offline_vi.load(path), SAC)
    assert isinstance(kept, GaussianBehavior) and trained is not None
    obs = 3.0 * torch.randn(5, 3)
    assert torch.equal(kept.distribution(obs).mode, trained.act(obs))
    assert (kept.inputs.std != 1.0).any().item() == ("--normalize" in flags)


def test_a_fitted_model_is_shared_with_a_normalized_run_guarded_and_drawn_ahead_from(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = tmp_path / "model", tmp_path / "run"
    fit = ["--steps", "20", "--log-every", "10", "--hidden", "8", "-q", "--output", str(model)]
    assert run(["fit-behavior", "gaussian", "--dataset", data, *PENDULUM, *fit], capsys)[0] == 0
    train = ["--dataset", data, *PENDULUM, *TINY, "--hidden", "8", "--batch-size", "16", "--normalize"]
    train += ["--behavior-from", str(model), "--bank-period", "100", "--output", str(output)]
    assert run(["train", "bcq", *train, "--proposals", "decoder-means"], capsys)[0] == 0
    policy: Any = offline_vi.load(output)
    rows = datasets.load(data, env="Pendulum-v1").obs
    np.testing.assert_allclose(normalizer_of(policy).std, rows.std(0), rtol=1e-5)
    fitted = load_behavior(model).state_dict()
    for name, tensor in policy.proposals.proposals.model.state_dict().items():
        assert torch.equal(tensor, fitted[name]), name  # and so it is of raw observations
    result = json.loads((output / "result.json").read_text())
    assert set(result["support"]) == {"0.001", "0.01", "0.05", "0.5"}
    guard = ["evaluate", str(output), "--episodes", "1", "--json", "-q", "--guard", "0.5"]
    code, out, _ = run(guard, capsys)
    assert code == 0
    assert json.loads(out)["guard"]["threshold"] == result["support"]["0.5"]


def test_rewards_are_shifted_after_they_were_scaled_and_fine_tuning_goes_on_with_them(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", data, *PENDULUM, *TINY, "--hidden", "8", "--batch-size", "16"]
    start, tuned = tmp_path / "start", tmp_path / "tuned"
    own = ["--reward-scale", "2", "--reward-shift", "-1"]
    assert run(["train", "iql", *flags, *own, "--output", str(start)], capsys)[0] == 0
    data_record = config_of(start)["data"]
    assert (data_record["reward_scale"], data_record["reward_shift"]) == (2.0, -1.0)
    tune = ["--steps", "10", "--warmup", "8", "--eval-every", "10", "--eval-episodes", "1", "-q"]
    assert run(["finetune", str(start), *tune, "--output", str(tuned)], capsys)[0] == 0
    assert config_of(tuned)["data"]["reward_shift"] == -1.0
    again = ["train", "--config", str(start / "config.json"), "--output", str(tmp_path / "again")]
    assert run(again, capsys)[0] == 0
    assert (tmp_path / "again" / "metrics.csv").read_bytes() == (start / "metrics.csv").read_bytes()
    for wrong in ("nan", "inf"):
        code, _, error = run(
            ["train", "iql", *flags, f"--reward-shift={wrong}", "--output", str(tmp_path / "x")], capsys
        )
        assert (code, wrong in error) == (78, True)
    assert not (tmp_path / "x").exists()


def test_scores_and_reported_q_stay_in_the_environments_units(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Terminal rows of constant reward 3: Q is 3 for any policy, whatever the rewards are made of."""

    def change(columns: dict[str, Any]) -> None:
        columns["rewards"][:] = 3.0
        columns["terminals"][:] = True

    constant = pendulum(tmp_path / "constant.hdf5", change)
    flags = ["--dataset", constant, *PENDULUM, "--hidden", "16", "--batch-size", "64", "--lr", "0.01"]
    flags += ["--steps", "400", "--eval-every", "400", "--eval-episodes", "1", "-q"]
    flags += ["--reward-scale", "0.5", "--reward-shift", "2"]
    output = tmp_path / "run"
    assert run(["train", "iql", *flags, "--output", str(output)], capsys)[0] == 0
    policy: Any = offline_vi.load(output)
    rows = datasets.load(constant, env="Pendulum-v1")
    learned = q_value(policy, torch.from_numpy(rows.obs), torch.from_numpy(rows.action)).mean().item()
    assert learned == pytest.approx(3.5, abs=0.1)  # 0.5 * 3 + 2: the learner's own units
    row = dict(zip(*(line.split(",") for line in (output / "support.csv").read_text().splitlines()), strict=True))
    steps = np.loadtxt((output / "episodes.csv"), delimiter=",", skiprows=1, usecols=3)
    total = (1.0 - 0.99**steps) / 0.01
    assert float(row["q/return"]) < 0.0  # Pendulum's own
    assert float(row["q/start"]) == pytest.approx((3.5 - 2.0 * total) / 0.5, rel=0.02)
