"""Score the final policy of a run directory, with a guard and films if asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offline_vi.errors import ConfigError, EnvError, UsageError, counted
from offline_vi.factories import Factory, allow, check_kwargs, environment_title, kwargs_from, words_of
from offline_vi.runs.files import read_json
from offline_vi.study.follow_up import command_on
from offline_vi.study.kept_evaluations import keep_evaluation
from offline_vi.study.scores import numbers, table

if TYPE_CHECKING:
    from torch import Tensor

    from offline_vi.behavior.base import DensityModel
    from offline_vi.evaluation.evaluate import Evaluation
    from offline_vi.evaluation.support import Support
    from offline_vi.rl.algorithm import Algorithm
    from offline_vi.rl.policies import GuardedPolicy
    from offline_vi.types import Task

STATES, ACTIONS = "states", "actions"  # the folders of a run that hold the densities of its guards


@dataclass(frozen=True)
class ScoringOptions:
    """How a run's policy is scored."""

    env: str = ""  # an environment's name, where it is not the data set's own
    env_kwargs: tuple[str, ...] = ()  # arguments of its constructor: key=value, or one JSON object
    max_episode_steps: int = 0  # steps after which an episode is cut; 0: as the run was scored
    episodes: int = 100  # how many are run
    seed: int = 1000  # of the first episode; episode e has seed + e
    seed_index: int = 0  # which seed of a run of several that were trained in parallel, counted from 0
    guard: float = 0.0  # quantile of the data's log-density below which an action is replaced; 0: no guard
    guard_states: float = 0.0  # quantile of the data's states below which a state is unknown; 0: no guard
    deterministic: bool = False  # draw the policy's random numbers once, as an exported file has them
    safe_action: tuple[float, ...] = ()  # taken in unknown states, in the environment's units; empty: the box's middle
    video: int = 0  # film so many episodes into RUN/videos
    env_processes: bool = False  # run each environment in a process of its own
    progress: bool = False  # show a bar


@dataclass(frozen=True)
class RunScore:
    """The score of a run's policy, and how it was reached."""

    task: Task  # what the policy was scored on
    evaluation: Evaluation  # its returns and scores
    differences: list[str]  # between how the run was scored and how it is scored here
    guard: GuardedPolicy | None  # with its threshold and the share of actions that it replaced
    videos: Path | None  # folder of the films
    data: Mapping[str, float | None] = field(default_factory=dict)  # what the data's own episodes earned on this task
    film_error: EnvError | None = None  # why there are no films
    obs_names: Sequence[str] = ()  # of the entries of an observation, where the data came with names

    def name_of(self, entry: int) -> str:
        """What an entry of the observation is called."""
        return self.obs_names[entry] if entry < len(self.obs_names) else f"observation {entry}"

    def to_json(self, level: float = 0.0) -> dict[str, Any]:
        """JSON-ready; ``level`` is the quantile of the guard of actions."""
        record = self.evaluation.to_json() | {"kwargs": self.task.kwargs, "differences": self.differences}
        for name, scores in (("return", False), ("score", True)) if self.evaluation.scored else (("return", False),):
            record[f"{name}_interval"] = list(self.evaluation.interval(scores)[1:])
        if self.data:
            record["data"] = dict(self.data)
        if self.videos is not None:
            record["videos"] = str(self.videos)
        if self.guard is not None and self.guard.behavior is not None:
            record["guard"] = {"level": level, "threshold": self.guard.threshold, "share": self.guard.share}
        if self.guard is not None and self.guard.known is not None:
            culprits = {self.name_of(entry): count for entry, count in self.guard.culprits.most_common()}
            unknown = {"share": self.guard.share_unknown, "most_unusual": culprits}
            record["guard_states"] = {"level": self.guard.level, **unknown}
        return record


def score_run(run: str | Path, options: ScoringOptions) -> RunScore:
    """Load the run's final policy, check the spaces, and evaluate it.

    Films that cannot be made cost no score: `RunScore.film_error` says why. Raises UsageError where the run holds no
    policy or no environment is known, ConfigError where it cannot be guarded, and what loading, `check_spaces` and
    `evaluate` raise.
    """
    from offline_vi.environments import check_spaces
    from offline_vi.evaluation.evaluate import evaluate
    from offline_vi.rl.policies import DeterministicPolicy
    from offline_vi.study.kept import load_policy, read_config  # here and below: torch
    from offline_vi.study.video import film

    policy = load_policy(run, options.seed_index)
    use_products_of(run)
    config = read_config(run)
    task = task_of_run(config.record, options.env, options.env_kwargs, options.max_episode_steps, run=run)
    check_spaces(config.spec, task)
    around = guarded(
        policy, run, options.seed_index, options.guard, options.guard_states, safe_action=options.safe_action
    )
    acting = DeterministicPolicy(around or policy) if options.deterministic else around or policy
    evaluation = evaluate(
        acting, task, options.episodes, options.seed, progress=options.progress, env_processes=options.env_processes
    )
    changed = differences(run, config.record, task, evaluation)
    names = names_in(table(config.record, "data").get("obs_names"))
    data = data_score_of(run, config.record, task)
    score = RunScore(task, evaluation, changed, around, None, data, obs_names=names)
    if not options.video:
        return score
    try:
        film(acting, task, options.video, options.seed, Path(run) / "videos")
    except EnvError as error:
        return replace(score, film_error=error)
    return replace(score, videos=Path(run) / "videos")


def names_in(value: object) -> list[str]:
    """The names of columns in a config.json; none where it has none."""
    return [str(name) for name in value] if isinstance(value, list) else []


def keep_score(run: str | Path, score: RunScore, options: ScoringOptions) -> Path:
    """Write the evaluation into RUN/evaluations; returns the file. Raises CheckpointWriteError and OutputDirError."""
    how = {name: value for name, value in asdict(options).items() if name != "progress"}
    return keep_evaluation(run, {"kind": "rollouts", **score.to_json(options.guard), "options": how})


def data_score_of(run: str | Path, config: Mapping[str, Any], task: Task) -> dict[str, float | None]:
    """What the data's own episodes earned, of result.json; empty where it is not known or of another environment."""
    trained = config.get("task") or {}
    same = environment_title(trained.get("env_id") or "", trained.get("kwargs") or {})
    if same != environment_title(task.env_id, task.kwargs) or not (Path(run) / "result.json").exists():
        return {}
    return numbers(table(read_json(Path(run) / "result.json"), "data"))


def load_task(
    run: str | Path,
    env: str | Factory = "",
    env_kwargs: Mapping[str, Any] | Sequence[str] = (),
    max_episode_steps: int = 0,
) -> Task:
    """The task that the policy of a run acts by, on the environment ``env`` where one is given, with these arguments of
    its constructor and this limit.

    The action map is the one that the policy was trained with, whatever the environment: `evaluate(load(run),
    load_task(run, "Hopper-v5"))`. Without any environment the task maps actions all the same (``env_id`` is empty), for
    those who act elsewhere: ``task.to_env(policy.act(obs).numpy())``. Raises UsageError where only a file names the
    code or the arguments that the environment is made of.
    """
    from offline_vi.study.kept import read_config
    from offline_vi.types import Task, unit_task

    words = words_of(env_kwargs) if isinstance(env_kwargs, Mapping) else tuple(env_kwargs)
    config = read_config(run)
    saved = config.record.get("task")
    if not env and not (saved and saved.get("env_id")):
        return Task.from_json(saved) if saved else unit_task(config.spec.action_dim)
    return task_of_run(config.record, allow(env) if env else "", words, max_episode_steps, run=run)


def task_of_run(
    config: dict[str, Any],
    env: str = "",
    env_kwargs: Sequence[str] = (),
    max_episode_steps: int = 0,
    *,
    run: str | Path,
) -> Task:
    """The task that the config.json of ``run`` names, on the environment ``env`` where one is given, with these
    arguments of its constructor and this limit, that of the run where the environment has none; its action map stays.
    Raises UsageError, also for arguments that are not taken from a file."""
    from offline_vi.datasets import Reading, scored_on
    from offline_vi.environments import known_limit
    from offline_vi.types import Task

    reading = Reading(env=env, env_kwargs=tuple(env_kwargs), max_episode_steps=max_episode_steps)
    task = scored_on(Task.from_json(config["task"]) if config.get("task") else None, reading)
    if task is None or not task.env_id:
        raise UsageError(
            "no environment is known for this run",
            f"name one: env=ID; without one, `{command_on('ope', run, config=config)}` estimates from the data what "
            "the policy is worth",
        )
    given = kwargs_from(env_kwargs)
    check_kwargs(task.env_id, {name: value for name, value in task.kwargs.items() if name not in given})
    limit = config.get("max_episode_steps")
    if env and limit and task.max_episode_steps is None and known_limit(task) is None:
        return replace(task, max_episode_steps=limit)
    return task


def differences(run: str | Path, config: dict[str, Any], task: Task, evaluation: Evaluation) -> list[str]:
    """What has changed since the run was scored: the environment, its arguments, its limit or its versions."""
    trained, limit = config.get("task") or {}, config.get("max_episode_steps")
    before = {"environment": environment_title(trained.get("env_id") or "", trained.get("kwargs") or {})}
    now = {"environment": environment_title(task.env_id, task.kwargs)}
    if limit is not None:
        before["max_episode_steps"], now["max_episode_steps"] = str(limit), str(evaluation.max_episode_steps)
    path = Path(run) / "run.json"
    versions = read_json(path).get("versions") if path.exists() else None
    for name in ("gymnasium", "mujoco"):
        if isinstance(versions, dict) and name in versions and name in evaluation.versions:
            before[name], now[name] = str(versions[name]), evaluation.versions[name]
    return [f"{name} {now[name]}, in the run {before[name]}" for name in now if before[name] not in ("", now[name])]


def use_products_of(run: str | Path) -> None:
    """Take the path of matrix products that the run took: the same policy then earns the same score to the last bit."""
    from offline_vi.nn.precision import use_products

    record = read_json(Path(run) / "run.json")
    use_products("medium" if record.get("products") == "medium" else "highest")


def guarded(
    policy: Algorithm,
    run: str | Path,
    seed_index: int = 0,
    actions: float = 0.0,
    states: float = 0.0,
    *,
    safe_action: Sequence[float] = (),
) -> GuardedPolicy | None:
    """The policy, guarded by the density that its run measured the support with, or that `keep_density` left in the
    run, at the quantile ``actions``, and by the density of states that `fit_guard` left in the run, at the quantile
    ``states``; 0 leaves a guard out. In unknown states it takes ``safe_action`` (A,), in the environment's units.

    Raises ConfigError where the run has no such density or does not know that quantile, UsageError for a safe action
    without a guard of states, or one that is not in the action box.
    """
    from offline_vi.behavior.pretrained import CARD
    from offline_vi.evaluation.states import load_states
    from offline_vi.nn.recorded import spec_in
    from offline_vi.rl.policies import GuardedPolicy, q_value
    from offline_vi.types import unit_task

    task = policy.task or unit_task(spec_in(policy).action_dim)
    safe = safe_in_box(safe_action, task) if safe_action else None
    if safe is not None and not states:
        raise UsageError("a safe action is for unknown states", "add guard_states=0.01")
    if not (actions or states):
        return None
    density, threshold = None, -math.inf
    if actions:
        density, support = density_of(run, seed_index)
        threshold = support.threshold(actions)
    if states and not (Path(run) / STATES / CARD).is_file():
        raise ConfigError(
            f"there is no density of states in {run}",
            f"`{command_on('fit-guard', run, config=read_json(Path(run) / 'config.json'))}` fits one",
        )
    known = load_states(Path(run) / STATES) if states else None

    def value(obs: Tensor, action: Tensor) -> Tensor:
        return q_value(policy, obs, action)

    return GuardedPolicy(policy, density, threshold, value=value, states=known, level=states or 0.01, safe_action=safe)


def density_of(run: str | Path, seed_index: int = 0) -> tuple[DensityModel, Support]:
    """The density of the actions of a run's data, and its quantiles: what `keep_density` left in the run, or else what
    the run measured the support with. Raises ConfigError where there is none."""
    from offline_vi.behavior.base import DensityModel
    from offline_vi.behavior.pretrained import CARD, load_behavior, read_card
    from offline_vi.evaluation.support import Support
    from offline_vi.study.kept import load_with_density

    kept = Path(run) / ACTIONS
    if (kept / CARD).is_file():
        found, record = load_behavior(kept), read_card(kept).record
        density = found if isinstance(found, DensityModel) else None
    else:
        density, record = load_with_density(run, seed_index)[1], read_json(Path(run) / "result.json")
    if density is None or not table(record, "support"):
        command = command_on("fit-guard", run, "--support-from", "DIR", config=read_json(Path(run) / "config.json"))
        raise ConfigError(
            f"{run} has no density of the data's actions",
            f"fit one by `offline-vi fit-behavior ... --output DIR`, then keep it in the run: `{command}`",
        )
    return density, Support.from_json(table(record, "support"))


def safe_in_box(action: Sequence[float], task: Task) -> Tensor:
    """An action in the environment's units, (A,), in those of the policy: [-1, 1]. Raises UsageError."""
    import torch

    low, high = task.action_low, task.action_high
    if len(action) != len(low):
        raise UsageError(
            f"the safe action has {counted(len(action), 'number')}",
            f"give {counted(len(low), 'number')}, one for each action",
        )
    given = np.asarray(action, np.float32)
    if not ((given >= np.asarray(low, np.float32)) & (given <= np.asarray(high, np.float32))).all():
        box = " and ".join(f"{below:g} to {above:g}" for below, above in zip(low, high, strict=True))
        raise UsageError(f"the safe action {' '.join(map(str, action))} is not in the action box", f"its bounds: {box}")
    return torch.from_numpy(task.from_env(given).clip(-1.0, 1.0))
