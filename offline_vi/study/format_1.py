"""Runs of the first format: what their configuration and their tensors are called today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from offline_vi import registry
from offline_vi.behavior.base import LatentModel
from offline_vi.errors import ConfigError
from offline_vi.types import Spec

PROPOSALS = {"behavior.": "proposals."}
POLICY = {"actor.inputs.": "inputs."}
RENAMED: dict[str, dict[str, str]] = {  # algorithm -> old beginning of a name: new one
    "bc": {"actor.": "actor.net."},
    "bcq": PROPOSALS,
    "bear": PROPOSALS,
    "cql": {},
    "ddpg": {},
    "emaq": PROPOSALS,
    "iql": {"value.": "value.net."},
    "kl-sac": POLICY,
    "plas": {},
    "rebrac": PROPOSALS,
    "sac": POLICY,
    "soft-q": PROPOSALS,
    "spot": {},
    "td3": {},
    "td3-bc": {},
}
BONUS = {"inputs.": "standardizer."}
RAW_LAYERS = ("likelihood.net.0", "posterior.net.0", "prior.net.0")  # the first ones of a CVAE on raw observations


KINDS = {"": "", "samples": "samples", "decoded": "decoder-means", "likely": "most-likely"}
Record = dict[str, Any]


def description(recipe: Mapping[str, Any]) -> Record:
    """The agent of a "recipe", as `nn.description` describes agents."""
    if recipe["algorithm"] == "":
        return {"class": "BehaviorFit", "model": _model(recipe, recipe["spec"]), "steps": 1}
    row = registry.algorithm(str(recipe["algorithm"]))
    argument = registry.proposals_argument(row.load())
    agent: Record = {"class": recipe["algorithm"], "spec": recipe["spec"], "config": recipe["config"]}
    if argument and recipe.get("jointly"):
        shared = {"same_as": 1 + bool(recipe.get("bonus"))}
        agent[argument] = _proposals(recipe, row.proposals, shared)
        agent = {"class": "Jointly", "behavior": _model(recipe, recipe["spec"]), "algorithm": agent}
    elif argument:
        agent[argument] = _proposals(recipe, row.proposals, _model(recipe, {**recipe["spec"], "stack": []}))
    if recipe.get("bonus"):
        return {
            "class": recipe["bonus"],
            "algorithm": agent,
            "spec": recipe["spec"],
            "config": recipe["bonus_config"],
        }
    return agent


def _model(recipe: Mapping[str, Any], spec: Mapping[str, Any]) -> Record:
    return {"class": recipe["behavior"], "spec": dict(spec), "config": recipe["behavior_config"]}


def _proposals(recipe: Mapping[str, Any], published: str, model: Record) -> Record:
    asked = KINDS[recipe.get("proposals") or ""]
    decodes = issubclass(registry.behavior_model(str(recipe["behavior"])).load(), LatentModel)
    kind = asked or ("samples" if published == "decoder-means" and not decodes else published)
    if kind == "decoder-means":
        return {"class": "DecoderMeans", "model": model, "noise_clip": recipe.get("noise_clip", 0.5)}
    if kind == "most-likely":
        return {"class": "MostLikelySamples", "model": model, "keep": recipe.get("keep", 0.25)}
    return model


def renamed(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a run's checkpoint under today's names; ``record`` is its config.json.

    In the first format wrappers normalized the observations and rescaled the rewards of a whole algorithm, its behavior
    model included. A run of today keeps its names.
    """
    recipe = record.get("recipe")
    if recipe is None or recipe["algorithm"] not in RENAMED:
        return dict(tensors)
    agent = "agent." * bool(recipe.get("bonus"))
    outer = "algorithm." * (bool(recipe.get("bonus")) + bool(recipe.get("jointly")))
    wrappers = [recipe.get("normalize"), recipe.get("reward_scale"), recipe.get("jointly")]
    prefix = agent + "algorithm." * sum(map(bool, wrappers))
    table = RENAMED[recipe["algorithm"]]
    own = {_new_name(n.removeprefix(prefix), table): tensor for n, tensor in tensors.items() if n.startswith(prefix)}
    own |= _inputs(tensors, agent, Spec.from_json(recipe["spec"]))
    if recipe.get("normalize"):
        raw = (recipe.get("behavior_config") or {}).get("inputs") == "raw"
        own = _on_raw_observations(own, tensors[f"{agent}normalizer.mean"], tensors[f"{agent}normalizer.std"], raw)
    bonus = {_new_name(n, BONUS): tensor for n, tensor in tensors.items() if not n.startswith(agent)}
    return bonus | {f"{outer}{name}": tensor for name, tensor in own.items()}


def _new_name(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _inputs(tensors: Mapping[str, Tensor], agent: str, spec: Spec) -> dict[str, Tensor]:
    """The algorithm's own normalizer: the identity where nothing was normalized."""
    shape = spec.row(spec.obs_dim)
    mean = tensors.get(f"{agent}normalizer.mean", torch.zeros(spec.obs_dim))
    std = tensors.get(f"{agent}normalizer.std", torch.ones(spec.obs_dim))
    return {"inputs.mean": mean.expand(shape), "inputs.std": std.expand(shape)}


def _on_raw_observations(own: dict[str, Tensor], mean: Tensor, std: Tensor, raw: bool) -> dict[str, Tensor]:
    """The behavior model saw (s - mean) / std: its own first layers take that over, so that it sees s."""
    changed = dict(own)
    for name, tensor in own.items():
        if not name.startswith(("proposals.", "behavior.")):
            continue
        if name.endswith("inputs.mean"):
            changed[name] = mean + std * tensor
        elif name.endswith("inputs.std"):
            changed[name] = std * tensor
        elif raw and name.endswith(tuple(f"{layer}.weight" for layer in RAW_LAYERS)):
            bias = name.removesuffix("weight") + "bias"
            changed[name], changed[bias] = _folded(tensor, own[bias], mean, std)
    return changed


def _folded(weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer of ((s - mean) / std, x) as one of (s, x): weight (H, in) and bias (H,), or those of S seeds,
    (S, in, H) and (S, 1, H)."""
    rows = (weight if weight.ndim == 3 else weight.mT).double().clone()  # (.., in, H)
    of_s = rows[..., : len(mean), :]
    of_s /= std.double().unsqueeze(-1)
    moved = bias.double() - (mean.double().unsqueeze(0) @ of_s).reshape(bias.shape)
    return (rows if weight.ndim == 3 else rows.mT).to(weight).contiguous(), moved.to(bias)


# ------------------------------------------------------------------ configurations


EVAL = ("eval_every", "eval_episodes", "eval_seed")
GONE = ("compile_losses",)


def _section(record: Mapping[str, Any], name: str) -> Record:
    section = record.get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{name!r} of the configuration is no table", "use a run's config.json")
    return section


def options(record: Mapping[str, Any]) -> Record:
    """The options of a config.json of the first format of `offline-vi train`, as today's. Raises ConfigError."""
    recipe, train = _section(record, "recipe"), dict(_section(record, "train_options"))
    for name in GONE:
        train.pop(name, None)
    evaluation = {name: train.pop(name) for name in EVAL if name in train}
    if "seeds_at_once" in train:
        train["num_seeds"] = train.pop("seeds_at_once")
    return {
        "schema": 2,
        "verb": record.get("verb"),
        "agent": None,  # a whole configuration, see `train.parse_options`
        "algorithm": recipe.get("algorithm"),
        "steps": record.get("steps"),
        "data_options": record.get("data_options", {}),
        "train_options": train,
        "eval_options": evaluation,
        "run_options": record.get("run_options", {}),
        "algorithm_options": recipe.get("config", {}),
        "behavior_options": recipe.get("behavior_config") or {},
    }
