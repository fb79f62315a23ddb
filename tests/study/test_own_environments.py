"""Environments of one's own: by command and in Python, scored by returns, and never imported because a file says so."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from command_line import run
from small_data import pendulum

import offline_vi
from offline_vi import datasets, factories
from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.environments import make_env
from offline_vi.errors import EnvError, EvaluationWarning, MissingInputError, UsageError
from offline_vi.factories import check_kwargs, kwargs_from
from offline_vi.study import diagnosis, evaluations
from offline_vi.study.plan import check_data
from offline_vi.study.report import contents
from offline_vi.study.single_runs import read_runs
from offline_vi.study.suite import suite_from
from offline_vi.types import Task

MODULE = '''
import gymnasium
import numpy as np


class Valley(gymnasium.Env):
    """r = weight * (t + 1) in step t of five; Pendulum's shapes; the third episode of an evaluation may break."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, weight=1.0, breaks=False, ends=True):
        self.weight, self.breaks, self.ends = weight, breaks, ends

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.bad = 0, self.breaks and seed is not None and seed % 10 == 2
        return self.np_random.normal(size=3).astype(np.float32), {}

    def step(self, action):
        self.count += 1
        obs = self.np_random.normal(size=3).astype(np.float32)
        if self.bad:
            obs[1] = np.nan
        return obs, np.array([self.weight * self.count]), self.ends and self.count == 5, False, {}


def valley(weight=2.0):
    return gymnasium.wrappers.TimeLimit(Valley(weight), 5)


gymnasium.register("offline_vi_tests/Valley-v0", entry_point=Valley, max_episode_steps=4)
'''
SMALL = ["--hidden", "8", "--batch-size", "8", "--steps", "10", "--eval-every", "5", "--eval-episodes", "4"]
SMALL += ["--eval-seed", "0", "--log-every", "5", "-q"]


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of environments in the working directory, which nobody has named yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(factories, "ALLOWED", set())
    monkeypatch.setattr(factories, "GIVEN", {})
    name = f"ovi_valley_{tmp_path.name[-8:]}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    yield name
    sys.modules.pop(name, None)
    gymnasium.registry.pop("offline_vi_tests/Valley-v0", None)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return pendulum(tmp_path / "walk.hdf5")


def record(path: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_text(), parse_constant=pytest.fail)
    return found


def finite(value: Any) -> bool:
    """Whether a record holds neither null nor what is no number."""
    if isinstance(value, dict | list):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return value is not None and value == value


# ------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("name", "words", "total", "limit"),
    [
        ("offline_vi_tests/Valley-v0", [], 10.0, 4),
        ("Valley", ["--env-kwargs", "weight=3", "--max-episode-steps", "9"], 45.0, 9),
        ("Valley", ["--env-kwargs", '{"weight": 0.5}', "--max-episode-steps", "3"], 3.0, 3),
        ("valley", [], 30.0, 5),
    ],
)
def test_an_environment_beside_the_data_is_trained_on_scored_and_reported_by_its_returns(
    name: str, words: list[str], total: float, limit: int, module: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env = f"{module}:{name}"
    code, out, _ = run(["train", "bc", "--dataset", data, "--env", env, *words, "--output", "run", *SMALL], capsys)
    assert code == 0
    result, config = record("run/result.json"), record("run/config.json")
    expected = {"measure": "return_mean", "return_mean": total, "returns": [total] * 4, "max_episode_steps": limit}
    assert result.items() >= expected.items() and "normalized_score" not in result
    assert result["curve"] == {"5": total, "10": total} and result["best"] == {"step": 5, "return_mean": total}
    assert finite({name: value for name, value in result.items() if name != "diagnostics"})
    assert (config["task"]["env_id"], config["max_episode_steps"]) == (env, limit)
    assert config["task"]["kwargs"] == kwargs_from(words[1:2] if words else [])
    content = contents(read_runs(["run"]))
    assert content.by_return and content.scores[0].per_seed == [total] and content.scores[0].best == total

    code, out, _ = run(["evaluate", "run", "--env", env, "--episodes", "3", "--json", "-q"], capsys)
    assert code == 0 and json.loads(out)["returns"] == [total] * 3
    code, out, _ = run(["evaluate", "run", "--env", env, "--episodes", "2", "--max-episode-steps", "2"], capsys)
    assert code == 0 and "nan" not in out and "normalized" not in out
    assert f"max_episode_steps 2, in the run {limit}" in out
    assert "0 of 2 episodes before the limit of 2 steps" in out


def test_the_check_of_data_finds_what_training_would_refuse(
    module: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def wide(columns: dict[str, Any]) -> None:
        columns["observations"] = np.repeat(columns["observations"], 2, -1)

    env, other = f"{module}:Valley", pendulum(tmp_path / "wide.hdf5", wide)
    for words in ([data, "--env", env], [other, "--env", env, "--max-episode-steps", "7"]):
        trained = run(["train", "bc", "--dataset", *words, "--output", "run", *SMALL], capsys)
        checked = run(["data", "check", *words], capsys)
        assert checked[0] == trained[0] != 0
        assert checked[2].splitlines()[-1] == trained[2].splitlines()[-1]
    code, out, _ = run(["data", "check", data, "--env", env, "--max-episode-steps", "7"], capsys)
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("limit of episodes")]
    assert line.split()[-2:] == ["7", "steps"]


def test_how_episodes_ended_is_printed(module: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy that ends each episode early must not look like one that comes through."""
    env, limit = f"{module}:Valley", ["--max-episode-steps", "7"]
    words = ["train", "bc", "--dataset", data, "--env", env, *limit, "--output", "run", *SMALL]
    assert run(words, capsys)[0] == 0
    code, out, _ = run(["evaluate", "run", "--env", env, "--episodes", "2"], capsys)
    lines = {line[:20].strip(): line[20:].strip() for line in out.splitlines()}
    assert code == 0
    assert lines["ended by the task"].startswith("2 of 2 episodes")
    assert lines["length"].startswith("5.00 steps")


def test_a_failed_episode_is_counted_and_in_no_number(
    module: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env", f"{module}:Valley", "--env-kwargs", "breaks=True", "--max-episode-steps", "9"]
    with pytest.warns(EvaluationWarning):
        code, _, _ = run(["train", "bc", "--dataset", data, *words, "--output", "run", *SMALL], capsys)
    assert code == 0
    result = record("run/result.json")
    assert result["returns"] == [15.0] * 3 and result["return_mean"] == 15.0 and result["curve"]["10"] == 15.0
    assert [episode["seed"] for episode in result["failed_episodes"]] == [2]
    assert finite({name: value for name, value in result.items() if name != "diagnostics"})
    study = read_runs(["run"])
    assert study.runs[0].returns == {5: 15.0, 10: 15.0}
    assert (contents(study).scores[0].mean, contents(study).failed_episodes) == (15.0, 1)
    assert run(["report", "run"], capsys)[0] == 0
    with Path("run/results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["final"], row["failed_episodes"], row["measure"]) == ("15.0", "1", "return_mean")
    with pytest.warns(EvaluationWarning):
        code, out, _ = run(["evaluate", "run", "--env", words[1], "--seed", "0", "--episodes", "4", "-q"], capsys)
    assert code == 0 and "nan" not in out.lower() and "15.00 mean over episodes" in out


def test_seeds_trained_in_parallel_are_scored_each_for_itself(
    module: str, data: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = evaluations.evaluate_into

    def spoiled(*arguments: Any, **options: Any) -> Any:
        if options["training_seed"] == 1:
            raise EnvError("the policy's action is not finite")
        return plain(*arguments, **options)

    monkeypatch.setattr(diagnosis, "evaluate_into", spoiled)
    words = ["--env", f"{module}:valley", "--parallel-seeds", "3", "--output", "run"]
    with pytest.warns(EvaluationWarning):
        assert run(["train", "bc", "--dataset", data, *words, *SMALL], capsys)[0] == 0
    result = record("run/result.json")
    assert [result["seeds"][seed].get("return_mean") for seed in "012"] == [30.0, None, 30.0]
    assert result["return_mean"] == 30.0 and "seed 1" in result["failed_evaluations"]["10"]
    assert [one.scores.final for one in read_runs(["run"]).runs] == [30.0, None, 30.0]


def test_experience_is_collected_in_spite_of_failures(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train-online", "sac", "--env", f"{module}:Valley", "--env-kwargs", "ends=false", "--output", "run"]
    assert run([*words, *SMALL], capsys)[0] == UsageError.exit_code  # nothing would end an episode
    assert not Path("run").exists()
    assert run([*words, *SMALL, "--max-episode-steps", "3", "--warmup", "2"], capsys)[0] == 0
    assert record("run/result.json")["returns"] == [6.0] * 4


def test_fine_tuning_keeps_the_arguments_of_the_run_and_takes_others(
    module: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env", f"{module}:Valley", "--max-episode-steps", "9"]
    data_words = ["--dataset", data, "--env-kwargs", "weight=3"]
    assert run(["train", "bc", *data_words, *words, "--output", "run", *SMALL], capsys)[0] == 0
    for own, weight in (([], 3.0), (["--env-kwargs", "weight=2"], 2.0)):
        out = f"tuned-{weight:.0f}"
        tune = ["finetune", "run", *words[:2], *own, "--output", out, *SMALL, "--warmup", "2"]
        assert run(tune, capsys)[0] == 0
        config = record(f"{out}/config.json")
        assert (config["task"]["kwargs"], config["max_episode_steps"]) == ({"weight": weight}, 9)
        assert record(f"{out}/result.json")["returns"] == [15.0 * weight] * 4
        assert run(["resume", out, "--steps", "12", *words[:2], "-q"], capsys)[0] == 0
        assert record(f"{out}/result.json")["returns"] == [15.0 * weight] * 4


# ------------------------------------------------------------------ a file is not trusted


def test_a_module_that_only_a_file_names_is_not_imported(
    module: str, data: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = f"{module}:valley"
    assert run(["train", "bc", "--dataset", data, "--env", env, "--output", "run", *SMALL], capsys)[0] == 0
    for words in (
        ["evaluate", "run"],
        ["resume", "run", "--steps", "12"],
        ["finetune", "run", "--output", "tuned", *SMALL],
        ["fit-guard", "run", "--steps", "2"],
        ["train", "--config", "run/config.json", "--output", "again"],
        ["sweep-inference", "run"],
    ):
        monkeypatch.setattr(factories, "ALLOWED", set())
        sys.modules.pop(module, None)
        code, _, err = run(words, capsys)
        assert code == UsageError.exit_code and (f"--env {env}" in err or words[0] == "sweep-inference"), words
        assert module not in sys.modules
    assert run(["resume", "run", "--steps", "12", "--env", env, "-q"], capsys)[0] == 0
    assert set(record("run/result.json")["curve"]) == {"5", "10", "12"}
    _, _, err = run(["fit-guard", "run", "--steps", "2", "--env", env], capsys)
    assert "--env" not in err  # it goes on to the data, which are too few for it
    assert run(["resume", "run", "--env", "Pendulum-v1", "-q"], capsys)[0] == UsageError.exit_code


def test_nor_does_a_suite_decide_it(module: str, data: str) -> None:
    suite = suite_from({"algorithms": ["bc"], "datasets": [data], "train": {"env": f"{module}:valley"}}, "own")
    with pytest.raises(UsageError):
        check_data(suite, (data,))
    assert module not in sys.modules
    factories.allow(f"{module}:valley")
    check_data(suite, (data,))


@pytest.mark.parametrize(
    ("kwargs", "taken"),
    [
        ({"weight": 3.0, "mode": "hard", "on": True, "none": None, "map": [[1, 0], [0, 1]]}, True),
        ({"xml_file": "hopper.xml"}, True),
        ({"xml_file": "/tmp/hopper.xml"}, False),
        ({"xml_file": "../hopper.xml"}, False),
        ({"xml_file": ["hopper.xml"]}, False),
        ({"path": "C:\\models\\x"}, False),
        ({"nested": {"a": 1}}, False),
    ],
)
def test_arguments_of_a_constructor_in_a_file(kwargs: dict[str, Any], taken: bool, data: str) -> None:
    if taken:
        check_kwargs("Hopper-v5", kwargs)
    else:
        with pytest.raises(UsageError):
            check_kwargs("Hopper-v5", kwargs)


def test_the_limit_that_is_missing_is_proposed_from_the_data(
    module: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "bc", "--dataset", data, "--env", f"{module}:Valley", "--output", str(tmp_path / "run")]
    code, _, err = run(words, capsys)
    assert code == 2
    assert "--max-episode-steps 100" in err  # steps of each episode, of which the last is in no row


def test_what_is_not_there_is_refused_with_a_sentence(module: str) -> None:
    for env, error in (
        (f"{module}:Valey", UsageError),
        ("ovi_nowhere:Valley", MissingInputError),
        (f"{module}:np", UsageError),
        ("math:sqrt", OSError),
    ):
        factories.allow(env)
        with pytest.raises(Exception) as caught:
            make_env(Task(env, (-2.0,), (2.0,)))
        assert isinstance(caught.value, error if error is not OSError else (UsageError, EnvError))
    factories.allow(f"{module}:Valley")
    with pytest.raises(UsageError):
        make_env(Task(f"{module}:Valley", (-2.0,), (2.0,), kwargs={"wheight": 1.0}))


@pytest.mark.parametrize(
    ("words", "kwargs"),
    [
        ([], {}),
        (["a=1", "b=0.5", "c=True", "d=false", "e=None", "f=red", "g=[1, 2]", "h=a=b"], None),
        (['{"a": {"b": [1]}}'], {"a": {"b": [1]}}),
    ],
)
def test_arguments_in_words(words: list[str], kwargs: dict[str, Any] | None) -> None:
    expected = {"a": 1, "b": 0.5, "c": True, "d": False, "e": None, "f": "red", "g": [1, 2], "h": "a=b"}
    assert kwargs_from(words) == (expected if kwargs is None else kwargs)
    for wrong in (["weight"], ["{"], ["1x=2"], ["[1]"]):
        with pytest.raises(UsageError):
            kwargs_from(wrong)


# ------------------------------------------------------------------ Python


class Hill(gymnasium.Env[Any, Any]):
    """r = height in each of three steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-4.0, 4.0, (1,), np.float32)

    def __init__(self, height: float = 1.0) -> None:
        self.height = height

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.zeros(3, np.float32), self.height, self.count == 3, False, {}


def test_classes_and_functions_in_python(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = datasets.load(data, env=Hill, env_kwargs={"height": 2.0}, max_episode_steps=10)
    task = rows.task
    assert task is not None
    assert (task.action_low, task.action_high, task.kwargs) == ((-4.0,), (4.0,), {"height": 2.0})
    agent = BC(rows.spec, config=BCConfig(hidden=(8,), batch_size=8))
    offline_vi.fit(agent, rows, 10, run="run", progress=False)
    assert record("run/result.json")["return_mean"] == 6.0
    assert offline_vi.evaluate(agent, task, 2).mean_return == 6.0
    assert offline_vi.evaluate(agent, Hill, 2, max_episode_steps=2).mean_return == 2.0
    higher, lower = lambda: Hill(5.0), lambda: Hill(-5.0)
    tasks = [datasets.environment(made, max_episode_steps=9) for made in (higher, lower)]
    assert [offline_vi.evaluate(agent, each, 2).mean_return for each in tasks] == [15.0, -15.0]
    code, out, _ = run(["evaluate", "run", "--env", task.env_id, "--episodes", "2", "--json", "-q"], capsys)
    assert code == 0 and json.loads(out)["returns"] == [6.0, 6.0]
    assert offline_vi.load_task("run", lambda: Hill(5.0)).max_episode_steps == 10  # which has no limit of its own
    code, _, err = run(["evaluate", "run", "--env", task.env_id, "--episodes", "2", "--video", "1", "-q"], capsys)
    assert code == EnvError.exit_code and "take render_mode" in err
    assert not Path("run/videos").exists()
