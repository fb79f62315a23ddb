"""Runs that are killed at random moments and resumed end with the bytes of runs that were not.

The processes are forked, so that torch is imported once; a kill is SIGKILL, from outside, at any moment of a run.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from oracle_data import distinct_columns

from offline_vi.algorithms import ALGORITHMS
from offline_vi.algorithms.build import Recipe, build, config_class
from offline_vi.algorithms.sac import SAC, SACConfig
from offline_vi.behavior.pretrained import behavior_config
from offline_vi.data.transitions import Transitions
from offline_vi.datasets import environment, pixels
from offline_vi.datasets.images import Episode, save_episode
from offline_vi.nn.precision import exact_products
from offline_vi.runs.directory import RunDirectory
from offline_vi.scripts import main
from offline_vi.training.loop import fit, fit_online
from offline_vi.types import Spec

Reached = Callable[[int, str, int], None]
Work = Callable[[Path], object]
SPEC = Spec((3,), 2)
CHAIN = 4  # kills of one run before it may come to its end
LOGS = ("metrics.csv", "episodes.csv", "support.csv")


def forked(work: Work, path: Path) -> int:
    """The process number of a child that does the work and nothing else."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work(path)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Its exit code, or the negative number of the signal that it died of."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(work: Work, path: Path, seconds: float) -> bool:
    """Whether the work was killed, ``seconds`` after its beginning, before it was done."""
    child = forked(work, path)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    code = ended(child)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def bytes_of(run: Path) -> dict[str, str]:
    """SHA-256 of every file of the newest checkpoint and of the logs."""
    newest = max((run / "checkpoints").glob("step_*"))
    files = [*sorted(newest.iterdir()), *(run / name for name in LOGS if (run / name).exists())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def survive(work: Work, folder: Path, kills: int) -> int:
    """Kill the work again and again, let it go on, compare how it ends; returns how many kills it survived."""
    exact_products()  # found out once: all children take the same path
    started = time.monotonic()
    assert ended(forked(work, folder / "whole")) == 0
    seconds, expected = time.monotonic() - started, bytes_of(folder / "whole")
    rng, done, run = random.Random(0), 0, 0
    while done < kills:
        path, before = folder / str(run), done
        while done < min(kills, before + CHAIN) and killed(work, path, rng.uniform(0.0, 0.6 * seconds)):
            done += 1
        assert ended(forked(work, path)) == 0
        assert bytes_of(path) == expected, f"run {run} after {done - before} kills"
        shutil.rmtree(path)
        run += 1
    return done


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
    """A small run of one algorithm, its behaviour model beside it."""
    config = replace(config_class(name)(), hidden=(8, 8), batch_size=16)
    model = ALGORITHMS[name].behavior
    settings = replace(behavior_config(model, SPEC), hidden=(8, 8)) if model else None
    torch.manual_seed(0)
    algorithm = build(Recipe(name, SPEC, config, model, settings, jointly=bool(model)))
    with opened(path) as run:
        options = {"log_every": 7, "save_every": 6, "run": run, "resume": run.has_checkpoint(), "progress": False}
        fit(algorithm, rows(), 30, seed=3, **options)  # type: ignore[arg-type]


def online(path: Path) -> None:
    """A small run that collects its own data in two environments."""
    torch.manual_seed(0)
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


def command(data: Path, path: Path) -> None:
    """The verb: a model fitted ahead, evaluations and measures of support on the way."""
    small = ["--steps", "30", "--eval-every", "10", "--eval-episodes", "1", "--log-every", "4", "--save-every", "5"]
    sizes = ["--hidden", "8", "--behavior.hidden", "8", "--batch-size", "8", "--behavior-steps", "20", "-q"]
    goes_on = ["--resume"] if path.is_dir() else []
    main(
        [
            "train",
            "bcq",
            "--dataset",
            str(data),
            "--env",
            "Pendulum-v1",
            *small,
            *sizes,
            "--output",
            str(path),
            *goes_on,
        ]
    )


def goes_on(path: Path) -> list[str]:
    """The flags of a run that may have been begun."""
    return ["-q", "--output", str(path), "--resume" if (path / "config.json").exists() else "--overwrite"]


def explore(path: Path) -> None:
    """The verb for an online algorithm, with a bonus that has a network of its own and evaluations on the way."""
    small = "--steps 60 --warmup 10 --eval-every 20 --eval-episodes 1 --log-every 15 --save-every 15"
    sizes = "--hidden 8 --batch-size 8 --bonus vime --vime.features 16"
    main(["train-online", "sac", "--env", "Pendulum-v1", *small.split(), *sizes.split(), *goes_on(path)])


def planner(data: Path, path: Path) -> None:
    """The verb for images: a model of sequences, a behaviour model on its states, a value, evaluations by planning."""
    small = "--steps 12 --eval-every 6 --eval-episodes 1 --log-every 2 --save-every 3 --batch-size 4 --length 4"
    sizes = "--hidden 8 --features 8 --channels 4 --ensemble 2 --horizon 2 --num-samples 4 --elite 2 --iterations 1"
    env = ["--env", "offline-vi/PixelPointMass-v0"]
    main(["train-pixels", "--dataset", str(data), *small.split(), *sizes.split(), *env, *goes_on(path)])


@pytest.fixture
def walks(tmp_path: Path) -> Path:
    """Four episodes of the point mass in images, in V-D4RL's layout."""
    steps = pixels.walk(4, 12, 1.0, seed=0)
    folder = tmp_path / "walks"
    folder.mkdir()
    for number in range(4):
        frames, reward = pixels.draw_points(steps["obs"][:, number]), steps["reward"][:, number].astype(np.float32)
        save_episode(folder / f"{number}.npz", Episode(frames, steps["action"][:, number], reward, np.zeros(12, bool)))
    return folder


@pytest.fixture
def pendulum(tmp_path: Path) -> Path:
    """A file of Pendulum's shapes."""
    with h5py.File(tmp_path / "pendulum.hdf5", "w") as file:
        for name, column in {**distinct_columns(300), "actions": np.zeros((300, 1), np.float32)}.items():
            file[name] = column
        for key in ("observations", "next_observations"):
            del file[key]
            file[key] = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    return tmp_path / "pendulum.hdf5"


# ------------------------------------------------------------------ kills


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_killed_run_ends_with_the_same_bytes(name: str, tmp_path: Path, reached: Reached) -> None:
    kills = survive(partial(offline, name), tmp_path, 25 if name == "bcq" else 3)
    reached(1, "kills of BCQ survived" if name == "bcq" else "kills of the other algorithms survived", kills)


def test_a_killed_online_run_ends_with_the_same_bytes(tmp_path: Path, reached: Reached) -> None:
    reached(1, "kills of the online loop survived", survive(online, tmp_path, 5))


def test_a_killed_command_ends_with_the_same_bytes(pendulum: Path, tmp_path: Path, reached: Reached) -> None:
    reached(1, "kills of the command survived", survive(partial(command, pendulum), tmp_path, 8))


def test_a_killed_explorer_ends_with_the_same_bytes(tmp_path: Path, reached: Reached) -> None:
    reached(1, "kills of the command of exploration survived", survive(explore, tmp_path, 3))


@pytest.mark.timeout(300)
def test_a_killed_planner_ends_with_the_same_bytes(walks: Path, tmp_path: Path, reached: Reached) -> None:
    reached(1, "kills of planning from images survived", survive(partial(planner, walks), tmp_path, 3))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [*ALGORITHMS, "online"])
def test_two_hundred_kills(name: str, tmp_path: Path, reached: Reached) -> None:
    work = online if name == "online" else partial(offline, name)
    reached(1, "kills of all in the slow test survived", survive(work, tmp_path, 200))


# ------------------------------------------------------------------ signals that ask


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_its_exit_code(
    signum: signal.Signals, code: int, pendulum: Path, tmp_path: Path, reached: Reached
) -> None:
    work = partial(command, pendulum)
    assert ended(forked(work, tmp_path / "whole")) == 0
    expected, rng, asked = bytes_of(tmp_path / "whole"), random.Random(int(signum)), 0
    for run in range(40):
        path = tmp_path / str(run)
        child = forked(work, path)
        deadline = time.monotonic() + 60.0
        while not (path / "metrics.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.05))
        os.kill(child, signum)
        found = ended(child)
        if found == 0:  # it was done before
            continue
        assert found == code
        assert list((path / "checkpoints").glob("step_*"))
        assert ended(forked(work, path)) == 0
        assert bytes_of(path) == expected
        asked += 1
        if asked == 5:
            break
    assert asked == 5
    reached(2, "signals obeyed", asked)
