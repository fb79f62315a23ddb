"""Units of actions: what data record, what policies learn, and what the environment is sent. Expected numbers are
computed by hand, in NumPy float64."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import RescaleAction
from hypothesis import given, settings, strategies as st
from minari.data_collector import EpisodeBuffer
from oracle_data import distinct_columns

from offline_vi import datasets, registry
from offline_vi.data.transitions import Transitions
from offline_vi.datasets import environment, on_environment, task_on
from offline_vi.errors import (
    ActionRangeError,
    DatasetFormatError,
    DataWarning,
    MissingDependencyError,
    SpaceMismatchError,
    UnsafeDatasetError,
    UsageError,
)
from offline_vi.types import Task

LARGEST = float(np.finfo(np.float32).max)


class Boxed(gymnasium.Env[Any, Any]):
    """An environment whose box a test sets."""

    low: Any = (-1.0,)
    high: Any = (1.0,)

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(np.array(self.low, np.float32), np.array(self.high, np.float32))


class Other(Boxed):
    """Another one."""


BOXED, OTHER = "offline_vi_tests/Boxed-v0", "offline_vi_tests/Other-v0"
gymnasium.register(BOXED, Boxed, max_episode_steps=30)  # type: ignore[arg-type]
gymnasium.register(OTHER, Other, max_episode_steps=40)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.delenv("OFFLINE_VI_DATA", raising=False)
    monkeypatch.setattr(Boxed, "low", (-1.0,))
    monkeypatch.setattr(Boxed, "high", (1.0,))


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Any], str]:
    """Set the box of an environment; returns its id."""

    def setter(low: Any, high: Any) -> str:
        monkeypatch.setattr(Boxed, "low", low)
        monkeypatch.setattr(Boxed, "high", high)
        return BOXED

    return setter


def write(path: Path, actions: Any, *, obs_dim: int = 2, skip: tuple[str, ...] = ()) -> str:
    columns = distinct_columns(len(actions), obs_dim)
    columns["actions"] = np.asarray(actions, np.float32)
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            if key not in skip:
                file[key] = column
    return str(path)


def uniform(low: Any, high: Any, rows: int = 30) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (rows, len(low)))


def loaded(path: str, **options: Any) -> Transitions:
    return datasets.load(path, next_obs="within_episode", **options)


# ------------------------------------------------------------------ dead actuators, boxes without bounds


@pytest.mark.parametrize("budget", [0, 1])
def test_a_dead_actuator_is_zero_here_and_its_value_there(budget: int, box: Any, tmp_path: Path) -> None:
    env = box((-2.0, 0.7, 0.0), (2.0, 0.7, 0.0))
    actions = uniform((-2.0, 0.7, 0.0), (2.0, 0.7, 0.0))
    found = loaded(write(tmp_path / "a.hdf5", actions), env=env, memory_budget=budget)
    np.testing.assert_allclose(found.action[:, 0], actions[:, 0] / 2.0, atol=1e-6)
    assert (found.action[:, 1:] == 0.0).all()
    assert found.task is not None
    np.testing.assert_allclose(found.task.to_env(found.action), actions, atol=1e-6)
    assert found.task.to_env(np.ones((1, 3), np.float32)).tolist() == [[2.0, np.float32(0.7), 0.0]]
    assert found.task.log_jacobian == pytest.approx(math.log(2.0 / 4.0))


def test_a_dead_actuator_that_moves_is_outside_its_bounds(box: Any, tmp_path: Path) -> None:
    env, path = box((-2.0, 0.0), (2.0, 0.0)), write(tmp_path / "a.hdf5", uniform((-2.0, -0.5), (2.0, 0.5)))
    with pytest.raises(ActionRangeError):
        loaded(path, env=env)
    with pytest.warns(DataWarning, match="clipped 30 action entries"):
        assert (loaded(path, env=env, action_range="clip").action[:, 1] == 0.0).all()


@pytest.mark.parametrize(
    "low, high",
    [
        ((-LARGEST,) * 2, (LARGEST,) * 2),
        ((-np.inf,) * 2, (np.inf,) * 2),
        ((-1.0, -np.inf), (1.0, 1.0)),
        ((-1.0, -1.0), (1.0, 2e9)),
    ],
)
def test_a_box_that_is_not_really_bounded(low: Any, high: Any, box: Any, tmp_path: Path) -> None:
    env, actions = box(low, high), uniform((-4.0, 0.0), (1.0, 0.5))
    path = write(tmp_path / "a.hdf5", actions)
    with pytest.raises(SpaceMismatchError) as caught:
        loaded(path, env=env)
    assert all(remedy in caught.value.hint for remedy in ('action_range="data"', "action_low=", "action_high="))
    mapped = loaded(path, env=env, action_range="data")
    given_ = loaded(path, env=env, action_low=(-4.0, 0.0), action_high=(1.0, 0.5))
    for found in (mapped, given_):
        assert found.task is not None and found.task.env_id == env
        np.testing.assert_allclose(found.task.to_env(found.action), actions, atol=1e-5)
        assert np.abs(found.action).max() > 0.9
    with pytest.raises(SpaceMismatchError):
        environment(env)


def test_large_bounds_that_are_real(box: Any, tmp_path: Path) -> None:
    env, actions = box((-5e8,), (5e8,)), uniform((-5e8,), (5e8,))
    np.testing.assert_allclose(loaded(write(tmp_path / "a.hdf5", actions), env=env).action, actions / 5e8, atol=1e-6)


def test_a_box_far_wider_than_the_data_is_reported(box: Any, tmp_path: Path) -> None:
    env, actions = box((-300.0, -1.0), (300.0, 1.0)), uniform((-1.0, -1.0), (1.0, 1.0))
    for budget in (0, 1):
        with pytest.warns(DataWarning, match=r"action 0 .*-300.*300") as caught:
            loaded(write(tmp_path / "a.hdf5", actions), env=env, memory_budget=budget)
        assert sum("action" in str(warning.message) for warning in caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        box((-90.0, -1.0), (90.0, 1.0))  # 1.1 %
        loaded(write(tmp_path / "a.hdf5", actions), env=env)
        loaded(write(tmp_path / "b.hdf5", np.zeros((30, 2))), env=env)  # a constant says nothing of units


# ------------------------------------------------------------------ recorded through a wrapper


def swing(name: str, episodes: int = 3, steps: int = 20) -> np.ndarray:
    """Pendulum-v1 through RescaleAction(-1, 1), as Minari records it; the recorded actions (N, 1)."""
    env: Any = gymnasium.make("Pendulum-v1")
    wrapped = RescaleAction(env, -1.0, 1.0)  # type: ignore[arg-type]
    rng, buffers, recorded = np.random.default_rng(0), [], []
    for seed in range(episodes):
        obs, rewards, actions = [wrapped.reset(seed=seed)[0]], [], rng.uniform(-1, 1, (steps, 1)).astype(np.float32)
        for action in actions:
            seen, reward, *_ = wrapped.step(action)
            obs.append(seen)
            rewards.append(reward)
        flags = [False] * (steps - 1)
        buffers.append(EpisodeBuffer(
            id=seed, observations=obs, actions=list(actions), rewards=rewards, terminations=[*flags, False],
            truncations=[*flags, True],
        ))  # fmt: skip
        recorded.append(actions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(name, buffers, env=wrapped, ref_min_score=-1000.0, ref_max_score=-100.0)
    return np.concatenate(recorded)


def replayed(data: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """(largest error of the next observations, of the rewards), the actions sent to the environment itself."""
    assert data.task is not None
    env = gymnasium.make(data.task.env_id)
    errors = []
    for seed, rows in enumerate(data.episode_slices()):
        env.reset(seed=seed)
        for row in range(rows.start, rows.stop):
            obs, reward, *_ = env.step(data.task.to_env(data.action[row]))
            errors.append((np.abs(obs - data.next_obs[row]).max(), abs(float(reward) - data.reward[row])))
    largest = np.max(errors, axis=0)
    return largest[0], largest[1]


def test_a_set_recorded_through_a_wrapper_is_refused_or_mapped() -> None:
    recorded = swing("lab/swing-v0")
    with pytest.raises(UnsafeDatasetError) as unsafe:
        datasets.load("lab/swing-v0")
    assert "env=ID" in unsafe.value.hint
    with pytest.raises(SpaceMismatchError, match=r"-1.*-2") as caught:
        datasets.load("lab/swing-v0", env="Pendulum-v1")
    assert 'action_units="rescaled"' in caught.value.hint
    data = datasets.load("lab/swing-v0", env="Pendulum-v1", action_units="rescaled")
    assert data.task is not None
    np.testing.assert_array_equal(data.action, recorded)
    np.testing.assert_allclose(data.task.to_env(data.action), 2.0 * recorded, rtol=1e-6)
    assert max(replayed(data)) < 1e-3
    assert (data.task.ref_min, data.task.ref_max) == (-1000.0, -100.0), "of the same environment"
    wrong = datasets.load("lab/swing-v0", env="Pendulum-v1", action_units="environment")
    assert wrong.task is not None
    np.testing.assert_allclose(wrong.task.to_env(wrong.action), recorded, rtol=1e-6)
    assert max(replayed(wrong)) > 0.1


def test_a_file_is_rescaled_by_the_bounds_that_are_given(tmp_path: Path) -> None:
    actions = uniform((10.0,), (14.0,))
    path = write(tmp_path / "volts.hdf5", actions, obs_dim=3)
    for budget in (0, 1):
        found = loaded(path, env="Pendulum-v1", action_units="rescaled", action_low=10.0, action_high=14.0,
                       memory_budget=budget)  # fmt: skip
        assert found.task is not None and found.task.env_id == "Pendulum-v1"
        np.testing.assert_allclose(found.task.to_env(found.action), actions - 12.0, atol=1e-5)
    for options in (
        {"env": "Pendulum-v1", "action_units": "rescaled"},
        {"action_units": "rescaled", "action_low": 10.0, "action_high": 14.0},
    ):
        with pytest.raises(UsageError):
            loaded(path, **options)


def test_references_are_those_of_an_environment(box: Any) -> None:
    swing("lab/swing-v0")
    box((-1.0,), (1.0,))
    found = datasets.load("lab/swing-v0", env=BOXED)
    assert found.task is not None and (found.task.env_id, found.task.ref_min, found.task.ref_max) == (BOXED, None, None)
    hopper = Task("Hopper-v5", (-1.0,), (1.0,), {"a": 1}, "hopper-medium-v2", -20.0, 3000.0, 1000, note="v2")
    assert task_on("Hopper-v5", hopper) == hopper and on_environment(hopper, "Hopper-v5") == hopper
    for moved in (task_on(BOXED, hopper), on_environment(hopper, BOXED)):
        assert (moved.env_id, moved.name) == (BOXED, "hopper-medium-v2")
        assert (moved.ref_min, moved.ref_max, moved.kwargs, moved.max_episode_steps, moved.note) == (
            None, None, {}, None, "",
        )  # fmt: skip


# ------------------------------------------------------------------ dict observations in files


def dicts(name: str, change: Callable[[h5py.File], None] = lambda file: None) -> dict[str, np.ndarray]:
    """A stored set of one episode with a goal; its observations by key, (6, ...) each."""
    parts: dict[str, Any] = {"achieved_goal": spaces.Box(-9, 9, (1,)), "desired_goal": spaces.Box(-9, 9, (2,)),
             "observation": spaces.Box(-9, 9, (3,)), "camera": spaces.Box(0, 255, (2, 2, 1), np.uint8)}  # fmt: skip
    rng = np.random.default_rng(0)
    obs = {key: rng.normal(size=(6, *space.shape)).astype(space.dtype) for key, space in parts.items()}
    buffer = EpisodeBuffer(
        id=0, observations={key: list(rows) for key, rows in obs.items()}, actions=list(np.zeros((5, 2), np.float32)),
        rewards=[0.0] * 5, terminations=[False] * 5, truncations=[False] * 4 + [True],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            name, [buffer], observation_space=spaces.Dict(parts), action_space=spaces.Box(-1, 1, (2,))
        )
    from offline_vi.datasets.minari import folder_of

    with h5py.File(folder_of(name) / "data" / "main_data.hdf5", "a") as file:
        change(file)
    return obs


@pytest.mark.parametrize(
    "keys, expected",
    [
        ((), ("observation", "desired_goal")),
        (("desired_goal", "observation"), ("desired_goal", "observation")),
        ("achieved_goal", ("achieved_goal",)),
    ],
)
def test_named_entries_are_joined_in_order(keys: Any, expected: tuple[str, ...]) -> None:
    obs = dicts("lab/reach-v0")
    found = datasets.load("lab/reach-v0", obs_keys=keys)
    whole = np.concatenate([obs[key] for key in expected], axis=1)
    np.testing.assert_allclose(found.obs, whole[:-1], rtol=1e-6)
    np.testing.assert_allclose(found.next_obs, whole[1:], rtol=1e-6)
    assert found.task is not None and found.task.obs_keys == expected


def cut(file: h5py.File) -> None:
    rows = file["episode_0/observations/desired_goal"][:-1]
    del file["episode_0/observations/desired_goal"]
    file["episode_0/observations/desired_goal"] = rows


def missing(file: h5py.File) -> None:
    del file["episode_0/observations/desired_goal"]


@pytest.mark.parametrize("change", [cut, missing])
def test_entries_that_do_not_fit_together_are_refused(change: Callable[[h5py.File], None]) -> None:
    dicts("lab/reach-v0", change)
    with pytest.raises(DatasetFormatError, match="desired_goal"):
        datasets.load("lab/reach-v0")
    assert datasets.load("lab/reach-v0", obs_keys="observation").obs.shape == (5, 3)


@pytest.mark.parametrize("keys", ["camera", ("observation", "wish")])
def test_keys_that_are_images_or_missing(keys: Any) -> None:
    dicts("lab/reach-v0")
    with pytest.raises(SpaceMismatchError):
        datasets.load("lab/reach-v0", obs_keys=keys)


def test_keys_of_one_array_need_an_environment(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        loaded(write(tmp_path / "a.hdf5", uniform((-1.0,), (1.0,))), obs_keys="observation")


# ------------------------------------------------------------------ names, limits, data without scores


@pytest.mark.parametrize("name, obs_dim, action_dim", [("hopper-medium-v2", 5, 2), ("kitchen-mixed-v0", 59, 9)])
def test_a_whole_name_with_other_shapes_says_nothing(name: str, obs_dim: int, action_dim: int, tmp_path: Path) -> None:
    path = write(tmp_path / f"{name}.hdf5", uniform((-1.0,) * action_dim, (1.0,) * action_dim), obs_dim=obs_dim)
    for budget in (0, 1):
        with pytest.warns(DataWarning, match=name):
            assert loaded(path, memory_budget=budget).task is None
    with pytest.warns(DataWarning, match=name):
        assert datasets.read(path).task is None


def test_a_file_that_was_renamed_is_told_by_its_shapes(tmp_path: Path) -> None:
    path = write(tmp_path / "walker2d_mine.h5", uniform((-1.0,) * 6, (1.0,) * 6), obs_dim=17)
    with pytest.warns(DataWarning, match="walker2d"):
        found = loaded(path)
    assert found.task is not None and (found.task.env_id, found.task.ref_max) == ("Walker2d-v5", 4592.3)


@pytest.mark.parametrize("name, obs_dim, action_dim", [("antmaze-umaze-v2", 29, 8), ("kitchen-complete-v0", 60, 9)])
def test_columns_that_no_environment_has_are_read_without_scores(
    name: str, obs_dim: int, action_dim: int, tmp_path: Path
) -> None:
    actions = uniform((-1.0,) * action_dim, (1.0,) * action_dim)
    with pytest.warns(DataWarning, match="not comparable"):
        found = loaded(write(tmp_path / f"{name}.hdf5", actions, obs_dim=obs_dim))
    assert found.task is not None and found.task.env_id == "" and "not comparable" in found.task.note
    assert found.task.ref_min == 0.0 and found.task.action_low == (-1.0,) * action_dim


def no_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes an environment finds none."""

    def missing_package(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError("No module named 'mujoco'")

    monkeypatch.setattr(gymnasium, "make", missing_package)


def test_data_without_scores_need_no_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_simulator(monkeypatch)
    actions = uniform((-1.0,) * 3, (1.0,) * 3, 2500)
    path = write(tmp_path / "hopper-medium-v2.hdf5", actions, obs_dim=11)
    found = loaded(path, unscored=True)
    assert found.task is not None and (found.task.env_id, found.task.ref_max) == ("", 3234.3)
    assert on_environment(found.task, "Hopper-v5") == loaded(path).task, "scored later, where the simulator is"
    own = write(tmp_path / "own.hdf5", actions, obs_dim=11, skip=("timeouts",))
    with pytest.raises(MissingDependencyError) as caught:
        loaded(own, env="Hopper-v5")
    assert "unscored=True" in caught.value.hint
    cuts = loaded(own, env="Hopper-v5", unscored=True)
    assert cuts.task is None and np.flatnonzero(cuts.episode_end).tolist() == [999, 1999, 2499]
    whole = write(tmp_path / "hopper-medium.hdf5", actions, obs_dim=11, skip=("timeouts",))
    assert np.flatnonzero(loaded(whole).episode_end).tolist() == [999, 1999, 2499]


# ------------------------------------------------------------------ whatever the order of options

BOUND = st.integers(-50, 50).map(float)
INTERVAL = st.tuples(BOUND, BOUND).map(sorted)


@given(st.data())
@settings(max_examples=60)
def test_a_policy_acts_in_the_units_that_it_was_trained_in(data: st.DataObject) -> None:
    """Whatever is said, a row's library action, mapped by the task of the evaluation, is the row's own action, or its
    linear image where that was asked for."""
    size = data.draw(st.integers(1, 3))
    intervals = st.lists(INTERVAL, min_size=size, max_size=size)
    recorded, its_box, elsewhere = (np.array(data.draw(intervals)).T for _ in range(3))  # (2, A) each
    named, explicit, rescaled, mapped = (data.draw(st.booleans()) for _ in range(4))
    bounds = recorded if explicit or rescaled else its_box if named else np.array([[-1.0], [1.0]]).repeat(size, 1)
    share = data.draw(st.floats(0.5, 1.0))  # of the bounds
    spread = np.random.default_rng(0).uniform(-share, share, (40, size))
    actions = bounds.mean(0) + spread * 0.5 * (bounds[1] - bounds[0])
    options: dict[str, Any] = {"next_obs": "within_episode"}
    if named or rescaled:
        options["env"] = BOXED
    if explicit or rescaled:
        options |= {"action_low": tuple(recorded[0]), "action_high": tuple(recorded[1])}
    elif mapped:
        options["action_range"] = "data"
    if rescaled:
        options["action_units"] = "rescaled"
    Boxed.low, Boxed.high, Other.low, Other.high = *its_box, *elsewhere
    columns = distinct_columns(40, 2) | {"actions": actions.astype(np.float32)}
    registry.DATASETS.pop("lab/any", None)
    registry.register_dataset("lab/any")(lambda: columns)
    try:
        found = datasets.load("lab/any", **dict(data.draw(st.permutations(list(options.items())))))
    finally:
        registry.DATASETS.pop("lab/any", None)
    if rescaled:
        width = np.where(recorded[1] > recorded[0], recorded[1] - recorded[0], 1.0)
        part = np.where(recorded[1] > recorded[0], (actions - recorded[0]) / width, 0.5)
        actions = its_box[0] + part * (its_box[1] - its_box[0])
    for task in (found.task, on_environment(found.task, OTHER), on_environment(found.task, BOXED)):
        sent = found.action if task is None else task.to_env(found.action)
        np.testing.assert_allclose(sent, actions, atol=2e-4)
    assert np.abs(found.action).max() <= 1.0
