"""Small runs from Python, each resumed where its directory is there: what the tests kill, and repeat elsewhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch._dynamo  # torch imports it with the first optimizer: a second that is no part of the work
from agents import built, small_choice
from fresh import Work

from offline_vi import registry
from offline_vi.algorithms.sac import SAC, SACConfig
from offline_vi.data.transitions import Transitions
from offline_vi.datasets import environment
from offline_vi.runs.directory import RunDirectory
from offline_vi.training.loop import fit
from offline_vi.training.online import fit_online
from offline_vi.training.randomness import set_seed
from offline_vi.types import Spec

SPEC = Spec((3,), 2)


def rows(count: int = 2_000) -> Transitions:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(count + 1, 3)).astype(np.float32)
    return Transitions(
        obs[:-1],
        rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        rng.normal(size=count).astype(np.float32),
        obs[1:],
        rng.random(count) < 0.02,
        np.arange(1, count + 1) % 100 == 0,
        SPEC,
    )


def opened(path: Path) -> RunDirectory:
    return RunDirectory.resume(path) if path.is_dir() else RunDirectory.create(path)


def offline(name: str, path: Path) -> None:
    """One algorithm, its behaviour model trained a step each."""
    torch.set_num_threads(1)
    set_seed(3)
    algorithm = built(small_choice(name, SPEC), SPEC)
    with opened(path) as run:
        options = {"log_every": 7, "save_every": 6, "run": run, "resume": run.has_checkpoint(), "progress": False}
        fit(algorithm, rows(), 30, seed=3, **options)  # type: ignore[arg-type]


def online(path: Path) -> None:
    """An algorithm that collects its own data in two environments."""
    set_seed(3)
    agent = SAC(Spec((3,), 1), SACConfig(hidden=(8, 8), batch_size=8))
    with opened(path) as run:
        fit_online(
            agent,
            environment("Pendulum-v1"),
            Spec((3,), 1),
            80,
            warmup=20,
            num_envs=2,
            seed=3,
            run=run,
            save_every=20,
            resume=run.has_checkpoint(),
            log_every=15,
            progress=False,
        )


WORKS: dict[str, Work] = {"online": online, **{name: partial(offline, name) for name in registry.trainable()}}
