"""Fine-tuning: take up a run's policy and its data, then collect and train. The experiment of `offline-vi finetune`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro

from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError, SpaceMismatchError
from offline_vi.factories import check_kwargs, kwargs_from, words_of
from offline_vi.nn.state import parameters_and_buffers, restore
from offline_vi.rl.algorithm import Algorithm, OnlineAlgorithm, find_capability
from offline_vi.rl.policies import Explorer, GaussianNoise
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.data import DataOptions, check_task
from offline_vi.study.evaluations import EvalOptions
from offline_vi.study.experiment import options_record, scored
from offline_vi.study.flags import parse, value_of
from offline_vi.study.kept import RunConfig, innermost, load_agent, read_config, with_config
from offline_vi.study.names import run_name
from offline_vi.study.online import Collecting, CollectOptions, refuse_existing
from offline_vi.study.run import Record, RunOptions, data_record
from offline_vi.study.scoring import task_of_run
from offline_vi.study.tuned import tuned
from offline_vi.training.collector import Collection
from offline_vi.types import RewardMap, from_json


@dataclass(frozen=True)
class FinetuneOptions:
    """What the run starts from, and how it explores."""

    share: float = 0.5
    """Share of every batch that is drawn from the offline data; the rest is of what was collected."""
    sigma: float = 0.1
    """Standard deviation of the noise on the policy's actions, in units of the box [-1, 1], where the algorithm does
    not explore by itself."""
    tuned_for: Annotated[str, tyro.conf.arg(metavar="TASK")] = ""
    """Start from the settings with which the algorithm's paper fine-tunes on this D4RL task or domain."""
    seed_index: Annotated[int, tyro.conf.arg(aliases=["--member"])] = 0
    """Which seed to start from, of a run that trained several in parallel (--parallel-seeds), counted from 0."""


class Finetuning(Collecting):
    """The policy of a run, trained further in its environment, with its data in every batch."""

    verb = "finetune"

    def __init__(self, directory: str, config: RunConfig, options: Any) -> None:
        self.directory, self.config, self.options = directory, config, options
        self.chosen: FinetuneOptions = options.finetune
        self.collect, self.eval, self.run_options = options.collect, options.eval, options.run
        refuse_existing(self.collect.write, options.run)
        self.reading = as_trained(options.data, config)
        data: Transitions = self.reading.load()
        if data.spec != replace(config.spec, stack=()):
            raise SpaceMismatchError(
                f"{data.source.name} has other shapes than the data of {directory}", "give its own: --dataset"
            )
        chosen = options.data
        self.task = task_of_run(config.record, chosen.env, chosen.env_kwargs, chosen.max_episode_steps, run=directory)
        self.data = data.with_task(self.task)
        self.limit = check_task(self.data)
        self.spec = self.data.spec
        self.steps, self.eval_every = self.collect.steps, self.eval.interval
        saved = config.record.get("data") or {}
        self.rewards = RewardMap.of(saved)
        self.name = run_name(config.algorithm, self.data.source.name, [options.run.seed], "finetune")

    def record(self) -> Record:
        start = {"run": self.directory, "seed_index": self.chosen.seed_index, "step": self.config.step}
        return {
            "algorithm": self.config.algorithm,
            "data": data_record(self.data) | self.rewards.recorded(),
            "task": self.task.to_json(),
            "max_episode_steps": self.limit,
            "start": start,
            "collection": self.collection(),
            **options_record(data=self.reading, finetune=self.chosen, collect=self.collect, eval=self.eval),
            **options_record(algorithm=self.options.algorithm),
        }

    def agent(self) -> Algorithm:
        """The run's networks under the hyper-parameters of the flags, with fresh optimizers."""
        trained = load_agent(self.directory, self.chosen.seed_index)
        agent = with_config(self.config, self.options.algorithm)
        restore(agent, parameters_and_buffers(trained))
        return agent

    def prepare(self, run: RunDirectory, agent: Algorithm) -> None:
        """Score the policy before it is trained further."""
        if not run.has_checkpoint():
            scored(self, run, 0, agent.to(self.run_options.torch_device()).eval())

    def how(self, agent: Algorithm) -> Collection:
        explorer = explorer_of(agent, self.chosen.sigma)
        return replace(
            super().how(agent),
            explorer=explorer,
            warmup_policy=explorer,
            offline=self.data,
            share=self.chosen.share,
            rewards=self.rewards,
        )


def as_trained(chosen: DataOptions, config: RunConfig) -> DataOptions:
    """How data are read for a run that goes on: in the units that it was trained in, whichever environment comes now;
    as ``chosen`` says where the run was not made from data. Raises UsageError for arguments that no file decides."""
    record = config.record.get("data_options")
    if record is None:
        return chosen
    before = DataOptions.from_record(record)
    given, said = kwargs_from(chosen.env_kwargs), kwargs_from(before.env_kwargs)
    check_kwargs(before.env, {name: value for name, value in said.items() if name not in given or given[name] != value})
    return replace(
        chosen,
        env=before.env,
        env_kwargs=before.env_kwargs,
        max_episode_steps=before.max_episode_steps,
        unscored=before.unscored,
    )


def explorer_of(agent: Algorithm, sigma: float) -> Explorer:
    """The part of the agent that explores by itself, else its policy with noise."""
    return find_capability(agent, OnlineAlgorithm) or GaussianNoise(agent, sigma)


def finetuning(directory: str, options: Any) -> Finetuning:
    """The experiment that the flags of `offline-vi finetune` describe."""
    return Finetuning(directory, read_config(directory), options)


def parse_options(directory: str, saved: Record, arguments: Sequence[str]) -> Any:
    """Defaults < the run's own data and hyper-parameters < --tuned-for < --config < flags.

    Raises ConfigError where the directory holds no policy.
    """
    config = read_config(directory)
    if config.algorithm == "":
        raise ConfigError(f"{directory} holds no policy", "give the directory of `offline-vi train`")
    settings = innermost(config)
    if task := value_of(arguments, "--tuned-for"):
        settings = from_json(settings, tuned(config.algorithm, task, "finetuning"))
    data = DataOptions.from_record(saved.get("data_options") or config.record.get("data_options", {}))
    own = config.record.get("task") or {}
    where = saved.get("task") or {"env_id": own.get("env_id") or data.env}  # arguments and limit: see `task_of_run`
    data = replace(  # where it goes on; how the data are read: see `as_trained`
        data,
        env=str(where["env_id"]),
        env_kwargs=words_of(where.get("kwargs") or {}),
        max_episode_steps=int(where.get("max_episode_steps") or 0),
    )
    parts = {
        "finetune": from_json(FinetuneOptions(), saved.get("finetune_options", {})),
        "collect": from_json(CollectOptions(steps=50_000, warmup=1_000), saved.get("collect_options", {})),
        "data": data,
        "eval": from_json(EvalOptions(), saved.get("eval_options", {})),
        "run": from_json(RunOptions(), saved.get("run_options", {})),
        "algorithm": from_json(settings, saved.get("algorithm_options", {})),
    }
    about = f"Go on training the {config.algorithm} of {directory} in its environment."
    return parse(parts, arguments, f"offline-vi finetune {directory}", about)
