"""Data sets that are made rather than fetched, by recipe and seed, and kept in Minari's format.

``offline-vi/pendulum/mixed-v0``: Gymnasium's Pendulum-v1 (no MuJoCo) under a mixture of hand-written controllers,
drawn anew at every step. Two of them swing up well, one to either side; one pulls towards the top, too weak to get
there; one is uniform. The mixture's density is known exactly, it has several modes, and the best of its modes is far
better than the mixture: what an offline algorithm can gain over cloning.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray

from offline_vi.data.transitions import Transitions
from offline_vi.datasets.minari import folder_of, root
from offline_vi.errors import ConfigError, UsageError
from offline_vi.types import Task

Array = NDArray[np.float64]
PENDULUM = "offline-vi/pendulum/mixed-v0"
MAX_TORQUE = 2.0
# weight and pre-tanh standard deviation of: swing up to the right, to the left, pull; the rest of the weight is uniform
WEIGHTS = np.array([0.2, 0.2, 0.3, 0.3])
SCALES = np.array([0.3, 0.3, 0.6])
LEAN = 1.0  # rad/s: below this speed the two swing-up controllers disagree
# Mean returns of 1,000 episodes, seeds 0..999: python -m offline_vi.datasets.recipes
UNIFORM_RETURN = -1224.2
SWING_UP_RETURN = -148.3


def swing_up(obs: Array, direction: float, lean: float) -> Array:
    """Pump energy until the top is near, then hold it there (a PD controller).

    obs (B, 3) holds cos, sin of the angle from the top and its speed in rad/s; returns (B,) in [-1, 1]. ``direction``
    (+1 or -1) says where to start from rest, ``lean`` up to which speed it has the last word.
    """
    cos, sin, speed = obs.T
    missing_energy = 5.0 - (speed**2 / 6.0 + 5.0 * cos)  # J, for m = l = 1, g = 10
    pump = 4.0 * missing_energy * np.sign(speed + direction * lean)
    hold = -(16.0 * sin + 4.0 * speed)
    torque: Array = np.where((cos > 0.85) & (np.abs(speed) < 2.0), hold, pump)
    return np.clip(torque / MAX_TORQUE, -1.0, 1.0)


def pull(obs: Array) -> Array:
    """Towards the top by the shortest way; the motor is too weak for it. (B, 3) -> (B,) in [-1, 1]."""
    _, sin, speed = obs.T
    torque: Array = -(6.0 * sin + speed)
    return np.clip(torque / MAX_TORQUE, -1.0, 1.0)


def _locations(obs: Array) -> Array:
    """(B, 3) pre-tanh locations of the three controllers; 0.95 keeps them off the bounds."""
    targets = np.stack([swing_up(obs, 1.0, LEAN), swing_up(obs, -1.0, LEAN), pull(obs)], axis=-1)
    return np.arctanh(np.clip(targets, -0.95, 0.95))


def sample(obs: Array, rng: np.random.Generator) -> Array:
    """(B,) actions in (-1, 1) of the mixture."""
    batch = len(obs)
    squashed = np.tanh(_locations(obs) + SCALES * rng.standard_normal((batch, len(SCALES))))
    candidates = np.concatenate([squashed, rng.uniform(-1.0, 1.0, (batch, 1))], axis=1)
    return candidates[np.arange(batch), rng.choice(len(WEIGHTS), size=batch, p=WEIGHTS)]


def log_prob(obs: Array, action: Array) -> Array:
    """(B,) log-density in nats of actions (B,) in (-1, 1) under the mixture."""
    unsquashed = np.arctanh(action)[:, None]
    z = (unsquashed - _locations(obs)) / SCALES
    normal = -0.5 * z**2 - np.log(SCALES) - 0.5 * np.log(2.0 * np.pi)
    squashed = normal - np.log1p(-(action[:, None] ** 2))
    uniform = np.full((len(action), 1), -np.log(2.0))
    density: Array = np.logaddexp.reduce(np.log(WEIGHTS) + np.concatenate([squashed, uniform], axis=1), axis=1)
    return density


def roll_out(policy: Callable[[Array], Array], episodes: int, seed: int) -> dict[str, NDArray[Any]]:
    """Whole episodes of Pendulum-v1, side by side, with seeds ``seed``, ``seed + 1``, ...

    Returns obs (T + 1, B, 3) float32, action (T, B) in [-1, 1] float32 and reward (T, B) float64.
    """
    env = gymnasium.make_vec("Pendulum-v1", num_envs=episodes, vectorization_mode="sync")
    observation, _ = env.reset(seed=seed)
    obs, action, reward = [observation], [], []
    over = np.zeros(episodes, np.bool_)
    while not over.any():  # Pendulum has a time limit only: all episodes end together
        action.append(policy(observation.astype(np.float64)).astype(np.float32))
        observation, step_reward, terminated, truncated, _ = env.step(action[-1][:, None] * np.float32(MAX_TORQUE))
        obs.append(observation)
        reward.append(step_reward)
        over = terminated | truncated
    env.close()
    return {"obs": np.stack(obs), "action": np.stack(action), "reward": np.stack(reward)}


def collect(name: str, episodes: int = 300, seed: int = 0) -> Path:
    """Make a recipe's data set in Minari's root, whole or not at all; returns its folder. Same seed, same data."""
    folder = folder_of(name)
    print(f"collecting {name} ({episodes} episodes of Pendulum-v1) into {folder}", file=sys.stderr)
    rng = np.random.default_rng(seed)
    rows = roll_out(lambda obs: sample(obs, rng), episodes, seed)
    buffers = [_episode(rows, number, seed + number) for number in range(episodes)]
    return write(name, buffers, "Pendulum-v1", UNIFORM_RETURN, SWING_UP_RETURN, str(__doc__))


def save(name: str, data: Transitions, description: str) -> Path:
    """Write transitions of a registered environment, in its own units, as a Minari data set; returns the folder.

    Every episode must be whole from its first row to its last: the next observation of a row is the next row's.
    Raises UsageError where the name is taken, ConfigError without a task.
    """
    if data.task is None:
        raise ConfigError(f"{data.source.name} has no task", "a Minari data set names its environment")
    if folder_of(name).exists():
        raise UsageError(f"{folder_of(name)} exists", "choose another version: NAME-v1")
    buffers = []
    for number, rows in enumerate(data.episode_slices()):
        ended = data.terminated[rows]
        truncated = np.zeros(len(ended), np.bool_)
        truncated[-1] = not ended[-1]
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=[*data.obs[rows], data.next_obs[rows][-1]],
                actions=list(data.task.to_env(data.action[rows])),
                rewards=[float(reward) for reward in data.reward[rows]],
                terminations=ended.tolist(),
                truncations=truncated.tolist(),
            )
        )
    task = data.task
    return write(name, buffers, specified(task), task.ref_min, task.ref_max, description, "exploration")


def specified(task: Task) -> EnvSpec:
    """The registered environment with the task's own arguments."""
    spec = copy.deepcopy(gymnasium.spec(task.env_id))
    spec.kwargs.update(task.kwargs)
    return spec


def write(
    name: str,
    episodes: list[EpisodeBuffer],
    env: str | EnvSpec | None,
    ref_min: float | None,
    ref_max: float | None,
    description: str,
    by: str = "mixture of hand-written controllers",
    observation_space: gymnasium.Space[Any] | None = None,
    action_space: gymnasium.Space[Any] | None = None,
) -> Path:
    """Put episodes into Minari's root, whole or not at all; returns the folder.

    Without a registered environment the spaces have to be given; else they are its own by default.
    """
    folder = folder_of(name)
    root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".collect-", dir=root()) as scratch:
        with _minari_root(scratch):
            minari.create_dataset_from_buffers(
                name,
                episodes,
                env=env,
                eval_env=env,
                algorithm_name=by,
                author="offline_vi",
                author_email="none",
                code_permalink="offline_vi/datasets/recipes.py",
                ref_min_score=ref_min,
                ref_max_score=ref_max,
                description=description,
                observation_space=observation_space,
                action_space=action_space,
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(Path(scratch) / name, folder)
        except OSError:  # another process was faster: same recipe, same data
            if not (folder / "data").is_dir():
                raise
    return folder


def _episode(rows: dict[str, NDArray[Any]], number: int, seed: int) -> EpisodeBuffer:
    obs, action, reward = (rows[key][:, number] for key in ("obs", "action", "reward"))
    steps = len(reward)
    density = log_prob(obs[:-1].astype(np.float64), action.astype(np.float64)) - np.log(MAX_TORQUE)
    return EpisodeBuffer(
        id=number,
        seed=seed,
        observations=list(obs),
        actions=list(action[:, None] * np.float32(MAX_TORQUE)),
        rewards=list(reward),
        terminations=[False] * steps,
        truncations=[False] * (steps - 1) + [True],
        infos={"action_log_probs": np.append(density, 0.0)},  # of the torque; Minari's infos have T + 1 rows
    )


@contextmanager
def _minari_root(folder: str) -> Iterator[None]:
    """Minari writes below the folder that this variable names and takes no other."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = folder
    try:
        yield
    finally:
        del os.environ["MINARI_DATASETS_PATH"]
        if before is not None:
            os.environ["MINARI_DATASETS_PATH"] = before


def reference_returns(episodes: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Mean returns of the uniform policy (score 0) and of swinging up without noise (score 100)."""
    rng = np.random.default_rng(seed)
    uniform = roll_out(lambda obs: rng.uniform(-1.0, 1.0, len(obs)), episodes, seed)
    good = roll_out(lambda obs: swing_up(obs, 1.0, lean=0.1), episodes, seed)
    return float(uniform["reward"].sum(0).mean()), float(good["reward"].sum(0).mean())


if __name__ == "__main__":
    print("uniform {:.1f}, swing-up {:.1f}".format(*reference_returns()))
