"""Default names of runs: one for each command."""

from __future__ import annotations

from offline_vi.joined import short_name
from offline_vi.study.names import run_name


def test_a_run_is_named_after_everything_that_tells_two_commands_apart() -> None:
    assert run_name("bcq", "lab/walks-v0", [3], "fast", "gaussian") == "bcq-lab-walks-v0-fast-gaussian-seed3"
    assert run_name("iql", "hopper", [0, 1, 2], "published", "") == "iql-hopper-published-seed0-2"
    assert run_name("cvae", "hopper", [0]) == "cvae-hopper-seed0"


def test_joined_data_sets_are_all_named_or_counted() -> None:
    assert (short_name("hopper"), short_name("may+june")) == ("hopper", "may+june")
    first, second = short_name(f"{'a' * 90}1+{'b' * 90}2").split("+")
    assert (first[0], first[-1], second[0], second[-1]) == ("a", "1", "b", "2") and len(first) <= 40
    assert short_name("a+b+c") == "a+b+c"
    assert short_name("a+b+c+d") == "a+b+2 more"
    assert (
        run_name("bcq", "+".join(f"site-{number}" for number in range(500)), [0]) == "bcq-site-0+site-1+498-more-seed0"
    )
