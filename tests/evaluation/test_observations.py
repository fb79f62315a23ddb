"""Dict observations: which entries are joined, and that everybody joins the same ones."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, strategies as st
from torch import Tensor

from offline_vi.data.transitions import Transitions
from offline_vi.datasets import environment
from offline_vi.environments import check_spaces, observation_of, spec_of
from offline_vi.errors import DataWarning, SpaceMismatchError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.observations import chosen_keys, default_keys, entries, joined, joined_space
from offline_vi.training.collector import Collection, Collector
from offline_vi.types import Spec, Task


def box(*shape: int, dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(0 if dtype == np.uint8 else -1, 255 if dtype == np.uint8 else 1, shape, dtype)


GOAL = {"achieved_goal": box(2), "desired_goal": box(2), "observation": box(3)}
KITCHEN = {"observation": box(4), "desired_goal": spaces.Dict({"kettle": box(2), "microwave": box(1)})}


@pytest.mark.parametrize(
    "parts, expected",
    [
        (GOAL, ("observation", "desired_goal")),
        (KITCHEN, ("observation", "desired_goal/kettle", "desired_goal/microwave")),
        ({"achieved_goal": box(2), "observation": box(3)}, ("observation",)),
        ({"position": box(2), "camera": box(8, 8, 3, dtype=np.uint8), "load": box()}, ("load", "position")),
        ({"observation": box(8, 8, 3, dtype=np.uint8), "joints": box(2)}, ("joints",)),
    ],
)
def test_which_entries_are_joined_where_nobody_says(parts: dict[str, Any], expected: tuple[str, ...]) -> None:
    space = spaces.Dict(parts)
    assert default_keys(space) == expected
    with pytest.warns(DataWarning, match=expected[-1]):
        assert chosen_keys(space, (), "lab") == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen_keys(space, expected, "lab") == expected
        assert chosen_keys(box(3), (), "lab") == ()


def test_a_space_keeps_its_own_order() -> None:
    from collections import OrderedDict

    assert default_keys(spaces.Dict(OrderedDict(speed=box(1), angle=box(1)))) == ("speed", "angle")


def test_a_key_of_a_dict_stands_for_its_entries() -> None:
    space = spaces.Dict(KITCHEN)
    assert chosen_keys(space, ("desired_goal",), "lab") == ("desired_goal/kettle", "desired_goal/microwave")


@pytest.mark.parametrize(
    "parts, keys",
    [
        (GOAL, ("observation", "wish")),
        ({"camera": box(8, 8, 3, dtype=np.uint8), "joints": box(2)}, ("camera",)),
        ({"camera": box(8, 8, 3, dtype=np.uint8)}, ()),
        ({"mode": spaces.Discrete(3)}, ()),
    ],
)
def test_keys_that_are_no_vectors(parts: dict[str, Any], keys: tuple[str, ...]) -> None:
    with pytest.raises(SpaceMismatchError):
        chosen_keys(spaces.Dict(parts), keys, "lab")
    with pytest.raises(SpaceMismatchError):
        joined_space(spaces.Dict(parts), keys, "lab")


NAMES = st.sampled_from(["a", "b", "goal", "observation", "desired_goal"])
VECTORS = st.builds(lambda size: box(size), st.integers(1, 3))
SPACES: st.SearchStrategy[Any] = st.dictionaries(
    NAMES, VECTORS | st.builds(spaces.Dict, st.dictionaries(NAMES, VECTORS, min_size=1, max_size=3)), min_size=1
).map(lambda parts: spaces.Dict(parts))  # type: ignore[arg-type]


@given(SPACES, st.data())
def test_any_keys_in_any_order_are_joined_as_they_are_named(space: spaces.Dict, data: st.DataObject) -> None:
    known = entries(space)
    keys = tuple(data.draw(st.lists(st.sampled_from(list(known)), min_size=1, unique=True)))
    assert chosen_keys(space, keys, "lab") == keys
    observation = space.sample()
    parts = []
    for key in keys:
        value: Any = observation
        for part in key.split("/"):
            value = value[part]
        parts.append(value)
    np.testing.assert_array_equal(joined(observation, keys), np.concatenate(parts))
    found = joined_space(space, keys, "lab")
    assert found.shape == (sum(map(len, parts)),) and found.contains(joined(observation, keys).astype(np.float32))


# ------------------------------------------------------------------ in an environment


class Reach(gymnasium.Env[Any, Any]):
    """A point that goes where it is sent; only the goal says where that is. Reward -|goal - action|, one step."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict({"desired_goal": box(1), "observation": box(2)})
        self.action_space = box(1)

    def _obs(self) -> dict[str, Any]:
        return {"observation": np.full(2, 0.5, np.float32), "desired_goal": self.goal}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.goal = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._obs(), -float(np.abs(self.goal - action).sum()), True, False, {}


gymnasium.register("offline_vi_tests/Reach-v0", entry_point=Reach, max_episode_steps=1)  # type: ignore[arg-type]
FIRST = ("observation", "desired_goal")


class ToTheGoal:
    """Sends the point to the number at a place of the observation."""

    def __init__(self, place: int) -> None:
        self.place = place

    def act(self, obs: Tensor) -> Tensor:
        return obs[:, [self.place]]

    def explore(self, obs: Tensor) -> Tensor:
        return self.act(obs)


def test_the_goal_is_part_of_what_a_policy_sees() -> None:
    with pytest.warns(DataWarning, match="desired_goal"):
        task = environment("offline_vi_tests/Reach-v0")
    assert task.obs_keys == FIRST
    assert spec_of(task) == Spec((3,), 1)
    check_spaces(Spec((3,), 1), task)
    assert evaluate(ToTheGoal(2), task, 5).returns.tolist() == [0.0] * 5
    other = Task.from_json({**task.to_json(), "obs_keys": FIRST[::-1]})
    assert evaluate(ToTheGoal(0), other, 5).returns.tolist() == [0.0] * 5, "the order is that of the keys"
    with pytest.raises(SpaceMismatchError):
        check_spaces(Spec((2,), 1), task)


def test_what_is_collected_is_what_is_evaluated() -> None:
    task = Task("offline_vi_tests/Reach-v0", (-1.0,), (1.0,), obs_keys=FIRST)
    collector = Collector(ToTheGoal(2), task, Spec((3,), 1), 4, Collection(warmup=4), seed=0)
    collector.sample()
    data: Transitions = collector.transitions()
    collector.close()
    torch.testing.assert_close(torch.from_numpy(data.obs[:, :2]), torch.full((len(data), 2), 0.5))
    assert not np.allclose(data.obs[:, 2], data.obs[0, 2]), "the goals differ"


def test_observation_of_needs_no_dict() -> None:
    assert observation_of([1.0, 2.0], Task("E-v0", (-1.0,), (1.0,))).tolist() == [1.0, 2.0]


def test_the_former_name_of_the_keys() -> None:
    with pytest.warns(DeprecationWarning, match="obs_keys"):
        task = Task("E-v0", (-1.0,), (1.0,), obs_key="observation")  # type: ignore[call-arg]
    assert task.obs_keys == ("observation",)
    with pytest.warns(DeprecationWarning, match="obs_keys"):
        assert task.obs_key == "observation"
    former = {name: value for name, value in task.to_json().items() if name != "obs_keys"}
    assert Task.from_json({**former, "obs_key": "observation"}) == task
    assert Task.from_json({**former, "obs_key": None}).obs_keys == ()
    assert Task.from_json(former).obs_keys == ()
