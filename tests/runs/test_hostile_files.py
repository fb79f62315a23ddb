"""Files of a run that are not what they were: any tensor of another name, shape or dtype, anything in the place of any
file. What comes of it is the right result, or an error of ours; nothing of other people is touched, nothing hangs, and
the run goes on when its files are back. $OFFLINE_VI_CASES says how many cases of each property are tried.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import cases
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor
from works import rows

from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.errors import CheckpointCorruptError, MissingInputError, OfflineVIError, OutputDirError, RunExistsError
from offline_vi.nn.state import restore, snapshot
from offline_vi.runs import checkpoint as module
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import json_bytes, kind_of
from offline_vi.runs.ownership import OF_A_CHECKPOINT, OWN, claim
from offline_vi.training.loop import fit
from offline_vi.types import Spec

Reached = Callable[[int, str, int], None]
OPTIONS: dict[str, Any] = {"seed": 1, "log_every": 2, "save_every": 2, "progress": False}
STEPS, MORE = 12, 16
WEIGHTS, TRAINER, STATE = "model.safetensors", "trainer.safetensors", "state.json"


def fresh() -> TD3BC:
    torch.manual_seed(0)
    return TD3BC(Spec((3,), 2), TD3BCConfig(hidden=(4,), batch_size=4))


def weights(algorithm: TD3BC) -> bytes:
    return b"".join(tensor.numpy().tobytes() for _, tensor in sorted(algorithm.state_dict().items()))


@cache
def whole() -> Path:
    """A run of STEPS steps with its two checkpoints and the files of a command."""
    path = Path(tempfile.mkdtemp(prefix="whole-")) / "run"
    with RunDirectory.create(path) as run:
        for name in ("config.json", "run.json", "result.json"):
            run.write_json(name, {"schema": 2, "verb": "train"})
        fit(fresh(), rows(50), STEPS, run=run, **OPTIONS)
    return path


@cache
def truth() -> bytes:
    """The weights of a run of MORE steps that nothing happened to."""
    algorithm = fresh()
    fit(algorithm, rows(50), MORE, **OPTIONS)
    return weights(algorithm)


@contextmanager
def copied() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        yield Path(shutil.copytree(whole(), folder / "run"))
    finally:
        shutil.rmtree(folder)


@contextmanager
def not_for_ever(seconds: int = 20) -> Iterator[None]:
    """Whatever waits for a pipe is interrupted."""

    def ring(signum: int, frame: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def resumed(path: Path) -> bytes:
    """The weights at MORE steps."""
    algorithm = fresh()
    with RunDirectory.resume(path) as run:
        fit(algorithm, rows(50), MORE, run=run, resume=run.has_checkpoint(), **OPTIONS)
    return weights(algorithm)


def replaced(path: Path) -> bytes:
    algorithm = fresh()
    with RunDirectory.create(path, overwrite=True) as run:
        fit(algorithm, rows(50), MORE, run=run, **OPTIONS)
    return weights(algorithm)


def looked_at(path: Path) -> bytes:
    """Reading changes nothing; what is read is a step of the run."""
    algorithm = fresh()
    algorithm.restore(load_checkpoint(path).model)
    return truth()


def outcome(act: Callable[[Path], bytes], path: Path) -> OfflineVIError | None:
    """The error of ours that came of it; without one the result was the right one."""
    with warnings.catch_warnings(), not_for_ever():
        warnings.simplefilter("ignore")
        try:
            assert act(path) == truth()
        except OfflineVIError as error:
            assert str(error)
            return error
    return None


# ------------------------------------------------------------------ any tensor

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "scalar": lambda t: t.flatten()[0].clone(),
    "empty": lambda t: torch.zeros(0, dtype=t.dtype),
    "longer": lambda t: torch.zeros(t.numel() + 1, dtype=t.dtype),
    "shorter": lambda t: t.flatten()[1:].clone(),
    "a dimension more": lambda t: t.unsqueeze(0),
    "huge": lambda t: torch.zeros(50_000, dtype=t.dtype),
    **{
        str(dtype): (lambda t, dtype=dtype: t.to(dtype))  # type: ignore[misc]
        for dtype in (torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16)
    },
}


def tamper(folder: Path, file: str, number: int, change: str, vouched: str) -> bool:
    """Change a tensor of a checkpoint whose manifest vouches for it, as ``vouched`` says its state.json does, too;
    returns whether its shape or dtype is another now."""
    files = {name: (folder / name).read_bytes() for name in (WEIGHTS, TRAINER, STATE)}
    tensors = safetensors.torch.load(files[file])
    name = sorted(tensors)[number % len(tensors)]
    before = tensors[name]
    if change == "missing":
        del tensors[name]
    elif change == "renamed":
        tensors[f"{name}x"] = tensors.pop(name)
    elif change == "one more":
        tensors[f"{name}x"] = torch.zeros(3)
    else:
        tensors[name] = CHANGES[change](before)
    state = json.loads(files[STATE])
    if vouched == "yes":
        state["tensors"][file] = module.signature(tensors)
    elif vouched == "as earlier versions":
        del state["tensors"]
    files |= {file: safetensors.torch.save(tensors), STATE: json_bytes(state)}
    for each, data in files.items():
        (folder / each).write_bytes(data)
    (folder / "MANIFEST.json").write_bytes(module.manifest_bytes(files))
    after = tensors.get(name, torch.zeros(99))
    return change in ("missing", "renamed", "one more") or (after.shape, after.dtype) != (before.shape, before.dtype)


@pytest.mark.timeout(7200)
def test_any_tensor_of_another_name_shape_or_dtype_is_refused(reached: Reached) -> None:
    @settings(max_examples=cases(60), suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from([WEIGHTS, TRAINER]),
        st.integers(0, 99),
        st.sampled_from([*CHANGES, "missing", "renamed", "one more"]),
        st.sampled_from(["yes", "no", "as earlier versions"]),
    )
    def check(file: str, number: int, change: str, vouched: str) -> None:
        with copied() as path:
            folders = sorted((path / "checkpoints").glob("step_*"))
            changed = [tamper(folder, file, number, change, vouched) for folder in folders]
            error = outcome(resumed, path)
            assert isinstance(error, CheckpointCorruptError) if all(changed) else error is None

    check()
    reached(51, "tensors changed", cases(60))


def test_what_does_not_fit_leaves_the_algorithm_as_it_was() -> None:
    """A moment of another shape is found before the first weight is copied."""
    trained, other = fresh(), fresh()
    fit(trained, rows(50), 3, **OPTIONS)
    tensors, values = snapshot(trained)
    before = weights(other)
    last = max(name for name in tensors if name.endswith("exp_avg"))
    with pytest.raises(CheckpointCorruptError, match=last):
        restore(other, {**tensors, last: torch.zeros(2)}, values)
    with pytest.raises(CheckpointCorruptError):
        restore(other, tensors, {**values, "update": 5})
    assert weights(other) == before and not other.critic_opt.state


# ------------------------------------------------------------------ anything in the place of any file

PLACES = (
    *("config.json", "run.json", "result.json", "failures.json", "crash.txt", "log.txt", "learning_curve.png"),
    *("metrics.csv", "episodes.csv", "run.lock", OWN, "checkpoints", "behavior", "thesis.tex", ".tmp-x"),
    *("checkpoints/LATEST", "checkpoints/.tmp-x", "checkpoints/step_00000001", "checkpoints/step_00000002.old"),
    *(f"checkpoints/step_{step:08d}" for step in (STEPS, STEPS + 2, 99_999_999)),
    *(f"checkpoints/step_{STEPS:08d}/{name}" for name in (*OF_A_CHECKPOINT, "thesis.tex")),
)
KINDS = ("link", "link to a folder", "pipe", "folder", "missing", "cut", "foreign")
THEIRS = b"mine\n1,2\ncut"


def put(place: Path, kind: str, elsewhere: Path) -> None:
    """Something else in the place of a file; what ``elsewhere`` holds, and what is in a folder, is another person's."""
    data = place.read_bytes() if place.is_file() else THEIRS
    for name in ("file", "folder/file"):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_bytes(data)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        place.symlink_to(elsewhere / "file")
    elif kind == "link to a folder":
        place.symlink_to(elsewhere / "folder")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
        (place / "thesis.tex").write_bytes(THEIRS)
    elif kind in ("cut", "foreign"):
        place.write_bytes(data[: len(data) // 2] if kind == "cut" else THEIRS)


def seen(folder: Path) -> dict[str, str]:
    """What is in a folder: names, kinds and bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = kind_of(path)
        target = os.readlink(path) if kind == "link" else ""
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if kind == "file" else ""
        found[str(path.relative_to(folder))] = f"{kind} {target}{digest}"
    return found


def put_back(path: Path, place: Path) -> None:
    """Their things are moved away, and the file is as it was."""
    if kind_of(place) == "folder":
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    original = whole() / place.relative_to(path)
    if original.is_dir():
        shutil.copytree(original, place)
    elif original.exists():
        shutil.copy(original, place)


def is_theirs(place: Path, kind: str) -> bool:
    """Whether what is in a place cannot be a file of the run."""
    return kind in ("link", "link to a folder", "pipe", "folder") or "thesis" in place.name or place.name == ".tmp-x"


@pytest.mark.timeout(7200)
def test_anything_in_the_place_of_any_file(reached: Reached) -> None:
    acts = {"resume": resumed, "overwrite": replaced, "load": looked_at}

    @settings(max_examples=cases(100), suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(PLACES), st.sampled_from(KINDS), st.sampled_from(list(acts)))
    def check(where: str, kind: str, act: str) -> None:
        with copied() as path:
            place, elsewhere = path / where, path.parent / "elsewhere"
            put(place, kind, elsewhere)
            outside, inside = seen(elsewhere), seen(path)
            error = outcome(acts[act], path)
            assert seen(elsewhere) == outside
            now = seen(path)
            if is_theirs(place, kind):
                assert {name: now.get(name) for name in inside if name.startswith(where)} == {
                    name: what for name, what in inside.items() if name.startswith(where)
                }
            if error is not None and act == "resume":
                put_back(path, place)
                assert outcome(resumed, path) is None

    check()
    reached(52, "files replaced", cases(100))


# ------------------------------------------------------------------ whose folder it is


def test_a_folder_that_is_no_run_is_not_resumed_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".tmp-x").mkdir(parents=True)
    for name in ("metrics.csv", "result.json", "run.lock", "checkpoints/.tmp-x/thesis.tex"):
        (tmp_path / name).write_bytes(THEIRS)
    before = seen(tmp_path)
    with pytest.raises(MissingInputError):
        RunDirectory.resume(tmp_path)
    with pytest.raises(RunExistsError):
        RunDirectory.create(tmp_path, overwrite=True)
    assert seen(tmp_path) == before


def test_a_folder_with_nothing_but_somebody_s_lock_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_bytes(THEIRS)
    with pytest.raises(RunExistsError):
        RunDirectory.create(tmp_path)
    assert (tmp_path / "run.lock").read_bytes() == THEIRS
    (tmp_path / "run.lock").write_bytes(b" 123\n")  # of a run that had not begun
    RunDirectory.create(tmp_path).close()


def test_runs_of_earlier_versions_are_known(tmp_path: Path) -> None:
    for number, gone in enumerate(([OWN], [OWN, "config.json"])):
        path = Path(shutil.copytree(whole(), tmp_path / str(number)))
        for name in gone:
            (path / name).unlink()
        assert resumed(path) == truth()


def test_a_claimed_folder_may_be_written_again_and_another_s_file_never(tmp_path: Path) -> None:
    claim(tmp_path / "new", "report", ["report.md"])
    (tmp_path / "new" / "report.md").write_text("ours")
    claim(tmp_path / "new", "report", ["report.md"])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "report.md").write_bytes(THEIRS)
    with pytest.raises(OutputDirError, match=r"report\.md"):
        claim(tmp_path / "docs", "report", ["report.md"])
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["report.md"]
