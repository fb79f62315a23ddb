"""Suites: refused before anything runs, or run to the end however often they are killed on the way."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from small_data import pendulum

from offline_vi import registry
from offline_vi.errors import ConfigError, MissingInputError, OfflineVIError, OutputDirError, StudyError
from offline_vi.plugins import load_plugin, origin
from offline_vi.study import benchmark
from offline_vi.study.board import Board
from offline_vi.study.cells import Job, run_job, table
from offline_vi.study.checks import check_options
from offline_vi.study.engines import LocalOptions, RayOptions
from offline_vi.study.plan import plan_study, writable, write_plan
from offline_vi.study.suite import read_suite, shipped

SUITE = """
name = "tiny"
algorithms = ["bc", "bcq"]
seeds = [0]
presets = ["fast"]
[datasets]
toy = ["{data}"]
[train]
env = "Pendulum-v1"
steps = {steps}
eval-every = {every}
eval-episodes = 2
log-every = {every}
save-every = {every}
hidden = [8]
batch_size = 16
[behavior]
model = "cvae"
steps = 40
log-every = 20
hidden = [8]
[machine]
precision = "float32"
products = "highest"
"""


@pytest.fixture
def data(tmp_path: Path) -> str:
    return pendulum(tmp_path / "toy.hdf5")


def write(folder: Path, data: str, change: Callable[[str], str] = str, steps: int = 30) -> str:
    path = folder / "tiny.toml"
    path.write_text(change(SUITE.format(data=data, steps=steps, every=max(steps // 10, 1))))
    return str(path)


def swap(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


def unknown_data(text: str) -> str:
    return re.sub(r"\[datasets\]\n.*", 'datasets = ["hopper-mediun-v2"]', text)


BAD: dict[str, tuple[Callable[[str], str], int, str, str]] = {
    "unknown algorithm": (swap('"bcq"', '"bcqq"'), 2, "unknown algorithm 'bcqq'", "'bcq'"),
    "unknown data set": (unknown_data, 2, "unknown data set 'hopper-mediun-v2'", "hopper-medium-v2"),
    "unknown preset": (swap('["fast"]', '["fats"]'), 2, "unknown preset 'fats'", "'fast'"),
    "unknown behavior model": (
        swap('"cvae"', '"cave"'),
        2,
        "behavior model 'cave'",
        "'cvae'",
    ),
    "duplicate algorithm": (swap('"bcq"', '"bc"'), 78, "toy_bc_fast_seed0 is there 2 times", "once"),
    "duplicate seed": (swap("[0]", "[0, 0]"), 78, "is there 2 times", "once"),
    "typo in a hyper-parameter": (swap("[machine]", "[algorithm.bcq]\nlmbd = 1.0\n[machine]"), 78, "'lmbd'", "'lmbda'"),
    "typo in an option": (swap("eval-every", "eval-evry"), 78, "'eval-evry'", "'eval-every'"),
    "typo in the model's options": (swap("steps = 40", "stps = 40"), 78, "'stps'", "'steps'"),
    "typo in a key": (swap("seeds", "seedz"), 78, "'seedz'", "'seeds'"),
    "wrong type": (swap("batch_size = 16", 'batch_size = "many"'), 78, "batch-size many", "--help"),
    "another algorithm's table": (swap("[machine]", "[algorithm.spot]\nlmbda = 1.0\n[machine]"), 2, "'spot'", ""),
    "no density for SPOT": (
        lambda text: text.replace('"bcq"', '"plas"').replace('"cvae"', '"mixture"'),
        78,
        "plas needs a behavior model that decodes latents",
        "[behavior]",
    ),
    "negative seed": (swap("[0]", "[-1]"), 78, "seeds", "[0, 1, 2]"),
    "not TOML": (swap('name = "tiny"', "name = tiny"), 78, "tiny.toml", "TOML"),
    "reserved": (swap("[train]", '[train]\noutput = "x"'), 78, "output", "leave it out"),
    "a missing file": (swap("toy.hdf5", "toys.hdf5"), 66, "1 of 1 data sets", "toys.hdf5"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_suite_is_one_line_before_anything_runs(
    case: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected, message, hint = BAD[case]
    code, _, error = run(["benchmark", write(tmp_path, data, change), "--output", str(tmp_path / "out")], capsys)
    lines = error.strip().splitlines()
    assert code == expected, error
    assert lines[-2].startswith("error: ")
    assert message in lines[-2]
    assert lines[-1].startswith("hint: ")
    assert hint in lines[-1]
    assert not (tmp_path / "out" / "runs").exists()


def test_a_bad_data_set_is_found_out_before_anything_runs(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.hdf5"
    broken.write_bytes(Path(data).read_bytes()[:3000])
    suite = write(tmp_path, data, swap("[train]", f'broken = ["{broken}"]\n[train]'))
    code, _, error = run(["benchmark", suite, "--output", str(tmp_path / "out")], capsys)
    assert code == 65
    assert "1 of 2 data sets cannot be used: broken" in error
    assert not (tmp_path / "out" / "runs").exists()
    code, out, _ = run(["benchmark", suite, "--output", str(tmp_path / "out"), "--skip-missing", "--check"], capsys)
    assert code == 0
    fit, *cells = [shlex.split(line) for line in out.splitlines()]  # in their order, each to be copied as it is
    assert [words[1:3] for words in (fit, *cells)] == [["fit-behavior", "cvae"], ["train", "bc"], ["train", "bcq"]]
    assert cells[1][cells[1].index("--behavior-from") + 1] == fit[-1]
    assert len({words[-1] for words in (fit, *cells)}) == 3


def test_an_unwritable_folder_is_found_out_before_anything_runs(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, _, error = run(["benchmark", write(tmp_path, data), "--output", str(tmp_path / "file" / "out")], capsys)
    assert code == 73
    assert "cannot be written" in error
    with pytest.raises(OutputDirError):
        writable(Path("/proc/nowhere"))


@pytest.mark.parametrize("name", list(shipped()))
def test_every_shipped_suite_is_right(name: str) -> None:
    suite = read_suite(name)
    check_options(suite)
    assert suite.description
    assert suite.name == name


def test_an_unknown_suite_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(["benchmark", "smok"], capsys)
    assert (code, "'smoke'" in error) == (2, True)


def test_a_suite_that_names_no_model_has_the_presets_for_each_algorithm(data: str, tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path, data, swap('model = "cvae"\n', "")))
    assert {cell.algorithm: suite.models(cell) for cell in suite.cells()} == {"bc": "cvae", "bcq": "gaussian"}


def test_a_suite_runs_once_whatever_happens(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One model for both; a cell that fails does not stop the other, and is tried again; done cells are left alone."""
    output = tmp_path / "out"
    explodes = swap("[machine]", "[algorithm.bcq]\nlr = 1e20\n[machine]")
    suite = write(tmp_path, data, explodes)
    code, _, error = run(["benchmark", suite, "--output", str(output)], capsys)
    assert code == 70
    assert "error: 1 run not done: toy_bcq_fast_seed0: a loss is not finite" in error
    rows = {row["algorithm"]: row for row in table(output / "results.csv")}
    assert rows["bc"]["status"] == "done"
    assert float(rows["bc"]["return"]) < 0.0  # Pendulum's; an environment alone has no reference scores
    assert (rows["bc"]["measure"], rows["bc"]["final"]) == ("return_mean", rows["bc"]["return"])
    assert "not finite" in rows["bcq"]["error"]
    assert (rows["bcq"]["status"], rows["bcq"]["return"]) == ("failed", "")
    written = (output / "runs" / "toy_bc_fast_seed0" / "result.json").stat().st_mtime_ns

    code, _, error = run(["benchmark", write(tmp_path, data), "--output", str(output)], capsys)
    assert code == 78
    assert "toy_bcq_fast_seed0 with other options" in error
    assert run(["benchmark", write(tmp_path, data, explodes), "--output", str(output)], capsys)[0] == 70
    assert (output / "runs" / "toy_bc_fast_seed0" / "result.json").stat().st_mtime_ns == written
    journal = [(row["run"], row["exit_code"]) for row in table(output / "journal.csv")]
    assert sorted(journal) == [
        ("toy_bc_fast_seed0", "0"),
        ("toy_bcq_fast_seed0", "70"),
        ("toy_bcq_fast_seed0", "70"),
        ("toy_cvae_seed0", "0"),
    ]
    config = json.loads((output / "runs" / "toy_bcq_fast_seed0" / "config.json").read_text())
    assert config["train_options"]["behavior_from"].endswith("behavior/toy_cvae_seed0")


def scores(output: Path) -> dict[str, tuple[bytes, ...]]:
    """Of each run, everything that is a number."""
    names = ("metrics.csv", "episodes.csv", "support.csv", "result.json")
    runs = {path.name: path for part in ("runs", "behavior") for path in (output / part).iterdir()}
    return {
        name: tuple((path / file).read_bytes() for file in names if (path / file).exists())
        for name, path in runs.items()
    }


def start(suite: str, output: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "offline_vi", "benchmark", suite, "--output", str(output), "-q"])


def wait_for(found: Callable[[], Any], seconds: float = 200.0) -> Any:
    for _ in range(int(seconds / 0.02)):
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come")


def cells_of(output: Path) -> list[int]:
    """Process numbers of the cells that work on this study."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"offline_vi.scripts.cell" in words and any(str(output).encode() in word for word in words):
                found.append(int(entry.name))
    return found


def test_an_interrupted_study_says_that_the_same_command_goes_on(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "run_jobs", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        code, _, error = run(["benchmark", write(tmp_path, data), "--output", str(output)], capsys)
    assert code == 128 + signal.SIGINT
    assert "suite" in error.splitlines()[-2] and "same command" in error.splitlines()[-1]
    code, out, _ = run(["report", str(output)], capsys)
    assert code == 0 and f"offline-vi benchmark SUITE --output {output}" in out
    assert "| data set |" not in (output / "report.md").read_text()  # there is nothing to put into it


@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_a_study_that_is_killed_twice_ends_with_the_same_numbers(data: str, tmp_path: Path) -> None:
    suite = write(tmp_path, data, swap('"bc", ', ""), steps=400)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(suite, whole).wait(timeout=300) == 0

    first = start(suite, killed)
    wait_for(lambda: list(killed.glob("runs/*/checkpoints/step_*")))
    first.kill()  # the whole command, no chance to tidy up
    first.wait()
    second = start(suite, killed)
    for number in wait_for(lambda: cells_of(killed)):  # then only its cells
        os.kill(number, signal.SIGKILL)
    assert second.wait(timeout=300) in (0, 70)
    assert start(suite, killed).wait(timeout=300) == 0
    assert scores(killed) == scores(whole)
    assert not cells_of(killed)


def test_the_precision_is_chosen_once_for_all_cells(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of one study that disagree could not be compared."""
    answers = itertools.cycle(["bfloat16", "float32"])
    monkeypatch.setattr("offline_vi.nn.precision.preferred_precision", lambda *_: next(answers))
    suite = write(tmp_path, data, swap('precision = "float32"\n', ""))
    commands = plan_study(read_suite(suite), tmp_path / "out").commands().values()
    chosen = [words[words.index("--precision") + 1] for words in commands]
    assert chosen in (["bfloat16"] * 2, ["float32"] * 2)


def test_a_cell_whose_run_is_held_by_another_process_is_waited_for(data: str, tmp_path: Path) -> None:
    arguments = ("train", "bc", "--dataset", data, "--env", "Pendulum-v1", "--steps", "300", "--save-every", "50")
    job = Job(tmp_path / "run", (*arguments, "--hidden", "8", "--eval-episodes", "1"))
    other = subprocess.Popen([sys.executable, "-m", "offline_vi", *arguments, "--hidden", "8", "--eval-episodes", "1",
                              "--output", str(tmp_path / "run"), "-q"])  # fmt: skip
    wait_for(lambda: (tmp_path / "run" / "config.json").exists())
    outcome = run_job(job, tmp_path / "journal.csv")
    assert outcome.done
    assert other.wait(timeout=60) == 0


def test_cells_without_their_behavior_model_are_reported_and_not_run(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, output = write(tmp_path, data, swap("[behavior]", "[behavior]\nlr = 1e20")), tmp_path / "out"
    code, _, error = run(["benchmark", suite, "--output", str(output)], capsys)
    assert code == 70
    assert "toy_cvae_seed0: a loss is not finite" in error
    assert error.count("failed: its behavior model toy_cvae_seed0 is not done") == 2
    assert not list((output / "runs").iterdir())
    other = write(tmp_path, data, swap('"float32"', '"bfloat16"'))
    code, _, error = run(["benchmark", other, "--output", str(output)], capsys)
    assert (code, "another [machine]" in error) == (78, True)


def test_the_board_counts_what_the_files_say(tmp_path: Path) -> None:
    jobs = [Job(tmp_path / name, ("train", "bc", "--steps", "100")) for name in ("a", "b", "c", "d")]
    for name, state, step in (("a", "done", 100), ("b", "running", 50), ("c", "failed", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"status": state}))
        (tmp_path / name / "metrics.csv").write_text(f"step,loss\n{step},1.0\n")
    board = Board(jobs, {jobs[0].path}, {jobs[2].path: "it broke"}, quiet=True)
    assert board.work_done() == 160.0
    assert [job.path.name for job in board.running()] == ["b"]
    assert board.summary().startswith("1 of 4 runs done, 1 running, 1 failed")
    board.started -= 10.0  # a hundred steps in ten seconds, fifty are left
    (tmp_path / "b" / "metrics.csv").write_text("step,loss\n100,1.0\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "metrics.csv").write_text("step,loss\n50,1.0\n")
    assert "about 0:05 left" in board.summary()


def test_the_engine_ray_without_ray_is_one_line(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["benchmark", write(tmp_path, data), "--output", str(tmp_path / "out"), "--engine", "ray"]
    code, _, error = run(words, capsys)
    assert (code, "offline-vi[ray]" in error) == (69, True)
    assert not list((tmp_path / "out" / "runs").iterdir())


def test_one_job_is_the_least() -> None:
    with pytest.raises(OfflineVIError, match="one job"):
        LocalOptions(jobs=0)
    with pytest.raises(OfflineVIError, match="negative"):
        RayOptions(gpus=-0.5)


def test_runs_that_failed_are_named_at_the_end(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "offline_vi.study.benchmark.run_jobs", lambda *_, quiet: {tmp_path / "toy_bcq": "the machine is on fire"}
    )
    code, _, error = run(["benchmark", write(tmp_path, data), "--output", str(tmp_path / "out")], capsys)
    assert code == StudyError.exit_code
    assert "1 run not done: toy_bcq: the machine is on fire" in error
    assert issubclass(StudyError, OfflineVIError)


PLUGIN = """
from offline_vi.registry import ALGORITHMS, AlgorithmEntry

ALGORITHMS["{name}"] = AlgorithmEntry("offline_vi.algorithms.bc:BC", "behavior cloning under another name")
"""


def with_plugin(tmp_path: Path, data: str, name: str = "bc-from-a-file") -> str:
    (tmp_path / "mine.py").write_text(PLUGIN.format(name=name))
    return write(tmp_path, data, swap("seeds = [0]", 'seeds = [0]\nplugins = ["mine.py"]'))


def test_the_plug_in_of_the_command_line_is_handed_to_every_cell(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.py"
    file.write_text(PLUGIN.format(name="bc-of-the-command"))
    suite = write(tmp_path, data, swap('algorithms = ["bc"', 'algorithms = ["bc-of-the-command"'))
    words = ["benchmark", suite, "--plugin", str(file), "--output", str(tmp_path / "out"), "--check"]
    code, commands, _ = run(words, capsys)
    assert code == 0
    assert commands.count(f"--plugin {file}") == len(commands.splitlines())
    assert run(["benchmark", suite, "--output", str(tmp_path / "out"), "-q"], capsys)[0] == 0
    assert (tmp_path / "out" / "results.csv").exists()


BREAKING = """
import torch
import offline_vi as ovi
from dataclasses import dataclass

@dataclass(frozen=True)
class Settings:
    width: int = 4  # units
    hidden: tuple[int, ...] = (8,)
    batch_size: int = 8

@ovi.register_algorithm("{name}")
class Breaking(ovi.Algorithm):
    def __init__(self, spec: ovi.Spec, config: Settings | None = None):
        super().__init__()
        self.layer = torch.nn.Linear(spec.obs_dim, (config or Settings()).width)
        self.layer.weight.data.copy_(torch.zeros(4, 3))

    def update(self, batch):
        return {{}}

    def act(self, obs):
        return obs[:, :1]
"""


@pytest.mark.parametrize("width, code", [(4, 0), (5, ConfigError.exit_code)])
def test_an_algorithm_that_cannot_be_built_is_found_before_anything_runs(
    width: int, code: int, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"breaking-at-{width}"
    (tmp_path / "mine.py").write_text(BREAKING.format(name=name))
    suite = Path(write(tmp_path, data, swap("seeds = [0]", 'seeds = [0]\nplugins = ["mine.py"]')))
    suite.write_text(suite.read_text() + f'\n[variant.mine]\nalgorithm = "{name}"\nwidth = {width}\n')
    found, out, error = run(["benchmark", str(suite), "--output", str(tmp_path / "out"), "--check"], capsys)
    assert found == code, error
    if code:
        assert "mine cannot be built for toy" in error and not out


def test_the_plug_in_of_a_data_set_is_known(tmp_path: Path) -> None:
    file = tmp_path / "maker.py"
    file.write_text("import offline_vi as ovi\n\n@ovi.register_dataset('lab/made')\ndef made():\n    return {}\n")
    load_plugin(file)
    found = origin("dataset", "lab/made")
    assert found is not None and Path(found.name) == file
    assert origin("dataset", "nothing") is origin("algorithm", "bcq") is None


def test_plug_ins_of_a_suite_are_loaded_handed_to_every_cell_and_recorded(data: str, tmp_path: Path) -> None:
    suite = read_suite(with_plugin(tmp_path, data))
    file = str(tmp_path / "mine.py")
    assert suite.plugins == (file,)
    assert "bc-from-a-file" in registry.trainable()
    plan = plan_study(suite, tmp_path / "out")
    for words in [*plan.commands().values(), *plan.model_commands().values()]:
        assert words[3:5] == ["--plugin", file]
        assert words[1] in ("train", "fit-behavior")
    write_plan(plan)
    written = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert written["plugins"] == {file: hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()}
    assert list(written["models"]) == ["toy_cvae_seed0"]


def test_a_suite_may_name_the_algorithm_of_its_plug_in(data: str, tmp_path: Path) -> None:
    path = Path(with_plugin(tmp_path, data, "bc-of-the-suite"))
    path.write_text(path.read_text().replace('"bc", "bcq"', '"bc-of-the-suite"'))
    assert [cell.name for cell in read_suite(str(path)).cells()] == ["toy_bc-of-the-suite_fast_seed0"]


def test_a_plug_in_that_changed_is_refused_where_runs_are(data: str, tmp_path: Path) -> None:
    suite, folder = read_suite(with_plugin(tmp_path, data, "bc-that-changes")), tmp_path / "out"
    write_plan(plan_study(suite, folder))
    written = json.loads((folder / "suite.json").read_text())
    written["plugins"] = dict.fromkeys(written["plugins"], "0" * 64)
    (folder / "suite.json").write_text(json.dumps(written))
    plan_study(suite, folder)  # nothing has run yet
    (folder / "runs" / "toy_bc_fast_seed0").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"mine\.py has changed"):
        plan_study(suite, folder)


def test_other_rows_under_the_same_name_are_refused_where_runs_are(data: str, tmp_path: Path) -> None:
    suite, folder = read_suite(write(tmp_path, data)), tmp_path / "out"
    write_plan(plan_study(suite, folder))
    (folder / "runs" / "toy_bc_fast_seed0").mkdir(parents=True)
    plan_study(suite, folder)
    pendulum(Path(data), lambda columns: columns["rewards"].fill(1.0))
    with pytest.raises(ConfigError, match="toy has other rows"):
        plan_study(suite, folder)
    (folder / "runs" / "toy_bc_fast_seed0").rmdir()
    write_plan(plan_study(suite, folder))
    (folder / "runs" / "toy_bc_fast_seed0").mkdir()
    plan_study(suite, folder)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ('["nowhere.py"]', MissingInputError, "nowhere.py"),
        ('["no.such.module"]', MissingInputError, "no.such.module"),
        ('"mine.py"', MissingInputError, "mine.py"),
        ("3", ConfigError, "neither a name nor a list of names"),
        ('[""]', ConfigError, "neither a name nor a list of names"),
    ],
)
def test_a_plug_in_that_is_not_there_is_one_line(
    value: str, kind: type[OfflineVIError], words: str, data: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        read_suite(write(tmp_path, data, swap("seeds = [0]", f"seeds = [0]\nplugins = {value}")))


def test_another_model_under_the_same_name_is_refused(data: str, tmp_path: Path) -> None:
    """A fitted model is kept: with other options it would be another one."""
    folder = tmp_path / "out"
    write_plan(plan_study(read_suite(write(tmp_path, data)), folder))
    (folder / "behavior" / "toy_cvae_seed0").mkdir(parents=True)
    with pytest.raises(ConfigError, match="toy_cvae_seed0 with other options"):
        plan_study(read_suite(write(tmp_path, data, swap("steps = 40", "steps = 50"))), folder)


def test_a_study_of_an_older_version_goes_on(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its suite.json names neither plug-ins nor shared models; its runs are found under the same names."""
    suite, output = write(tmp_path, data, swap('"bc", "bcq"', '"bcq"')), tmp_path / "out"
    assert run(["benchmark", suite, "--output", str(output), "-q"], capsys)[0] == 0
    record = json.loads((output / "suite.json").read_text())
    del record["models"], record["plugins"], record["data"], record["suite"]["plugins"]
    (output / "suite.json").write_text(json.dumps(record))
    before = (output / "journal.csv").read_bytes()
    assert run(["report", str(output)], capsys)[0] == 0
    assert run(["benchmark", suite, "--output", str(output), "-q"], capsys)[0] == 0
    assert (output / "journal.csv").read_bytes() == before
    assert [path.name for path in (output / "runs").iterdir()] == ["toy_bcq_fast_seed0"]
