"""Minari's data sets: the rows that come out, what is refused, and the recipes that are stored as such."""

from __future__ import annotations

import importlib
import json
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
from minari.data_collector import EpisodeBuffer

from offline_vi import datasets
from offline_vi.datasets import recipes
from offline_vi.datasets.minari import folder_of
from offline_vi.errors import (
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    DataWarning,
    MissingDependencyError,
    OfflineError,
    SpaceMismatchError,
    UnsafeDatasetError,
    UsageError,
)

NAME = "test/swing-v0"
Metadata = dict[str, Any]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Minari's root, empty."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.delenv("OFFLINE_VI_DATA", raising=False)
    return tmp_path / "minari"


def create(
    lengths: list[int], ends: list[str] | None = None, name: str = NAME, **options: Any
) -> dict[str, np.ndarray]:
    """A stored set of random Pendulum-like episodes that end by "term", "trunc" or just "stop"; the truth about it."""
    rng = np.random.default_rng(sum(lengths))
    ends = ends or ["trunc"] * len(lengths)
    buffers = []
    truth: dict[str, list[Any]] = {key: [] for key in ("obs", "next_obs", "action", "reward", "term", "end")}
    for number, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        obs = rng.normal(size=(length + 1, 3)).astype(np.float32)
        action = rng.uniform(-2, 2, (length, 1)).astype(np.float32)
        reward = rng.normal(size=length)
        last = np.arange(length) == length - 1
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=list(obs),
                actions=list(action),
                rewards=list(reward),
                terminations=list(last & (end == "term")),
                truncations=list(last & (end == "trunc")),
            )
        )
        for key, column in (("obs", obs[:-1]), ("next_obs", obs[1:]), ("action", action), ("reward", reward)):
            truth[key].append(column)
        truth["term"].append(last & (end == "term"))
        truth["end"].append(last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            name, buffers, **({"env": "Pendulum-v1", "eval_env": "Pendulum-v1"} | options)
        )
    return {key: np.concatenate(parts) for key, parts in truth.items()}


def data_folder(name: str = NAME) -> Path:
    return folder_of(name) / "data"


def rewrite(change: Callable[[Metadata], None]) -> None:
    path = data_folder() / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


# ------------------------------------------------------------------ rows


@pytest.mark.parametrize("seed", range(4))
def test_every_next_observation_is_the_true_one(seed: int, reached: Callable[[int, str, int], None]) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, 50).tolist()
    truth = create(lengths, rng.choice(["term", "trunc", "stop"], 50).tolist())
    found = datasets.load(NAME)
    np.testing.assert_array_equal(found.obs, truth["obs"])
    np.testing.assert_array_equal(found.next_obs, truth["next_obs"])
    np.testing.assert_array_equal(found.action, truth["action"] / 2.0)  # Pendulum's torque is within +-2
    np.testing.assert_array_equal(found.reward, truth["reward"].astype(np.float32))
    np.testing.assert_array_equal(found.terminated, truth["term"])
    np.testing.assert_array_equal(found.episode_end, truth["end"])
    for rows, length in zip(found.episode_slices(), lengths, strict=True):
        assert rows.stop - rows.start == length
        np.testing.assert_array_equal(found.obs[rows][1:], found.next_obs[rows][:-1])
    reached(24, "episodes", len(lengths))


def test_task_and_provenance() -> None:
    create([3], ref_min_score=-1000.0, ref_max_score=-100.0)
    found = datasets.load(NAME)
    assert found.task is not None
    assert (found.task.env_id, found.task.action_low, found.task.action_high) == ("Pendulum-v1", (-2.0,), (2.0,))
    assert found.task.normalized(np.array([-550.0]))[0] == pytest.approx(50.0)
    assert found.source.next_obs == "within_episode" and len(found.source.sha256[0]) == 64
    with pytest.raises(DatasetCorruptError):
        datasets.load(NAME, sha256="0" * 64)


def test_empty_episodes_are_skipped() -> None:
    truth = create([2, 3])
    with h5py.File(data_folder() / "main_data.hdf5", "a") as file:
        group = file.create_group("episode_2")
        group["observations"], group["actions"] = np.zeros((1, 3), np.float32), np.zeros((0, 1), np.float32)
        for key in ("rewards", "terminations", "truncations"):
            group[key] = np.zeros(0)
    rewrite(lambda metadata: metadata.update(total_episodes=3))
    assert len(datasets.load(NAME)) == len(truth["reward"])


def test_the_observation_of_a_goal_task_is_read() -> None:
    space = spaces.Dict({"achieved_goal": spaces.Box(-1, 1, (2,)), "observation": spaces.Box(-1, 1, (3,))})
    rng = np.random.default_rng(0)
    obs = {"achieved_goal": list(rng.normal(size=(5, 2))), "observation": list(rng.normal(size=(5, 3)))}
    buffer = EpisodeBuffer(
        id=0, observations=obs, actions=[np.zeros(2)] * 4, rewards=[0.0] * 4, terminations=[False] * 4,
        truncations=[False] * 4,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            NAME, [buffer], observation_space=space, action_space=spaces.Box(-1, 1, (2,))
        )
    found = datasets.load(NAME)
    np.testing.assert_allclose(found.obs, np.stack(obs["observation"])[:-1], rtol=1e-6)
    assert found.task is not None and (found.task.env_id, found.task.obs_keys) == ("", ("observation",))


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (1,))])
def test_actions_without_bounds_are_refused(space: Any) -> None:
    create([2], env=None, eval_env=None, observation_space=spaces.Box(-1, 1, (3,)), action_space=space)
    with pytest.raises(SpaceMismatchError):
        datasets.load(NAME)


def test_lengths_must_agree() -> None:
    create([3])
    with h5py.File(data_folder() / "main_data.hdf5", "a") as file:
        file["episode_0/observations"].resize((3, 3))
    with pytest.raises(DatasetFormatError, match="episode_0"):
        datasets.load(NAME)


def test_mujoco_sets_have_d4rls_scores() -> None:
    pytest.importorskip("mujoco")
    env = gymnasium.make("Hopper-v5")
    name = "mujoco/hopper/medium-v0"
    box = spaces.Box(-9, 9, (3,)), spaces.Box(-2, 2, (1,))
    create([2], name=name, env=None, eval_env=None, observation_space=box[0], action_space=box[1])
    path = data_folder(name) / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"env_spec": env.spec.to_json()}))  # type: ignore[union-attr]
    task = datasets.load(name).task
    assert task is not None and task.env_id == "Hopper-v5" and task.ref_max == 3234.3
    assert "not Minari's own" in task.note


@pytest.mark.parametrize(
    ("model", "safe"),
    [
        ("walker2d.xml", True),
        ("/tmp/walker2d.xml", False),
        ("./walker2d.xml", False),
        ("~/walker2d.xml", False),
        ("../assets/walker2d.xml", False),
        ("..\\walker2d.xml", False),
        ("walker2d.xml\n", False),
        (["walker2d.xml"], False),
    ],
)
def test_a_robots_model_is_one_of_gymnasiums_own_or_refused(model: Any, safe: bool) -> None:
    pytest.importorskip("mujoco")
    name, box = "a/walker2d/b-v0", (spaces.Box(-9, 9, (3,)), spaces.Box(-2, 2, (1,)))
    create([2], name=name, env=None, eval_env=None, observation_space=box[0], action_space=box[1])
    spec = json.loads(gymnasium.spec("Walker2d-v5").to_json()) | {"kwargs": {"xml_file": model}}
    path = data_folder(name) / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"env_spec": json.dumps(spec)}))
    if safe:
        task = datasets.load(name).task
        assert task is not None and task.kwargs == {"xml_file": model}
    else:
        with pytest.raises(UnsafeDatasetError, match="xml_file"):
            datasets.load(name)


# ------------------------------------------------------------------ hostile metadata


def spec_of(metadata: Metadata, **changes: Any) -> None:
    metadata["env_spec"] = json.dumps(json.loads(metadata["env_spec"]) | changes)


def known_id_other_entry_point(metadata: Metadata) -> None:
    spec_of(metadata, entry_point="marker_module:make")


def unknown_id(metadata: Metadata) -> None:
    spec_of(metadata, id="Marker-v0", entry_point="marker_module:make")


def hostile_wrapper(metadata: Metadata) -> None:
    spec_of(metadata, additional_wrappers=[{"name": "W", "entry_point": "marker_module:make", "kwargs": {}}])


def hostile_kwargs(metadata: Metadata) -> None:
    spec_of(metadata, kwargs={"xml_file": "/etc/passwd"})


def missing_action_space(metadata: Metadata) -> None:
    known_id_other_entry_point(metadata)  # Minari would make it to ask for the space
    del metadata["action_space"]


def missing_observation_space(metadata: Metadata) -> None:
    known_id_other_entry_point(metadata)
    del metadata["observation_space"]


def text_space(metadata: Metadata) -> None:
    metadata["observation_space"] = json.dumps({"type": "Text", "max_length": 1 << 40, "min_length": 0, "charset": "a"})


def giant_space(metadata: Metadata) -> None:
    metadata["observation_space"] = json.dumps(
        {"type": "Box", "dtype": "float32", "shape": [1 << 20, 1 << 20], "low": 0, "high": 1}
    )


def object_space(metadata: Metadata) -> None:
    metadata["observation_space"] = json.dumps({"type": "Box", "dtype": "O", "shape": [3], "low": 0, "high": 1})


def deep_space(metadata: Metadata) -> None:
    metadata["observation_space"] = "[" * 10_000 + "]" * 10_000


def deep_json(metadata: Metadata) -> None:
    nested: list[Any] = []
    for _ in range(200):
        nested = [nested]
    metadata["description"] = nested


def large_json(metadata: Metadata) -> None:
    metadata["description"] = "x" * (5 << 20)


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears as soon as the module ``marker_module`` is imported."""
    path = tmp_path / "ran"
    (tmp_path / "marker_module.py").write_text(f"open({str(path)!r}, 'w').close()\ndef make(*a, **k): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


HOSTILE = (
    known_id_other_entry_point,
    unknown_id,
    hostile_wrapper,
    hostile_kwargs,
    missing_action_space,
    missing_observation_space,
    text_space,
    giant_space,
    object_space,
    deep_space,
    deep_json,
    large_json,
)


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_hostile_metadata_are_refused_and_nothing_runs(change: Callable[[Metadata], None], marker: Path) -> None:
    create([3])
    rewrite(change)
    with pytest.raises(UnsafeDatasetError) as caught:
        datasets.load(NAME)
    assert not marker.exists() and caught.value.hint and len(str(caught.value)) < 400


def test_the_marker_appears_where_minari_is_asked_directly(marker: Path) -> None:
    create([3])
    rewrite(missing_action_space)
    importlib.invalidate_caches()
    with pytest.raises(Exception):  # noqa: B017  it fails, but only after it has run the module
        minari.load_dataset(NAME)
    assert marker.exists()


def test_who_trusts_the_data_names_the_environment(marker: Path) -> None:
    create([3])
    rewrite(unknown_id)
    found = datasets.load(NAME, env="Pendulum-v1")
    assert found.task is not None and found.task.env_id == "Pendulum-v1" and not marker.exists()


def test_an_environment_of_a_known_package_may_be_missing() -> None:
    create([3])
    rewrite(lambda metadata: spec_of(metadata, id="Elsewhere-v1", entry_point="gymnasium_robotics.envs:Elsewhere"))
    with pytest.warns(DataWarning, match="Elsewhere-v1 is not registered"):
        found = datasets.load(NAME)
    assert found.task is not None and found.task.env_id == ""


@pytest.mark.parametrize(
    "name",
    ["../../../etc-v0", "a/../../b-v0", "/etc/x-v0", "a//b-v0", "a/b", "a/b-v0/", "a\\b-v0", "ä/b-v0", "a/b-v0\n"],
)
def test_names_do_not_leave_the_root(name: str) -> None:
    with pytest.raises(UnsafeDatasetError):
        folder_of(name)
    with pytest.raises(UsageError):
        datasets.load(name)


def test_links_do_not_leave_the_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside" / "set-v0" / "data").mkdir(parents=True)
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeDatasetError):
        datasets.load("link/set-v0")


@pytest.mark.parametrize("text", ["", "{", "[]", "nonsense", "\x00"])
def test_broken_metadata(text: str) -> None:
    create([3])
    (data_folder() / "metadata.json").write_text(text)
    with pytest.raises((DatasetCorruptError, DatasetFormatError), match=r"metadata\.json"):
        datasets.load(NAME)


def test_a_string_that_does_not_end_is_told_at_once() -> None:
    """4 MB of escaped quotes: a search from each of them would take hours."""
    create([3])
    (data_folder() / "metadata.json").write_text('{"a": "' + '\\"' * (2 << 20 >> 1))
    with pytest.raises(DatasetCorruptError):
        datasets.load(NAME)


@pytest.mark.parametrize("total", [None, -1, "many", 4])
def test_broken_episode_counts(total: Any) -> None:
    create([3])
    rewrite(lambda metadata: metadata.update(total_episodes=total))
    with pytest.raises(DatasetFormatError):
        datasets.load(NAME)


def test_links_inside_the_file_are_refused(tmp_path: Path) -> None:
    create([3, 3])
    with h5py.File(data_folder() / "main_data.hdf5", "a") as file:
        del file["episode_1"]
        file["episode_1"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "/")
    with pytest.raises(UnsafeDatasetError, match="episode_1"):
        datasets.load(NAME)
    with h5py.File(data_folder() / "main_data.hdf5", "a") as file:
        del file["episode_1"]
        file["episode_1"] = file["episode_0"]
        del file["episode_1"]["rewards"]
        file["episode_1"]["rewards"] = h5py.SoftLink("/episode_0/rewards")
    with pytest.raises(UnsafeDatasetError, match="rewards"):
        datasets.load(NAME)


def test_the_budget_covers_all_episodes() -> None:
    create([50] * 10)
    with pytest.raises(DatasetTooLargeError):
        datasets.load(NAME, max_dataset_bytes=10_000)


# ------------------------------------------------------------------ remote


def test_without_a_network_the_path_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(error: Exception) -> Callable[[str], None]:
        def download(name: str) -> None:
            raise error

        return download

    monkeypatch.setattr(minari, "download_dataset", refuse(ConnectionError("unreachable")))
    with pytest.raises(OfflineError) as caught:
        datasets.load("D4RL/door/human-v2", download=True)
    assert caught.value.exit_code == 69 and str(root / "D4RL/door/human-v2") in caught.value.hint
    monkeypatch.setattr(minari, "download_dataset", refuse(ImportError("no hub", name="huggingface_hub")))
    with pytest.raises(MissingDependencyError, match="huggingface_hub"):
        datasets.load("D4RL/door/human-v2", download=True)


def test_what_was_downloaded_is_guarded_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch, marker: Path) -> None:
    name = "D4RL/door/human-v2"

    def download(dataset: str) -> None:
        create([3], name=dataset)
        path = data_folder(dataset) / "metadata.json"
        metadata = json.loads(path.read_text())
        unknown_id(metadata)
        path.write_text(json.dumps(metadata))

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(UnsafeDatasetError):
        datasets.load(name, download=True)
    assert not marker.exists()


# ------------------------------------------------------------------ the recipe


def test_the_recipe_is_collected_on_first_use(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    collect = recipes.collect
    monkeypatch.setattr(recipes, "collect", lambda name: collect(name, episodes=8))
    found = datasets.load(recipes.PENDULUM)
    assert "collecting" in capsys.readouterr().err
    assert len(found) == 8 * 200 and len(found.episode_slices()) == 8 and not found.terminated.any()
    monkeypatch.setattr(recipes, "collect", lambda name: pytest.fail("collected twice"))
    again = datasets.load(recipes.PENDULUM)
    assert again.action.tobytes() == found.action.tobytes()
    assert not [path for path in root.iterdir() if path.name.startswith(".")]
    (root / "again").mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root / "again"))
    collect(recipes.PENDULUM, episodes=8)
    assert datasets.load(recipes.PENDULUM).action.tobytes() == found.action.tobytes()
    collect(recipes.PENDULUM, episodes=4, seed=1)  # another process was faster: its data stay
    assert len(datasets.load(recipes.PENDULUM)) == len(found)


def test_stored_log_probabilities_are_the_mixtures() -> None:
    recipes.collect(recipes.PENDULUM, episodes=4)
    found = datasets.load(recipes.PENDULUM)
    assert found.behavior_log_prob is not None
    expected = recipes.log_prob(found.obs.astype(float), found.action[:, 0].astype(float))
    np.testing.assert_allclose(found.behavior_log_prob, expected, atol=1e-5)


@pytest.mark.parametrize("state", [(-1.0, 0.0, 0.3), (0.95, 0.3, 1.0), (0.0, -1.0, -6.0)])
def test_the_mixtures_density_is_that_of_its_samples(state: tuple[float, ...]) -> None:
    obs = np.tile(state, (40_000, 1))
    edges = np.tanh(np.linspace(-9.0, 9.0, 20_001))
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    mass = np.exp(recipes.log_prob(np.tile(state, (20_000, 1)), middle)) * width
    assert mass.sum() == pytest.approx(1.0, abs=1e-3)
    actions = recipes.sample(obs, np.random.default_rng(0))
    assert (np.abs(actions) < 1.0).all()
    for threshold in (-0.9, -0.5, 0.0, 0.5, 0.9):
        expected = mass[middle < threshold].sum()
        assert (actions < threshold).mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 40_000))


def test_behaviour_is_bimodal_at_rest() -> None:
    """Hanging still, the way up is over the left or over the right, and seldom in between."""
    grid = np.array([-0.95, 0.0, 0.95])
    left, middle, right = np.exp(recipes.log_prob(np.tile([-1.0, 0.0, 0.0], (3, 1)), grid))
    assert left == pytest.approx(right) and left > 5 * middle


def test_reference_returns_are_those_in_the_table() -> None:
    """100 of the 1,000 episodes; the standard error of a mean of 100 is about 30 and 10."""
    uniform, good = recipes.reference_returns(episodes=100)
    assert uniform == pytest.approx(recipes.UNIFORM_RETURN, abs=100.0)
    assert good == pytest.approx(recipes.SWING_UP_RETURN, abs=30.0)
    assert -200.0 < recipes.SWING_UP_RETURN < -100.0


def test_cloning_leaves_something_to_gain() -> None:
    rng = np.random.default_rng(0)
    rows = recipes.roll_out(lambda obs: recipes.sample(obs, rng), episodes=60, seed=5000)
    mean = rows["reward"].sum(0).mean()
    score = 100 * (mean - recipes.UNIFORM_RETURN) / (recipes.SWING_UP_RETURN - recipes.UNIFORM_RETURN)
    assert 40.0 < score < 75.0
