"""Evaluation: the protocol (same bytes whatever runs beside what), exact lengths, broken environments and policies."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offline_vi.environments import check_spaces, make_env
from offline_vi.errors import (
    EnvError,
    EvaluationError,
    EvaluationWarning,
    MissingDependencyError,
    OfflineVIError,
    SpaceMismatchError,
    UsageError,
)
from offline_vi.evaluation.evaluate import WIDTH, Evaluation, evaluate
from offline_vi.types import Spec, Task

FLAKY = "offline_vi_tests/Flaky-v0"
RESETS: list[int | None] = []  # seeds, in the order of the resets


class FlakyEnv(gymnasium.Env[Any, Any]):
    """Reward = the step's number; ends after ``length`` steps; ``fault`` happens at step ``at`` of the seeds given."""

    def __init__(
        self, length: int = 7, fault: str = "", at: int = 3, seeds: tuple[int, ...] = (), times: int = 10**9
    ) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.length, self.fault, self.at, self.seeds, self.times = length, fault, at, seeds, times

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        RESETS.append(seed)
        self.step_number, self.seed = 0, seed
        self.faulty = (not self.seeds or seed in self.seeds) and RESETS.count(seed) <= self.times
        if self.faulty and self.fault == "reset":
            raise RuntimeError("no simulator")
        return self.np_random.normal(size=2), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.step_number += 1
        obs: Any = self.np_random.normal(size=2)
        reward: Any = float(self.step_number)
        if self.faulty and self.step_number == self.at:
            match self.fault:
                case "raise":
                    raise RuntimeError("simulator exploded")
                case "nan obs":
                    obs = np.array([np.nan, 0.0])
                case "inf obs":
                    obs = np.array([np.inf, 0.0])
                case "shape":
                    obs = np.zeros(3)
                case "nan reward":
                    reward = np.nan
        return obs, reward, self.step_number >= self.length, False, {}


gymnasium.register(
    FLAKY,
    entry_point=lambda **kwargs: FlakyEnv(**kwargs),
    max_episode_steps=50,
    disable_env_checker=True,
    order_enforce=False,
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    RESETS.clear()
    yield


def flaky(**kwargs: Any) -> Task:
    return Task(FLAKY, (-2.0,), (2.0,), kwargs)


PENDULUM = Task("Pendulum-v1", (-2.0,), (2.0,), max_episode_steps=30, ref_min=-300.0, ref_max=-100.0)


class Constant:
    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def act(self, obs: Tensor) -> Tensor:
        assert obs.shape[0] == WIDTH and obs.dtype == torch.float32
        return torch.full((WIDTH, 1), self.value)


class Candidates(nn.Module):
    """Samples 100 candidates for each row and takes the best of its critic: noise decides."""

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(obs_dim + action_dim, 32), nn.ReLU(), nn.Linear(32, 1))
        self.action_dim = action_dim

    def act(self, obs: Tensor) -> Tensor:
        assert not self.training
        actions = torch.rand(100, len(obs), self.action_dim) * 2 - 1
        value = self.critic(torch.cat([obs.expand(100, *obs.shape), actions], -1))
        best = value.argmax(0, keepdim=True).expand(1, len(obs), self.action_dim)
        return actions.gather(0, best)[0]


# ------------------------------------------------------------------ the protocol


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Hopper-v5"])
def test_the_same_bytes_however_many_environments(env_id: str) -> None:
    task = PENDULUM
    if env_id == "Hopper-v5":
        pytest.importorskip("mujoco")
        task = Task(env_id, (-1.0,) * 3, (1.0,) * 3, max_episode_steps=60)
    obs_dim = 3 if env_id == "Pendulum-v1" else 11
    policy = Candidates(obs_dim, len(task.action_low))
    found = {}
    for num_envs in (1, 3, 8, 16):
        torch.manual_seed(num_envs)  # the caller's random state plays no part
        found[num_envs] = json.dumps(evaluate(policy, task, 13, 5, num_envs=num_envs).to_json())
    assert len(set(found.values())) == 1
    assert found[1] != json.dumps(evaluate(policy, task, 13, 6).to_json())


def test_fewer_episodes_are_the_first_of_more() -> None:
    policy = Candidates(3, 1)
    many, few = evaluate(policy, PENDULUM, 12, 3), evaluate(policy, PENDULUM, 4, 3)
    assert many.returns[:4].tolist() == few.returns.tolist()


def test_rewards_equal_those_of_a_plain_loop() -> None:
    """An oracle that knows nothing of waves: one environment, one episode, a policy without noise."""

    class Swing:
        def act(self, obs: Tensor) -> Tensor:
            return torch.tanh(obs[:, 2:])

    evaluation = evaluate(Swing(), PENDULUM, 12, 40)
    env = gymnasium.make("Pendulum-v1", max_episode_steps=30)
    for episode in range(12):
        obs, total, steps, ended = env.reset(seed=40 + episode)[0], 0.0, 0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(2.0 * np.tanh(obs[2:]))
            total, steps, ended = total + float(reward), steps + 1, terminated or truncated
        assert evaluation.returns[episode] == pytest.approx(total, rel=1e-4)
        assert evaluation.lengths[episode] == steps == 30
    assert not evaluation.terminated.any()


def test_lengths_returns_and_seeds_are_exact() -> None:
    evaluation = evaluate(Constant(), flaky(length=7), 23, 100, num_envs=4)
    assert evaluation.lengths.tolist() == [7] * 23
    assert evaluation.returns.tolist() == [28.0] * 23
    assert evaluation.terminated.all()
    assert evaluation.seeds.tolist() == RESETS == list(range(100, 123))
    cut = evaluate(Constant(), replace(flaky(length=7), max_episode_steps=5), 2)
    assert cut.lengths.tolist() == [5, 5]
    assert not cut.terminated.any()


def test_training_is_not_disturbed() -> None:
    policy = Candidates(3, 1)
    policy.critic[1].eval()
    state = torch.get_rng_state()
    weights = [p.clone() for p in policy.parameters()]
    evaluate(policy, PENDULUM, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in policy.modules()] == [True, True, True, False, True]
    assert all(torch.equal(a, b) for a, b in zip(weights, policy.parameters(), strict=True))
    assert torch.is_grad_enabled()


def test_a_policy_with_memory_is_reset_for_every_wave() -> None:
    class Remembers(Constant):
        def __init__(self) -> None:
            super().__init__()
            self.resets: list[int] = []
            self.steps = 0

        def reset(self, first: Tensor) -> None:
            self.resets.append(int(first.sum()))
            self.steps = 0

        def act(self, obs: Tensor) -> Tensor:
            self.steps += 1
            assert self.steps <= 7
            return super().act(obs)

    policy = Remembers()
    evaluate(policy, flaky(), 2 * WIDTH)
    assert policy.resets == [WIDTH, WIDTH]


def test_scores_by_hand() -> None:
    """D4RL: 100 (R - random) / (expert - random)."""
    evaluation = evaluate(Constant(), replace(flaky(length=7), ref_min=-2.0, ref_max=58.0), 2)
    assert evaluation.normalized.tolist() == [50.0, 50.0]
    assert (evaluation.mean, evaluation.mean_return, evaluation.n_failed) == (50.0, 28.0, 0)
    unknown = evaluate(Constant(), flaky(), 2)
    assert np.isnan(unknown.mean) and np.isnan(unknown.normalized).all() and unknown.mean_return == 28.0
    rows = evaluation.episode_rows(9)
    assert len(rows) == 2
    expected = {"step": 9, "seed": 1, "return": 28.0, "length": 7, "normalized": 50.0, "env_id": FLAKY}
    assert rows[1].items() >= expected.items()
    assert {"mujoco", "gymnasium", "numpy", "torch", "offline_vi"} <= evaluation.versions.keys()


# ------------------------------------------------------------------ broken policies and environments


def test_actions_beyond_the_bounds_are_clipped_and_counted() -> None:
    with pytest.warns(EvaluationWarning, match="clipped 14 of 14 action entries"):
        evaluation = evaluate(Constant(1.5), flaky(), 2)
    assert evaluation.returns.tolist() == [28.0, 28.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", EvaluationWarning)
        evaluate(Constant(1.0), flaky(), 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_action_that_is_not_finite_never_reaches_the_environment(value: float) -> None:
    class Diverges(Constant):
        calls = 0

        def act(self, obs: Tensor) -> Tensor:
            self.calls += 1
            action = super().act(obs)
            if self.calls == 5:
                action[1] = value
            return action

    with pytest.raises(EnvError, match=r"action is not finite at step 4 of episode 1"):
        evaluate(Diverges(), flaky(), 3)


def test_actions_of_the_wrong_shape_are_not_broadcast() -> None:
    task = Task("Pendulum-v1", (-2.0,), (2.0,))

    class Flat:
        def act(self, obs: Tensor) -> Tensor:
            return torch.zeros(WIDTH)

    with pytest.raises(EnvError, match=r"shape \(10,\), expected \(10, 1\)"):
        evaluate(Flat(), task, 1)


@pytest.mark.parametrize("num_envs", [1, 10])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan obs", "observation that is not finite"),
        ("inf obs", "observation that is not finite"),
        ("shape", r"observation of shape \(3,\)"),
        ("nan reward", "reward nan"),
    ],
)
def test_impossible_values_name_step_and_episode(fault: str, message: str, num_envs: int) -> None:
    with pytest.raises(EnvError, match=f"{message} at step [23] of episode 1") as caught:
        evaluate(Constant(), flaky(fault=fault, seeds=(1,)), 3, num_envs=num_envs)
    assert caught.value.exit_code == 70


@pytest.mark.parametrize("fault", ["raise", "reset"])
@pytest.mark.parametrize("num_envs", [1, 3, 10])
def test_an_environment_that_crashes_once_costs_nothing(fault: str, num_envs: int) -> None:
    evaluation = evaluate(Constant(), flaky(fault=fault, seeds=(1, 11), times=1), 12, num_envs=num_envs)
    assert evaluation.returns.tolist() == [28.0] * 12
    assert evaluation.n_failed == 0
    assert RESETS.count(1) == RESETS.count(11) == 2


@pytest.mark.parametrize("fault", ["raise", "reset"])
@pytest.mark.parametrize("num_envs", [1, 3, 10])
def test_episodes_that_crash_twice_fail_and_are_in_no_mean(fault: str, num_envs: int) -> None:
    task = replace(flaky(fault=fault, seeds=(1, 11)), ref_min=0.0, ref_max=28.0)
    with pytest.warns(EvaluationWarning, match="2 of 12 episodes failed"):
        evaluation = evaluate(Constant(), task, 12, num_envs=num_envs)
    assert evaluation.n_failed == 2
    assert np.flatnonzero(np.isnan(evaluation.returns)).tolist() == [1, 11]
    assert (evaluation.mean, evaluation.mean_return) == (100.0, 28.0)
    assert evaluation.lengths[2] == 7


def test_a_retried_episode_sees_the_same_noise() -> None:
    """Also under a policy that draws noise: row, wave and step decide the noise, not who runs beside."""

    class Noisy:
        def act(self, obs: Tensor) -> Tensor:
            actions.append(torch.rand(WIDTH, 1))
            return actions[-1]

    actions: list[Tensor] = []
    evaluate(Noisy(), flaky(), 4)
    plain = list(actions)
    actions.clear()
    RESETS.clear()
    evaluate(Noisy(), flaky(fault="raise", seeds=(2,), times=1), 4)
    assert len(actions) == 14
    assert all(torch.equal(a, b) for a, b in zip(plain + plain, actions, strict=True))


def test_every_wave_step_and_seed_draws_its_own_noise() -> None:
    class Noisy:
        def act(self, obs: Tensor) -> Tensor:
            drawn.append(tuple(torch.rand(WIDTH, 1).flatten().tolist()))
            return torch.zeros(WIDTH, 1)

    drawn: list[tuple[float, ...]] = []
    for seed in (0, 1):
        evaluate(Noisy(), flaky(), WIDTH + 1, seed)
    assert len(drawn) == len(set(drawn)) == 2 * 2 * 7


def test_all_episodes_failing_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="simulator exploded"):
        evaluate(Constant(), flaky(fault="raise"), 3)


@pytest.mark.parametrize(("episodes", "num_envs"), [(0, 1), (1, 0)])
def test_nothing_to_do_is_an_error(episodes: int, num_envs: int) -> None:
    with pytest.raises(UsageError):
        evaluate(Constant(), flaky(), episodes, num_envs=num_envs)


# ------------------------------------------------------------------ environments and spaces


def test_unknown_environments_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="Pendulm-v1") as caught:
        make_env(Task("Pendulm-v1", (-2.0,), (2.0,)))
    assert "Pendulum-v1" in caught.value.hint
    with pytest.raises(UsageError):
        make_env(Task("not an id!", (-2.0,), (2.0,)))


@pytest.mark.parametrize(
    ("package", "env_id", "extra"),
    [("mujoco", "Hopper-v5", "mujoco"), ("gymnasium_robotics", "AdroitHandPen-v1", "robotics")],
)
def test_a_missing_package_names_its_extra(package: str, env_id: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from offline_vi.environments import make_env\nfrom offline_vi.types import Task\n"
        f"try: make_env(Task('{env_id}', (-1.0,), (1.0,)))\n"
        "except Exception as error: print(type(error).__name__, error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == f"{MissingDependencyError.__name__} pip install 'offline-vi[{extra}]'"


class DictEnv(FlakyEnv):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        inner = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = gymnasium.spaces.Dict({"observation": inner, "goal": inner})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return {"observation": super().reset(seed=seed)[0], "goal": np.full(2, np.nan)}, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, *rest = super().step(action)
        return ({"observation": obs, "goal": np.full(2, np.nan)}, *rest)


gymnasium.register("offline_vi_tests/Dict-v0", entry_point=DictEnv, disable_env_checker=True)


def test_one_entry_of_a_dict_observation() -> None:
    task = Task("offline_vi_tests/Dict-v0", (-2.0,), (2.0,), obs_keys=("observation",))
    check_spaces(Spec((2,), 1), task)
    assert evaluate(Constant(), task, 2).returns.tolist() == [28.0, 28.0]


IMAGES = Spec((3,), 1, obs_dtype="uint8")
DICT = Task("offline_vi_tests/Dict-v0", (-2.0,), (2.0,))
MISMATCHES: dict[str, tuple[Spec, Task, str]] = {
    "observations": (Spec((17,), 1), PENDULUM, r"observations \(17,\) vs \(3,\); actions \(1,\) vs \(1,\) ok"),
    "actions": (Spec((3,), 6), PENDULUM, r"observations \(3,\) vs \(3,\) ok; actions \(6,\) vs \(1,\)"),
    "both": (Spec((17,), 6), PENDULUM, r"observations \(17,\) vs \(3,\); actions \(6,\) vs \(1,\)"),
    "image against vector": (Spec((3, 64, 64), 1), PENDULUM, r"\(3, 64, 64\) vs \(3,\)"),
    "bytes against numbers": (IMAGES, PENDULUM, "images True vs False"),
    "discrete environment": (
        Spec((4,), 1),
        Task("CartPole-v1", (-1.0,), (1.0,)),
        r"Discrete\(2\), the data continuous",
    ),
    "discrete data": (Spec((3,), 1, discrete=True), PENDULUM, "the data discrete"),
    "dict without key": (Spec((2,), 1), DICT, r"\['goal', 'observation'\]"),
    "dict with another key": (Spec((2,), 1), replace(DICT, obs_keys=("state",)), r"\['goal', 'observation'\]"),
    "bounds": (Spec((3,), 1), replace(PENDULUM, action_low=(-2.0, -2.0)), "bounds 2 actions, the data have 1"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_spaces_that_differ_name_both_sides(case: str) -> None:
    spec, task, message = MISMATCHES[case]
    with pytest.raises(SpaceMismatchError, match=message) as caught:
        check_spaces(spec, task)
    assert caught.value.exit_code == 65
    assert task.env_id in str(caught.value) or case == "bounds"


def test_spaces_that_agree() -> None:
    check_spaces(Spec((3,), 1), PENDULUM)


def test_errors_are_of_the_house() -> None:
    assert issubclass(EvaluationError, OfflineVIError)
    assert Evaluation.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_mujoco_is_quiet_about_the_models_of_gymnasium_and_about_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mujoco = pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    before = mujoco.get_mju_user_warning()
    make_env(Task("HalfCheetah-v5", (-1.0,) * 6, (1.0,) * 6)).close()
    assert mujoco.get_mju_user_warning() is before
    assert capfd.readouterr().err == "" and not list(tmp_path.iterdir())

    def made(*_: object, **__: object) -> None:
        for text in ("an attribute is deprecated", "the mesh is not closed"):
            mujoco.get_mju_user_warning()(text)

    monkeypatch.setattr(gymnasium, "make", made)
    with pytest.warns(UserWarning, match="mesh") as caught:
        make_env(Task("HalfCheetah-v5", (-1.0,) * 6, (1.0,) * 6))
    assert len(caught) == 1
