"""`offline-vi ope` and `offline-vi select` on small runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import TINY, run
from small_data import pendulum

import offline_vi as ovi
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.errors import DataWarning, UsageError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.evaluation.fitting_q import MISSING, discounted_returns
from offline_vi.evaluation.off_policy import FQEConfig
from offline_vi.runs.ownership import strangers
from offline_vi.scripts import main
from offline_vi.study.judging import JudgeOptions, data_of
from offline_vi.study.kept import load_policy, read_config
from offline_vi.study.kept_evaluations import evaluations, keep_evaluation
from offline_vi.study.scoring import load_task
from offline_vi.study.selecting import SelectOptions, lines, select, simulated
from offline_vi.types import Spec

NETS = ["--hidden", "8", "--batch-size", "16"]
SHORT = ["--steps", "20", "--fits", "2", "--clone-steps", "5", "--hidden", "8", "-q"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two clones, trained from two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    words = ["train", "bc", "--dataset", pendulum(folder / "toy.hdf5"), "--env", "Pendulum-v1", *TINY, *NETS]
    for seed in ("0", "1"):
        main([*words, "--seed", seed, "--output", str(folder / f"seed{seed}")])
    return [str(folder / "seed0"), str(folder / "seed1")]


def test_a_policy_is_judged_next_to_a_clone_and_the_data(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["ope", runs[0], *SHORT], capsys)
    assert code == 0
    (record,) = evaluations(runs[0], "off-policy")
    returns = discounted_returns(data_of(read_config(runs[0]), runs[0]), 0.99)
    assert record["data"]["value"] == pytest.approx(returns.mean())
    assert record["data"]["over_episodes"] == pytest.approx(returns.std(ddof=1) / np.sqrt(len(returns)))
    lines = {line[2:14].strip(): line for line in out.splitlines() if line.startswith("  the ")}
    assert set(lines) == {"the policy", "the clone", "the data"}
    for name in ("the policy", "the clone"):
        assert f"{record[name]['value']:.2f}" in lines[name]
        assert "not converged" in lines[name]
        assert record[name]["converged"] is False
        assert len(record[name]["curves"]) == 2
    assert (Path(runs[0]) / "off_policy.png").read_bytes()[:4] == b"\x89PNG"
    assert strangers(Path(runs[0])) == []


def test_a_given_run_may_be_the_clone(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["ope", runs[1], runs[0], *SHORT, "--clone", runs[1], "--json"], capsys)
    assert code == 0
    record = json.loads(out)
    first, second = (record["runs"][one] for one in (runs[1], runs[0]))
    assert first["the clone"]["curves"] == first["the policy"]["curves"]
    assert second["the clone"] == first["the clone"]  # of the same data: fitted once
    (method,) = record["methods"]
    assert method["estimates"] == [second["the policy"]["value"], first["the policy"]["value"]]  # by seed
    assert not record["comparisons"]


def test_another_gamma_counts_for_the_policy_and_the_data(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["ope", runs[0], *SHORT, "--clone", runs[1], "--discount", "0.5", "--json"], capsys)
    assert code == 0
    record = json.loads(out)
    assert record["discount"] == 0.5
    assert record["data"]["value"] == pytest.approx(
        discounted_returns(data_of(read_config(runs[0]), runs[0]), 0.5).mean()
    )
    assert record["the policy"]["missing"] == pytest.approx(np.exp(-20 * 0.05 * 0.5))


def test_whole_episodes_are_not_discounted(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["ope", runs[1], "--horizon", "episode", *SHORT], capsys)
    assert code == 0
    record = next(evaluations(runs[1], "off-policy"))
    assert (record["horizon"], record["discount"]) == ("episode", 1.0)
    returns = data_of(read_config(runs[1]), runs[1]).observed_returns(1.0)
    assert record["data"]["value"] == pytest.approx(returns.mean())
    assert "gamma" not in out
    assert "return of an episode" in out
    assert f"{abs(record['the clone']['value'] - record['data']['value']):.2f}" in out


def test_python_and_the_command_fit_alike_and_long_enough_for_the_usual_gamma() -> None:
    python, command = FQEConfig(), JudgeOptions()
    assert (python.steps, python.tau, python.hidden) == (command.steps, command.tau, command.hidden)
    assert np.exp(-python.steps * python.tau * (1.0 - python.discount)) < MISSING


def test_a_run_that_does_not_name_its_data_is_refused(tmp_path: Path, runs: list[str]) -> None:
    config = read_config(runs[0])
    with pytest.raises(UsageError):
        data_of(config._replace(record={**config.record, "data_options": None}), tmp_path)


def test_rows_that_changed_since_the_training_are_reported(runs: list[str]) -> None:
    config = read_config(runs[0])
    (file,) = config.record["data_options"]["dataset"]
    before = Path(file).read_bytes()
    data_of(config, runs[0])  # as they were: no warning
    try:
        pendulum(Path(file), lambda columns: columns["rewards"].fill(1.0))
        with pytest.warns(DataWarning, match="trained on other rows"):
            data_of(config, runs[0])
    finally:
        Path(file).write_bytes(before)


def test_a_budget_of_rollouts_is_spent_and_the_best_is_selected(
    runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SelectOptions(rollouts=5, seed=3, prior_rollouts=0.0)
    found = select(runs, options)
    assert sum(len(one.returns) for one in found.tried) == 5
    assert found.to_json()["prior"] is False
    for one in found.tried:
        whole = evaluate(load_policy(one.run), load_task(one.run), len(one.returns), 3)
        np.testing.assert_allclose(one.returns, whole.returns, rtol=1e-6)  # a clone draws nothing
    means = [np.mean(one.returns) for one in found.tried]
    assert found.best == int(np.argmax(means))
    monkeypatch.chdir(tmp_path)
    words = ["select", *runs, "--rollouts", "2", "--seed", "3"]
    code, out, _ = run([*words, "--json"], capsys)
    assert (code, json.loads(out)["selected"] in runs) == (0, True)
    kept = json.loads(Path("runs/select/selection.json").read_text())
    assert kept.items() >= json.loads(out).items() and kept["options"]["rollouts"] == 2
    code, out, _ = run(words, capsys)
    assert out.splitlines()[-2:] == ["runs/select-2/selection.json", "runs/select-2/selection.png"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "selection.json").write_text("mine")
    with pytest.warns(match="selection"):
        run([*words, "--output", "other"], capsys)
    assert Path("other/selection.json").read_text() == "mine"


def test_rollouts_that_the_task_ended_are_counted_and_named(runs: list[str]) -> None:
    found = select(runs, SelectOptions(rollouts=3, seed=3, prior_rollouts=0.0))
    assert [one.ended for one in found.tried] == [0, 0]  # the pendulum has no end
    assert "The task ended" not in "\n".join(lines(found))
    failing = found._replace(tried=[one._replace(ended=len(one.returns)) for one in found.tried])
    count = len(failing.tried[failing.best].returns)
    assert f"The task ended {count} of {count}" in "\n".join(lines(failing))


def keep_estimate(
    run: str | Path, value: float | None, converged: bool = True, discount: float = 0.99, **asked: str
) -> None:
    """Keep what `offline-vi ope` would."""
    policy = {"value": value, "converged": converged}
    record = {"kind": "off-policy", "discount": discount, "dataset": "toy", "the policy": policy}
    keep_evaluation(run, record | asked)


def test_only_estimates_that_may_be_compared_are_a_prior(tmp_path: Path, runs: list[str]) -> None:
    made = [str(tmp_path / name) for name in ("a", "b")]
    for one, from_run in zip(made, runs, strict=True):
        shutil.copytree(from_run, one, ignore=shutil.ignore_patterns("evaluations"))
    options = SelectOptions(rollouts=2, seed=3)
    assert "offline-vi ope" in select(made, options).doubt  # there are none
    keep_estimate(made[0], 1.0)
    assert f"offline-vi ope {made[1]}" in select(made, options).doubt
    for bad in ({"converged": False}, {"discount": 0.9}, {"dataset": "another"}, {"horizon": "episode"}):
        keep_estimate(made[1], -4.0, **bad)
        assert select(made, options).doubt
    keep_estimate(made[1], None)
    assert made[1] in select(made, options).doubt
    keep_estimate(made[1], -4.0)  # the newest counts
    found = select(made, options)
    assert not found.doubt
    assert len(found.tried[0].returns) == 1 + (not found.tried[1].returns)
    text = "\n".join(lines(found))
    assert "gamma 0.99" in text
    assert ("Never tried" in text) == (not found.tried[1].returns)
    assert "?" not in text
    assert select(made, replace(options, prior_rollouts=0.0)).doubt


def test_the_regret_is_drawn_from_kept_episodes(
    tmp_path: Path, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for name, level in (("good", 10.0), ("bad", 0.0)):
        (tmp_path / name).mkdir()
        keep_evaluation(tmp_path / name, {"kind": "rollouts", "returns": [level, level + 1.0]})
        keep_estimate(tmp_path / name, level)
        made.append(str(tmp_path / name))
    curves = simulated(made, SelectOptions(rollouts=4)).curves
    assert set(curves) == {"rollouts alone", "with off-policy estimates"}
    assert all(curve.regret[-1] == 0.0 for curve in curves.values())
    assert curves["with off-policy estimates"].regret[0] == 0.0
    words = ["select", *made, "--regret", "--rollouts", "4", "--picture", str(tmp_path / "regret.png")]
    code, out, _ = run(words, capsys)
    assert code == 0
    assert "after    4 rollouts" in out
    assert (tmp_path / "regret.png").exists()
    code, out, _ = run([*words, "--json"], capsys)
    record = json.loads(out)
    assert {name: curve["regret"][-1] for name, curve in record.items()} == dict.fromkeys(curves, 0.0)
    assert record["rollouts alone"]["rollouts"] == [1, 2, 3, 4]
    ovi.save(TD3BC(Spec((3,), 1), TD3BCConfig(hidden=(4,))), tmp_path / "new")
    with pytest.raises(UsageError) as caught:
        simulated([*made, str(tmp_path / "new")], SelectOptions())
    assert caught.value.hint == f"offline-vi evaluate {tmp_path / 'new'}"


def test_one_run_alone_is_no_choice(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(["select", runs[0]], capsys)
    assert (code, "two runs" in error) == (2, True)
