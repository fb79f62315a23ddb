"""Two worlds drawn in NumPy, as Gymnasium environments and as recipes: no GPU, no OpenGL.

``offline-vi/pixels/point-mass-v0``: a point in [-1, 1]^2, x' = clip(x + 0.1 a), reward -|x' - goal|, drawn as a
Gaussian blob on 16 x 16 pixels; 300 episodes of 20 uniform actions.
``offline-vi/pixels/point-mass-narrow-v0``: the same, with actions |a| <= 0.3 only.
``offline-vi/pixels/pendulum-v0``: Gymnasium's Pendulum-v1, drawn as a rod on 24 x 24 pixels; 200 episodes of 200 steps,
every other one uniform, the rest a controller too weak to swing up. One frame does not show the speed: stack two.
``offline-vi/pixels/pendulum-mixed-v0``: the same under the mixture of controllers of ``offline-vi/pendulum/mixed-v0``.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray

from offline_vi.datasets import recipes
from offline_vi.datasets.tasks import PIXEL_NAMES

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

GOAL = np.array([0.6, 0.6])
STEP = 0.1
POINT_MASS, NARROW, PENDULUM, PENDULUM_MIXED = PIXEL_NAMES
NARROW_BOUND = 0.3  # the largest |a| of the narrow data

# Mean returns of 30 steps from 1,000 starts, seeds 0..999, of uniform actions and of walking straight to the goal:
# python -m offline_vi.datasets.pixels
UNIFORM_RETURN, STRAIGHT_RETURN = -32.01, -5.11


def draw_points(place: Array, size: int = 16, width: float = 0.15) -> Image:
    """(B, 2) in [-1, 1]^2 -> (B, 1, size, size): a Gaussian blob with standard deviation ``width``."""
    axis = np.linspace(-1.0, 1.0, size)
    x, y = (np.exp(-0.5 * ((axis - place[:, [k]]) / width) ** 2) for k in range(2))  # (B, size) each
    return np.asarray(255.0 * y[:, None, :, None] * x[:, None, None, :], np.uint8)


def draw_rods(cos: Array, sin: Array, size: int = 24, width: float = 0.12) -> Image:
    """(B,), (B,) of the angle from upright -> (B, 1, size, size): a rod from the middle to its tip."""
    axis = np.linspace(-1.2, 1.2, size)
    x, y = axis[None, None, :], axis[None, ::-1, None]  # rows run downwards
    tip_x, tip_y = sin[:, None, None], cos[:, None, None]
    along = np.clip(x * tip_x + y * tip_y, 0.0, 1.0)
    squared = (x - along * tip_x) ** 2 + (y - along * tip_y) ** 2
    return np.asarray(255.0 * np.exp(-0.5 * squared / width**2), np.uint8)[:, None]


class PixelPointMass(gymnasium.Env[Image, NDArray[np.float32]]):
    """The point mass; starts are uniform, episodes have a time limit only."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(0, 255, (1, 16, 16), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.place = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Image, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1.0, 1.0, 2)
        return draw_points(self.place[None])[0], {}

    def step(self, action: NDArray[np.float32]) -> tuple[Image, float, bool, bool, dict[str, Any]]:
        self.place = np.clip(self.place + STEP * np.clip(action.astype(np.float64), -1.0, 1.0), -1.0, 1.0)
        reward = -float(np.linalg.norm(self.place - GOAL))
        return draw_points(self.place[None])[0], reward, False, False, {}


class PixelPendulum(PendulumEnv):
    """Pendulum-v1 whose observation is the drawn rod."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (1, 24, 24), np.uint8)

    def _get_obs(self) -> Any:
        angle = self.state[:1]
        return draw_rods(np.cos(angle), np.sin(angle))[0]


MODULE = "offline_vi.datasets.pixels"
ENVIRONMENTS = {
    POINT_MASS: ("offline-vi/PixelPointMass-v0", "PixelPointMass", 30),
    NARROW: ("offline-vi/PixelPointMass-v0", "PixelPointMass", 30),
    PENDULUM: ("offline-vi/PixelPendulum-v0", "PixelPendulum", 200),
    PENDULUM_MIXED: ("offline-vi/PixelPendulum-v0", "PixelPendulum", 200),
}
for _env_id, _name, _steps in ENVIRONMENTS.values():
    if _env_id not in gymnasium.registry:
        gymnasium.register(_env_id, f"{MODULE}:{_name}", max_episode_steps=_steps)


# ------------------------------------------------------------------ recipes


def walk(episodes: int, steps: int, bound: float, seed: int) -> dict[str, NDArray[Any]]:
    """Uniform actions |a_i| <= bound from uniform starts: place (T + 1, B, 2), action (T, B, 2), reward (T, B)."""
    rng = np.random.default_rng(seed)
    place = [rng.uniform(-1.0, 1.0, (episodes, 2))]
    action = rng.uniform(-bound, bound, (steps, episodes, 2)).astype(np.float32)
    for a in action:
        place.append(np.clip(place[-1] + STEP * a, -1.0, 1.0))
    reward = -np.linalg.norm(np.stack(place[1:]) - GOAL, axis=-1)
    return {"obs": np.stack(place), "action": action, "reward": reward}


def weak(obs: Array, rng: np.random.Generator) -> Array:
    """(B, 3) -> (B,) in [-1, 1]: uniform in every other row, in the others a noisy pull towards the top."""
    pulled = np.clip(recipes.pull(obs) + 0.3 * rng.standard_normal(len(obs)), -1.0, 1.0)
    return np.where(np.arange(len(obs)) % 2 == 0, rng.uniform(-1.0, 1.0, len(obs)), pulled)


def collect(name: str, episodes: int | None = None, seed: int = 0) -> Any:
    """Make a pixel recipe's data set in Minari's root, whole or not at all; returns its folder."""
    env_id = ENVIRONMENTS[name][0]
    if name in (PENDULUM, PENDULUM_MIXED):
        rng = np.random.default_rng(seed)
        policy = recipes.sample if name == PENDULUM_MIXED else weak
        rows = recipes.roll_out(lambda obs: policy(obs, rng), episodes or 200, seed)
        cos, sin, _ = np.moveaxis(rows["obs"].astype(np.float64), -1, 0)
        frames = np.stack([draw_rods(c, s) for c, s in zip(cos, sin, strict=True)])
        action = rows["action"][..., None] * np.float32(recipes.MAX_TORQUE)
        low, high = recipes.UNIFORM_RETURN, recipes.SWING_UP_RETURN
    else:
        rows = walk(episodes or 300, 20, NARROW_BOUND if name == NARROW else 1.0, seed)
        frames, action = np.stack([draw_points(place) for place in rows["obs"]]), rows["action"]
        low, high = UNIFORM_RETURN, STRAIGHT_RETURN
    count = frames.shape[1]
    print(f"drawing {name}: {count} episodes", file=sys.stderr)
    buffers = [
        EpisodeBuffer(
            id=number,
            seed=seed + number,
            observations=list(frames[:, number]),
            actions=list(action[:, number]),
            rewards=list(rows["reward"][:, number]),
            terminations=[False] * len(action),
            truncations=[False] * (len(action) - 1) + [True],
        )
        for number in range(count)
    ]
    return recipes.write(name, buffers, env_id, low, high, "a recipe of offline_vi/datasets/pixels.py")


def reference_returns(episodes: int = 1000, steps: int = 30) -> tuple[float, float]:
    """Mean returns on the point mass of uniform actions and of walking straight to the goal."""
    env = PixelPointMass()
    uniform = straight = 0.0
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        env.reset(seed=seed)
        uniform += sum(env.step(rng.uniform(-1.0, 1.0, 2).astype(np.float32))[1] for _ in range(steps))
        env.reset(seed=seed)
        straight += sum(env.step(((GOAL - env.place) / STEP).astype(np.float32))[1] for _ in range(steps))
    return uniform / episodes, straight / episodes


if __name__ == "__main__":
    print("uniform {:.2f}, straight {:.2f}".format(*reference_returns()))
