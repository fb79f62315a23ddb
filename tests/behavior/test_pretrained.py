"""A fitted model as a directory: the same numbers on the other side, and nothing that was tampered with gets in."""

from __future__ import annotations

import json
import pickle  # noqa: TID251 - to make what must be refused
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offline_vi import registry
from offline_vi.behavior import BehaviorModel, DensityModel, GaussianBehavior, GaussianBehaviorConfig
from offline_vi.behavior.pretrained import load_behavior, read_card, save_behavior
from offline_vi.errors import (
    CheckpointCorruptError,
    ConfigError,
    MissingInputError,
    OfflineVIError,
    OutputDirError,
    UnsafeCheckpointError,
)
from offline_vi.types import Metrics, Spec

SPEC = Spec((3,), 2)


def model_of(name: str, spec: Spec = SPEC) -> BehaviorModel:
    row = registry.behavior_model(name)
    cls: Any = row.load()
    model: BehaviorModel = cls(spec, row.config(spec))
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_behavior(model_of("cvae"), tmp_path / "cvae", data={"name": "toy"})


@pytest.mark.parametrize("name", registry.behavior_models())
def test_a_model_comes_back_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    obs, action = torch.randn(6, 3), torch.rand(6, 2) * 1.8 - 0.9
    model.loss(obs, action)  # models that learn statistics on the way have some
    model.eval()
    home = save_behavior(model, tmp_path / "model", name=name, held_out={"elbo": float("nan")})
    loaded = load_behavior(home)
    assert isinstance(loaded, DensityModel) and isinstance(model, DensityModel)
    results = []
    for one in (model, loaded):
        torch.manual_seed(5)
        results.append((one.sample(obs, 3), one.log_prob(obs, action, 8)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    card = read_card(home)
    assert (card.model, card.spec, card.config) == (name, SPEC, registry.behavior_model(name).config(SPEC))
    assert card.record["held_out"] == {"elbo": None}
    assert load_behavior(tmp_path).spec == SPEC  # as a run holds it, in model/


class Remembering(GaussianBehavior):
    """Keeps a number and an array beside its weights."""

    def __init__(self, spec: Spec, config: GaussianBehaviorConfig | None = None) -> None:
        super().__init__(spec, config)
        self.seen, self.scale = 0, np.ones(spec.action_dim)

    def loss(self, obs: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        self.seen += len(obs)
        self.scale = self.scale * 0.5
        return super().loss(obs, action)


def test_what_a_model_keeps_beside_its_weights_comes_back(tmp_path: Path) -> None:
    model = Remembering(SPEC)
    model.loss(torch.randn(6, 3), torch.zeros(6, 2))
    loaded = load_behavior(save_behavior(model, tmp_path / "model"))
    assert isinstance(loaded, Remembering)
    assert loaded.seen == 6 and (loaded.scale == 0.5).all()
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    odd: Any
    for odd in ({"scale": {"array": "0"}, "seen": {"dict": 3}}, {"seen": {}}, {"scale": {"tuple": 1}}, 5, [1]):
        (tmp_path / "model" / "card.json").write_text(json.dumps({**card, "state": odd}))
        with pytest.raises(OfflineVIError):
            load_behavior(tmp_path / "model")


def test_saving_again_replaces(saved: Path) -> None:
    save_behavior(model_of("gaussian"), saved)
    assert type(load_behavior(saved)).__name__ == "GaussianBehavior"


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputDirError):
        save_behavior(model_of("gaussian"), tmp_path / "file" / "model")


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(home: Path) -> None:
        card = json.loads((home / "card.json").read_text())
        change(card)
        (home / "card.json").write_text(json.dumps(card))

    return apply


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was opened",))


def flip(home: Path) -> None:
    data = bytearray((home / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (home / "model.safetensors").write_bytes(data)


def other_weights(home: Path) -> None:
    """Weights of another shape, with a card that vouches for them."""
    other = save_behavior(model_of("cvae", Spec((5,), 2)), home.parent / "other")
    (home / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    edit(lambda card: card.update(sha256=read_card(other).record["sha256"]))(home)


BAD: dict[str, tuple[Callable[[Path], object], type[OfflineVIError]]] = {
    "a flipped bit": (flip, CheckpointCorruptError),
    "weights of another shape": (other_weights, CheckpointCorruptError),
    "cut weights": (
        lambda home: (home / "model.safetensors").write_bytes((home / "model.safetensors").read_bytes()[:999]),
        CheckpointCorruptError,
    ),
    "a pickle": (
        lambda home: (home / "model.safetensors").write_bytes(pickle.dumps(Payload())),
        UnsafeCheckpointError,
    ),
    "no weights": (lambda home: (home / "model.safetensors").unlink(), MissingInputError),
    "no card": (lambda home: (home / "card.json").unlink(), MissingInputError),
    "a card that is no JSON": (lambda home: (home / "card.json").write_text("{"), ConfigError),
    "a card that is a list": (lambda home: (home / "card.json").write_text("[1]"), ConfigError),
    "another format": (edit(lambda card: card.update(format=3)), ConfigError),
    "no model": (edit(lambda card: card.pop("model")), ConfigError),
    "no hash": (edit(lambda card: card.pop("sha256")), ConfigError),
    "no description": (edit(lambda card: card.pop("description")), ConfigError),
    "an unknown model": (edit(lambda card: card["description"].update({"class": "cvea"})), ConfigError),
    "an algorithm": (edit(lambda card: card["description"].update({"class": "td3"})), ConfigError),
    "an unknown hyper-parameter": (edit(lambda card: card["description"]["config"].update(depth=3)), ConfigError),
    "text for shapes": (edit(lambda card: card["description"].update(spec="large")), ConfigError),
}


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_or_foreign_directory_is_refused(case: str, saved: Path) -> None:
    spoil, error = BAD[case]
    spoil(saved)
    with pytest.raises(error):
        load_behavior(saved)
