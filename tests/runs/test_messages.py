"""What is refused is refused in one line and one hint, word for word: they are what a user of the command sees."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import pickle  # noqa: TID251  as a thing to refuse
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from offline_vi.errors import (
    CheckpointCorruptError,
    CheckpointWarning,
    CheckpointWriteError,
    ConfigError,
    DeterminismWarning,
    MissingInputError,
    NoCheckpointError,
    OfflineVIError,
    OutputDirError,
    RunExistsError,
    RunLockedError,
    UnsafeCheckpointError,
)
from offline_vi.runs import checkpoint, directory as directory_module, files, tensors as tensors_module
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import read_json, write_json
from offline_vi.runs.logs import CsvLog
from offline_vi.runs.tensors import load_tensors, save_tensors
from offline_vi.training.randomness import random_state, set_random_state

Call = Callable[[], object]


# ------------------------------------------------------------------ runs and their files


def run(name: str = "run", steps: tuple[int, ...] = (1,)) -> Path:
    with RunDirectory.create(name) as directory:
        for step in steps:
            directory.log_metrics({"step": step})
            directory.save(step, {"w": torch.zeros(1)}, {}, {})
    return Path(name)


def file(name: str, data: bytes) -> str:
    Path(name).write_bytes(data)
    return name


def folder(path: str | Path) -> Path:
    """A directory of that name, in the run that holds it if it lies in one."""
    Path(path).mkdir()
    return Path(path) if isinstance(path, str) else path.parents[2]


def link(path: str) -> str:
    os.symlink(path, "link")
    return "link"


def text_tensors() -> str:
    save_tensors("t.safetensors", {"w": torch.zeros(1)})
    return "t.safetensors"


def damaged(name: str, data: bytes | None) -> Path:
    """A run whose only checkpoint has one file replaced, or lost."""
    path = run() / STEP / name
    path.unlink(missing_ok=True)
    if data is not None:
        path.write_bytes(data)
    return Path("run")


def manifest(**changed: Any) -> bytes:
    record: dict[str, Any] = {
        "format": 1,
        "files": {f: {"bytes": 1, "sha256": "0"} for f in ("model.safetensors", "trainer.safetensors", "state.json")},
    }
    return (json.dumps(record | changed, indent=1) + "\n").encode()


def locked() -> object:
    with RunDirectory.create("run"):
        return RunDirectory.resume("run")


def occupied() -> object:
    Path("full").mkdir()
    file("full/a", b"")
    return RunDirectory.create("full")


def taken() -> object:
    run()
    return RunDirectory.create("run")


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return data.getvalue()


STEP = "checkpoints/step_00000001"
STATE_BYTES = 342  # of the smallest state.json, as `run` writes it
PICKLE = "refusing pickle: loading it could run any code"
TRUST = "convert it to safetensors where you trust it"
AGAIN = "copy the run again, or train it anew with --overwrite"
CHECKPOINT = "checkpoint step_00000001: "
RUNS: dict[str, tuple[Call, type[OfflineVIError], str, str]] = {
    "no tensors": (lambda: load_tensors("no"), MissingInputError, "no is not there", ""),
    "no json": (lambda: read_json("no"), MissingInputError, "no is not there", "give the directory of a run"),
    "other hash": (
        lambda: load_tensors(text_tensors(), "0"), CheckpointCorruptError,
        "t.safetensors has not the SHA-256 0", "it was damaged or changed: copy it again",
    ),
    "no safetensors": (
        lambda: load_tensors(file("a", b"text")), CheckpointCorruptError, "a: no safetensors file", "",
    ),
    "long header": (
        lambda: load_tensors(file("a", (4_000_001).to_bytes(8, "little") + b"{" + b" " * 4_000_001)),
        CheckpointCorruptError, "a: header of 4,000,001 bytes, more than 4,000,000", "",
    ),
    "a link": (
        lambda: load_tensors(link(text_tensors())), CheckpointCorruptError,
        f"link: cannot be opened ({os.strerror(errno.ELOOP)})", "",
    ),
    "a folder": (
        lambda: load_tensors(folder("folder")), CheckpointCorruptError, "folder: not a regular file", "",
    ),
    "a folder in a checkpoint": (
        lambda: load_checkpoint(folder(damaged("model.safetensors", None) / STEP / "model.safetensors")),
        CheckpointCorruptError, "checkpoint step_00000001: model.safetensors: not a regular file",
        "copy the run again, or train it anew with --overwrite",
    ),
    "long json": (
        lambda: read_json(file("a", b"x" * 8_000_001)), ConfigError, "a: 8,000,001 bytes, more than 8,000,000", "",
    ),
    "json of NaN": (lambda: read_json(file("a", b'{"a": NaN}')), ConfigError, "a: NaN is no JSON", ""),
    "json of a list": (lambda: read_json(file("a", b"[]")), ConfigError, "a: no JSON object", ""),
    "deep json": (
        lambda: read_json(file("a", b"[" * 200_000)), ConfigError, "a: nested too deeply", "",
    ),
    "a file for a run": (
        lambda: load_checkpoint(text_tensors()), MissingInputError,
        "t.safetensors is a file, not the directory of a run", "",
    ),
    "no run": (lambda: load_checkpoint("no"), MissingInputError, "there is no run no", ""),
    "no run to resume": (
        lambda: RunDirectory.resume("no"), MissingInputError, "there is no run no", "start it without --resume",
    ),
    "no checkpoint": (
        lambda: load_checkpoint(run(steps=())), NoCheckpointError,
        "run holds no checkpoint", "start the run anew with --overwrite",
    ),
    "no manifest": (
        lambda: load_checkpoint(damaged("MANIFEST.json", None)), CheckpointCorruptError,
        f"{CHECKPOINT}MANIFEST.json: missing", AGAIN,
    ),
    "long manifest": (
        lambda: load_checkpoint(damaged("MANIFEST.json", b" " * 1_000_001)), CheckpointCorruptError,
        f"{CHECKPOINT}MANIFEST.json: 1,000,001 bytes, more than 1,000,000", AGAIN,
    ),
    "other format": (
        lambda: load_checkpoint(damaged("MANIFEST.json", manifest(format=2))), CheckpointCorruptError,
        f"{CHECKPOINT}MANIFEST.json: format 2, this version reads 1", AGAIN,
    ),
    "other files": (
        lambda: load_checkpoint(damaged("MANIFEST.json", manifest(files={"b": {}, "a": {}}))), CheckpointCorruptError,
        f"{CHECKPOINT}MANIFEST.json: lists a, b", AGAIN,
    ),
    "other entries": (
        lambda: load_checkpoint(
            damaged("MANIFEST.json", manifest().replace(b'"bytes"', b'"size"', 1))
        ), CheckpointCorruptError, f"{CHECKPOINT}MANIFEST.json: an entry is not of bytes and sha256", AGAIN,
    ),
    "other spaces": (
        lambda: load_checkpoint(damaged("MANIFEST.json", manifest() + b"\n")), CheckpointCorruptError,
        f"{CHECKPOINT}MANIFEST.json: not as it was written", AGAIN,
    ),
    "one file more": (
        lambda: load_checkpoint(damaged("more", b"")), CheckpointCorruptError,
        f"{CHECKPOINT}more: not in the manifest", AGAIN,
    ),
    "one file less": (
        lambda: load_checkpoint(damaged("model.safetensors", None)), CheckpointCorruptError,
        f"{CHECKPOINT}model.safetensors: missing", AGAIN,
    ),
    "longer": (
        lambda: load_checkpoint(damaged("state.json", b" " * 1000)), CheckpointCorruptError,
        f"{CHECKPOINT}state.json: 1,000 bytes, more than {STATE_BYTES}", AGAIN,
    ),
    "shorter": (
        lambda: load_checkpoint(damaged("state.json", b"")), CheckpointCorruptError,
        f"{CHECKPOINT}state.json: 0 bytes, expected {STATE_BYTES}", AGAIN,
    ),
    "other bytes": (
        lambda: load_checkpoint(damaged("state.json", b" " * STATE_BYTES)), CheckpointCorruptError,
        f"{CHECKPOINT}state.json: sha256 mismatch", AGAIN,
    ),
    "not empty": (
        occupied, RunExistsError, "full is not empty and is no run", "choose another --output",
    ),
    "there": (taken, RunExistsError, "the run run exists", "--resume continues it, --overwrite replaces it"),
    "locked": (
        locked, RunLockedError, f"the run run is locked by pid {os.getpid()}",
        "wait for it, or choose another --output",
    ),
    "output is a file": (
        lambda: RunDirectory.create(file("a", b"")), OutputDirError,
        f"a cannot be written ({os.strerror(errno.EEXIST)})", "choose another --output",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RUNS)
def test_runs_are_refused_in_these_words(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, kind, message, hint = RUNS[case]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert (str(caught.value), caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04 and a zip's bytes",
        tar(),
        *(pickle.dumps({"a": 1}, protocol) for protocol in range(6)),
        pickle.dumps([], 0),
        pickle.dumps({}, 0),
        b"l.",
        b"d.",
        pickle.dumps(OSError("x"), 0),
        b"(lp0\n. \n",  # blanks at its end
        b"]q\x00.",
        b"}q\x00.",
    ],
)
def test_a_pickle_is_called_one(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeCheckpointError) as caught:
        load_tensors(file("a.pt", data))
    assert (str(caught.value), caught.value.hint) == (f"a.pt: {PICKLE}", TRUST)


@pytest.mark.parametrize(
    "data",
    [b"", b"PX", b"(", b"d", b"a.", b"ends with a point.", b" (.", b"\x80\x06.", b"\x80x", b"\x00\x01."],
)
def test_other_bytes_are_not(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointCorruptError, match=r"^a: no safetensors file$"):
        load_tensors(file("a", data))


def test_a_state_that_a_hostile_manifest_vouches_for_is_named() -> None:
    good = {"step": 1, "state": {}, "logs": {"m": {"rows": 0, "columns": ["a"]}}}
    whole = "step, state or logs are not what they should be"
    log = "the end of the log 'm' is malformed"
    no_step: tuple[Any, ...] = (1.0, True, None, "1")
    no_object: tuple[Any, ...] = ([], None)
    cases: list[tuple[dict[str, Any], str]] = [({"step": value}, whole) for value in no_step]
    cases += [({name: value}, whole) for name in ("state", "logs") for value in no_object]
    cases += [({"logs": {"m": {"rows": rows, "columns": []}}}, log) for rows in (-1, 1.0, True, None)]
    cases += [({"logs": {"m": {"rows": 0, "columns": names}}}, log) for names in ("ab", [1], ["a", None], None)]
    assert checkpoint.parse_state(json.dumps(good).encode()) == (1, {}, good["logs"])
    for changed, message in cases:
        with pytest.raises(ValueError) as caught:
            checkpoint.parse_state(json.dumps(good | changed).encode())
        assert str(caught.value) == message, changed


def test_what_is_passed_over_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = run(steps=(1, 2))
    (path / "checkpoints" / "step_00000002" / "state.json").write_bytes(b"")
    with pytest.warns(CheckpointWarning) as caught:
        assert load_checkpoint(path).step == 1
    assert [str(warning.message) for warning in caught] == [
        f"checkpoint step_00000002: state.json: 0 bytes, expected {STATE_BYTES}; using step_00000001 instead"
    ]


def test_rows_that_are_gone_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = run(steps=(1, 2))
    (path / "metrics.csv").write_text("step\n1\n")
    with RunDirectory.resume(path) as directory, pytest.warns(CheckpointWarning) as caught:
        directory.latest()
    assert [str(warning.message) for warning in caught] == [
        "metrics.csv has 1 rows, the checkpoint saw 2: the others are lost"
    ]


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (errno.ENOSPC, "no space left (need {need} MB, {free} MB free)"),
        (errno.EDQUOT, "no space left (need {need} MB, the quota is used up)"),
        (errno.EFBIG, "no space left (need {need} MB, more than a file of this process may have)"),
        (errno.EACCES, f"cannot write ({os.strerror(errno.EACCES)})"),
    ],
)
def test_who_cannot_write_is_told_why(code: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every door to the disk: tensors, JSON, a row, a checkpoint; need is what was to be written."""
    directory = RunDirectory.create(tmp_path / "run")
    directory.log_metrics({"a": 1})

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    tensors = {"w": torch.zeros(1_000_000)}
    doors: list[tuple[Call, Path, float]] = [
        (lambda: save_tensors(tmp_path / "t", tensors), tmp_path, 4.0),
        (lambda: write_json(tmp_path / "j", {"a": "x" * 2_000_000}), tmp_path, 2.0),
        (lambda: directory.log_metrics({"a": 2}), directory.path, 0.0),
        (lambda: directory.save(1, tensors, tensors, {}), directory.path / "checkpoints", 8.0),
    ]
    for module in (directory_module, files, tensors_module):
        for name in ("write_new", "replace_file", "sync_folder"):
            monkeypatch.setattr(module, name, refuse, raising=False)
    monkeypatch.setattr(os, "write", refuse)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 12_340_000}))
    for call, folder, need in doors:
        with pytest.raises(CheckpointWriteError) as caught:
            call()
        assert str(caught.value) == f"{folder}: {what.format(need=f'{need:.1f}', free='12.3')}"
        assert caught.value.hint.startswith("what was saved before is intact; ")
        assert ("ulimit -f" in caught.value.hint) == (code == errno.EFBIG)
    directory.close()


def test_a_row_that_the_disk_takes_half_of_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CsvLog(tmp_path / "log.csv")
    log.append({"a": 1, "b": 2})
    before, whole = log.path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:2]))
    with pytest.raises(CheckpointWriteError, match="no space left"):
        log.append({"a": 33, "b": 44})
    assert log.path.read_bytes() == before and log.rows == 1
    monkeypatch.undo()
    log.append({"b": 5})
    assert log.path.read_bytes() == b"a,b\n1,2\n,5\n"
    assert log.read() == [{"a": 1, "b": 2}, {"b": 5}]


def test_a_generator_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is here is set, by its own name: with a CUDA that is only said to be there."""
    tensors, state = random_state()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(DeterminismWarning) as caught:
        set_random_state(tensors | {"cuda:0": torch.zeros(1)}, state)
    assert [str(warning.message) for warning in caught] == ["cuda:0 is not here: what it draws will differ"]

    told: list[tuple[Any, Any]] = []
    states = [torch.ones(1), torch.full((1,), 2.0)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda value, device: told.append((value, device)))
    tensors, state = random_state()
    assert set(tensors) == {"cpu", "cuda:0", "cuda:1"}
    set_random_state(tensors, state)
    assert told == [(states[0], "cuda:0"), (states[1], "cuda:1")]
    with pytest.warns(DeterminismWarning, match="cuda:2"):
        set_random_state(tensors | {"cuda:2": states[0]}, state)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert set(random_state()[0]) == {"cpu"}


def test_a_lock_without_a_number_has_an_unknown_owner(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run"):
        pass
    with open(tmp_path / "run" / "run.lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        with pytest.raises(RunLockedError, match="locked by pid unknown"):
            RunDirectory.resume(tmp_path / "run")
