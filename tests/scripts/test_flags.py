"""Arguments in hints become flags of the command."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from offline_vi.errors import ConfigError
from offline_vi.scripts import as_flags
from offline_vi.study.flags import parse


@dataclass(frozen=True)
class Data:
    rows: str = "all"


@dataclass(frozen=True)
class Neighbors:
    rows: int = 100
    neighbors: int = 5


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


def test_a_setting_with_the_name_of_another_flag_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"Neighbors\.rows .* --rows.* Data has"):
        parse({"data": Data(), "model": Neighbors()}, [], "test", "")
    found = parse(
        {"data": Data(), "behavior": Neighbors()}, ["--behavior.rows", "7"], "test", ""
    )  # a prefix of its own
    assert (found.data.rows, found.behavior.rows) == ("all", 7)
