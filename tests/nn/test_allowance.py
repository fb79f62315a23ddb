"""A description takes the memory that its saved tensors can need, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from agents import built, small_choice, small_model

import offline_vi
from offline_vi.errors import CheckpointCorruptError
from offline_vi.nn.allowance import SLACK, Allowance
from offline_vi.types import Spec

SPEC = Spec((3,), 1)


def enlarge(file: Path) -> None:
    """Hidden layers of 20,000 units: 1.6 GB each."""
    text = file.read_text()
    changed = re.sub(r'"hidden": \[\s*8,\s*8\s*\]', '"hidden": [20000, 20000]', text)
    assert changed != text
    file.write_text(changed)


@pytest.mark.parametrize("kind", ["bcq", "cvae", "flow"])
def test_a_description_that_asks_for_too_much_is_refused_before_memory_is_taken(kind: str, tmp_path: Path) -> None:
    thing = built(small_choice(kind, SPEC), SPEC) if kind == "bcq" else small_model(kind, SPEC, quick=True)
    offline_vi.save(thing, tmp_path / "kept")
    offline_vi.load(tmp_path / "kept")
    enlarge(tmp_path / "kept" / ("config.json" if kind == "bcq" else "card.json"))
    before = resident()
    with pytest.raises(CheckpointCorruptError, match="memory"):
        offline_vi.load(tmp_path / "kept")
    assert resident() - before < 100e6


def resident() -> float:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096.0


def test_new_tensors_count_and_views_and_changes_in_place_do_not() -> None:
    with Allowance(0) as allowance:
        value = torch.zeros(10_000)
        value.add_(1.0).view(100, 100).fill_(2.0)
        assert allowance.left == SLACK - value.nbytes
        with pytest.raises(CheckpointCorruptError):
            torch.empty(SLACK)
