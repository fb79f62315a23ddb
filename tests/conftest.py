"""Fixtures of all tests: a forked random state, real data or a reason to skip."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from matrix import MATRIX

from offline_vi import registry

WRITE = os.write  # the real one: tests replace it

torch.set_num_threads(1)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=20_000, deadline=None)
settings.register_profile("mutants", max_examples=30, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


USUAL = 582  # cases of all properties of hostile input together in `make test`


def cases(few: int) -> int:
    """Cases of a property: a few, or its share of the $OFFLINE_VI_CASES that all properties together shall have."""
    return max(few, -(-few * int(os.environ.get("OFFLINE_VI_CASES", "0")) // USUAL))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same random state and path of matrix products, and leaves none behind."""
    before = torch.get_float32_matmul_precision()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(autouse=True)
def _registered_as_before() -> Iterator[None]:
    """What a test registers, no other test meets."""
    tables: list[dict[str, Any]] = [
        registry.ALGORITHMS,
        registry.BEHAVIOR_MODELS,
        registry.DATASETS,
        registry.PLUGINS,
    ]
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def real_data(name: str) -> Path:
    """A file of real data; skips the test where it is missing."""
    folders = [os.environ.get("OFFLINE_VI_DATA"), Path(__file__).resolve().parents[2] / "shared" / "data"]
    for folder in folders:
        if folder and (Path(folder) / name).exists():
            return Path(folder) / name
    pytest.skip(f"{name} is neither in $OFFLINE_VI_DATA nor in ../shared/data")


# ------------------------------------------------------------------ the figures of the matrix


def note(record: dict[str, Any]) -> None:
    """A line into the file that $OFFLINE_VI_FIGURES names; processes side by side append whole lines."""
    if path := os.environ.get("OFFLINE_VI_FIGURES"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        WRITE(descriptor, (json.dumps(record) + "\n").encode())
        os.close(descriptor)


@pytest.fixture
def reached() -> Callable[[int, str, int], None]:
    """``reached(row, what, figure)``: so many more of what the row asks for were tried, and survived."""

    def tell(row: int, what: str, figure: int) -> None:
        assert what in MATRIX[row].asked or what in MATRIX[row].nightly, f"row {row} asks for no {what!r}"
        note({"row": row, "what": what, "figure": figure})

    return tell


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.passed:
        file, _, name = item.nodeid.removeprefix("tests/").partition(".py::")
        note({"passed": f"{file}::{name.partition('[')[0].rpartition('::')[2]}"})
    return report
