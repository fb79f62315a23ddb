"""The documents name what is there."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import offline_vi

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/guides/*.md"),
        *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    ]
)
FOLDERS = "offline_vi|algorithms|datasets|scripts|tests|benchmarks|examples|docs|results|figures"
VARIABLES = {"algorithm", "data"}  # names of modules, too
FILES = ("csv", "html", "journal", "json", "md", "onnx", "png", "pt2", "py", "tex", "toml", "ts")
ELSEWHERE = {"algorithms/offline/any_percent_bc.py"}  # in reference code
INVENTED = {"NAME", "laplace", "expected_sarsa", "expected-sarsa"}  # what CONTRIBUTING.md has a reader write


def quoted(page: Path) -> list[str]:
    """What is in backticks on a page, blocks of code left out."""
    return re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


@cache
def modules() -> dict[str, list[Any]]:
    """The library's modules and rooms by their last names."""
    found: dict[str, list[Any]] = {}
    for module in pkgutil.walk_packages(offline_vi.__path__, "offline_vi."):
        if not module.name.endswith("__main__"):
            found.setdefault(module.name.rpartition(".")[2], []).append(importlib.import_module(module.name))
    return found


@cache
def classes() -> dict[str, list[type]]:
    """Those that the library defines, by name."""
    found: dict[str, list[type]] = {}
    for module in (one for several in modules().values() for one in several):
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == module.__name__:
                found.setdefault(name, []).append(value)
    return found


def known(owner: Any, name: str) -> bool:
    """Whether a module, class or its annotations have the name."""
    annotated = any(name in vars(base).get("__annotations__", {}) for base in getattr(owner, "__mro__", ()))
    return annotated or hasattr(owner, name)


def resolved(dotted: str) -> Any:
    """What a full dotted name stands for. Raises AttributeError or ImportError where there is nothing."""
    found: Any = offline_vi
    for part in dotted.split(".")[1:]:
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(f"{found.__name__}.{part}")
    return found


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_dotted_name_of_the_library_is_there(page: Path) -> None:
    wrong = []
    for text in quoted(page):
        for dotted in re.findall(r"\boffline_vi(?:\.\w+)+", text):
            if INVENTED.isdisjoint(dotted.split(".")) and dotted.rpartition(".")[2] not in FILES:
                assert resolved(dotted) is not None
        for owner, name in re.findall(r"(?<![\w./])([A-Za-z]\w*)\.([A-Za-z_]\w*)", text):
            owners = [] if owner in VARIABLES else modules().get(owner, []) + classes().get(owner, [])
            if owners and name not in FILES and not any(known(one, name) for one in owners):
                wrong.append(f"{owner}.{name}")
    assert wrong == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_path_is_there(page: Path) -> None:
    wrong = []
    for text in quoted(page):
        for path in re.findall(rf"(?<![\w$/.-])(?:{FOLDERS})/[\w./*-]*\w[\w*]*/?", text):
            places = [ROOT, ROOT / "docs"]
            if INVENTED.isdisjoint(re.split(r"[/.]", path)) and not any(list(place.glob(path)) for place in places):
                wrong.append(path)
    assert set(wrong) <= ELSEWHERE


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_what_examples_import_is_there(page: Path) -> None:
    lines = re.findall(r"^from (offline_vi[\w.]*) import ([\w, ]+)$", page.read_text(), flags=re.MULTILINE)
    for module, names in lines:
        owner = resolved(module)
        assert [name for name in names.split(", ") if not hasattr(owner, name)] == []
    for dotted in re.findall(r"\bovi(?:\.\w+)+", page.read_text()):
        assert resolved(dotted) is not None
