"""The work of `offline-vi finetune`: take up a run's policy and its data, collect and train, score, keep everything."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from offline_vi.algorithms.build import Recipe, build, load
from offline_vi.errors import ConfigError, SpaceMismatchError, UsageError
from offline_vi.rl.algorithm import Algorithm, OnlineAlgorithm
from offline_vi.rl.policies import Explorer, NoisyPolicy
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.config import from_json
from offline_vi.runs.files import read_json
from offline_vi.scripts.common import (
    SCHEMA,
    DataOptions,
    RunOptions,
    check_task,
    data_record,
    open_run,
    recorded,
    without,
)
from offline_vi.scripts.train_job import tell
from offline_vi.scripts.train_online_job import CollectOptions, collect_and_score, collection_of


@dataclass(frozen=True)
class FinetuneOptions:
    """What is taken up, and how it explores."""

    share: float = 0.5
    """Share of every batch that is drawn from the offline data; the rest is of what was collected."""
    sigma: float = 0.1
    """Standard deviation of the noise on the policy's actions, in units of the box [-1, 1], where the algorithm does
    not explore by itself."""
    member: int = 0
    """Which seed of a run of several side by side (--seeds-at-once), counted from 0."""


def run(directory: str, arguments: list[str]) -> dict[str, Any]:
    """The verb: the run to start from, the other flags; returns the record of result.json.

    Raises ConfigError where the directory holds no policy, and whatever `train_job.train` raises for its data.
    """
    saved = read_json(Path(directory) / "config.json")
    if saved.get("schema") != SCHEMA or not saved.get("recipe", {}).get("algorithm"):
        raise ConfigError(f"{directory} holds no policy", "give the directory of `offline-vi train`")
    recipe = Recipe.from_json(saved["recipe"]).of_one_seed()
    parts: list[tuple[str, Any]] = [
        ("finetune", FinetuneOptions()),
        ("collect", CollectOptions(steps=50_000, warmup=1_000)),
        ("data", from_json(DataOptions(), saved.get("data_options", {}))),
        ("run", RunOptions()),
        ("algorithm", recipe.config),
    ]
    omit: Any = tyro.conf.OmitArgPrefixes
    flat = [(part, omit[type(value)], field(default=value)) for part, value in parts]
    options: Any = tyro.cli(
        make_dataclass("Options", flat, frozen=True),
        args=arguments,
        prog=f"offline-vi finetune {directory}",
        description=f"Go on training the {recipe.algorithm} of {directory} in its environment.",
    )
    torch.set_num_threads(options.run.threads)
    return finetune(directory, recipe, options)


def finetune(directory: str, recipe: Recipe, options: Any) -> dict[str, Any]:
    """Take up, collect and train, score; returns the record of result.json."""
    data = options.data.load()
    if data.spec != recipe.spec:
        raise SpaceMismatchError(f"{data.source.name} has other shapes than the data of {directory}", "give its own")
    if data.task is None or not data.task.env_id:
        raise UsageError("no environment is known for this run", "name one: --env ID")
    check_task(data)
    chosen = options.finetune
    algorithm = taken_up(directory, recipe, options)
    config = {
        "schema": SCHEMA,
        "verb": "finetune",
        "recipe": {**recipe.to_json(), "config": asdict(options.algorithm)},
        "data": data_record(data),
        "task": data.task.to_json(),
        "steps": options.collect.steps,
        "seed": options.run.seed,
        "start": {"run": directory, "member": chosen.member, "step": load_checkpoint(directory).step},
        "data_options": asdict(options.data),
        "collection": collection_of(options),
        "finetune_options": {**asdict(chosen), **asdict(options.collect)},
        "run_options": without(asdict(options.run), "resume", "overwrite", "output"),
    }
    name = f"{recipe.algorithm}-{data.source.name}-finetune-seed{options.run.seed}".replace("/", "-")
    run, resumes = open_run(options.run, name, config)
    facts = {"algorithm": recipe.algorithm, "start": config["start"], "seed": options.run.seed}
    with run, recorded(run, facts) as record:
        explorer = explorer_of(algorithm, chosen.sigma)
        result = collect_and_score(
            run,
            algorithm,
            data.task,
            data.spec,
            options,
            resumes,
            score_first=True,
            explorer=explorer,
            beginner=explorer,
            offline=data,
            share=chosen.share,
        )
        record["result"] = {key: result[key] for key in ("normalized_score", "return_mean")}
    tell(run, result, options.run)
    return result


def taken_up(directory: str, recipe: Recipe, options: Any) -> Algorithm:
    """The run's networks under the hyper-parameters of the flags, with fresh optimisers."""
    trained = load(directory, options.finetune.member)
    assert isinstance(trained, Algorithm)
    with torch.random.fork_rng():
        algorithm = build(replace(recipe, config=options.algorithm))
    algorithm.restore(trained.snapshot())
    return algorithm


def explorer_of(algorithm: Algorithm, sigma: float) -> Explorer:
    """The algorithm itself, where it explores, else its policy with noise."""
    return algorithm if isinstance(algorithm, OnlineAlgorithm) else NoisyPolicy(algorithm, sigma)
