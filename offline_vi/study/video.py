"""Films of episodes: animated WebP, written with Pillow, no other program needed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from offline_vi.errors import EnvError
from offline_vi.evaluation.evaluate import Evaluation, evaluate
from offline_vi.rl.policies import Policy
from offline_vi.runs.files import replace_file, require_folder, writing
from offline_vi.types import Task

WIDTH = 320  # pixels, at most
FRAMES_PER_SECOND = 25


class Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps a picture of every other step, small, and writes an episode when the next one begins."""

    def __init__(self, env: gymnasium.Env[Any, Any], folder: Path) -> None:
        super().__init__(env)
        self.folder, self.frames, self.steps, self.name = folder, list[Image.Image](), 0, ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.write()
        found = super().reset(seed=seed, options=options)
        self.name, self.steps = f"episode-{seed}.webp", 0
        self.keep()
        return found

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        found = super().step(action)
        self.steps += 1
        if self.steps % 2 == 0 or found[2] or found[3]:
            self.keep()
        return found

    def keep(self) -> None:
        frame: NDArray[np.uint8] = np.asarray(self.env.render())
        image = Image.fromarray(frame)
        image.thumbnail((WIDTH, WIDTH))
        self.frames.append(image)

    def write(self) -> None:
        if self.frames:
            first, *rest = self.frames
            duration = 1000 // FRAMES_PER_SECOND
            film = io.BytesIO()
            first.save(film, format="webp", save_all=True, append_images=rest, duration=duration, loop=0)
            self.folder.mkdir(parents=True, exist_ok=True)
            with writing(self.folder, film.tell()):
                replace_file(self.folder / self.name, film.getvalue())
            self.frames = []

    def close(self) -> None:
        self.write()
        super().close()


TRY_RENDERER = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco/>")
renderer = mujoco.Renderer(model, 8, 8)
renderer.update_scene(mujoco.MjData(model))
renderer.render()
"""
PATIENCE = 60.0  # seconds for a renderer to draw one picture


def choose_renderer() -> str:
    """Have MuJoCo draw by a renderer that works here, EGL first, which needs no display; returns its name. What
    MUJOCO_GL says is taken as it is. Each is tried in a process of its own, for some graphics libraries end the one
    that they fail in.

    Raises EnvError where none works.
    """
    named = os.environ.get("MUJOCO_GL")
    candidates = [named] if named else ["egl", "osmesa", *(["glfw"] if os.environ.get("DISPLAY") else [])]
    for name in candidates:
        if renders(name):
            os.environ["MUJOCO_GL"] = name
            return name
    raise EnvError(
        f"MuJoCo cannot draw here: {' and '.join(candidates)} failed",
        "install a graphics library (Debian, Ubuntu: apt install libegl1 libosmesa6), or film on another machine",
    )


def renders(name: str) -> bool:
    """Whether MuJoCo draws an empty scene by that renderer."""
    platform = {"PYOPENGL_PLATFORM": name} if name in ("egl", "osmesa") else {}
    variables = {**os.environ, "MUJOCO_GL": name, **platform}
    try:
        found = subprocess.run(
            [sys.executable, "-c", TRY_RENDERER], env=variables, capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return found.returncode == 0


def film(policy: Policy, task: Task, episodes: int, seed: int, folder: Path) -> Evaluation:
    """Score ``episodes`` episodes (as `evaluate`) and write each to FOLDER/episode-SEED.webp.

    Raises EnvError where the environment cannot be rendered here.
    """
    require_folder(folder)
    seen = replace(task, kwargs={**task.kwargs, "render_mode": "rgb_array"})
    if "mujoco" in sys.modules:  # which the task's environment imported, when it was scored or checked
        choose_renderer()
    hint = (
        "its constructor has to take render_mode, and its render() has to return a picture, (H, W, 3) of uint8; "
        "MuJoCo: try MUJOCO_GL=egl or osmesa; Pendulum: pip install pygame"
    )
    try:
        return evaluate(policy, seen, episodes, seed, num_envs=1, wrap=lambda env: Recorder(env, folder))
    except Exception as error:  # whatever an environment or a graphics library raises
        raise EnvError(f"{task.env_id} cannot be filmed: {' '.join(str(error).split())[:160]}", hint) from error
