"""Films of episodes: as many frames as steps say, of the very episodes that are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from offline_vi.errors import EnvError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.study.video import WIDTH, film
from offline_vi.types import Task


class Lamp(gymnasium.Env[Any, Any]):
    """Brighter at every step; ends after nine."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.at = render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.at += 1
        return np.zeros(2, np.float32), float(action[0]), self.at == 9, False, {}

    def render(self) -> Any:
        return np.full((400, 640, 3), 25 * self.at, np.uint8)


class Blind(Lamp):
    """Cannot be drawn."""

    def render(self) -> Any:
        raise RuntimeError("no display")


gymnasium.register("Lamp-v0", entry_point=lambda **kwargs: Lamp(**kwargs), max_episode_steps=20)
gymnasium.register("Blind-v0", entry_point=lambda **kwargs: Blind(**kwargs), max_episode_steps=20)


class Still:
    def act(self, obs: Tensor) -> Tensor:
        return torch.tanh(obs[:, :1])


def test_every_episode_is_a_film_of_what_is_scored(tmp_path: Path) -> None:
    task = Task("Lamp-v0", (-1.0,), (1.0,))
    scored = film(Still(), task, 3, 7, tmp_path / "videos")
    np.testing.assert_array_equal(scored.returns, evaluate(Still(), task, 3, 7).returns)
    names = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert names == ["episode-7.webp", "episode-8.webp", "episode-9.webp"]
    with Image.open(tmp_path / "videos" / names[0]) as picture:
        light = [np.asarray(frame.convert("L")).mean() for frame in ImageSequence.Iterator(picture)]
        assert picture.size == (WIDTH, 200)
    assert light == pytest.approx([0, 50, 100, 150, 200, 225], abs=6)  # steps 0, 2, 4, 6, 8 and the last one


def test_an_environment_that_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"cannot be filmed.*no display"):
        film(Still(), Task("Blind-v0", (-1.0,), (1.0,)), 1, 0, tmp_path / "videos")
    assert not (tmp_path / "videos").exists()
