"""Arguments in hints become flags of the command."""

from __future__ import annotations

import pytest

from offline_vi.scripts import as_flags


@pytest.mark.parametrize(
    "hint, flags",
    [
        ('action_range="clip" cuts them off', "--action-range clip cuts them off"),
        ("raise it: memory_budget=N; or more", "raise it: --memory-budget N; or more"),
        ("name the environment: env=ID", "name the environment: --env ID"),
        ('shifted by one: alignment="taken-at"', "shifted by one: --alignment taken-at"),
        ("say action_low= and action_high=.", "say --action-low and --action-high."),
        ("my_env=3 is no argument of ours, nor is env alone", "my_env=3 is no argument of ours, nor is env alone"),
    ],
)
def test_the_command_turns_arguments_into_flags(hint: str, flags: str) -> None:
    assert as_flags(hint) == flags
