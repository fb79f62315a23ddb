"""A run keeps the action map that it was trained with, whichever environment it is scored or goes on in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces

import offline_vi as ovi
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.errors import ActionRangeError, MissingDependencyError, SpaceMismatchError, UsageError
from offline_vi.scripts import as_flags, main
from offline_vi.study.scoring import ScoringOptions, score_run
from offline_vi.types import Spec, Task

STEPS = 5


class Follow(gymnasium.Env[Any, Any]):
    """The best command is the observation itself; the box is wider. Reward -|command - observation|."""

    def __init__(self, bound: float = 3.0) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-bound, bound, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32)
        return self.at.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = -float(np.abs(np.asarray(action, np.float64) - self.at).sum())
        self.at = self.np_random.uniform(-1.0, 1.0, 1).astype(np.float32)
        return self.at.copy(), reward, False, False, {}


FOLLOW, HALF = "offline_vi_tests/Follow-v0", "offline_vi_tests/FollowHalf-v0"
gymnasium.register(FOLLOW, Follow, max_episode_steps=STEPS)  # type: ignore[arg-type]
gymnasium.register(HALF, Follow, max_episode_steps=STEPS, kwargs={"bound": 0.5})  # type: ignore[arg-type]
SMALL = ["--steps", "4", "--eval-every", "0", "--eval-episodes", "1", "--hidden", "8", "--batch-size", "8", "-q"]


def write(path: Path, bound: float = 1.0) -> str:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = rng.uniform(-1, 1, (200, 1)).astype(np.float32)
        file["actions"] = rng.uniform(-bound, bound, (200, 1)).astype(np.float32)
        file["rewards"], file["terminals"] = rng.normal(size=200), np.zeros(200, bool)
        file["timeouts"] = np.arange(1, 201) % 20 == 0
    return str(path)


def trained(path: Path, dataset: str, *options: str) -> Path:
    main(["train", "td3-bc", "--dataset", dataset, "--output", str(path), *SMALL, *options])
    return path


def returns_by_hand(run: Path, low: float, high: float, bound: float, episodes: int, seed: int) -> list[float]:
    """Of the run's policy, whose -1 and +1 are commands ``low`` and ``high``, in a box of +-``bound``."""
    policy: Any = ovi.load(run)
    found = []
    for episode in range(episodes):
        env = Follow(bound)
        obs, total = env.reset(seed=seed + episode)[0], 0.0
        for _ in range(STEPS):
            action = policy.act(torch.from_numpy(np.repeat(obs[None], 10, 0)))[0].numpy().astype(float)
            obs, reward, *_ = env.step(np.clip(low + 0.5 * (action + 1.0) * (high - low), -bound, bound))
            total += reward
        found.append(total)
    return found


def config_of(run: Path) -> Any:
    return json.loads((run / "config.json").read_text())


@pytest.mark.parametrize("env, bound", [(FOLLOW, 3.0), (HALF, 0.5)])
def test_a_run_without_an_environment_was_trained_in_its_own_units(env: str, bound: float, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", write(tmp_path / "a.hdf5"))
    assert config_of(run)["task"] is None
    score = score_run(run, ScoringOptions(env=env, episodes=3, seed=7))
    np.testing.assert_allclose(score.evaluation.returns, returns_by_hand(run, -1.0, 1.0, bound, 3, 7), rtol=1e-5)
    task = ovi.load_task(run, env)
    assert (task.env_id, task.action_low, task.action_high) == (env, (-1.0,), (1.0,))
    by_python = ovi.evaluate(ovi.load(run), task, 3, 7)  # type: ignore[arg-type]
    np.testing.assert_array_equal(by_python.returns, score.evaluation.returns)
    nowhere = ovi.load_task(run)
    assert (nowhere.env_id, nowhere.action_low, nowhere.action_high) == ("", (-1.0,), (1.0,))
    with pytest.raises(UsageError):
        ovi.evaluate(ovi.load(run), nowhere)  # type: ignore[arg-type]


def test_a_run_with_bounds_keeps_them(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", write(tmp_path / "a.hdf5", 2.0), "--action-low", "-2", "--action-high", "2")
    assert ovi.load_task(run).to_env(np.array([[-1.0], [0.5]], np.float32)).tolist() == [[-2.0], [1.0]]
    for env, bound in ((FOLLOW, 3.0), (HALF, 0.5)):
        score = score_run(run, ScoringOptions(env=env, episodes=2, seed=3))
        np.testing.assert_allclose(score.evaluation.returns, returns_by_hand(run, -2.0, 2.0, bound, 2, 3), rtol=1e-5)


def test_fine_tuning_keeps_the_map(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", write(tmp_path / "a.hdf5"))
    tuned = ["--steps", "3", "--warmup", "5", "--eval-every", "0", "--eval-episodes", "2", "--eval-seed", "5", "-q"]
    main(["finetune", str(run), "--env", FOLLOW, "--output", str(tmp_path / "tuned"), *tuned])
    config = config_of(tmp_path / "tuned")
    assert (config["task"]["env_id"], config["task"]["action_high"]) == (FOLLOW, [1.0])
    assert config["data"]["fingerprint"] == config_of(run)["data"]["fingerprint"], "the data are in the same units"
    lines = (tmp_path / "tuned" / "episodes.csv").read_text().splitlines()
    at = lines[0].split(",").index("return")
    first = [float(line.split(",")[at]) for line in lines[1:] if line.startswith("0,")]
    np.testing.assert_allclose(first, returns_by_hand(run, -1.0, 1.0, 3.0, 2, 5), rtol=1e-5)
    main(["finetune", str(tmp_path / "tuned"), "--output", str(tmp_path / "half"), "--env", HALF, *tuned])
    main(["finetune", str(tmp_path / "half"), "--output", str(tmp_path / "again"), *tuned])
    main(["finetune", str(tmp_path / "half"), "--output", str(tmp_path / "again"), *tuned, "--resume"])
    again = config_of(tmp_path / "again")
    assert again["task"] == {**config["task"], "env_id": HALF}
    assert again["data"]["fingerprint"] == config["data"]["fingerprint"]


def test_a_run_of_python_goes_on_with_data_in_the_environment_s_units(tmp_path: Path) -> None:
    task = Task(FOLLOW, (-2.0,), (2.0,))
    agent = TD3BC(Spec((1,), 1), TD3BCConfig(hidden=(8,), batch_size=8))
    ovi.save(agent, tmp_path / "kept", task=task)
    data = write(tmp_path / "a.hdf5", 2.0)
    main(["finetune", str(tmp_path / "kept"), "--dataset", data, "--env", FOLLOW, "--steps", "2", "--warmup", "5",
          "--eval-every", "0", "--eval-episodes", "1", "-q", "--output", str(tmp_path / "tuned")])  # fmt: skip
    assert config_of(tmp_path / "tuned")["task"]["action_high"] == [2.0]


def test_transitions_in_the_units_of_another_task(tmp_path: Path) -> None:
    data = ovi.datasets.load(write(tmp_path / "a.hdf5", 2.0), env=FOLLOW)
    moved = data.with_task(Task(FOLLOW, (-2.0,), (4.0,)))
    in_env = 3.0 * data.action.astype(float)
    np.testing.assert_allclose(moved.action, (in_env + 2.0) / 3.0 - 1.0, atol=1e-6)
    assert moved.with_task(moved.task).action is moved.action  # type: ignore[arg-type]
    with pytest.raises(ActionRangeError):
        data.with_task(Task(FOLLOW, (-1.0,), (1.0,)))
    with pytest.raises(SpaceMismatchError):
        data.with_task(Task(FOLLOW, (-1.0,) * 2, (1.0,) * 2))


# ------------------------------------------------------------------ without scores


def test_training_without_scores_needs_no_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing_package(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError("No module named 'mujoco'")

    data = write(tmp_path / "a.hdf5")
    monkeypatch.setattr(gymnasium, "make", missing_package)
    for name in ("bounds", "none"):
        words = ["--action-low", "-1", "--action-high", "1"] if name == "bounds" else []
        run = trained(tmp_path / name, data, "--env", FOLLOW, "--unscored", *words)
        assert (run / "result.json").exists() and not (config_of(run)["task"] or {}).get("env_id")
    monkeypatch.undo()
    assert len(score_run(run, ScoringOptions(env=FOLLOW, episodes=2)).evaluation.returns) == 2


def test_without_its_simulator_a_scored_run_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing_package(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError("No module named 'mujoco'")

    data = ovi.datasets.load(write(tmp_path / "a.hdf5"), env=FOLLOW)
    ovi.register_dataset("lab/follow")(lambda: data)
    monkeypatch.setattr(gymnasium, "make", missing_package)
    try:
        for words in (["--dataset", "lab/follow"], ["--dataset", str(tmp_path / "a.hdf5"), "--env", FOLLOW]):
            with pytest.raises(SystemExit) as stopped:
                main(["train", "td3-bc", *words, *SMALL, "--output", str(tmp_path / "run")])
            assert stopped.value.code == MissingDependencyError.exit_code
            assert "--unscored" in capsys.readouterr().err and not (tmp_path / "run").exists()
        assert trained(tmp_path / "run", "lab/follow", "--unscored").exists()
    finally:
        ovi.registry.DATASETS.pop("lab/follow")


def test_a_hint_says_a_flag_without_a_value() -> None:
    assert as_flags('or unscored=True; action_units="rescaled" maps') == "or --unscored; --action-units rescaled maps"
