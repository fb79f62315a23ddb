"""A fitted model as a directory: the same numbers on the other side, and nothing that was tampered with gets in."""

from __future__ import annotations

import json
import pickle  # noqa: TID251 - to make what must be refused
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from offline_vi.behavior import BEHAVIOR_MODELS, DensityModel
from offline_vi.behavior.pretrained import behavior_config, build_behavior, load_behavior, read_card, save_behavior
from offline_vi.errors import (
    CheckpointCorruptError,
    ConfigError,
    MissingInputError,
    OfflineVIError,
    OutputDirError,
    UnsafeCheckpointError,
    UsageError,
)
from offline_vi.types import Spec

SPEC = Spec((3,), 2)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = behavior_config("cvae", SPEC)
    return save_behavior(build_behavior("cvae", SPEC, config), "cvae", config, tmp_path / "cvae", data={"name": "toy"})


@pytest.mark.parametrize("name", BEHAVIOR_MODELS)
def test_a_model_comes_back_with_the_same_numbers(name: str, tmp_path: Path) -> None:
    config = behavior_config(name, SPEC)
    model = build_behavior(name, SPEC, config)
    obs, action = torch.randn(6, 3), torch.rand(6, 2) * 1.8 - 0.9
    model.loss(obs, action)  # models that learn statistics on the way have some
    model.eval()
    home = save_behavior(model, name, config, tmp_path / "model", held_out={"elbo": float("nan")})
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
    assert read_card(home)["held_out"] == {"elbo": None}
    assert load_behavior(tmp_path).spec == SPEC  # as a run holds it, in model/


def test_saving_again_replaces(saved: Path) -> None:
    config = behavior_config("gaussian", SPEC)
    save_behavior(build_behavior("gaussian", SPEC, config), "gaussian", config, saved)
    assert type(load_behavior(saved)).__name__ == "GaussianBehavior"


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = behavior_config("gaussian", SPEC)
    with pytest.raises(OutputDirError):
        save_behavior(build_behavior("gaussian", SPEC, config), "gaussian", config, tmp_path / "file" / "model")


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
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
    config = behavior_config("cvae", Spec((5,), 2))
    other = save_behavior(build_behavior("cvae", Spec((5,), 2), config), "cvae", config, home.parent / "other")
    (home / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    edit(lambda card: card.update(sha256=read_card(other)["sha256"]))(home)


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
    "another format": (edit(lambda card: card.update(format=2)), ConfigError),
    "no model": (edit(lambda card: card.pop("model")), ConfigError),
    "no hash": (edit(lambda card: card.pop("sha256")), ConfigError),
    "an unknown model": (edit(lambda card: card.update(model="cvea")), UsageError),
    "an unknown hyper-parameter": (edit(lambda card: card["config"].update(depth=3)), ConfigError),  # type: ignore[attr-defined]
    "text for shapes": (edit(lambda card: card.update(spec="large")), ConfigError),
}


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_or_foreign_directory_is_refused(case: str, saved: Path) -> None:
    spoil, error = BAD[case]
    spoil(saved)
    with pytest.raises(error):
        load_behavior(saved)
