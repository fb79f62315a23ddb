"""A report of a study whose files are odd: what can be read is shown, what cannot is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from odd import cases, odd

from offline_vi.errors import OfflineVIError
from offline_vi.study.report import read_any, write_report

pytestmark = pytest.mark.timeout(3600)  # as many cases as `make reliability` asks for
SEEDS = (0, 1)
SUITE = {
    "name": "made-up",
    "algorithms": ["bc"],
    "datasets": ["hopper-medium-v2"],
    "seeds": [*SEEDS],
    "presets": ["fast"],
}
CURVE = {"100": 40.0, "200": 50.0}
RESULT = {
    "steps": 200,
    "measure": "normalized_score",
    "normalized_score": 50.0,
    "return_mean": 1500.0,
    "returns": [1500.0],
    "failed_episodes": [],
    "best": {"step": 200, "normalized_score": 50.0},
    "curve": CURVE,
    "env_id": "Hopper-v5",
    "mujoco": "4.0.0",
    "diagnostics": {"support/outside": 0.03, "q/start": 200.0, "q/return": 100.0},
}
FILES: dict[str, Any] = {
    "config.json": {
        "schema": 2,
        "verb": "train",
        "algorithm": "bc",
        "seed": 0,
        "task": {"name": "t", "note": "n", "env_id": "Hopper-v5", "kwargs": {}},
        "data": {"name": "d"},
        "train_options": {"preset": "fast"},
    },
    "run.json": {"status": "done", "wall_seconds": 3.0, "versions": {"torch": "2"}, "command": ["offline-vi", "train"]},
    "result.json": RESULT,
}
EPISODES = "step,seed,return,length,terminated,normalized,env_id,mujoco\n200,100,1500.0,10,0,50.0,Hopper-v5,4\n"


def study(folder: Path) -> Path:
    """Two runs of one algorithm, made up."""
    names = [f"hopper-medium-v2_bc_fast_seed{seed}" for seed in SEEDS]
    for seed, name in enumerate(names):
        run = folder / "runs" / name
        run.mkdir(parents=True)
        for file, record in FILES.items():
            (run / file).write_text(json.dumps({**record, "seed": seed} if file == "config.json" else record))
        (run / "episodes.csv").write_text(EPISODES)
    commands = {name: ["offline-vi", "train", "bc"] for name in names}
    (folder / "suite.json").write_text(json.dumps({"schema": 1, "suite": SUITE, "commands": commands, "models": {}}))
    (folder / "environment.txt").write_text("torch 2\n")
    (folder / "journal.csv").write_text(f"run,host,pid,started,exit_code,seconds\n{names[0]},h,1,0,0,3.5\n")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "study")
    return tmp_path / "study"


@cases(30)
@given(data=st.data(), file=st.sampled_from(sorted(FILES)))
def test_one_odd_field_of_a_run_costs_that_run_at_most(copied: Path, data: st.DataObject, file: str) -> None:
    runs = sorted((copied / "runs").iterdir())
    path = runs[0] / file
    before = path.read_bytes()
    path.write_text(json.dumps(data.draw(odd(json.loads(before)))))
    try:
        found = read_any([copied])
        write_report(found, copied)
        assert found.runs[1].done
        assert found.runs[0].done or found.failures[0].name == runs[0].name
        single = read_any(runs)
        write_report(single, copied / "single")
    finally:
        path.write_bytes(before)


@cases(20)
@given(data=st.data())
def test_an_odd_suite_is_reported_or_refused(copied: Path, data: st.DataObject) -> None:
    path = copied / "suite.json"
    before = path.read_bytes()
    path.write_text(json.dumps(data.draw(odd(json.loads(before)))))
    try:
        write_report(read_any([copied]), copied)
    except OfflineVIError:
        pass
    finally:
        path.write_bytes(before)


ODD_BYTES = (b"", b"\x00", b"\xff\xfe", b'"', b",\n" * 5, b"[" * 100_000, b'{"a":' * 50_000, b"x" * 200_000)
BYTES = st.one_of(st.binary(max_size=60), st.sampled_from([*ODD_BYTES, b"step,return\n1,1e308\n"]))
NAMES = (*FILES, "episodes.csv", "../../environment.txt", "../../journal.csv")


@cases(30)
@given(content=BYTES, name=st.sampled_from(NAMES), keep=st.booleans())
def test_a_file_of_other_bytes_costs_its_run_at_most(copied: Path, content: bytes, name: str, keep: bool) -> None:
    run = min((copied / "runs").iterdir())
    path = run / name
    before = path.read_bytes()
    path.write_bytes((before if keep else b"") + content)
    try:
        found = read_any([copied])
        write_report(found, copied)
        assert found.runs[1].done
    finally:
        path.write_bytes(before)
