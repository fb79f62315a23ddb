"""Training in an environment: the experiment of `offline-vi train-online`, and what fine-tuning shares with it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from offline_vi import datasets, registry
from offline_vi.algorithms.sac import SAC
from offline_vi.algorithms.vime import VIME
from offline_vi.behavior.pretrained import CARD, save_behavior
from offline_vi.data.transitions import Transitions
from offline_vi.environments import check_limit, make_env, obs_space_of, observation_of, spec_of
from offline_vi.errors import EnvError, UsageError
from offline_vi.nn.normalizer import Normalizer
from offline_vi.rl.algorithm import Algorithm, find_capability, normalizer_of
from offline_vi.runs.directory import RunDirectory
from offline_vi.simulator import reason
from offline_vi.study.evaluations import EvalOptions, evaluate_into, summary
from offline_vi.study.experiment import Experiment, options_record
from offline_vi.study.flags import parse
from offline_vi.study.names import run_name
from offline_vi.study.plots import exploration_map, learning_curve, title_of
from offline_vi.study.run import Record, RunOptions
from offline_vi.study.versions import versions
from offline_vi.training.collector import Blended, Collection, Collector
from offline_vi.training.online import collecting
from offline_vi.training.randomness import seeds
from offline_vi.types import Spec, Task, from_json


@dataclass(frozen=True)
class EnvOptions:
    """The environment, and what the algorithm is given of it."""

    env: str = ""
    """Environment: a Gymnasium id, or code of yours: module:Id, module:Class or module:function."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment's constructor: key=value ..., or one JSON object."""
    max_episode_steps: int = 0
    """Steps after which an episode is cut; 0: the environment's own limit."""
    normalize: bool = False
    """Standardize what the algorithm sees: by the bounds of the observation space, or by uniform actions' statistics
    where it has none."""
    bonus: Literal["", "vime"] = ""
    """Add a bonus to the reward for what the observations teach (--vime.eta and the other flags of vime)."""


@dataclass(frozen=True)
class CollectOptions:
    """How long to collect, and what is kept."""

    steps: int = 100_000
    """Steps in the environment after the warm-up, a gradient step each."""
    warmup: int = 100
    """Actions before the first gradient step: uniform ones; in fine-tuning those of the policy as it was."""
    num_envs: int = 1
    """Number of environments that run in lock-step."""
    capacity: int = 1_000_000
    """Number of transitions that the replay buffer keeps."""
    write: Annotated[str, tyro.conf.arg(metavar="NAMESPACE/NAME-v0")] = ""
    """Write everything that was collected to a Minari data set of this name."""
    keep_policies: bool = False
    """Keep the policy of every evaluation as a behavior model in RUN/policies/, where it is a tanh-Normal."""


class Collecting(Experiment):
    """What training in an environment and fine-tuning share: batches that cost steps, and what is made of them."""

    task: Task
    spec: Spec
    collect: CollectOptions
    eval: EvalOptions
    run_options: RunOptions
    collector: Collector
    collected: Transitions

    def collection(self) -> Record:
        """What decides which episodes there are, and so what a run may not resume with another of: every checkpoint
        ends some."""
        names = ("warmup", "num_envs", "capacity")
        return {**{name: getattr(self.collect, name) for name in names}, "save_every": self.run_options.save_every}

    @contextmanager
    def batches(self, agent: Algorithm, device: torch.device) -> Iterator[Collector | Blended]:
        stream = seeds(self.run_options.seed)["batches"]
        with collecting(agent, self.task, self.spec, self.how(agent), stream, device) as (source, collector):
            self.collector = collector
            yield source

    def how(self, agent: Algorithm) -> Collection:
        """The settings of the collection."""
        chosen = self.collect
        return Collection(warmup=chosen.warmup, num_envs=chosen.num_envs, capacity=chosen.capacity)

    def score(self, run: RunDirectory, step: int, agent: Algorithm) -> dict[str, float]:
        device = self.run_options.torch_device()
        evaluation = evaluate_into(run, step, agent, self.task, self.eval, device=device)
        if self.collect.keep_policies:
            keep_policy(run, step, agent, evaluation.mean_return)
        return evaluation.shown()

    def finish(self, run: RunDirectory, agent: Algorithm) -> Record:
        result, self.collected = summary(run, self.steps), self.collector.transitions()
        if self.collector.failures:
            result["episodes_cut_by_failures"] = self.collector.failures
        if self.collect.write:
            from offline_vi.datasets.recipes import save

            about = f"collected on {self.task.env_id} by {run.path.name}"
            print(save(self.collect.write, self.collected, about), file=sys.stderr)
        return result

    def draw(self, run: RunDirectory, agent: Algorithm) -> None:
        learning_curve(run.path)
        exploration_map(run.path / "exploration.png", {title_of(run.path): self.collected})


class OnlineTraining(Collecting):
    """An algorithm that collects its own data."""

    verb = "train-online"

    def __init__(self, algorithm: str, options: Any) -> None:
        self.algorithm, self.options, self.where = algorithm, options, options.where
        self.collect, self.eval, self.run_options = options.collect, options.eval, options.run
        if not self.where.env:
            raise UsageError("no environment is given", "add --env ID, e.g. Hopper-v5")
        refuse_existing(self.collect.write, options.run)
        where = self.where
        self.task = datasets.environment(where.env, where.env_kwargs, where.max_episode_steps)
        self.limit = check_limit(self.task)
        self.spec = spec_of(self.task)
        self.steps, self.eval_every = self.collect.steps, self.eval.interval
        self.name = run_name(algorithm, self.where.env, [options.run.seed], self.where.bonus)

    def record(self) -> Record:
        return {
            "algorithm": self.algorithm,
            "data": None,
            "task": self.task.to_json(),
            "max_episode_steps": self.limit,
            "collection": {"env": self.where.env, **self.collection()},
            **options_record(where=self.where, collect=self.collect, eval=self.eval, algorithm=self.options.algorithm),
            **options_record(vime=self.options.vime),
        }

    def agent(self) -> Algorithm:
        cls: Any = registry.algorithm(self.algorithm).load()
        agent: Algorithm = cls(self.spec, config=self.options.algorithm)
        if self.where.bonus:
            wrapper: Any = registry.algorithm(self.where.bonus).load()
            agent = wrapper(agent, self.spec, self.options.vime)
        return agent

    def prepare(self, run: RunDirectory, agent: Algorithm) -> None:
        """Give the normalizers of the algorithm, and of its bonus, what the environment's spaces say."""
        normalizers = [part.standardizer for part in agent.modules() if isinstance(part, VIME)]
        normalizers += [normalizer_of(agent)] if self.where.normalize else []
        standardize(normalizers, self.task)


def standardize(normalizers: Sequence[Normalizer], task: Task, steps: int = 1_000) -> None:
    """Give normalizers of s or (s, a) the mean and standard deviation of a uniform law over the bounded dimensions of
    the environment's spaces; over the others, those of so many uniform actions."""
    if not normalizers:
        return
    env = make_env(task)
    space = obs_space_of(env, task)
    env.action_space.seed(0)
    try:
        rows = [observation_of(env.reset(seed=0)[0], task)]
        for _ in range(steps):
            obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
            rows.append(observation_of(env.reset()[0] if terminated or truncated else obs, task))
        env.close()
    except (Exception, SystemExit) as error:  # whatever a simulator raises
        raise EnvError(
            f"{task.env_id} failed under uniform actions: {reason(error)}", "mend the environment"
        ) from error
    seen, bounded = np.stack(rows), np.isfinite(space.low) & np.isfinite(space.high)
    mean = np.where(bounded, 0.5 * (space.low + space.high), seen.mean(0))
    std = np.where(bounded, (space.high - space.low) / math.sqrt(12.0), np.maximum(seen.std(0), 1e-3))
    actions = len(task.action_low)
    mean, std = np.append(mean, np.zeros(actions)), np.append(std, np.full(actions, 1.0 / math.sqrt(3.0)))
    for normalizer in normalizers:
        for buffer, value in ((normalizer.mean, mean), (normalizer.std, std)):
            buffer.copy_(torch.from_numpy(value[: len(buffer)]))


def refuse_existing(name: str, run: RunOptions) -> None:
    """Raise UsageError where a data set of the name that is to be written exists."""
    if not name or run.resume:
        return
    from offline_vi.datasets import minari

    if minari.is_local(name):
        raise UsageError(f"{minari.folder_of(name)} exists", "choose another version: NAME-v1")


def keep_policy(run: RunDirectory, step: int, agent: Algorithm, mean_return: float) -> None:
    """RUN/policies/step_N: the policy as a fitted behavior model, whose log_prob is that of its actions."""
    found = find_capability(agent, SAC)
    if found is None:
        raise UsageError("the policy is no tanh-Normal", "leave --keep-policies out")
    path = run.inner("policies") / f"step_{step:08d}"
    if not (path / CARD).exists():  # a resumed run scores some steps again, and finds the same policy
        fit = {"steps": step, "return": mean_return}
        save_behavior(found.actor, path, name="gaussian", fit=fit, versions=versions())


def parse_options(name: str, saved: Record, arguments: Sequence[str]) -> Any:
    """Defaults < --config < flags, the hyper-parameters of the algorithm among them."""
    row, vime = registry.algorithm(name), registry.algorithm("vime").config()()
    parts = {
        "where": from_json(EnvOptions(), saved.get("where_options", {})),
        "collect": from_json(CollectOptions(), saved.get("collect_options", {})),
        "eval": from_json(EvalOptions(), saved.get("eval_options", {})),
        "run": from_json(RunOptions(), saved.get("run_options", {})),
        "algorithm": from_json(row.config()(), saved.get("algorithm_options", {})),
        "vime": from_json(vime, saved.get("vime_options", {})),
    }
    return parse(parts, arguments, f"offline-vi train-online {name}", row.summary)
