"""Collecting one's own data: what is stored, what ends, and that an interrupted run is the same run."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from offline_vi.algorithms.sac import SAC, SACConfig
from offline_vi.algorithms.td3 import TD3
from offline_vi.behavior.pretrained import load_behavior
from offline_vi.data.replay import Replay
from offline_vi.datasets import environment
from offline_vi.errors import (
    CapabilityError,
    CheckpointCorruptError,
    EnvError,
    Interrupted,
    NoCheckpointError,
    UsageError,
)
from offline_vi.rl.policies import GaussianNoise
from offline_vi.runs.directory import RunDirectory
from offline_vi.scripts import main
from offline_vi.training.collector import Collection, Collector
from offline_vi.training.online import fit_online
from offline_vi.types import Spec, Task

SPEC = Spec((1,), 1)
SMALL = SACConfig(hidden=(8, 8), batch_size=8)


class Corridor(gymnasium.Env[Any, Any]):
    """x counts the steps; the task ends after ``ends`` of them, the time limit comes after ``limit``."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,))

    def __init__(self, ends: int = 10**9, limit: int = 10**9, bad: str = "", at: int = 3) -> None:
        self.ends, self.limit, self.bad, self.at = ends, limit, bad, at
        self.commands: list[float] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = 0
        return np.array([self.np_random.uniform(0, 0.5)], np.float32), {}

    def step(self, action: Any) -> Any:
        self.x += 1
        self.commands.append(float(action[0]))
        if self.x == self.at and self.bad == "raise":
            raise RuntimeError("the simulator broke")
        reward = np.nan if self.x == self.at and self.bad == "reward" else float(self.x)
        return np.array([self.x], np.float32), reward, self.x >= self.ends, self.x >= self.limit, {}


gymnasium.register("Corridor-v0", entry_point=Corridor)  # type: ignore[arg-type]


def task(**kwargs: Any) -> Task:
    return Task("Corridor-v0", (-2.0,), (2.0,), kwargs=kwargs)


def commands(collector: Collector) -> list[float]:
    """What the first environment was told."""
    corridor: Any = collector.simulators[0].open().unwrapped
    return list(corridor.commands)


class Right:
    """Always 0.5, which the environment sees as 1."""

    def explore(self, obs: Tensor) -> Tensor:
        return torch.full((len(obs), 1), 0.5)


# ------------------------------------------------------------------ what is collected


def test_the_end_of_the_task_and_the_time_limit_are_told_apart() -> None:
    ended = Collector(Right(), task(ends=4), SPEC, 8, Collection(warmup=1))
    cut = Collector(Right(), task(limit=4), SPEC, 8, Collection(warmup=1))
    for collector, terminated in ((ended, True), (cut, False)):
        for _ in range(9):
            collector.sample()
        rows = collector.transitions()
        np.testing.assert_array_equal(np.flatnonzero(rows.episode_end), [3, 7, 9])
        np.testing.assert_array_equal(np.flatnonzero(rows.terminated), [3, 7] if terminated else [])
        np.testing.assert_array_equal(rows.next_obs[:8, 0], [1, 2, 3, 4] * 2)  # the last one is the episode's own
        np.testing.assert_array_equal(rows.reward[:8], [1, 2, 3, 4] * 2)
        starts = rows.obs[[0, 4, 8], 0]
        assert ((starts >= 0) & (starts < 0.5)).all()
        assert len(set(starts.tolist())) == 3  # every episode has a seed of its own
        np.testing.assert_array_equal(rows.obs[1:4, 0], rows.next_obs[:3, 0])
    assert commands(ended)[1:] == [1.0] * 9


def test_rows_of_several_environments_stand_one_after_the_other() -> None:
    collector = Collector(Right(), task(limit=4), SPEC, 8, Collection(warmup=30, num_envs=3))
    collector.sample()
    rows = collector.transitions()
    assert len(rows) == 33  # eleven steps of each
    for episode in rows.episode_slices():
        inside = slice(episode.start + 1, episode.stop)
        np.testing.assert_array_equal(rows.obs[inside, 0], rows.next_obs[episode.start : episode.stop - 1, 0])
        assert rows.obs[episode.start, 0] < 0.5
    assert [part.stop - part.start for part in rows.episode_slices()] == [4, 4, 3] * 3


def test_a_warm_up_may_be_none() -> None:
    collector = Collector(Right(), task(), SPEC, 8, Collection(warmup=0))
    assert torch.equal(collector.sample().action, torch.full((8, 1), 0.5))


def test_a_command_outside_the_box_is_clipped() -> None:
    wide = Task("Corridor-v0", (-8.0,), (8.0,))  # half of it is 4, the box ends at 2
    collector = Collector(Right(), wide, SPEC, 8, Collection(warmup=0))
    collector.sample()
    assert commands(collector) == [2.0]


def test_a_batch_costs_one_step_of_one_environment() -> None:
    collector = Collector(Right(), task(), SPEC, 8, Collection(warmup=5, num_envs=2))
    counts = []
    for _ in range(5):
        collector.sample()
        counts.append(collector.replay.count)
    assert counts == [8, 8, 10, 10, 12]  # the warm-up is rounded up to whole steps of both


def test_a_checkpoint_ends_the_running_episodes() -> None:
    collector = Collector(Right(), task(limit=3), SPEC, 8, Collection(warmup=1, num_envs=2))
    for _ in range(8):  # five steps of both
        collector.sample()
    assert not collector.replay.tensors()["episode_end"][-2:].any()
    collector.pause()
    assert collector.replay.tensors()["episode_end"][-2:].all()
    before = collector.episodes
    collector.pause()  # nothing runs: nothing to end
    collector.sample()
    assert collector.episodes == before + 2


@pytest.mark.parametrize("bad", ["raise", "reward"])
def test_a_broken_environment_is_told(bad: str) -> None:
    collector = Collector(Right(), task(bad=bad), SPEC, 8)
    with pytest.raises(EnvError, match="Corridor-v0"):
        collector.sample()


class Flaky(Corridor):
    """A corridor of which every other environment breaks in its third step, and every third one in its reset."""

    made = 0

    def __init__(self) -> None:
        Flaky.made += 1
        super().__init__(ends=5, bad="raise" if Flaky.made % 2 else "")
        self.refuses = Flaky.made % 3 == 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self.refuses:
            raise RuntimeError("no simulator")
        return super().reset(seed=seed)


gymnasium.register("Flaky-v0", entry_point=Flaky)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.filterwarnings("ignore::offline_vi.errors.EvaluationWarning")
def test_a_failure_cuts_its_episode_and_costs_no_other_row(num_envs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flaky, "made", 0)
    where = Task("Flaky-v0", (-2.0,), (2.0,))
    collector = Collector(Right(), where, SPEC, 8, Collection(warmup=60, num_envs=num_envs))
    collector.sample()
    rows = collector.transitions()
    lengths = set()
    for episode in rows.episode_slices():
        length = episode.stop - episode.start
        lengths.add(length)
        np.testing.assert_array_equal(rows.reward[episode], np.arange(1, length + 1))
        np.testing.assert_array_equal(rows.next_obs[episode, 0], np.arange(1, length + 1))
        np.testing.assert_array_equal(rows.obs[episode, 0][1:], np.arange(1, length))
        assert rows.obs[episode.start, 0] < 0.5
        assert rows.terminated[episode].tolist() == [step == 4 for step in range(length)]
    assert 5 in lengths and 2 in lengths  # whole ones, and some that were cut after two steps
    assert collector.failures > 0 and len(rows) == collector.replay.count
    state = json.loads(json.dumps(collector.state()))
    assert state["failures"][0] == collector.failures


def test_a_policy_that_diverged_is_told_before_the_environment_sees_it() -> None:
    class Nowhere:
        def explore(self, obs: Tensor) -> Tensor:
            return torch.full((len(obs), 1), torch.nan)

    collector = Collector(Nowhere(), task(), SPEC, 8, Collection(warmup=2))
    with pytest.raises(EnvError, match="not finite"):
        collector.sample()
    assert len(commands(collector)) == 2


# ------------------------------------------------------------------ the replay buffer


def filled(count: int, capacity: int) -> Replay:
    replay = Replay(SPEC, 4, capacity)
    for number in range(count):
        obs = torch.tensor([float(number)])
        replay.add(obs, torch.zeros(1), float(number), obs + 1.0, number % 5 == 4, number % 5 == 4)
    return replay


@pytest.mark.parametrize(("count", "capacity"), [(7, 100), (2500, 5000), (100, 100), (130, 100), (2051, 2050)])
def test_the_buffer_keeps_the_newest_rows_in_order(count: int, capacity: int) -> None:
    replay = filled(count, capacity)
    rows = replay.transitions()
    newest = np.arange(max(0, count - capacity), count)
    np.testing.assert_array_equal(rows.reward, newest)
    np.testing.assert_array_equal(rows.next_obs[:, 0], newest + 1)
    np.testing.assert_array_equal(rows.terminated, newest % 5 == 4)
    drawn = torch.cat([replay.sample().reward for _ in range(200)]).numpy()
    assert set(drawn) <= set(newest.astype(np.float32))
    assert len(set(drawn)) > min(count, 300) // 2
    batch = replay.sample()
    assert torch.equal(batch.obs[:, 0] + 1.0, batch.next_obs[:, 0])


def test_the_buffer_continues_from_its_checkpoint() -> None:
    replay, other = filled(130, 100), Replay(SPEC, 4, 100)
    other.load_state(json.loads(json.dumps(replay.state())))
    other.load_tensors(replay.tensors())
    for _ in range(3):
        assert torch.equal(replay.sample().reward, other.sample().reward)
    np.testing.assert_array_equal(replay.transitions().reward, other.transitions().reward)
    with pytest.raises(CheckpointCorruptError, match="reward"):
        other.load_tensors({**replay.tensors(), "reward": torch.zeros(3)})


# ------------------------------------------------------------------ the loop


def resumable(directory: RunDirectory) -> bool:
    try:
        directory.latest()
    except NoCheckpointError:
        return False
    return True


@pytest.mark.parametrize("stops", [(40,), (70,), (10, 110), (30, 50)])
def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path: Path, stops: tuple[int, ...]) -> None:
    """Stopped between two checkpoints or on one, once or twice."""
    pendulum = environment("Pendulum-v1")

    def run(path: Path, *stops: int) -> tuple[dict[str, Tensor], bytes]:
        with RunDirectory.create(path) as directory:
            for stop in (*stops, None):
                torch.manual_seed(0)
                agent = SAC(Spec((3,), 1), SMALL)

                def look(step: int, _: Any, stop: int | None = stop) -> dict[str, float]:
                    if step == stop:
                        os.kill(os.getpid(), signal.SIGTERM)
                    return {}

                with nullcontext() if stop is None else pytest.raises(Interrupted) as stopped:
                    fit_online(
                        agent,
                        pendulum,
                        Spec((3,), 1),
                        120,
                        warmup=20,
                        num_envs=2,
                        seed=3,
                        run=directory,
                        save_every=40,
                        eval_every=10,
                        on_eval=look,
                        resume=resumable(directory),
                        log_every=30,
                        progress=False,
                    )
                if stopped is not None:  # it says from where the run goes on, which need not be where it stopped
                    saved = directory.newest_step()
                    assert stopped.value.saved == saved
                    assert (f"of step {saved}" in str(stopped.value)) == (0 < saved < (stop or 0))
        return agent.snapshot(), (path / "metrics.csv").read_bytes()

    whole, cut = run(tmp_path / "whole"), run(tmp_path / "cut", *stops)
    assert whole[0].keys() == cut[0].keys()
    assert all(torch.equal(whole[0][key], cut[0][key]) for key in whole[0])
    assert whole[1] == cut[1]


def test_any_policy_explores_with_noise() -> None:
    agent = TD3(Spec((3,), 1))
    with pytest.raises(CapabilityError, match="TD3 does not explore"):
        fit_online(agent, environment("Pendulum-v1"), Spec((3,), 1), 5)
    explorer = GaussianNoise(agent, 0.1)
    pendulum = environment("Pendulum-v1")
    _, rows = fit_online(agent, pendulum, Spec((3,), 1), 5, explorer=explorer, warmup=4, progress=False)
    assert len(rows) == 9
    noise = explorer.explore(torch.zeros(4000, 3)) - agent.act(torch.zeros(4000, 3))
    assert float(noise.std()) == pytest.approx(0.1, rel=0.1)


def test_the_command_keeps_policies_whose_density_is_their_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["--steps", "20", "--eval-every", "10", "--eval-episodes", "1", "--hidden", "8", "8", "-q"]
    main(["train-online", "sac", "--env", "Pendulum-v1", "--output", str(run), "--keep-policies", *small])
    result = json.loads((run / "result.json").read_text())
    assert set(result["curve"]) == {"10", "20"}
    policy = load_behavior(run / "policies" / "step_00000020")
    obs = torch.randn(5, 3)
    action = policy.sample(obs, 3)[1]
    assert torch.isfinite(policy.log_prob(obs, action)).all()  # type: ignore[operator]


def test_the_command_resumes_with_the_flags_that_decide_the_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--steps", "20", "--eval-every", "10", "--eval-episodes", "1", "--hidden", "8", "8", "-q"]
    command = ["train-online", "sac", "--env", "Pendulum-v1", "--output", str(tmp_path / "run"), *small]
    main(command)
    for changed in (["--num-envs", "2"], ["--warmup", "7"], ["--save-every", "10"], ["--capacity", "50"]):
        with pytest.raises(SystemExit) as stopped:
            main([*command, *changed, "--resume"])
        assert stopped.value.code == 78
        error = capsys.readouterr().err
        assert f"collection.{changed[0][2:].replace('-', '_')} = " in error and f"not {changed[1]}" in error


def test_the_command_tells_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["train-online", "sac"], ["train-online", "sca", "--env", "Pendulum-v1"], ["train-online"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == UsageError.exit_code
    told = capsys.readouterr().err
    assert "--env ID" in told
    assert "did you mean 'sac'" in told
