"""Runs that are killed at random moments and resumed end with the bytes of runs that were not.

Every process is a fresh interpreter (`fresh`), so that nothing of another process, as the state of torch's default
generator, can make two of them equal. A kill is SIGKILL, from outside, at any moment of a run.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import of_presets
import pytest
from commands import PENDULUM, WALKS, write_pendulum, write_walks
from fresh import ENDLESS, Worker, compare, survive, whole

from offline_vi import registry
from offline_vi.stopping import SIGNALS

Reached = Callable[[int, str, int], None]
pytestmark = pytest.mark.timeout(900)  # a minute each on idle cores; most of it is imports, which a busy machine delays

OTHERS = [name for name in registry.trainable() if name != "bcq"]


# ------------------------------------------------------------------ kills


def test_a_killed_bcq_ends_with_the_same_bytes(tmp_path: Path, reached: Reached) -> None:
    reached(1, "kills of BCQ survived", survive("works", tmp_path, {"bcq": 25}))


def test_the_other_algorithms_killed_end_with_the_same_bytes(tmp_path: Path, reached: Reached) -> None:
    """A worker finishes the algorithm in which the one before it was killed, and is killed in the next."""
    reached(1, "kills of the other algorithms survived", survive("works", tmp_path, dict.fromkeys(OTHERS, 1)))


def test_a_killed_online_run_ends_with_the_same_bytes(tmp_path: Path, reached: Reached) -> None:
    reached(1, "kills of the online loop survived", survive("works", tmp_path, {"online": 5}))


def test_a_killed_command_ends_with_the_same_bytes(tmp_path: Path, reached: Reached) -> None:
    """BCQ as published, BCQ of the preset fast, EMaQ of the preset likely: each fits a model first."""
    write_pendulum(tmp_path / PENDULUM)
    kills = survive("commands", tmp_path, {"published": 4, "fast": 2, "likely": 2})
    reached(1, "kills of the command survived", kills)


def test_a_killed_explorer_ends_with_the_same_bytes(tmp_path: Path, reached: Reached) -> None:
    reached(1, "kills of the command of exploration survived", survive("commands", tmp_path, {"explore": 3}))


def test_a_killed_planner_ends_with_the_same_bytes(tmp_path: Path, reached: Reached) -> None:
    write_walks(tmp_path / WALKS)
    reached(1, "kills of planning from images survived", survive("commands", tmp_path, {"planner": 3}))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [*registry.trainable(), "online"])
def test_two_hundred_kills(name: str, tmp_path: Path, reached: Reached) -> None:
    reached(1, "kills of all in the slow test survived", survive("works", tmp_path, {name: 200}))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_preset_of_every_algorithm_killed_ends_with_the_same_bytes(tmp_path: Path, reached: Reached) -> None:
    write_pendulum(tmp_path / PENDULUM)
    kills = survive("of_presets", tmp_path, dict.fromkeys(of_presets.WORKS, 1))
    reached(1, "kills of presets of algorithms survived", kills)


# ------------------------------------------------------------------ signals that ask


def signal_one(worker: Worker, metrics: Path, signum: signal.Signals, rng: random.Random) -> int:
    """Send the signal a random moment after one of the first rows of the run's metrics; returns the exit code."""
    worker.start(ENDLESS)
    while worker.answer() != ["begin", metrics.parent.name]:
        pass
    lines, deadline = rng.randint(2, 6), time.monotonic() + 60.0
    while not (metrics.exists() and metrics.read_text().count("\n") >= lines) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.05))
    return worker.end(signum)[0]


def test_a_signal_leaves_a_checkpoint_and_its_exit_code(tmp_path: Path, reached: Reached) -> None:
    """A worker resumes the run that the one before it had to leave, and is asked to leave the next."""
    write_pendulum(tmp_path / PENDULUM)
    names, rng = ["published"], random.Random(0)
    signals = [(signum, 128 + signum) for signum in SIGNALS] * 2
    whole("commands", tmp_path, names)
    waiting = Worker("commands", tmp_path, names)
    for number, (signum, code) in enumerate(signals, start=1):
        worker, waiting = waiting, Worker("commands", tmp_path, names)
        path = tmp_path / f"published-{number}"
        assert signal_one(worker, path / "metrics.csv", signum, rng) == code
        assert list((path / "checkpoints").glob("step_*"))
    waiting.start(1)
    waiting.finish()
    compare(tmp_path, names)
    reached(2, "signals obeyed", len(signals))
