"""Methods compared by what fitted Q evaluation says of their runs, without an environment."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from test_report import fake_run, fake_study

import offline_vi as ovi
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.errors import UsageError
from offline_vi.evaluation.fitting_q import FittedQReport
from offline_vi.evaluation.off_policy import Estimate
from offline_vi.evaluation.statistics import bootstrap_interval, compare, iqm
from offline_vi.study.estimates import check_comparable, lines, runs_in, study_of, to_json
from offline_vi.study.judging import CLONE, POLICY, JudgeOptions, Judgment
from offline_vi.types import Spec

VALUES = {"bc": [11.0, 13.0, 12.0], "bcq": [21.0, 18.0, 24.0]}


def judgment(value: float) -> Judgment:
    one = FittedQReport(value, 0.5, math.nan, np.array([10]), np.array([[value]]), 0.0, 0.0, 10, (0.0, 100.0))
    return Judgment(
        "hopper-medium-v2", "discounted", 0.99, 5, {POLICY: one, CLONE: replace(one, value=12.5)}, Estimate(14.25, 0.5)
    )


@pytest.fixture
def judged(tmp_path: Path) -> dict[str, Judgment]:
    """Three seeds of two methods."""
    return {
        str(fake_run(tmp_path / f"{name}{seed}", 0.0, algorithm=name, seed=seed)): judgment(value)
        for name, values in VALUES.items()
        for seed, value in enumerate(values)
    }


def test_methods_are_compared_by_the_estimates_of_their_runs(judged: dict[str, Judgment]) -> None:
    found = list(lines(judged))
    expected = compare([VALUES["bcq"]], [VALUES["bc"]], iqm, paired=True)
    interval = bootstrap_interval([VALUES["bcq"]])
    (row,) = [line for line in found if line.startswith("  bcq") and "P(better)" not in line]
    assert f"{interval.value:.2f}  {interval.low:.2f} to {interval.high:.2f} (covers" in row
    (row,) = [line for line in found if "P(better)" in line]
    assert f"{expected.difference.value:.2f}" in row and f"p {expected.p_value:.4f}" in row
    means = {line[2:].split("  ")[0]: line.split()[-1] for line in found if line.startswith("  the ")}
    assert means == {"the data": "14.25", "the clone": "12.50"}
    assert not any("not converged" in line for line in found)


def test_estimates_that_diverged_are_in_no_number_and_their_method_is_not_compared(judged: dict[str, Judgment]) -> None:
    last = list(judged)[-1]
    one = judged[last]
    wild = replace(one.fitted[POLICY], value=4803.0, curves=np.array([[4803.0]]))
    some = {**judged, last: replace(one, fitted={**one.fitted, POLICY: wild})}
    found = list(lines(some))
    assert "1 of 6 estimates diverged" in found[0] and found[0].endswith(last)
    (row,) = [line for line in found if line.startswith("  bcq")]
    assert f"{bootstrap_interval([VALUES['bcq'][:-1]]).value:.2f}" in row
    assert not any("4803" in line or "P(better)" in line for line in found)
    assert any(line.startswith("not compared") and line.endswith("bcq") for line in found)
    assert to_json(some)["comparisons"] == [] and len(to_json(judged)["comparisons"]) == 1


def test_a_method_with_a_doubtful_estimate_is_left_out_and_the_others_are_compared(
    judged: dict[str, Judgment], tmp_path: Path
) -> None:
    for seed in range(3):
        judged[str(fake_run(tmp_path / f"iql{seed}", 0.0, algorithm="iql", seed=seed))] = judgment(15.0 + seed)
    first = next(iter(judged))
    fitted = judged[first].fitted
    slow = {**fitted, POLICY: replace(fitted[POLICY], missing=0.5)}
    some = {**judged, first: replace(judged[first], fitted=slow)}  # of the first method, bc
    expected = compare([[15.0, 16.0, 17.0]], [VALUES["bcq"]], iqm, paired=True)
    (found,) = to_json(some)["comparisons"]
    assert (found["baseline"], found["method"], found["p_value"]) == ("bcq", "iql", expected.p_value)
    assert any(line.startswith("not compared") and line.endswith(" bc") for line in lines(some))


def test_doubtful_estimates_are_counted(judged: dict[str, Judgment]) -> None:
    first = next(iter(judged))
    one = judged[first]
    fitted = {**one.fitted, POLICY: replace(one.fitted[POLICY], missing=0.5)}
    some = {**judged, first: replace(one, fitted=fitted)}
    assert any("1 of 6 estimates" in line for line in lines(some))
    assert not any("P(better)" in line for line in lines(some))
    assert to_json(some)["comparisons"] == []


def test_one_method_alone_has_an_interval(judged: dict[str, Judgment]) -> None:
    alone = {run: one for run, one in judged.items() if Path(run).name.startswith("bcq")}
    record = to_json(alone)
    assert record["methods"][0]["iqm"] == list(bootstrap_interval([VALUES["bcq"]]))
    assert record["comparisons"] == []
    assert {run.scores.final for run in study_of(alone).runs} == set(VALUES["bcq"])


def test_a_benchmark_directory_stands_for_its_runs_that_are_done(tmp_path: Path) -> None:
    study, alone = tmp_path / "study", tmp_path / "alone"
    scores = fake_study(study, seeds=2, failed=(name := "hopper-medium-v2_iql_fast_seed1",))
    found = runs_in([str(study), str(alone)])
    assert found[-1] == str(alone)
    assert {Path(path).name for path in found[:-1]} == {path.name for path in (study / "runs").iterdir()} - {name}
    assert len(found) == len(scores) + 1
    fake_study(tmp_path / "none", seeds=1, failed=tuple(path.name for path in (study / "runs").iterdir()))
    with pytest.raises(UsageError, match="no run"):
        runs_in([str(tmp_path / "none")])


def test_returns_of_other_discounts_are_not_compared(tmp_path: Path) -> None:
    for name, discount in (("short", 0.9), ("long", 0.99)):
        ovi.save(TD3BC(Spec((3,), 1), TD3BCConfig(discount=discount, hidden=(4,))), tmp_path / name)
    with pytest.raises(UsageError, match=r"0\.9 and 0\.99"):
        check_comparable([str(tmp_path / "short"), str(tmp_path / "long")], JudgeOptions())


def test_a_report_without_scores_names_the_way_to_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unscored: dict[str, object] = {"normalized_score": None, "return_mean": None, "returns": None, "curve": {}}
    result = unscored | {"data": {"return_mean": 14.25, "episodes": 5}}
    path = fake_run(tmp_path / "mine", 0.0, result=result)
    assert run(["report", str(path)], capsys)[0] == 0
    for name in ("report.md", "report.html"):
        text = (path / name).read_text()
        assert f"offline-vi ope {path}" in text and "14.2" in text
