"""The library's warnings on a terminal: one line each, in the words of the command."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

from small_data import pendulum

from offline_vi.errors import DataWarning
from offline_vi.scripts import plain_warnings


def test_a_warning_of_the_library_is_one_line_with_flags() -> None:
    before = warnings.formatwarning
    with plain_warnings():
        line = warnings.formatwarning(DataWarning('clipped 3\nentries, action_range="clip"'), DataWarning, "x.py", 12)
        other = warnings.formatwarning(UserWarning("of another package"), UserWarning, "x.py", 12)
    assert line == "warning: clipped 3 entries, --action-range clip\n"
    assert "x.py:12: UserWarning" in other
    assert warnings.formatwarning is before


def test_a_verb_says_on_standard_error_what_it_repaired(tmp_path: Path) -> None:
    data = pendulum(tmp_path / "toy.hdf5", lambda columns: columns["actions"].__imul__(1.5), rows=100)
    words = ["train", "bc", "--dataset", data, "--action-range", "clip", "--steps", "2", "-q"]
    words += ["--output", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", "offline_vi", *words], capture_output=True, text=True)
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "clipped" in line]
    assert line.startswith("warning: ")
    assert ".py" not in done.stderr
