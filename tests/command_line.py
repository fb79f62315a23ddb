"""The command in this process: for tests of several rooms."""

from __future__ import annotations

import pytest

from offline_vi.scripts import main

TINY = ["--steps", "30", "--eval-every", "15", "--eval-episodes", "2", "--log-every", "10", "--save-every", "10", "-q"]


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command."""
    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
