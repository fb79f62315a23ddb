"""The work of `offline-vi train-online`: build, collect and train, score, keep everything in a run directory."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, field, make_dataclass
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
import torch
import tyro

from offline_vi import datasets
from offline_vi.algorithms import ALGORITHMS
from offline_vi.algorithms.build import Recipe, build, config_class
from offline_vi.algorithms.vime import VIME
from offline_vi.behavior import GaussianBehavior
from offline_vi.behavior.pretrained import CARD, save_behavior
from offline_vi.datasets import minari
from offline_vi.datasets.recipes import save
from offline_vi.environments import make_env, observation_of
from offline_vi.errors import UsageError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.rl.algorithm import Algorithm, NormalizedOnline
from offline_vi.runs.directory import RunDirectory
from offline_vi.scripts.common import SCHEMA, RunOptions, open_run, recorded, without
from offline_vi.scripts.info import versions
from offline_vi.scripts.train_job import summary, tell
from offline_vi.study.plots import exploration_map, learning_curve
from offline_vi.training.loop import fit_online
from offline_vi.training.randomness import set_seed
from offline_vi.types import Spec, Task


@dataclass(frozen=True)
class EnvOptions:
    """Where, and what the algorithm meets there."""

    env: str = ""
    """Gymnasium id."""
    normalize: bool = False
    """Standardise what the algorithm sees: by the bounds of the observation space, or by uniform actions' statistics
    where it has none."""
    bonus: Literal["", "vime"] = ""
    """Pay the algorithm for what its observations teach (--vime.eta and the other flags of vime)."""


@dataclass(frozen=True)
class CollectOptions:
    """How long, how scored."""

    steps: int = 100_000
    """Steps in the environment after the warm-up, a gradient step each."""
    warmup: int = 100
    """Actions before the first gradient step: uniform ones; in fine-tuning those of the policy as it was."""
    num_envs: int = 1
    """Environments in lock-step."""
    capacity: int = 1_000_000
    """Transitions that the replay buffer keeps."""
    eval_every: int = 5_000
    """Steps between two evaluations."""
    eval_episodes: int = 10
    """Episodes per evaluation."""
    eval_seed: int = 100
    """Seed of the first evaluation episode; independent of --seed."""
    write: Annotated[str, tyro.conf.arg(metavar="NAMESPACE/NAME-v0")] = ""
    """Write everything that was collected as a Minari data set of this name."""
    keep_policies: bool = False
    """Keep the policy of every evaluation as a behaviour model in RUN/policies/, where it is a tanh-Normal."""


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    """The verb: name of the algorithm, the other flags; returns the record of result.json."""
    omit: Any = tyro.conf.OmitArgPrefixes
    parts = [
        ("where", EnvOptions()),
        ("collect", CollectOptions()),
        ("run", RunOptions()),
        ("algorithm", config_class(name)()),
    ]
    flat = [(part, omit[type(value)], field(default=value)) for part, value in parts]
    flat.append(("vime", config_class("vime"), field(default=config_class("vime")())))
    options: Any = tyro.cli(
        make_dataclass("Options", flat, frozen=True),
        args=arguments,
        prog=f"offline-vi train-online {name}",
        description=ALGORITHMS[name].summary,
    )
    torch.set_num_threads(options.run.threads)
    if not options.where.env:
        raise UsageError("no environment is given", "add --env ID, e.g. Hopper-v5")
    name_of_data = options.collect.write
    if name_of_data and minari.is_local(name_of_data) and not options.run.resume:
        raise UsageError(f"{minari.folder_of(name_of_data)} exists", "choose another version: NAME-v1")
    return train(name, options)


def collection_of(options: Any) -> dict[str, Any]:
    """What decides which episodes there are, and so what a run may not resume with another of: every checkpoint ends
    some."""
    names = ("warmup", "num_envs", "capacity")
    return {**{name: getattr(options.collect, name) for name in names}, "save_every": options.run.save_every}


def spec_of(task: Task) -> Spec:
    """The shapes of an environment. Raises UsageError where its observations are not an array."""
    env = make_env(task)
    space: Any = env.observation_space if task.obs_key is None else env.observation_space[task.obs_key]  # type: ignore[index]
    env.close()
    if not isinstance(space, gymnasium.spaces.Box):
        raise UsageError(f"{task.env_id} has the observations {space}", "an environment with array observations")
    dtype = "uint8" if space.dtype == "uint8" else "float32"
    return Spec(tuple(space.shape), len(task.action_low), dtype)


def train(name: str, options: Any) -> dict[str, Any]:
    """Build, collect and train, score; returns the record of result.json."""
    where, env = options.where, options.where.env
    task = datasets.environment(env)
    spec = spec_of(task)
    bonus = options.vime if where.bonus else None
    recipe = Recipe(name, spec, options.algorithm, normalize=where.normalize, bonus=where.bonus, bonus_config=bonus)
    config = {
        "schema": SCHEMA,
        "verb": "train-online",
        "recipe": recipe.to_json(),
        "data": None,
        "task": task.to_json(),
        "steps": options.collect.steps,
        "seed": options.run.seed,
        "collection": {"env": env, **collection_of(options)},
        "online_options": {**asdict(where), **asdict(options.collect)},
        "run_options": without(asdict(options.run), "resume", "overwrite", "output"),
    }
    run, resumes = open_run(options.run, f"{name}-{env}-seed{options.run.seed}".replace("/", "-"), config)
    with run, recorded(run, {"algorithm": name, "env": env, "seed": options.run.seed}) as record:
        with torch.random.fork_rng():
            set_seed(options.run.seed)
            algorithm = build(recipe)
            standardize(algorithm, task)
        result = collect_and_score(run, algorithm, task, spec, options, resumes)
        record["result"] = {key: result[key] for key in ("normalized_score", "return_mean")}
    tell(run, result, options.run)
    return result


def collect_and_score(
    run: RunDirectory,
    algorithm: Algorithm,
    task: Task,
    spec: Spec,
    options: Any,
    resumes: bool,
    *,
    score_first: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """`fit_online` with evaluations on the way, of the policy as it begins too where ``score_first``; ``settings`` go
    to it. Returns the record of result.json."""
    chosen, device = options.collect, options.run.torch_device()

    def score(step: int, policy: Algorithm) -> dict[str, float]:
        evaluation = evaluate(policy, task, chosen.eval_episodes, chosen.eval_seed, device=device)
        for episode in evaluation.episode_rows(step):
            run.log_episode(episode)
        if chosen.keep_policies:
            keep(run, step, policy, evaluation.mean_return)
        return {"return": evaluation.mean_return, "score": evaluation.mean}

    if score_first and not resumes:
        score(0, algorithm.to(device).eval())
    _, collected = fit_online(
        algorithm,
        task,
        spec,
        chosen.steps,
        warmup=chosen.warmup,
        num_envs=chosen.num_envs,
        capacity=chosen.capacity,
        seed=options.run.seed,
        device=device,
        log_every=options.run.log_every,
        eval_every=chosen.eval_every,
        on_eval=score,
        run=run,
        save_every=options.run.save_every,
        resume=resumes,
        progress=not options.run.quiet,
        **settings,
    )
    result = summary(run, chosen.steps)
    run.write_json("result.json", result)
    learning_curve(run.path)
    exploration_map(run.path / "exploration.png", {run.path.name: collected})
    if chosen.write:
        print(save(chosen.write, collected, f"collected on {task.env_id} by {run.path.name}"), file=sys.stderr)
    return result


def standardize(algorithm: Algorithm, task: Task, steps: int = 1_000) -> None:
    """Give the normalisers of (s) and (s, a) in the algorithm the mean and standard deviation of a uniform law over the
    bounded dimensions of the environment's spaces; over the others, those of so many uniform actions."""
    env = make_env(task)
    space: Any = env.observation_space if task.obs_key is None else env.observation_space[task.obs_key]  # type: ignore[index]
    env.action_space.seed(0)
    rows = [observation_of(env.reset(seed=0)[0], task)]
    for _ in range(steps):
        obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
        rows.append(observation_of(env.reset()[0] if terminated or truncated else obs, task))
    env.close()
    seen, bounded = np.stack(rows), np.isfinite(space.low) & np.isfinite(space.high)
    mean = np.where(bounded, 0.5 * (space.low + space.high), seen.mean(0))
    std = np.where(bounded, (space.high - space.low) / math.sqrt(12.0), np.maximum(seen.std(0), 1e-3))
    actions = len(task.action_low)
    values = {"mean": np.append(mean, np.zeros(actions)), "std": np.append(std, np.full(actions, 1.0 / math.sqrt(3.0)))}
    normalizers = [part.inputs for part in algorithm.modules() if isinstance(part, VIME)]
    normalizers += [part.normalizer for part in algorithm.modules() if isinstance(part, NormalizedOnline)]
    for normalizer in normalizers:
        for name, value in values.items():
            buffer: torch.Tensor = getattr(normalizer, name)
            buffer.copy_(torch.from_numpy(value[: len(buffer)]))


def keep(run: RunDirectory, step: int, policy: Algorithm, mean_return: float) -> None:
    """RUN/policies/step_N: the policy as a fitted behaviour model, whose log_prob is that of its actions."""
    actor = getattr(policy, "actor", None)
    if not isinstance(actor, GaussianBehavior):
        raise UsageError("the policy is no tanh-Normal", "leave --keep-policies out")
    path = run.path / "policies" / f"step_{step:08d}"
    if not (path / CARD).exists():  # a resumed run scores some steps again, and finds the same policy
        fit = {"steps": step, "return": mean_return}
        save_behavior(actor, "gaussian", actor.config, path, fit=fit, versions=versions())
