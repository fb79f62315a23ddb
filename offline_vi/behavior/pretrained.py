"""A fitted behavior model as a directory that can be kept, sent and opened anywhere: weights and a card.

    DIR/
      model.safetensors   parameters, buffers and what other tensors it keeps
      card.json           what it is (class, hyper-parameters, shapes, plain values that it keeps), what it was fitted
                          to (data set, SHA-256), how good it is (density of unseen episodes, truth of its samples),
                          the weights' SHA-256
      offline_vi.json     says that the folder is a model's: see `runs.ownership`

Nothing is unpickled; a directory whose weights do not match its card is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from offline_vi import registry
from offline_vi.behavior.base import BehaviorModel
from offline_vi.errors import CheckpointCorruptError, ConfigError, MissingInputError
from offline_vi.nn.allowance import Allowance, bytes_of
from offline_vi.nn.description import class_named, describe, rebuild, spec_of
from offline_vi.nn.recorded import Recorded
from offline_vi.nn.state import parameters_and_buffers, restore, snapshot
from offline_vi.runs.files import read_json, write_json
from offline_vi.runs.ownership import claim
from offline_vi.runs.tensors import load_tensors, save_tensors
from offline_vi.types import Spec, from_json

M = TypeVar("M", bound=Recorded)

FORMAT = 2  # of a card; format 1, which named the model and its configuration apart, is read too
WEIGHTS, CARD = "model.safetensors", "card.json"


class Card(NamedTuple):
    """What the directory of a model says about it."""

    model: str  # its name in the registry, or "module:Class"
    spec: Spec  # the shapes that it was built for
    config: Any  # its hyper-parameters
    record: dict[str, Any]  # the whole card


def save_behavior(model: BehaviorModel, directory: str | Path, *, name: str = "", **about: Any) -> Path:
    """Write a model to ``directory``; ``about`` goes onto the card (data, fit, held_out, ...), ``name`` is the variant
    of the registry that it is. An older model there is replaced.

    Raises OutputDirError, CheckpointWriteError, and CapabilityError or ConfigError where the model could not be built
    again.
    """
    path, record = Path(directory), describe(model)
    spec_of(record)
    save_recorded(model, path, record, model=name or record["class"], **about)
    return path


def save_recorded(module: Recorded, path: Path, record: dict[str, Any], **about: Any) -> None:
    """Write weights and card of any module that can be described. Raises what `save_behavior` raises."""
    claim(path, "model", (WEIGHTS, CARD))
    state = snapshot(module)
    save_tensors(path / WEIGHTS, state.tensors)
    card = {"format": FORMAT, "model": record["class"], "description": record, "state": state.values}
    write_json(path / CARD, {**card, "sha256": _sha256(path / WEIGHTS), **about})


def read_card(directory: str | Path) -> Card:
    """The card of a model's directory, or of a run that fitted one, which holds it in ``model/``.

    Raises MissingInputError, and ConfigError where the card does not describe a model.
    """
    home = _home(directory)
    card = read_json(home / CARD)
    try:
        if card["format"] == 1:
            row, spec = registry.behavior_model(str(card["model"])), Spec.from_json(card["spec"])
            return Card(str(card["model"]), spec, from_json(row.config(spec), card["config"]), card)
        if card["format"] != FORMAT:
            raise ConfigError(f"{home / CARD} has format {card['format']!r}, this version reads 1 and {FORMAT}")
        record = card["description"]
        config = record.get("config")
        cls = registry.config_class(class_named(record["class"])) if config is not None else None
        settings = None if cls is None else from_json(cls(), config)
        return Card(str(card["model"]), spec_of(record), settings, card)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{home / CARD} lacks or misuses {error}", "is it a behavior model of this library?"
        ) from None


def load_behavior(directory: str | Path) -> BehaviorModel:
    """The fitted model in ``directory`` (see `read_card`), in evaluation mode and frozen.

    Raises MissingInputError, ConfigError where the card does not describe a model, CheckpointCorruptError where the
    weights are not those of the card, UnsafeCheckpointError for a pickle.
    """
    return load_recorded(directory, BehaviorModel)


def load_recorded(directory: str | Path, kind: type[M]) -> M:
    """What `save_recorded` wrote, of the class ``kind``. Raises what `load_behavior` raises."""
    home, card = _home(directory), read_card(directory)
    if not isinstance(card.record.get("sha256"), str):
        raise ConfigError(f"{home / CARD} names no SHA-256 of the weights", "copy the directory again, whole")
    tensors = load_tensors(home / WEIGHTS, sha256=card.record["sha256"])
    with torch.random.fork_rng(), Allowance(bytes_of(tensors)):
        model = build_card(card, kind)
    _take(model, tensors, card.record.get("state"), home / WEIGHTS)
    return model.eval().requires_grad_(False)


def build_card(card: Card, kind: type[M]) -> M:
    """The model of a card, freshly initialized. Raises ConfigError where it is not of the class ``kind``."""
    if "description" in card.record:
        model = rebuild(card.record["description"])
    else:
        cls: Any = registry.behavior_model(card.model).load()
        model = cls(card.spec, card.config)
    if not isinstance(model, kind):
        raise ConfigError(f"the card describes a {type(model).__name__}, which is no {kind.__name__}")
    return model


def _take(model: Recorded, tensors: Mapping[str, torch.Tensor], values: Any, path: Path) -> None:
    if values is None:  # format 1 holds parameters and buffers alone
        values, own = {}, set(model.state_dict())
        tensors = {name: tensors[name] for name in parameters_and_buffers(model)} if own == set(tensors) else tensors
    try:
        restore(model, tensors, values)
    except (CheckpointCorruptError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise CheckpointCorruptError(f"{path} does not fit its card: {error}", "copy it again") from None


def _home(directory: str | Path) -> Path:
    path = Path(directory)
    for home in (path, path / "model"):
        if (home / CARD).is_file():
            return home
    raise MissingInputError(
        f"there is no behavior model in {path}", f"`offline-vi fit-behavior MODEL --output {path}` makes one"
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
