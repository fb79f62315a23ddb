"""The table of tasks: which environment scores which data set, on which scale, and what is wrong with the data.

Importing this module imports neither torch nor an environment, so that names can be listed and completed quickly.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from offline_vi.types import Task

_HERE = Path(__file__).parent
_ENGINE = "D4RL's own files come from mujoco-py 2.0, scores from today's MuJoCo"
_FALL = "Gymnasium's v5 withholds the healthy reward on the falling step (-1 per fall)"
_OBSERVATION = ("observation",)
_HAND_SIGN = "gymnasium-robotics <= 1.4.2 has the sign of the hand-to-object term wrong (+0.1 instead of -0.1)"


@dataclass(frozen=True)
class Reference:
    """A D4RL data set: where its authors publish it and the returns that score 0 and 100."""

    url: str
    ref_min: float
    ref_max: float

    @property
    def file_name(self) -> str:
        """The name under which D4RL keeps it in its cache."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Family:
    """The data sets of one D4RL task: names that start with ``prefix``."""

    prefix: str
    env_id: str
    obs_dim: int  # of D4RL's data
    action_dim: int  # every box is [-1, 1]^A
    reference: str  # the data set whose reference scores stand for names that D4RL does not list
    max_episode_steps: int  # D4RL's limit
    kwargs: dict[str, Any] = field(default_factory=dict)
    obs_keys: tuple[str, ...] = ()  # D4RL's data hold no goal
    note: str = ""
    other_columns: bool = False  # the environment's observations are others than the data's: nothing can be scored


def _maze2d(maze: str, env: str, steps: int) -> tuple[Family, Family]:
    """D4RL's goal is fixed, its coordinates are shifted and its goal radius is 0.5 instead of 0.45."""
    kwargs = {"continuing_task": True, "reset_target": False}  # the nearest to D4RL's never-ending episodes
    note = "not comparable: goal, coordinates and radius differ from D4RL's maze2d"
    sparse, dense = (f"maze2d-{maze}-{version}" for version in ("v1", "dense-v1"))
    return (
        Family(f"maze2d-{maze}-dense", f"PointMaze_{env}Dense-v3", 4, 2, dense, steps, kwargs, _OBSERVATION, note),
        Family(f"maze2d-{maze}", f"PointMaze_{env}-v3", 4, 2, sparse, steps, kwargs, _OBSERVATION, note),
    )


def _antmaze(maze: str, env: str, reference: str, steps: int) -> Family:
    """D4RL's ant has other gears, another time step and x, y among its 29 observations."""
    kwargs = {"continuing_task": False}  # the default goes on after the goal: returns above 1
    note = "not comparable: the ant, its time step and its observations differ from D4RL's antmaze"
    return Family(f"antmaze-{maze}", f"AntMaze_{env}-v4", 29, 8, reference, steps, kwargs, _OBSERVATION, note, True)


def _kitchen(kind: str, tasks: list[str]) -> Family:
    note = "not comparable: another robot model, 59 observations instead of 60 with the goal apart"
    name = f"kitchen-{kind}"
    return Family(
        name, "FrankaKitchen-v1", 60, 9, f"{name}-v0", 280, {"tasks_to_complete": tasks}, _OBSERVATION, note, True
    )  # fmt: skip


FAMILIES = (  # the first match counts: longer prefixes first
    Family("hopper", "Hopper-v5", 11, 3, "hopper-medium-v2", 1000, note=f"{_ENGINE}; {_FALL}"),
    Family("halfcheetah", "HalfCheetah-v5", 17, 6, "halfcheetah-medium-v2", 1000, note=_ENGINE),
    # Walker2d-v5's own model doubles the friction of the right foot (0.9 -> 1.9): other dynamics than the data's
    Family(
        "walker2d", "Walker2d-v5", 17, 6, "walker2d-medium-v2", 1000, {"xml_file": "walker2d.xml"},
        note=f"{_ENGINE}; {_FALL}",
    ),
    *(
        _antmaze(maze, env, f"antmaze-{maze}-{kind}v2", steps)
        for maze, env, kind, steps in (
            ("umaze", "UMaze", "", 700),
            ("medium", "Medium", "play-", 1000),
            ("large", "Large", "play-", 1000),
        )
    ),
    # D4RL's 111 observations hold the contact forces; v5 holds 105 of them and charges for contacts
    Family("ant", "Ant-v4", 111, 8, "ant-medium-v2", 1000, {"use_contact_forces": True}, note=_ENGINE),
    *_maze2d("umaze", "UMaze", 300),
    *_maze2d("medium", "Medium", 600),
    *_maze2d("large", "Large", 800),
    Family(
        "pen", "AdroitHandPen-v1", 45, 24, "pen-human-v1", 100,
        note="D4RL ends an episode when the pen is dropped, gymnasium-robotics does not",
    ),
    Family("door", "AdroitHandDoor-v1", 39, 28, "door-human-v1", 200, note=_HAND_SIGN),
    Family("hammer", "AdroitHandHammer-v1", 46, 26, "hammer-human-v1", 200, note=_HAND_SIGN),
    Family("relocate", "AdroitHandRelocate-v1", 39, 30, "relocate-human-v1", 200, note=_HAND_SIGN),
    _kitchen("complete", ["microwave", "kettle", "light switch", "slide cabinet"]),
    _kitchen("partial", ["microwave", "kettle", "light switch", "slide cabinet"]),
    _kitchen("mixed", ["microwave", "kettle", "bottom burner", "light switch"]),
)  # fmt: skip

# pattern of the name -> what is known to be wrong, with the issue of github.com/Farama-Foundation/D4RL
DEFECTS = {
    r"hopper-medium-expert-v0": "is expert + replay, 1,200,919 rows (#19)",
    r"hopper-(medium|expert)-v1": "was swapped once and is weak (#76, #86): use v2",
    r"halfcheetah-.*": "never terminates, by design (#22)",
    r".*-medium-replay-v2": "timeouts are missing or early in places (#162)",
    r"antmaze-.*-v[01]": "timeouts are out of step, the ant teleports within episodes (#77, #146): use v2",
    r"antmaze-umaze-diverse-v[02]": "one reward per trajectory, unlike the other antmaze sets (#199)",
    r"maze2d-.*": "rewards belong to the observation before (#194); timeouts mark waypoints (#85, #158)",
    r"(pen|door|hammer|relocate)-(human|cloned).*": "demonstrations are longer than the task's limit, "
    "episode borders are odd (#137)",
    r"kitchen-.*": "the goal in the observations never changes; terminals mark ends of demonstrations, not success",
    r"(hopper|halfcheetah|walker2d|ant)-.*-v[01]": "published tables mix v0 and v2 scores (#131)",
}


class Recipe(NamedTuple):
    """What the library collects itself."""

    module: str  # of this package, with ``collect(name, size, seed)``
    env: str
    size: str  # what its size is counted in: episodes or rows


ROBOTS = {"hopper": "Hopper-v5", "halfcheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v5"}
LEVELS = {  # of the locomotion recipes, by version
    "v0": ("random", "medium", "medium-replay", "medium-expert", "expert"),
    "v1": ("medium", "medium-replay", "medium-expert", "expert"),  # of longer runs
}
RECIPES = {
    "offline-vi/pendulum/mixed-v0": Recipe("recipes", "Pendulum-v1", "episodes"),
    **{
        f"offline-vi/{robot}/{level}-{version}": Recipe("locomotion", env, "rows")
        for version, levels in LEVELS.items()
        for robot, env in ROBOTS.items()
        for level in levels
    },
}
RECIPE_NAMES = tuple(RECIPES)
PIXEL_NAMES = {  # read by `datasets.load_images` -> the environment
    "offline-vi/pixels/point-mass-v0": "offline-vi/PixelPointMass-v0",
    "offline-vi/pixels/point-mass-narrow-v0": "offline-vi/PixelPointMass-v0",
    "offline-vi/pixels/pendulum-v0": "offline-vi/PixelPendulum-v0",
    "offline-vi/pixels/pendulum-mixed-v0": "offline-vi/PixelPendulum-v0",
}
_MINARI = {  # group -> the data sets of farama-minari in it
    **dict.fromkeys(("D4RL/door", "D4RL/hammer", "D4RL/pen", "D4RL/relocate"), "human-v2 cloned-v2 expert-v2"),
    "D4RL/antmaze": "umaze-v1 umaze-diverse-v1 medium-play-v1 medium-diverse-v1 large-play-v1 large-diverse-v1",
    "D4RL/pointmaze": "open-v2 open-dense-v2 umaze-v2 umaze-dense-v2 medium-v2 medium-dense-v2 large-v2 large-dense-v2",
    "D4RL/kitchen": "complete-v2 partial-v2 mixed-v2",
    **dict.fromkeys(
        (f"mujoco/{env}" for env in ("ant", "halfcheetah", "hopper", "humanoid", "humanoidstandup", "walker2d")),
        "simple-v0 medium-v0 expert-v0",
    ),
    **dict.fromkeys(
        (f"mujoco/{env}" for env in ("inverteddoublependulum", "invertedpendulum", "pusher", "reacher", "swimmer")),
        "medium-v0 expert-v0",
    ),
}
MINARI_NAMES = tuple(f"{group}/{name}" for group, names in _MINARI.items() for name in names.split())


@cache
def d4rl_references() -> dict[str, Reference]:
    """D4RL's own table (d4rl/infos.py): name -> URL and reference scores."""
    table = json.loads((_HERE / "d4rl_reference.json").read_text())
    return {name: Reference(**row) for name, row in table.items()}


@cache
def d4rl_hashes() -> dict[str, str]:
    """Name -> SHA-256 of the published file, where it is known (source: the checksums of TensorFlow Datasets)."""
    with (_HERE / "d4rl_sha256.tsv").open(newline="") as lines:
        return {row["dataset_id"]: row["sha256"] for row in csv.DictReader(lines, delimiter="\t")}


def d4rl_name(stem: str) -> str:
    """The data set that D4RL keeps under this file stem ("hopper_medium-v2"), else the stem itself."""
    for name, reference in d4rl_references().items():
        if reference.file_name == f"{stem}.hdf5":
            return name
    return stem


def family_of(name: str) -> Family | None:
    """The family of a D4RL name or of a file stem such as "hopper_medium-v2"; None where there is none."""
    name = name.lower().replace("_", "-")
    for family in FAMILIES:
        if name == family.prefix or name.startswith(f"{family.prefix}-"):
            return family
    return None


def is_d4rl_name(name: str) -> bool:
    """Whether a name or a file stem begins with the whole name of a data set of D4RL's, its version aside:
    "hopper-medium" and "hopper_medium-v2-again" do, "hopper-lab" does not."""
    name = name.lower().replace("_", "-")
    wholes = {re.sub(r"-v\d+$", "", known) for known in d4rl_references()}
    return any(name == whole or name.startswith(f"{whole}-") for whole in wholes)


def task_of(name: str) -> Task | None:
    """The task of a D4RL name or a file stem, in a [-1, 1] box; None where the name does not tell.

    It has no environment where today's has other observations than D4RL's data.
    """
    family = family_of(d4rl_name(name))
    if family is None:
        return None
    task = task_in_family(family, d4rl_name(name))
    return replace(task, env_id="", kwargs={}) if family.other_columns else task


def task_in_family(family: Family, name: str) -> Task:
    """A family's environment with the reference scores of one of its data sets."""
    from offline_vi.types import Task  # needs torch

    reference = d4rl_references().get(name, d4rl_references()[family.reference])
    return Task(
        env_id=family.env_id,
        action_low=(-1.0,) * family.action_dim,
        action_high=(1.0,) * family.action_dim,
        kwargs=family.kwargs,
        name=name,
        ref_min=reference.ref_min,
        ref_max=reference.ref_max,
        max_episode_steps=family.max_episode_steps,
        obs_keys=family.obs_keys,
        note=family.note,
    )


def defects_of(name: str) -> list[str]:
    """What is known to be wrong with a D4RL data set."""
    return [text for pattern, text in DEFECTS.items() if re.fullmatch(pattern, d4rl_name(name))]
