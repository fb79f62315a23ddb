"""Saving and loading agents: `save` writes the same directory as a run, and `load` reads either."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from offline_vi import registry
from offline_vi.behavior.base import BehaviorModel, DensityModel, Proposals
from offline_vi.behavior.pretrained import CARD, load_behavior, save_behavior
from offline_vi.errors import (
    CapabilityError,
    ConfigError,
    NoCheckpointError,
    RunExistsError,
    SpaceMismatchError,
    UsageError,
)
from offline_vi.nn.allowance import Allowance, bytes_of
from offline_vi.nn.description import class_named, classes_in, describe, rebuild, single_seed, spec_of
from offline_vi.nn.stack import unstack_
from offline_vi.nn.state import restore, snapshot
from offline_vi.plugins import load_plugin
from offline_vi.rl.algorithm import Algorithm, Wrapper, set_task
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import read_json
from offline_vi.study import format_1
from offline_vi.study.follow_up import command_on
from offline_vi.study.run import SCHEMA, Record, RunOptions, missing_plugin, plugins_used, recorded
from offline_vi.training.behavior import BehaviorFit
from offline_vi.types import Spec, Task, from_json

OF_THE_LOOP = ("random.", "replay.")
"""Beginnings of the names of tensors in a checkpoint that are the training loop's, not the agent's."""


class RunConfig(NamedTuple):
    """The content of a run's config.json."""

    record: Record  # all of it
    agent: Record  # the description of the agent
    algorithm: str  # its name; empty for the fit of a behavior model
    spec: Spec  # shapes of its data
    step: int  # of the newest checkpoint


def save(
    agent: Algorithm | BehaviorModel, directory: str | Path, *, task: Task | None = None, overwrite: bool = False
) -> Path:
    """Save a trained agent completely: its description, weights, optimizers and counters, and the task that it is
    scored on.

    ``task`` is by default that of the data which the agent was trained on. ``directory`` is then one like those that
    `offline-vi train` writes: `load`, `offline-vi evaluate`, `offline-vi export` and `offline-vi finetune` read it. A
    behavior model is kept with a card (`save_behavior`).

    Raises RunExistsError unless ``overwrite``, CapabilityError where a part of the agent cannot be kept, and
    CheckpointWriteError.
    """
    if isinstance(agent, BehaviorModel):
        if (Path(directory) / CARD).exists() and not overwrite:
            raise RunExistsError(f"{directory} holds a behavior model", "overwrite=True replaces it")
        return save_behavior(agent, directory)
    (tensors, values), description, known = snapshot(agent), describe(agent), task or agent.task
    spec_of(description)
    config = {
        "schema": SCHEMA,
        "verb": "save",
        "agent": description,
        "algorithm": algorithm_name(description),
        "task": known.to_json() if known is not None else None,
        "steps": agent.trained_steps,
        "run_options": RunOptions().recorded(),
        "plugins": plugins_used(description),
    }
    weights = agent.state_dict().keys()
    with RunDirectory.create(directory, overwrite=overwrite) as run, recorded(run, {"verb": "save"}):
        run.write_json("config.json", config)
        run.save(
            agent.trained_steps,
            {name: tensor for name, tensor in tensors.items() if name in weights},
            {name: tensor for name, tensor in tensors.items() if name not in weights},
            {"algorithm": values},
        )
    return Path(directory)


def load(
    directory: str | Path, seed_index: int = 0, *, plugins: Iterable[str | Path] = ()
) -> Algorithm | BehaviorModel:
    """The trained agent, or the fitted behavior model, of a directory; ``seed_index`` says which of several seeds that
    were trained in parallel, counted from 0.

    Classes that are not this library's are found again where their module is loaded; ``plugins`` names files or modules
    to load first. Raises MissingInputError, CheckpointCorruptError or ConfigError.
    """
    for plugin in plugins:
        load_plugin(plugin)
    if (Path(directory) / CARD).is_file():
        return load_behavior(directory)
    agent = load_agent(directory, seed_index)
    return agent.model if isinstance(agent, BehaviorFit) else agent


def load_agent(directory: str | Path, seed_index: int = 0) -> Algorithm:
    """The agent of a run, in evaluation mode. Raises what `load` raises."""
    config = read_config(directory)
    try:
        checkpoint = load_checkpoint(directory)
    except NoCheckpointError as error:
        command = command_on("resume", directory, config=config.record)
        raise NoCheckpointError(f"{directory} holds no policy yet", f"`{command}` goes on with its training") from error
    count = config.spec.stack[0] if config.spec.stack else 1
    if not 0 <= seed_index < count:
        raise ConfigError(f"{directory} has no seed number {seed_index}", f"there are {count}, counted from 0")
    tensors = format_1.renamed(checkpoint.model, config.record)
    if "recipe" not in config.record:
        tensors |= {name: tensor for name, tensor in checkpoint.trainer.items() if not name.startswith(OF_THE_LOOP)}
    values = checkpoint.state.get("algorithm", {})
    with torch.random.fork_rng():
        with Allowance(bytes_of({**checkpoint.model, **checkpoint.trainer})):
            agent: Algorithm = rebuild(single_seed(config.agent))
            stacked: Algorithm | None = rebuild(config.agent) if config.spec.stack else None
        if stacked is not None:
            restore(stacked, tensors, values)
            unstack_(agent, stacked, seed_index)
            agent.trained_steps = stacked.trained_steps
            for own, one in zip(agent.parameters(), stacked.parameters(), strict=True):
                own.requires_grad_(one.requires_grad)
        else:
            restore(agent, tensors, values)
    if config.record.get("task"):
        set_task(agent, Task.from_json(config.record["task"]))
    return agent.eval()


def read_config(directory: str | Path) -> RunConfig:
    """Read a run's config.json. Raises MissingInputError if there is no run, and ConfigError if it is not a run of this
    library."""
    record = read_json(Path(directory) / "config.json")
    missing = missing_plugin(record)
    try:
        if missing and "agent" in record:
            for name in classes_in(record["agent"]):
                class_named(name)
        agent = format_1.description(record["recipe"]) if "recipe" in record else record["agent"]
        inner = innermost_record(agent)
        name = "" if inner["class"] == "BehaviorFit" else algorithm_name(agent)
        return RunConfig(record, agent, name, spec_of(inner), int(record.get("steps") or 0))
    except ConfigError as error:
        hint = f"--plugin {missing}, or load(..., plugins=[{missing!r}])" if missing else error.hint
        raise ConfigError(f"{directory}: {error}", hint) from None
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        raise ConfigError(
            f"{directory}: config.json lacks or misuses {error}", "is it a run of this library?"
        ) from None


def load_with_density(directory: str | Path, seed_index: int = 0) -> tuple[Algorithm, DensityModel | None]:
    """The agent of a run and the density that its support was measured with, None without one. Raises what `load`
    raises."""
    agent = load_agent(directory, seed_index)
    elsewhere = read_config(directory).record.get("train_options", {}).get("support_from")
    behavior = load_behavior(elsewhere) if elsewhere else behavior_of(agent)
    return agent, behavior if isinstance(behavior, DensityModel) else None


def behavior_of(agent: Algorithm) -> Proposals | None:
    """The behavior model that an agent's candidates come from; None where it uses none."""
    while isinstance(agent, Wrapper):
        agent = agent.algorithm
    name = registry.proposals_argument(type(agent))
    return origin_of(agent.arguments()[name]) if name else None


def origin_of(proposals: Proposals) -> Proposals:
    """What proposals draw from in the end: a behavior model, mostly."""
    inner = [value for value in proposals.arguments().values() if isinstance(value, Proposals)]
    return origin_of(inner[0]) if inner else proposals


def innermost_record(agent: Record) -> Record:
    """The description of the algorithm within its wrappers."""
    inner = agent.get("algorithm")
    return innermost_record(inner) if isinstance(inner, dict) else agent


def innermost(config: RunConfig) -> Any:
    """The hyper-parameters of the algorithm within its wrappers."""
    record = innermost_record(config.agent)
    return from_json(registry.config_class(class_named(record["class"]))(), record.get("config") or {})


def with_config(config: RunConfig, settings: Any) -> Algorithm:
    """The run's agent under other hyper-parameters, freshly initialized, of one seed."""
    agent = single_seed(json.loads(json.dumps(config.agent)))
    innermost_record(agent)["config"] = asdict(settings)
    built: Algorithm = rebuild(agent)
    return built


def algorithm_name(agent: Record) -> str:
    """The name in the registry of the algorithm within its wrappers, or "module:Class"."""
    return str(innermost_record(agent)["class"])


def load_policy(directory: str | Path, seed_index: int = 0) -> Algorithm:
    """`load_agent`; raises UsageError for a behavior model."""
    agent = load_agent(directory, seed_index)
    if isinstance(agent, BehaviorFit):
        raise UsageError(f"{directory} holds a behavior model, not a policy", "give a run of `offline-vi train`")
    return agent


def fitted_in(directory: str | Path, spec: Spec) -> BehaviorModel:
    """The fitted model in a directory. Raises SpaceMismatchError where it was fitted to data of other shapes, and
    whatever `load_behavior` raises."""
    model = load_behavior(directory)
    if model.spec != spec:
        raise SpaceMismatchError(
            f"the behavior model in {directory} is of observations {model.spec.obs_shape} and "
            f"{model.spec.action_dim} actions, the data of {spec.obs_shape} and {spec.action_dim}",
            "fit one to these data: `offline-vi fit-behavior`",
        )
    return model


def density_in(directory: str | Path, spec: Spec) -> DensityModel:
    """The fitted model in a directory, as a density of these data. Raises SpaceMismatchError, CapabilityError, and
    whatever `load_behavior` raises."""
    model = fitted_in(directory, spec)
    if not isinstance(model, DensityModel):
        raise CapabilityError(f"the behavior model in {directory} has no density", "choose a DensityModel")
    return model
