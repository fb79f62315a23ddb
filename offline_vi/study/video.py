"""Films of episodes: animated WebP, written with Pillow, no other program needed."""

from __future__ import annotations

import io
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
            with writing(self.folder, film.tell()):
                replace_file(self.folder / self.name, film.getvalue())
            self.frames = []

    def close(self) -> None:
        self.write()
        super().close()


def film(policy: Policy, task: Task, episodes: int, seed: int, folder: Path) -> Evaluation:
    """Score ``episodes`` episodes (as `evaluate`) and write each to FOLDER/episode-SEED.webp.

    Raises EnvError where the environment cannot be rendered here.
    """
    require_folder(folder).mkdir(parents=True, exist_ok=True)
    seen = replace(task, kwargs={**task.kwargs, "render_mode": "rgb_array"})
    hint = "MuJoCo: try MUJOCO_GL=egl or osmesa; Pendulum: pip install pygame"
    try:
        return evaluate(policy, seen, episodes, seed, num_envs=1, wrap=lambda env: Recorder(env, folder))
    except Exception as error:  # whatever an environment or a graphics library raises
        raise EnvError(f"{task.env_id} cannot be filmed: {' '.join(str(error).split())[:160]}", hint) from error
