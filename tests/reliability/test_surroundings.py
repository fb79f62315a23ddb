"""Trainings in surroundings that lack something: done, or refused with one sentence and an exit code. Each is a fresh
interpreter, and so they are tried in `make reliability` alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from odd import CASES
from surroundings import SURROUNDINGS, outcome

EXITS = (0, 66, 71, 73, 74)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SURROUNDINGS if CASES else ())
def test_a_training_is_done_or_refused(name: str, tmp_path: Path) -> None:
    if "setpriv" in SURROUNDINGS[name] and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    found = outcome(name, tmp_path / "work")
    assert found.code in EXITS
    assert (found.code == 0) <= (found.status == "done")
    assert (found.word != "") == (found.code != 0)
