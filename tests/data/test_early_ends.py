"""Rewards that are costs: a report says where ending an episode early pays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offline_vi import datasets

COLUMNS = """
episode = "episode"
obs = ["x"]
action = ["a"]
reward = "reward"
terminated = "tripped"
action_low = [0.0]
action_high = [1.0]
"""


def logs(path: Path, reward: float, failures: int, cost_of_failure: float = 0.0) -> Path:
    """Twenty episodes of 5 to 24 steps with the same reward for each step; the first ``failures`` end by the task."""
    lines = ["episode,x,a,reward,tripped"]
    for episode in range(20):
        length = 5 + episode
        for step in range(length):
            last = step == length - 1 and episode < failures
            lines.append(f"{episode},{step / 30},{(step % 7) / 7},{reward - cost_of_failure * last},{int(last)}")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("reward", "failures", "penalty", "warned"),
    [(-1.0, 20, 0.0, True), (1.0, 20, 0.0, False), (-1.0, 0, 0.0, False), (-1.0, 12, 100.0, False)],
)
def test_costs_and_early_ends_are_reported(
    reward: float, failures: int, penalty: float, warned: bool, tmp_path: Path
) -> None:
    path = logs(tmp_path / "logs.csv", reward, failures, penalty)
    columns = tmp_path / "columns.toml"
    columns.write_text(COLUMNS)
    report = datasets.inspect(path, columns=columns)
    found = [text for text in report.warnings if "earned" in text]
    assert bool(found) == warned
    if warned:
        assert f"{np.float64(-1.0):.2f}" in found[0] and "20 of 20" in found[0]
        assert "--end-penalty 24" in found[0]  # steps of the longest, at 1 each


def test_a_few_early_failures_that_pay_are_reported(tmp_path: Path) -> None:
    """Length and return are hardly correlated: most episodes run to the limit, and earn between -60 and -12."""
    rng, lines = np.random.default_rng(0), ["episode,x,a,reward,tripped"]
    means: dict[bool, list[float]] = {True: [], False: []}
    for episode in range(120):
        failed, cost = episode % 10 == 0, rng.uniform(0.4, 2.0)
        length = 18 if failed else 30
        means[failed].append(-cost * length)
        lines += [
            f"{episode},{step / 30},{(step % 7) / 7},{-cost},{int(failed and step == length - 1)}"
            for step in range(length)
        ]
    (tmp_path / "logs.csv").write_text("\n".join(lines))
    (tmp_path / "columns.toml").write_text(COLUMNS)
    report = datasets.inspect(tmp_path / "logs.csv", columns=tmp_path / "columns.toml")
    (found,) = [text for text in report.warnings if "earned" in text]
    assert f"({np.mean(means[True]):.2f} against {np.mean(means[False]):.2f} on average)" in found
    assert "12 of 120" in found


@pytest.mark.parametrize(("factor", "warned"), [(1.0, False), (400.0, True)])
def test_large_observations_are_reported_by_the_name_of_their_column(
    factor: float, warned: bool, tmp_path: Path
) -> None:
    path = logs(tmp_path / "logs.csv", 1.0, 0)
    head, *rows = [line.split(",") for line in path.read_text().splitlines()]
    rows = [[episode, str(float(x) * factor), *others] for episode, x, *others in rows]
    path.write_text("\n".join(",".join(row) for row in [head, *rows]))
    (tmp_path / "columns.toml").write_text(COLUMNS)
    report = datasets.inspect(path, columns=tmp_path / "columns.toml")
    found = [text for text in report.warnings if "(x)" in text and "--normalize" in text]
    assert bool(found) == warned


def test_parts_of_an_episode_count_as_one_in_the_datas_own_return(tmp_path: Path) -> None:
    """What the data earned is a mean over the episodes of the logs, also where `split` makes two of one."""
    path = logs(tmp_path / "logs.csv", -1.0, 0)
    lines = path.read_text().splitlines()
    for bad in (15, 40, 100):  # readings of x within three episodes
        episode, _, *others = lines[bad].split(",")
        lines[bad] = ",".join([episode, "", *others])
    path.write_text("\n".join(lines))
    (tmp_path / "columns.toml").write_text(COLUMNS)
    found = {how: datasets.load(path, columns=tmp_path / "columns.toml", on_nonfinite=how) for how in ("split", "hold")}
    assert found["hold"].mean_return() == pytest.approx(found["hold"].observed_returns().mean())
    assert found["split"].source.parts == 3
    lost = 6 * 1.0  # the rewards of the three rows, and of those whose next observation they are
    assert found["split"].mean_return() * 20 == pytest.approx(found["hold"].mean_return() * 20 + lost)
