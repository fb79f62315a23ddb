"""A suite on a real Ray cluster of several nodes, one of which dies in the middle; skipped where there is no Ray."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from small_data import pendulum
from test_benchmark import scores, start, wait_for, write

from offline_vi.study.benchmark import run_study
from offline_vi.study.cells import table
from offline_vi.study.engines import RayOptions
from offline_vi.study.plan import plan_study
from offline_vi.study.suite import read_suite

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without a CPU and two workers with one each: raylets of their own, as on three machines."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    workers = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made, workers
    ray.shutdown()
    made.shutdown()


def whole_runs(run: Path, steps: int) -> int:
    """How often the run came to its last step."""
    return sum(line.startswith(f"step {steps:>9,}/{steps:,}") for line in (run / "log.txt").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_dies_and_nothing_is_lost_nor_done_twice(cluster: Any, tmp_path: Path) -> None:
    steps = 2_000
    suite = write(tmp_path, pendulum(tmp_path / "toy.hdf5"), lambda text: text.replace("[0]", "[0, 1]"), steps=steps)
    made, workers = cluster
    output = tmp_path / "ray"
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run_study(plan_study(read_suite(suite), output), RayOptions(made.address), quiet=True)
        except BaseException as error:
            errors.append(error)

    running = Thread(target=work)
    running.start()
    wait_for(lambda: len(list(output.glob("runs/*/checkpoints/LATEST"))) >= 2, 200.0)  # both nodes are at work
    made.remove_node(workers[0], allow_graceful=False)
    running.join(timeout=400)
    assert not running.is_alive()
    assert errors == []

    rows = table(output / "results.csv")
    assert [row["status"] for row in rows] == ["done"] * 4
    finished = Counter(row["run"] for row in table(output / "journal.csv") if row["exit_code"] == "0")
    assert set(finished.values()) == {1}
    assert all(whole_runs(output / "runs" / row, steps) == 1 for row in finished if "cvae" not in row)

    assert start(suite, tmp_path / "local").wait(timeout=300) == 0
    assert scores(output) == scores(tmp_path / "local")
