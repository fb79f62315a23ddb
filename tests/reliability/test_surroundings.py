"""Trainings in surroundings that lack something: done, or refused with one sentence and an exit code. Each is a fresh
interpreter, and so they are tried in `make reliability` alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from odd import CASES
from surroundings import DISKS, SURROUNDINGS, mounts, on_a_disk, outcome

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


@pytest.mark.timeout(600)
@pytest.mark.skipif(not mounts(), reason="needs the right to mount a disk in memory (unshare -rm)")
def test_a_training_goes_on_when_its_full_disk_has_room(tmp_path: Path) -> None:
    enough = on_a_disk(10_000, tmp_path / "enough")
    assert enough[:2] == (0, 0)
    for kilobytes in DISKS if CASES else DISKS[-8::6]:
        first, second, digest = on_a_disk(kilobytes, tmp_path / str(kilobytes))
        assert first in (0, 73, 74), kilobytes
        assert (second, digest) == (0, enough[2]), kilobytes
