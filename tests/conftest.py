"""Fixtures of all tests: a forked random state, real data or a reason to skip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=20_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same random state and path of matrix products, and leaves none behind."""
    before = torch.get_float32_matmul_precision()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_float32_matmul_precision(before)


def real_data(name: str) -> Path:
    """A file of real data; skips the test where it is missing."""
    folders = [os.environ.get("OFFLINE_VI_DATA"), Path(__file__).resolve().parents[2] / "shared" / "data"]
    for folder in folders:
        if folder and (Path(folder) / name).exists():
            return Path(folder) / name
    pytest.skip(f"{name} is neither in $OFFLINE_VI_DATA nor in ../shared/data")
