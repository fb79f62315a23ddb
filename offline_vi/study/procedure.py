"""What a command of `offline-vi train` would do, step by step and in the paper's terms: ``--print-config``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

from offline_vi import registry
from offline_vi.behavior.base import Proposals
from offline_vi.rl.algorithm import Algorithm
from offline_vi.study.presets import PRESETS
from offline_vi.study.train import TrainOptions
from offline_vi.study.tuned import source_of

PAPER_STEPS = {  # gradient steps of the policy in the reference code that the algorithm's docstring names
    **dict.fromkeys(("bcq", "bear", "spot", "td3-bc", "iql", "rebrac"), 1_000_000),
    "plas": 500_000,
    "cql": 3_000_000,
    "onestep": 2_000_000,
}


def described(name: str, options: Any) -> str:
    """The text of ``--print-config``: procedure, data as the algorithm sees them, hyper-parameters with the paper's
    symbols."""
    chosen: TrainOptions = options.train
    sections = {
        title(name, chosen): procedure(name, options),
        "data": preprocessing(name, options),
        f"hyper-parameters of {name}": settings(options.algorithm),
    }
    if chosen.behavior_model:
        sections[f"hyper-parameters of {chosen.behavior_model} (latent_dim and eps follow the actions of the data)"] = (
            settings(options.behavior)
        )
    if found := differences(name):
        sections["differences from the reference code"] = iter(found)
    return "\n\n".join("\n  ".join([head, *body]) for head, body in sections.items())


def title(name: str, chosen: TrainOptions) -> str:
    """Algorithm, preset, and the source of what is tuned."""
    words = [f"{name}: {registry.algorithm(name).summary}", f"preset {chosen.preset}"]
    if chosen.tuned_for:
        words.append(f"tuned for {chosen.tuned_for} as in {source_of(name, chosen.tuned_for)}")
    return "\n".join(words)


def procedure(name: str, options: Any) -> Iterator[str]:
    """What is trained, in which order and for how long."""
    chosen: TrainOptions = options.train
    model, joint, returns = chosen.behavior_model, not (chosen.behavior_steps or chosen.behavior_from), options.returns
    rule, value_steps = options.weights.episode_weights, options.weights.value_steps
    parts: list[str] = []
    if rule in ("improving", "worthwhile"):
        where = ", where the returns of the best episodes do not agree" if rule == "worthwhile" else ""
        parts.append(f"fit values for {value_steps:,} steps, and advantages of the steps for as many{where}")
    if model and not joint:
        paper = PRESETS["published"].each.get(name, {}).get("behavior_steps")
        fit = f"fit {model} for {lengths(chosen.behavior_steps, paper)}, {fitting(options)}"
        parts.append(f"{f'take {model} from {chosen.behavior_from}' if chosen.behavior_from else fit}; freeze it")
    if returns.used and returns.return_steps:
        parts.append(f"fit the values of the data's trajectories for {returns.return_steps:,} steps")
    if returns.critic_start_steps:
        parts.append(f"start the critics on returns for {returns.critic_start_steps:,} steps")
    batch = vars(options.algorithm).get("batch_size", Algorithm.batch_size)
    train = f"train {name} for {lengths(chosen.steps, PAPER_STEPS.get(name))}, batch {batch}"
    if model and joint:
        train = f"jointly, a step each on the same batch: fit {model} by {adam(options.behavior)}, then {train}"
    yield from (f"{number}. {part}" for number, part in enumerate([*parts, train], 1))


def lengths(steps: int, paper: int | None) -> str:
    """A number of steps, and the paper's where that is another one."""
    return f"{steps:,} steps" + (f" (the paper's code: {paper:,})" if paper not in (None, steps) else "")


def fitting(options: Any) -> str:
    """How a model is fitted ahead."""
    rate = {"cosine": "falling to 0 as a cosine", "constant": "constant"}
    model = options.behavior
    return f"batch {model.batch_size}, {adam(model)}, {rate[model.schedule]}"


def adam(model: Any) -> str:
    """The optimizer of a model."""
    return f"Adam at learning rate {model.lr:g}"


def preprocessing(name: str, options: Any) -> Iterator[str]:
    """What is done to observations and rewards, which rows count, and what the algorithm is given of its model."""
    chosen: TrainOptions = options.train
    model = f" for {name}; {chosen.behavior_model} has its own 'inputs'" if chosen.behavior_model else ""
    yield f"observations: {f'normalized{model}' if chosen.normalize else 'as they are'}"
    scales = {"": "r", "returns": "1000 / (largest - smallest return) r"}
    scale = scales.get(chosen.reward_scale, f"{chosen.reward_scale} r")
    shift = f" {chosen.reward_shift:+g}" if chosen.reward_shift else ""
    penalty = f", r less by {chosen.end_penalty:g} at the end of the task" if chosen.end_penalty else ""
    yield f"rewards: {scale}{shift}{penalty}"
    reads = options.data.next_obs
    others = "" if reads == "within_episode" else " (tables and Minari's sets: within_episode)"
    yield f"next observations: {reads}{others}; episode weights: {options.weights.episode_weights}"
    if chosen.behavior_model and takes_any_proposals(name):
        kind = chosen.proposals or registry.algorithm(name).proposals
        clip = f", noise clipped to {chosen.noise_clip:g}" if kind == "decoder-means" else ""
        yield f"actions of {chosen.behavior_model}: {kind}{clip}"


def takes_any_proposals(name: str) -> bool:
    """Whether the algorithm is given actions of its model, and not the model itself."""
    cls: Any = registry.algorithm(name).load()
    return get_type_hints(cls.__init__)[registry.proposals_argument(cls)] is Proposals


def differences(name: str) -> list[str]:
    """The lines of that section in the docstring of the algorithm's module."""
    text = inspect.getdoc(sys.modules[registry.algorithm(name).load().__module__]) or ""
    section = text.partition("Differences from the reference code\n")[2].partition("\n\n")[0]
    return section.splitlines()[1:]


def settings(config: Any) -> Iterator[str]:
    """Each field of a configuration with the comment beside it, which gives the paper's symbol."""
    comments = dict(re.findall(r"^ +(\w+):[^#\n]*#\s*(.*)$", inspect.getsource(type(config)), re.MULTILINE))
    width = max((len(entry.name) for entry in fields(config)), default=0)
    for entry in fields(config):
        value = f"{entry.name:<{width}} {getattr(config, entry.name)}"
        yield f"{value:<{width + 16}} {comments.get(entry.name, '')}".rstrip()
