"""A fitted behaviour model as a directory that can be kept, sent and opened anywhere: weights and a card.

    DIR/
      model.safetensors   parameters and buffers
      card.json           what it is (model, hyper-parameters, shapes), what it was fitted to (data set, SHA-256), how
                          good it is (density of unseen episodes, truth of its samples), the weights' SHA-256

Nothing is unpickled; a directory whose weights do not match its card is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from offline_vi.behavior import BEHAVIOR_MODELS, BehaviorModel
from offline_vi.errors import CheckpointCorruptError, ConfigError, MissingInputError, OutputDirError, unknown
from offline_vi.runs.config import from_json
from offline_vi.runs.files import read_json, write_json
from offline_vi.runs.tensors import load_tensors, save_tensors
from offline_vi.types import Spec

FORMAT = 1  # of a card
WEIGHTS, CARD = "model.safetensors", "card.json"


def behavior_config(model: str, spec: Spec) -> Any:
    """The default hyper-parameters of a named behaviour model. Raises UsageError for an unknown one."""
    if model not in BEHAVIOR_MODELS:
        raise unknown(model, BEHAVIOR_MODELS, "behaviour model")
    return BEHAVIOR_MODELS[model].config()(spec)


def build_behavior(name: str, spec: Spec, config: Any) -> BehaviorModel:
    """A behaviour model by name, freshly initialised. Raises UsageError for an unknown one."""
    if name not in BEHAVIOR_MODELS:
        raise unknown(name, BEHAVIOR_MODELS, "behaviour model")
    model: BehaviorModel = BEHAVIOR_MODELS[name].model()(spec, config)
    return model


def save_behavior(model: BehaviorModel, name: str, config: Any, directory: str | Path, **about: Any) -> Path:
    """Write the model of that table name and configuration to ``directory``; ``about`` goes onto the card (data, fit,
    held_out, ...). An older model there is replaced.

    Raises OutputDirError and CheckpointWriteError.
    """
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputDirError(f"{path} cannot be created ({error.strerror})", "choose another directory") from error
    save_tensors(path / WEIGHTS, model.state_dict())
    card = {
        "format": FORMAT,
        "model": name,
        "config": asdict(config),
        "spec": model.spec.to_json(),
        "sha256": _sha256(path / WEIGHTS),
        **about,
    }
    write_json(path / CARD, card)
    return path


def read_card(directory: str | Path) -> dict[str, Any]:
    """The card of a model's directory, or of a run of `offline-vi fit-behavior`, which holds one in ``model/``.

    Raises MissingInputError and ConfigError.
    """
    return read_json(_home(directory) / CARD)


def load_behavior(directory: str | Path) -> BehaviorModel:
    """The fitted model in ``directory`` (see `read_card`), in evaluation mode and frozen.

    Raises MissingInputError, ConfigError where the card does not describe a model of ours, CheckpointCorruptError where
    the weights are not those of the card, UnsafeCheckpointError for a pickle.
    """
    home = _home(directory)
    card = read_json(home / CARD)
    try:
        if card["format"] != FORMAT:
            raise ConfigError(f"{home / CARD} has format {card['format']!r}, this version reads {FORMAT}")
        name, spec = str(card["model"]), Spec.from_json(card["spec"])
        config = from_json(behavior_config(name, spec), card["config"])
        expected = card["sha256"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{home / CARD} lacks or misuses {error}", "is it a behaviour model of this library?"
        ) from None
    tensors = load_tensors(home / WEIGHTS, sha256=str(expected))
    with torch.random.fork_rng():
        model = build_behavior(name, spec, config)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointCorruptError(f"{home / WEIGHTS} does not fit its card: {error}", "copy it again") from None
    return model.eval().requires_grad_(False)


def _home(directory: str | Path) -> Path:
    path = Path(directory)
    for home in (path, path / "model"):
        if (home / CARD).is_file():
            return home
    raise MissingInputError(
        f"there is no behaviour model in {path}", f"`offline-vi fit-behavior MODEL --output {path}` makes one"
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
