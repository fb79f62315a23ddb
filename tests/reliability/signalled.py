"""A small training in a child process, sent a signal while it is at a certain work; what came of it, and how soon."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import matplotlib.figure  # noqa: F401  # here and below: what a child would have to import is no work
import numpy as np
import torch._dynamo  # noqa: F401
from forks import ended, forked
from small_data import pendulum

from offline_vi.behavior.proposals import CandidateCache
from offline_vi.runs.checkpoint import published
from offline_vi.scripts import main
from offline_vi.stopping import SIGNALS as SIGNALS
from offline_vi.study import fit_behavior as _fit, train, verbs as _verbs  # noqa: F401

LONG = 60.0  # seconds that a work would take if nobody stopped it
MARK = "reached"  # file in the run's folder: the work has begun


class Slow(gymnasium.Env[Any, Any]):
    """A tenth of a second a step."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (3,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        reach()
        time.sleep(0.1)
        return np.zeros(3, np.float32), 0.0, False, False, {}


SLOW = "offline_vi_tests/Slow-v0"
gymnasium.register(SLOW, entry_point=Slow, max_episode_steps=600)  # type: ignore[arg-type]


class Outcome(NamedTuple):
    """Of a signal."""

    code: int  # of the process
    status: str  # of run.json
    seconds: float  # from the signal to the end of the process, which has no interpreter to take down
    step: int  # of the newest checkpoint; 0 where nothing had been trained


def reach() -> None:
    """Say that the work has begun, in the folder that the process was given."""
    Path(os.environ["OFFLINE_VI_MARK"]).touch()


def tarry(*_: object, **__: object) -> None:
    """The work that takes long."""
    reach()
    time.sleep(LONG)


def slowly(*_: object) -> None:
    """A part of the work."""
    reach()
    time.sleep(0.2)


def steps_of(path: Path) -> int:
    return max((int(one.name[5:13]) for one in published(path / "checkpoints")), default=0)


def words(name: str, data: str, path: Path) -> list[str]:
    """The command that comes to a work and stays there."""
    small = ["--hidden", "8", "--batch-size", "8", "--log-every", "2", "--save-every", "1000000", "-q"]
    common = ["--dataset", data, *small, "--output", str(path), "--eval-episodes", "1"]
    fast = ["--preset", "fast", "--precision", "float32", "--behavior.hidden", "8"]
    long, short = ["--steps", "1000000", "--eval-every", "0"], ["--steps", "4", "--eval-every", "0"]
    return {
        "training": ["train", "bc", *common, "--unscored", *long],
        "evaluation": [
            "train",
            "bc",
            *common,
            "--env",
            "offline_vi_tests/Slow-v0",
            "--eval-every",
            "4",
            "--steps",
            "9",
        ],
        "a behavior fit": ["train", "bcq", *common, *fast, "--unscored", *short, "--behavior-steps", "1000000"],
        "candidates": ["train", "bcq", *common, *fast, "--unscored", *short, "--behavior-steps", "2"],
        "a plot": ["train", "bc", *common, "--unscored", *short],
    }[name]


WORKS = ("training", "evaluation", "a behavior fit", "candidates", "a plot")
RUNS = {"a behavior fit": "behavior"}  # work -> the run within the run that it is in
SLOWED: dict[str, Callable[[], None]] = {
    "candidates": lambda: setattr(CandidateCache, "_redraw", slowly),
    "a plot": lambda: setattr(train, "learning_curve", tarry),
}


def work(name: str, data: str, path: Path) -> None:
    """In the child, which hears every signal, also where the tests run under nohup."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    os.environ["OFFLINE_VI_MARK"] = str(path.with_name(MARK))
    SLOWED.get(name, lambda: None)()
    main(words(name, data, path))


def signalled(name: str, signum: signal.Signals, folder: Path) -> Outcome:
    """Begin the work in a child, send it the signal, wait for its end."""
    path, data = folder / "run", pendulum(folder / "pendulum.hdf5")
    mark = {"training": path / "metrics.csv", "a behavior fit": path / "behavior" / "metrics.csv"}
    child = forked(lambda own: work(name, data, own), path)
    deadline = time.monotonic() + LONG
    while not mark.get(name, folder / MARK).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    began = time.monotonic()
    os.kill(child, signum)
    code = ended(child)
    seconds = time.monotonic() - began
    status = json.loads((path / "run.json").read_text())["status"]
    return Outcome(code, status, seconds, steps_of(path / RUNS.get(name, "")))
