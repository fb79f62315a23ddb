"""The site shows all there is: pages, and the public names of every room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import offline_vi
from offline_vi.registry import ALGORITHMS, BEHAVIOR_MODELS

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "algorithms",
    "behavior",
    "data",
    "distributions",
    "evaluation",
    "inference",
    "nn",
    "rl",
    "training",
    "world_model",
)


def documented() -> set[str]:
    """The modules whose docstrings are in the API reference."""
    return {name for page in ROOT.glob("docs/api/*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)}


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_public_class_and_function_is_in_the_reference(room: str) -> None:
    owner = getattr(offline_vi, room) if room else offline_vi
    values = [getattr(owner, name) for name in dir(owner) if not name.startswith("_")]
    named = [value for value in values if callable(value) and hasattr(value, "__module__")]
    homes = {value.__module__ for value in named if value.__module__.startswith("offline_vi.")}
    assert named
    assert homes - documented() == set()


@pytest.mark.parametrize(
    "page, names", [("algorithms", ALGORITHMS), ("models", BEHAVIOR_MODELS)], ids=["algorithms", "models"]
)
def test_the_lists_name_every_member(page: str, names: dict[str, object]) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    elsewhere = {"latent-planning": "train-pixels", "vime": "--bonus vime"}  # the verb and the flag that run it
    assert [name for name in names if not re.search(rf"[` ]{elsewhere.get(name, name)}`", text)] == []


def test_nothing_on_a_page_is_loaded_from_elsewhere() -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in settings and "assets/iframe-worker.js" in settings and "strict: true" in settings
    assert "https://" not in settings
