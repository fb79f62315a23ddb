"""Variants and sweeps of a suite: an algorithm with other hyper-parameters is a method of its own."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from command_line import run

from offline_vi.errors import ConfigError, UsageError
from offline_vi.study.checks import check_options
from offline_vi.study.commands import train_arguments
from offline_vi.study.results import methods_of, written_suite
from offline_vi.study.shrinking import shrunk
from offline_vi.study.suite import Suite, parse_suite, read_suite, suite_from

BASE: dict[str, Any] = {
    "algorithms": ["bcq"],
    "datasets": ["offline-vi/pendulum/mixed-v0"],
    "seeds": [0, 1],
    "train": {"steps": 1000, "eval-every": 500},
    "algorithm": {"bcq": {"tau": 0.01}},
}


def suite(**tables: Any) -> Suite:
    return suite_from({**BASE, **tables}, "mine")


def test_one_value_stands_for_a_list_of_one() -> None:
    lists = {"algorithms": ["bc"], "datasets": ["a"], "seeds": [3], "presets": ["fast"]}
    single = {"algorithms": "bc", "datasets": "a", "seeds": 3, "presets": "fast"}
    assert parse_suite(single, "x") == parse_suite(lists, "x")
    assert parse_suite({**single, "datasets": {"b": "c.csv"}}, "x").datasets == {"b": ("c.csv",)}


def test_a_variant_has_the_options_of_its_algorithm_and_its_own() -> None:
    found = suite(variant={"wide": {"algorithm": "bcq", "phi": 0.2, "steps": 2000}})
    check_options(found)
    by_name = {cell.name: " ".join(train_arguments(found, cell)) for cell in found.cells()}
    stem = "offline-vi-pendulum-mixed-v0"
    assert list(by_name) == [f"{stem}_{name}_published_seed{seed}" for seed in (0, 1) for name in ("bcq", "wide")]
    wide = by_name[f"{stem}_wide_published_seed1"]
    assert wide.startswith("bcq ")
    for words in ("--tau 0.01", "--phi 0.2", "--steps 2000", "--seed 1"):
        assert words in wide
    assert "--phi" not in by_name[f"{stem}_bcq_published_seed1"]
    assert [method.label for method in methods_of(found)] == ["bcq", "wide"]


def test_a_sweep_is_a_variant_for_every_combination() -> None:
    found = suite(sweep={"s": {"algorithm": "bcq", "phi": [0.0, 0.1], "hidden": [[8, 8], [16]], "discount": 0.9}})
    check_options(found)
    expected = {f"s_phi={phi}_hidden={hidden}" for phi, hidden in itertools.product((0.0, 0.1), ("8x8", "16"))}
    assert set(found.variants()) == expected
    point = found.variants()["s_phi=0.1_hidden=8x8"]
    assert point == {"algorithm": "bcq", "phi": 0.1, "hidden": [8, 8], "discount": 0.9}
    assert len(found.cells()) == 2 * (1 + 4)


def test_a_variant_with_a_preset_of_its_own_is_run_with_that_one_alone() -> None:
    found = suite(
        presets=["published", "fast"],
        variant={"likely": {"algorithm": "bcq", "preset": "likely"}, "wide": {"algorithm": "bcq", "phi": 0.2}},
        sweep={"s": {"algorithm": "bc", "preset": ["recommended", "published"]}},
    )
    check_options(found)
    assert Counter((cell.variant, cell.preset) for cell in found.cells() if cell.seed == 0) == {
        ("", "published"): 1,
        ("", "fast"): 1,
        ("likely", "likely"): 1,
        ("wide", "published"): 1,
        ("wide", "fast"): 1,
        ("s_preset=recommended", "recommended"): 1,
        ("s_preset=published", "published"): 1,
    }
    words = [train_arguments(found, cell) for cell in found.cells()]
    assert all(line.count("--preset") == 1 for line in words)
    labels = [method.label for method in methods_of(found)]
    assert len(set(labels)) == len(labels)
    assert "likely" in labels
    again = written_suite({"suite": json.loads(json.dumps(asdict(found)))})
    assert again.cells() == found.cells()


def test_variants_are_read_again_from_what_a_study_writes() -> None:
    tables = {
        "algorithms": [],
        "variant": {"wide": {"algorithm": "bcq", "phi": 0.2}},
        "sweep": {"s": {"algorithm": "bcq", "hidden": [[8, 8], [16]]}},
    }
    found = suite(**tables)
    again = written_suite({"suite": json.loads(json.dumps(asdict(found)))})
    assert again.cells() == found.cells()
    assert again.variants() == found.variants()


@pytest.mark.parametrize(
    ("tables", "error"),
    [
        ({"variant": {"wide": {"phi": 0.2}}}, ConfigError),
        ({"variant": {"wide": {"algorithm": "bqc"}}}, UsageError),
        ({"variant": {"wide": {"algorithm": "bcq", "preset": "quick"}}}, UsageError),
        ({"variant": {"wide": {"algorithm": "bcq", "preset": ["fast", "likely"]}}}, ConfigError),
        ({"variant": {"wide": {"algorithm": "bcq", "preset": 3}}}, ConfigError),
        ({"sweep": {"s": {"algorithm": "bcq", "preset": ["fast", 3]}}}, ConfigError),
        ({"sweep": {"s": {"algorithm": "bcq", "preset": ["fast", "quick"]}}}, UsageError),
        ({"variant": {"wide": {"algorithm": "bcq", "phii": 0.2}}}, ConfigError),
        ({"variant": {"bcq": {"algorithm": "bcq", "phi": 0.2}}}, ConfigError),
        ({"variant": {"a/b": {"algorithm": "bcq", "phi": 0.2}}}, ConfigError),
        ({"variant": {"wide": {"algorithm": "bcq", "seed": 3}}}, ConfigError),
        ({"sweep": {"s": {"algorithm": "bcq", "phi": 0.2}}}, ConfigError),
        ({"sweep": {"s": {"algorithm": "bcq", "phi": [0.2, 0.2]}}}, ConfigError),
        ({"sweep": {"s": {"algorithm": "bcq", "phi": [0.2, "much"]}}}, ConfigError),
        ({"sweep": {"s": [0.1]}}, ConfigError),
        ({"algorithms": []}, ConfigError),
    ],
)
def test_a_variant_that_cannot_be_trained_is_refused_ahead(tables: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as refused:
        check_options(suite(**tables))
    assert refused.value.hint  # type: ignore[attr-defined]


def test_a_shipped_suite_shrinks_and_its_curves_keep_their_points() -> None:
    whole = read_suite("pendulum")
    small = shrunk(whole, steps=500, seeds=2)
    assert (small.seeds, small.train["steps"], small.behavior["steps"]) == ((0, 1), 500, 500)
    assert int(str(whole.train["steps"])) // int(str(whole.train["eval-every"])) == 500 // int(
        str(small.train["eval-every"])
    )
    assert small.name != whole.name
    assert shrunk(whole) == whole
    more = shrunk(whole, seeds=5)
    assert more.seeds == (0, 1, 2, 3, 4)
    assert shrunk(suite(variant={"w": {"algorithm": "bcq", "steps": 9000}}), steps=10).variants()["w"]["steps"] == 10
    check_options(small)


@pytest.mark.parametrize(
    ("variant", "share", "suites"),
    [
        ("bc-best-quarter", 0.25, ("pendulum", "hopper", "minari-mujoco")),
        ("bc-best-tenth", 0.1, ("d4rl-adroit", "d4rl-antmaze", "d4rl-locomotion")),
    ],
)
def test_the_shipped_suites_clone_the_best_episodes(variant: str, share: float, suites: tuple[str, ...]) -> None:
    for name in suites:
        found = read_suite(name).variants()[variant]
        assert (found["algorithm"], found["episode-weights"], found["best-share"]) == ("bc", "best", share)


def test_the_command_shrinks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "pendulum", "--steps", "20", "--seeds", "1", "--output", str(tmp_path / "out"), "--check"]
    code, out, _ = run(words, capsys)
    assert code == 0
    cells = [line for line in out.splitlines() if line.startswith("offline-vi train ")]
    assert len(cells) == len(read_suite("pendulum").methods())
    assert all("--steps 20 " in line for line in cells)
