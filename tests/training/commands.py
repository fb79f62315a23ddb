"""Small runs of the command, each resumed where its directory is there; their data lie next to the run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import h5py
import matplotlib.pyplot  # noqa: F401  # what a verb imports at its end, and torch at its first optimizer, is no work
import numpy as np
import torch._dynamo  # noqa: F401
from fresh import Work
from oracle_data import distinct_columns

from offline_vi.datasets import pixels
from offline_vi.datasets.images import Episode, save_episode
from offline_vi.scripts import main
from offline_vi.study import online, pixels as _pixels, train, verbs  # noqa: F401

PENDULUM, WALKS = "pendulum.hdf5", "walks"


def write_pendulum(path: Path) -> Path:
    """A file of Pendulum's shapes."""
    with h5py.File(path, "w") as file:
        for name, column in {**distinct_columns(300), "actions": np.zeros((300, 1), np.float32)}.items():
            file[name] = column
        states = np.random.default_rng(0).normal(size=(301, 3)).astype(np.float32)
        for key, rows in (("observations", states[:-1]), ("next_observations", states[1:])):
            del file[key]
            file[key] = rows
    return path


def write_walks(folder: Path) -> Path:
    """Four episodes of the point mass in images, in V-D4RL's layout."""
    steps = pixels.walk(4, 12, 1.0, seed=0)
    folder.mkdir()
    for number in range(4):
        frames, reward = pixels.draw_points(steps["obs"][:, number]), steps["reward"][:, number].astype(np.float32)
        save_episode(folder / f"{number}.npz", Episode(frames, steps["action"][:, number], reward, np.zeros(12, bool)))
    return folder


def command(algorithm: str, preset: str, eval_every: int, path: Path) -> None:
    """The verb: a model fitted ahead, evaluations and measures of support on the way."""
    small = (
        f"--steps 30 --eval-every {eval_every} --eval-episodes 1 --log-every 4 --save-every 5 --precision float32 -q"
    )
    sizes = "--hidden 8 --behavior.hidden 8 --batch-size 8 --behavior-steps 20"
    data = ["--preset", preset, "--dataset", str(path.parent / PENDULUM), "--env", "Pendulum-v1"]
    goes_on = ["--resume"] if path.is_dir() else []
    main(["train", algorithm, *data, *small.split(), *sizes.split(), "--output", str(path), *goes_on])


def goes_on(path: Path) -> list[str]:
    """The flags of a run that may have been begun."""
    return ["-q", "--output", str(path), "--resume" if (path / "config.json").exists() else "--overwrite"]


def explore(path: Path) -> None:
    """The verb for an online algorithm, with a bonus that has a network of its own and evaluations on the way."""
    small = "--steps 60 --warmup 10 --eval-every 20 --eval-episodes 1 --log-every 15 --save-every 15"
    sizes = "--hidden 8 --batch-size 8 --bonus vime --vime.features 16"
    main(["train-online", "sac", "--env", "Pendulum-v1", *small.split(), *sizes.split(), *goes_on(path)])


def planner(path: Path) -> None:
    """The verb for images: a model of sequences, a behaviour model on its states, a value, evaluations by planning."""
    small = "--steps 12 --eval-every 6 --eval-episodes 1 --log-every 2 --save-every 3 --batch-size 4 --length 4"
    sizes = "--hidden 8 --features 8 --channels 4 --ensemble 2 --horizon 2 --num-samples 4 --elite 2 --iterations 1"
    data = ["--dataset", str(path.parent / WALKS), "--env", "offline-vi/PixelPointMass-v0"]
    main(["train-pixels", *data, *small.split(), *sizes.split(), *goes_on(path)])


WORKS: dict[str, Work] = {
    "published": partial(command, "bcq", "published", 10),
    "fast": partial(command, "bcq", "fast", 30),
    "likely": partial(command, "emaq", "likely", 30),
    "explore": explore,
    "planner": planner,
}
