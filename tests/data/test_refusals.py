"""What data are refused for, and what is repaired and reported: the class of the error and the facts in its message."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from offline_vi.data.frames import Frames, SequenceSampler
from offline_vi.data.replay import Replay
from offline_vi.data.transitions import Provenance, Transitions, concatenate
from offline_vi.errors import (
    ActionRangeError,
    CheckpointCorruptError,
    DatasetFormatError,
    DataWarning,
    EmptyDatasetError,
    NonFiniteDataError,
    OfflineVIError,
    SpaceMismatchError,
    UsageError,
)
from offline_vi.nn.normalizer import Normalizer
from offline_vi.types import Spec, Task

NAN, INF = float("nan"), float("inf")
Call = Callable[[], object]
LOG_PROB = "infos/action_log_probs"
WITHIN = {"next_obs": "within_episode"}


def columns(**changed: Any) -> dict[str, Any]:
    """Six steps, two episodes: a terminal one and one that time ends."""
    rows = {
        "observations": np.arange(12.0, dtype=np.float32).reshape(6, 2),
        "actions": np.linspace(-0.5, 0.5, 6, dtype=np.float32)[:, None],
        "rewards": np.ones(6, np.float32),
        "terminals": np.array([0, 0, 1, 0, 0, 0], bool),
        "timeouts": np.array([0, 0, 0, 0, 0, 1], bool),
    }
    return {key: value for key, value in (rows | changed).items() if value is not None}


def read(_options: Any = None, **changed: Any) -> Call:
    """The call that reads these columns."""
    return lambda: Transitions.from_d4rl(columns(**changed), **(_options or {}))


def at(values: Any, index: Any, value: float) -> Any:
    changed = np.array(values, np.float64)
    changed[index] = value
    return changed.astype(np.float32)


def named(name: str, task: Task | None = None, **changed: Any) -> Transitions:
    return Transitions.from_d4rl(columns(**changed), task=task, source=Provenance(name))


def frames(**changed: Any) -> Frames:
    arrays: dict[str, Any] = {
        "frames": np.zeros((5, 3, 8, 8), np.uint8),
        "action": np.zeros((4, 1), np.float32),
        "reward": np.zeros(4, np.float32),
        "terminated": np.zeros(4, bool),
        "lengths": np.array([4]),
    }
    return Frames(**(arrays | changed), spec=Spec((3, 8, 8), 1, "uint8"))


OBS, ACTION, REWARD = columns()["observations"], columns()["actions"], columns()["rewards"]
NARROW, WIDE = Task("Narrow-v0", (-1.0,), (1.0,)), Task("Wide-v0", (-2.0,), (2.0,))

REFUSED: dict[str, tuple[Call, type[OfflineVIError], list[str]]] = {
    "no step": (read({"max_episode_steps": 0}), UsageError, ["max_episode_steps", "0"]),
    "next_obs": (read({"next_obs": "x"}), UsageError, ["next_obs", "'x'", "following_row", "within_episode"]),
    "rows": (read({"rows": "x"}), UsageError, ["rows", "'x'", "d4rl", "strict"]),
    "range": (read({"action_range": "x"}), UsageError, ["action_range", "'x'", "error", "clip", "data"]),
    "nonfinite": (read({"on_nonfinite": "x"}), UsageError, ["on_nonfinite", "'x'", "error", "drop-episode"]),
    "nothing left": (
        read(observations=OBS[:1], actions=ACTION[:1], rewards=REWARD[:1], terminals=[0], timeouts=[0]),
        EmptyDatasetError, ["arrays", "no transition"],
    ),
    "no rows": (
        read(observations=OBS[:0], actions=ACTION[:0], rewards=REWARD[:0], terminals=[], timeouts=[]),
        EmptyDatasetError, ["arrays", "no rows"],
    ),
    "one episode": (lambda: named("one", terminals=np.zeros(6)).split_episodes(), EmptyDatasetError, ["one", "split"]),
    "other shapes": (
        lambda: concatenate([named("a"), named("b", observations=np.zeros((6, 3)))]), SpaceMismatchError,
        ["(3,)", "(2,)", "1"],
    ),
    "other scales": (
        lambda: concatenate([named("a", NARROW), named("b", WIDE)]), SpaceMismatchError,
        ["b and a", 'action_range="error"', 'action_range="clip"'],
    ),
    "scales known and unknown": (
        lambda: concatenate([named("a", NARROW), named("b")]), SpaceMismatchError, ["b and a", "scale"],
    ),
    "missing key": (read(rewards=None), DatasetFormatError, ["arrays", "'rewards' missing", "observations, actions"]),
    "missing keys": (read(rewards=None, actions=None), DatasetFormatError, ["'actions', 'rewards' missing"]),
    "other length": (read(rewards=REWARD[:5]), DatasetFormatError, ["'rewards' has 5 rows, 'observations' 6"]),
    "other next shape": (
        read(WITHIN, next_observations=np.zeros((6, 3))), DatasetFormatError,
        ["'next_observations'", "(6, 3)", "'observations' (6, 2)"],
    ),
    "no timeouts": (
        read(timeouts=None), DatasetFormatError, ["'timeouts' is missing", "max_episode_steps=N", "env=ID"],
    ),
    "text": (read(rewards=np.array(["x"] * 6)), DatasetFormatError, ["'rewards'", "<U1"]),
    "flat": (read(actions=REWARD), DatasetFormatError, ["'actions'", "(6,)", "(rows, features)"]),
    "deep": (read(rewards=np.ones((6, 2))), DatasetFormatError, ["'rewards'", "(6, 2)", "(rows,)"]),
    "flag": (read(terminals=at(np.zeros(6), 2, NAN)), DatasetFormatError, ["'terminals'", "NaN", "0 or 1"]),
    "not finite": (
        read(observations=at(at(OBS, (4, 1), NAN), (5, 0), INF), rewards=at(REWARD, 1, NAN)), NonFiniteDataError,
        [
            "1 NaN and 1 Inf in observations, first at row 4 (episode 1)",
            "1 NaN in rewards, first at row 1 (episode 0)",
            'on_nonfinite="drop-episode"',
        ],
    ),
    "not finite, actions": (
        read(actions=at(ACTION, 3, INF)), NonFiniteDataError, ["1 Inf in actions, first at row 3 (episode 1)"],
    ),
    "not finite, next": (
        read(WITHIN, next_observations=at(OBS, (0, 1), NAN)), NonFiniteDataError,
        ["1 NaN in next_observations, first at row 0 (episode 0)"],
    ),
    "flat observations": (read(observations=REWARD), DatasetFormatError, ["'observations'", "(6,)"]),
    "no feature": (read(observations=OBS[:, :0]), DatasetFormatError, ["'observations'", "(6, 0)"]),
    "flat next": (read(WITHIN, next_observations=REWARD), DatasetFormatError, ["'next_observations'", "(6,)"]),
    "deep densities": (read(**{LOG_PROB: OBS}), DatasetFormatError, [f"'{LOG_PROB}'", "(6, 2)", "(rows,)"]),
    "flag of timeouts": (read(timeouts=at(np.zeros(6), 2, INF)), DatasetFormatError, ["'timeouts'", "infinities"]),
    "action dimension": (
        read({"task": Task("Two-v0", (-1.0, -1.0), (1.0, 1.0))}), SpaceMismatchError,
        ["action (1,) vs Two-v0 (2,)", "env=ID"],
    ),
    "action range": (
        read(actions=at(ACTION, 0, -3.0)), ActionRangeError,
        ["from -3 to 0.5", "1 of 6 entries", 'action_range="clip"', 'action_range="data"'],
    ),
    "order": (
        read(next_observations=OBS[::-1] + 0.5), DatasetFormatError,
        ["in 4 of 4 steps", "first at row 0", 'next_obs="within_episode"'],
    ),
    "empty replay": (lambda: Replay(Spec((2,), 1), 4).transitions(), EmptyDatasetError, ["replay", "no transition"]),
    "replay without a column": (
        lambda: Replay(Spec((2,), 1), 4).load_tensors({}), CheckpointCorruptError, ["replay", "obs"],
    ),
    "no frame": (lambda: frames(lengths=np.array([], np.int64)), EmptyDatasetError, ["arrays", "no step"]),
    "frames": (
        lambda: frames(reward=np.zeros(3, np.float32)), DatasetFormatError,
        ["uint8", "(5, 3, 8, 8)", "'reward': 3", "4 steps"],
    ),
    "one episode of frames": (lambda: frames().split_episodes(), EmptyDatasetError, ["one episode"]),
    "no sequence": (lambda: SequenceSampler(frames(), 2, 0), UsageError, ["2 sequences of 0 steps", "1 frames"]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_its_facts_and_a_remedy(case: str) -> None:
    call, kind, facts = REFUSED[case]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    told = f"{caught.value}\n{caught.value.hint}"
    assert caught.value.hint and told.count("\n") == 1
    for fact in facts:
        assert fact in told
    assert not re.search(r"--[a-z]", told), "the core speaks of arguments"


REPAIRED: dict[str, tuple[Call, list[list[str]]]] = {
    "rounded": (
        read(rewards=np.array([1.0, 2.0, 2.0**25 + 1.0, 1.0, 2.0**26 + 3.0, 0.0])),
        [["2 entries of 'rewards'", "float64", "0.0001", "at most 3"]],
    ),
    "rounded integers": (
        read(rewards=np.array([1, 2, 2**25 + 1, 1, 2, 0])), [["1 entries of 'rewards'", "int64", "at most 1"]],
    ),
    "dropped": (
        read({"on_nonfinite": "drop-episode"}, observations=at(OBS, (4, 1), INF)),
        [["dropped 1 of 2 episodes (3 rows)", "1 Inf in observations, first at row 4 (episode 1)"]],
    ),
    "double ends, following row": (
        read(timeouts=np.array([0, 0, 1, 0, 0, 1])), [["1 rows are both terminal and timeout", "dropped"]],
    ),
    "double ends, within episode": (
        read(WITHIN, timeouts=np.array([0, 0, 1, 0, 0, 1])),
        [["1 rows are both terminal and timeout", "kept as terminal"]],
    ),
    "clipped": (
        read({"action_range": "clip"}, actions=at(ACTION, 0, -3.0)), [["clipped 1 action entries", "at most 2"]],
    ),
    "clipped, with densities": (
        read({"action_range": "clip"}, actions=at(ACTION, 0, -3.0), **{LOG_PROB: np.zeros(6)}),
        [["clipped 1 action entries"], [f"'{LOG_PROB}' left out", "clipped actions"]],
    ),
    "densities": (
        read(**{LOG_PROB: at(at(np.zeros(6), 0, NAN), 1, INF)}), [[f"'{LOG_PROB}' left out", "2 entries"]],
    ),
    "constant features": (
        lambda: Normalizer(Spec((3,), 1)).fit(np.array([[1.0, 0.0, 5.0], [1.0, 1.0, 5.0]], np.float32)),
        [["features [0, 2]", "1e-3"]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REPAIRED)
def test_what_is_repaired_is_reported_and_counted(case: str) -> None:
    call, facts = REPAIRED[case]
    with pytest.warns(DataWarning) as caught:
        call()
    assert len(caught) == len(facts) and all(warning.category is DataWarning for warning in caught)
    for warning, expected in zip(caught, facts, strict=True):
        for fact in expected:
            assert fact in str(warning.message)


def test_a_data_set_of_which_nothing_is_finite_is_reported_first_and_refused_then() -> None:
    call = read({"on_nonfinite": "drop-episode"}, observations=np.full((6, 2), NAN))
    with pytest.warns(DataWarning, match="dropped 2 of 2"), pytest.raises(EmptyDatasetError, match="every episode"):
        call()
