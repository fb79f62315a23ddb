"""Default names of runs: one for each command."""

from __future__ import annotations

from offline_vi.study.names import run_name


def test_a_run_is_named_after_everything_that_tells_two_commands_apart() -> None:
    assert run_name("bcq", "lab/walks-v0", [3], "fast", "gaussian") == "bcq-lab-walks-v0-fast-gaussian-seed3"
    assert run_name("iql", "hopper", [0, 1, 2], "published", "") == "iql-hopper-published-seed0-2"
    assert run_name("cvae", "hopper", [0]) == "cvae-hopper-seed0"
