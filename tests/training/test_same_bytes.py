"""The same seed, the same bytes, in interpreters that share nothing: every algorithm, preset and behaviour model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import PENDULUM, write_pendulum
from tables import REFUSED, TABLES, digests, is_refused

from offline_vi.study.presets import PRESETS

Reached = Callable[[int, str, int], None]
pytestmark = pytest.mark.timeout(600)  # a minute each on idle cores


@pytest.mark.parametrize("table", TABLES)
def test_two_interpreters_end_with_the_same_bytes(table: str, tmp_path: Path, reached: Reached) -> None:
    write_pendulum(tmp_path / PENDULUM)
    found = digests(table, tmp_path)
    assert {case for case, digest in found.items() if digest == REFUSED} == {case for case in found if is_refused(case)}
    trained = [digest for digest in found.values() if digest != REFUSED]
    for preset in PRESETS:  # the digests do see what was trained; two presets may be one for an agent
        own = [digest for case, digest in found.items() if case.startswith(f"{preset}:") and digest != REFUSED]
        assert own and len(set(own)) == len(own)
    reached(37, "agents of two interpreters", len(trained))
