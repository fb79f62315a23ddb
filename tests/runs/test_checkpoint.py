"""The run directory, killed, damaged, attacked, raced for: what is read is whole, or an error names the file."""

from __future__ import annotations

import io
import json
import multiprocessing as mp
import os
import pickle  # noqa: TID251  (to make the attack)
import random
import resource
import shutil
import stat
import struct
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offline_vi.datasets.safe.hdf5 import half_of_memory
from offline_vi.errors import (
    CheckpointCorruptError,
    CheckpointWarning,
    CheckpointWriteError,
    ConfigError,
    MissingInputError,
    NoCheckpointError,
    OutputDirError,
    RunExistsError,
    RunLockedError,
    UnsafeCheckpointError,
)
from offline_vi.runs import checkpoint as module
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import read_json
from offline_vi.runs.tensors import load_tensors, save_tensors
from offline_vi.training.randomness import random_state, set_random_state

Reached = Callable[[int, str, int], None]
FILES = ("model.safetensors", "trainer.safetensors", "state.json", "MANIFEST.json")
fork = mp.get_context("fork")


def write(run: RunDirectory, step: int, **options: int) -> Path:
    """A checkpoint whose every part tells its step."""
    return run.save(
        step,
        {"weight": torch.full((3, 4), float(step)), "scalar": torch.tensor(step)},
        {"opt.0.exp_avg": torch.full((5,), -float(step))},
        {"counter": step, "rng": np.random.PCG64(step).state},
        **options,
    )


def check(checkpoint: module.Checkpoint) -> int:
    """All parts belong to one step, which is returned."""
    step = checkpoint.step
    assert torch.equal(checkpoint.model["weight"], torch.full((3, 4), float(step)))
    assert torch.equal(checkpoint.model["scalar"], torch.tensor(step))
    assert torch.equal(checkpoint.trainer["opt.0.exp_avg"], torch.full((5,), -float(step)))
    assert checkpoint.state == {"counter": step, "rng": np.random.PCG64(step).state}
    return step


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A run with checkpoints at steps 10 and 20."""
    path = tmp_path / "run"
    with RunDirectory.create(path) as run:
        write(run, 10)
        write(run, 20)
    return path


def test_round_trip_pruning_and_latest(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run") as run:
        for step in (1, 2, 3, 123_456_789):
            write(run, step, keep=2)
        assert check(run.latest()) == 123_456_789
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["LATEST", "step_00000003", "step_123456789"]
    assert (folder / "LATEST").read_text() == "step_123456789\n"
    assert check(load_checkpoint(tmp_path / "run")) == 123_456_789


def test_a_step_saved_twice_holds_what_was_saved_last(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path) as run:
        for value in (1.0, 2.0, 3.0):
            run.save(5, {"w": torch.tensor(value)}, {}, {}, keep=1)
        assert run.latest().model["w"] == 3.0
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["LATEST", "step_00000005"]


class Killed(BaseException):
    """Stands for SIGKILL at one call of the system."""


@pytest.mark.parametrize("step", [20, 10])
def test_kill_at_every_system_call_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """From the first call to the last, the newest complete checkpoint can be read: the old one, then the new one."""
    names = ("open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir")
    seen: list[int] = []
    for k in range(1, 500):
        path = tmp_path / str(k)
        run = RunDirectory.create(path)
        write(run, 10, keep=1)
        run.log_metrics({"step": 10})
        calls = 0

        def counted(real: Callable[..., Any], k: int = k) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls >= k:  # the dead make no calls: no cleaning up either
                    raise Killed
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in names:
                patch.setattr(os, name, counted(getattr(os, name)))
            patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
            try:
                write(run, step, keep=1)
                finished = True
            except Killed:
                finished = False
        seen.append(check(load_checkpoint(path)))
        run.close()
        with RunDirectory.resume(path) as again:
            assert check(again.latest()) == seen[-1]
            assert not list(path.rglob(".tmp-*"))
            write(again, 30)
            assert check(again.latest()) == 30
        if finished:
            break
    assert finished
    assert len(seen) > 30
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (10, step)


def test_bit_flips_and_cuts_are_never_loaded(two: Path, reached: Reached) -> None:
    """200 flips and 200 cuts of the newest checkpoint: each is named, and the older one is used."""
    rng = random.Random(0)
    newest = two / "checkpoints" / "step_00000020"
    intact = {name: (newest / name).read_bytes() for name in FILES}
    for trial in range(400):
        name = FILES[trial % 4]
        data = bytearray(intact[name])
        if trial < 200:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            data = data[: rng.randrange(len(data))]
        (newest / name).write_bytes(data)
        told = "step_00000020: " if name == "MANIFEST.json" else name  # a flipped hash there accuses the file it is of
        with pytest.warns(CheckpointWarning, match=told):
            assert check(load_checkpoint(two)) == 10
        (newest / name).write_bytes(intact[name])
    assert check(load_checkpoint(two)) == 20
    reached(6, "flips refused", 200)
    reached(7, "cuts refused", 200)


@pytest.mark.slow
def test_many_more_flips_are_never_loaded(two: Path, reached: Reached) -> None:
    """5,000 flips, also of several bits at once."""
    shutil.rmtree(two / "checkpoints" / "step_00000010")
    rng = random.Random(1)
    newest = two / "checkpoints" / "step_00000020"
    intact = {name: (newest / name).read_bytes() for name in FILES}
    for trial in range(5_000):
        name = FILES[trial % 4]
        data = bytearray(intact[name])
        for bit in rng.sample(range(8 * len(data)), 1 + trial // 4 % 2):
            data[bit // 8] ^= 1 << bit % 8
        (newest / name).write_bytes(data)
        with pytest.raises((CheckpointCorruptError, UnsafeCheckpointError)):
            load_checkpoint(two)
        (newest / name).write_bytes(intact[name])
    assert check(load_checkpoint(two)) == 20
    reached(6, "flips refused in the slow test", 5_000)


def test_every_bit_of_the_manifest_counts(two: Path) -> None:
    """The one file that nothing else hashes."""
    shutil.rmtree(two / "checkpoints" / "step_00000010")
    path = two / "checkpoints" / "step_00000020" / "MANIFEST.json"
    intact = path.read_bytes()
    for bit in range(8 * len(intact)):
        data = bytearray(intact)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(CheckpointCorruptError, match=r"MANIFEST|bytes, expected|bytes, more than|sha256 mismatch"):
            load_checkpoint(two)


def edit_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        record = json.loads((folder / "MANIFEST.json").read_text())
        change(record)
        (folder / "MANIFEST.json").write_text(json.dumps(record, indent=1) + "\n")

    return apply


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing file": (lambda p: (p / "state.json").unlink(), "state.json: missing"),
    "missing manifest": (lambda p: (p / "MANIFEST.json").unlink(), "MANIFEST.json: missing"),
    "extra file": (lambda p: (p / "extra.bin").write_bytes(b"x"), "extra.bin: not in the manifest"),
    "other version": (edit_manifest(lambda r: r.update(format=2)), "MANIFEST.json: format 2, this version reads 1"),
    "another layout": (lambda p: (p / "MANIFEST.json").write_text(" " + (p / "MANIFEST.json").read_text()), "MANIFEST"),
    "no files": (edit_manifest(lambda r: r.pop("files")), "MANIFEST.json"),
    "files is a list": (edit_manifest(lambda r: r.update(files=[])), "MANIFEST.json"),
    "entry without hash": (edit_manifest(lambda r: r["files"]["state.json"].pop("sha256")), "MANIFEST.json"),
    "sizes are text": (edit_manifest(lambda r: r["files"]["state.json"].update(bytes="9")), "state.json"),
    "path outside": (edit_manifest(lambda r: r["files"].update({"../x": {}})), "MANIFEST.json"),
    "deep manifest": (lambda p: (p / "MANIFEST.json").write_text('{"a":' * 100_000), "MANIFEST.json: nested"),
    "long manifest": (lambda p: (p / "MANIFEST.json").write_bytes(b" " * 2_000_000), "MANIFEST.json: 2,000,000 bytes"),
    "longer file": (lambda p: (p / "state.json").write_bytes(b" " * 99_999), "state.json: 99,999 bytes"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(two: Path, case: str) -> None:
    harm, message = DAMAGE[case]
    harm(two / "checkpoints" / "step_00000020")
    with pytest.warns(CheckpointWarning, match=f"step_00000020: {message}"):
        assert check(load_checkpoint(two)) == 10
    harm(two / "checkpoints" / "step_00000010")
    with pytest.raises(CheckpointCorruptError, match=f"step_00000020: {message}"):
        load_checkpoint(two)


def test_links_and_pipes_are_refused_without_waiting(two: Path, tmp_path: Path) -> None:
    folder = two / "checkpoints" / "step_00000020"
    (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(CheckpointWarning, match=r"model\.safetensors"):
        assert check(load_checkpoint(two)) == 10
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.warns(CheckpointWarning, match="not a regular file"):
        assert check(load_checkpoint(two)) == 10


def test_resume_sets_damaged_checkpoints_aside_and_saves_over_their_steps(two: Path) -> None:
    (two / "checkpoints" / "step_00000020" / "state.json").write_bytes(b"{}")
    with RunDirectory.resume(two) as run:
        with pytest.warns(CheckpointWarning, match=r"state\.json"):
            assert check(run.latest()) == 10
        write(run, 20)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert check(run.latest()) == 20
    assert (two / "checkpoints" / "damaged-step_00000020").is_dir()


# ------------------------------------------------------------------ hostile files


def tensors_file(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> bytes:
    return json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


HOSTILE = {
    "empty": b"",
    "seven bytes": b"1234567",
    "no header": tensors_file(b"", length=0),
    "length beyond the file": tensors_file(b"{}", length=1 << 62),
    "length of 100 MB, sparse": tensors_file(b"{" + b" " * 100_000_000),
    "no JSON": tensors_file(b"{" + b"\xff" * 40),
    "deep JSON": tensors_file(b'{"a":' * 500_000),
    "offsets beyond the file": tensors_file(entry(shape=[1 << 40], offsets=[0, 1 << 42])),
    "offsets reversed": tensors_file(entry(offsets=[4, 0]), b"1234"),
    "negative offsets": tensors_file(entry(offsets=[-4, 0]), b"1234"),
    "shape overflows": tensors_file(entry(shape=[1 << 62, 1 << 62], offsets=[0, 4]), b"1234"),
    "empty and huge": tensors_file(entry(shape=[1 << 62, 1 << 62, 0], offsets=[0, 0])),
    "unknown type": tensors_file(entry(dtype="F4096"), b"1234"),
    "bytes left over": tensors_file(entry(), b"12345678"),
    "hole": tensors_file(entry(offsets=[4, 8]), b"12345678"),
    "header is a list": tensors_file(b"[]"),
}


def attack(path: Path, answer: Any) -> None:
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    try:
        load_tensors(path)
        name = "loaded"
    except CheckpointCorruptError:
        name = "corrupt"
    answer.send((name, time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base))


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tensor_files_are_refused_fast_and_small(tmp_path: Path, case: str, reached: Reached) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[case])
    ours, theirs = fork.Pipe()
    child = fork.Process(target=attack, args=(path, theirs))
    child.start()
    assert ours.poll(20), "it hangs"
    name, seconds, kilobytes = ours.recv()
    child.join()
    assert name == "corrupt"
    assert seconds < 1.0
    assert kilobytes < 200_000
    reached(8, "headers refused", 1)


def test_mutated_tensor_files_raise_our_error_or_load(tmp_path: Path, reached: Reached) -> None:
    rng = random.Random(1)
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.uint8)})
    intact = path.read_bytes()
    for _ in range(2_000):
        data = bytearray(intact)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        with suppress(CheckpointCorruptError, UnsafeCheckpointError):
            load_tensors(path)
    reached(8, "mutations without a crash", 2_000)


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def containers(payload: Payload) -> dict[str, bytes]:
    zipped, tarred = io.BytesIO(), io.BytesIO()
    raw = pickle.dumps(payload)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", raw)
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        member = tarfile.TarInfo("pickle")
        member.size = len(raw)
        tar.addfile(member, io.BytesIO(raw))
    bare = {f"pickle protocol {number}": pickle.dumps(payload, number) for number in (0, 2, 5)}
    return {"zip": zipped.getvalue(), "tar": tarred.getvalue(), **bare}


@pytest.mark.parametrize("kind", ["zip", "tar", "pickle protocol 0", "pickle protocol 2", "pickle protocol 5"])
def test_pickles_are_refused_and_do_not_run(two: Path, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "executed"
    data = containers(Payload(marker))[kind]
    (tmp_path / "policy.pt").write_bytes(data)
    for load in (load_tensors, load_checkpoint):
        with pytest.raises(UnsafeCheckpointError, match="refusing pickle"):
            load(tmp_path / "policy.pt")
    folder = two / "checkpoints" / "step_00000020"  # and inside a checkpoint whose manifest vouches for it
    files = {name: (folder / name).read_bytes() for name in FILES[1:3]} | {"model.safetensors": data}
    (folder / "model.safetensors").write_bytes(data)
    (folder / "MANIFEST.json").write_bytes(module.manifest_bytes(files))
    with pytest.raises(UnsafeCheckpointError, match="refusing pickle"):
        load_checkpoint(two)
    assert not marker.exists()
    if kind.startswith("pickle"):  # the payload is live
        pickle.loads(data)  # noqa: S301
        assert marker.exists()


# ------------------------------------------------------------------ disk, permissions, lock


def fill(run: RunDirectory) -> None:
    for _ in range(40_000):
        run.log_metrics({"step": 10**60})


def save_under_limit(path: Path, limit: int, answer: Any) -> None:
    run = RunDirectory.resume(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    outcomes = []
    attempts: tuple[Callable[[], object], ...] = (
        lambda: run.save(30, {"w": torch.zeros(500_000)}, {}, {}),
        lambda: run.save(30, {}, {"w": torch.zeros(500_000)}, {}),
        lambda: run.save(30, {}, {}, {"text": "x" * 2_000_000}),
        lambda: run.write_json("result.json", {"text": "x" * 2_000_000}),
        lambda: fill(run),
        lambda: save_tensors(path / "weights.safetensors", {"w": torch.zeros(500_000)}),
    )
    for attempt in attempts:
        try:
            attempt()
            outcomes.append("written")
        except CheckpointWriteError as error:
            outcomes.append(str(error))
    answer.send(outcomes)


@pytest.mark.parametrize("limit", [1_000, 65_536, 1_000_000])
def test_disk_full_leaves_everything_as_it_was(two: Path, limit: int, reached: Reached) -> None:
    with RunDirectory.resume(two) as run:
        run.write_json("result.json", {"old": True})
    ours, theirs = fork.Pipe()
    child = fork.Process(target=save_under_limit, args=(two, limit, theirs))
    child.start()
    assert ours.poll(60)
    outcomes = ours.recv()
    child.join()
    assert all("no space left (need " in outcome for outcome in outcomes), outcomes
    assert "need 2.0 MB" in outcomes[0]
    assert not list(two.rglob(".tmp-*"))
    assert check(load_checkpoint(two)) == 20
    assert read_json(two / "result.json") == {"old": True}
    assert set((two / "metrics.csv").read_text().splitlines()) == {"step", str(10**60)}
    assert not (two / "weights.safetensors").exists()
    reached(4, "writers at three sizes, nothing damaged", len(outcomes))


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "run", tmp_path / "file", Path("/proc/run")):
        with pytest.raises(OutputDirError) as caught:
            RunDirectory.create(path)
        assert caught.value.exit_code == 73


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OutputDirError):
        RunDirectory.create(tmp_path / "run")


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with RunDirectory.create(tmp_path / "run") as run:
            folder = write(run, 1)
            run.write_json("run.json", {})
    finally:
        os.umask(before)
    for path in (*folder.iterdir(), tmp_path / "run" / "run.json", tmp_path / "run" / "checkpoints" / "LATEST"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_existing_run_is_kept_resumed_or_replaced(two: Path, tmp_path: Path) -> None:
    with pytest.raises(RunExistsError) as caught:
        RunDirectory.create(two)
    assert "--resume" in caught.value.hint
    with RunDirectory.resume(two) as run:
        assert check(run.latest()) == 20
    with RunDirectory.create(two, overwrite=True) as run, pytest.raises(NoCheckpointError):
        run.latest()
    with pytest.raises(MissingInputError):
        RunDirectory.resume(tmp_path / "nothing")
    with pytest.raises(MissingInputError):
        load_checkpoint(tmp_path / "nothing")


def test_overwrite_never_empties_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunExistsError, match="no run"):
        RunDirectory.create(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_overwrite_does_not_follow_links(two: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kept").touch()
    (two / "link").symlink_to(tmp_path / "data")
    with pytest.raises(RunExistsError, match="link"):
        RunDirectory.create(two, overwrite=True)
    assert (tmp_path / "data" / "kept").exists()
    assert (two / "link").is_symlink()


def race(path: Path, start: Event, stop: Event, answers: Any) -> None:
    start.wait()
    try:
        with RunDirectory.create(path):
            answers.put(("won", os.getpid()))
            stop.wait()
    except (RunLockedError, RunExistsError) as error:
        answers.put((str(error), os.getpid()))


def test_twenty_processes_one_winner(tmp_path: Path, reached: Reached) -> None:
    start, stop, answers = fork.Event(), fork.Event(), fork.Queue()
    arguments = (tmp_path / "run", start, stop, answers)
    children = [fork.Process(target=race, args=arguments, daemon=True) for _ in range(20)]
    for child in children:
        child.start()
    start.set()
    told = [answers.get(timeout=60) for _ in children]
    try:
        with pytest.raises(RunLockedError, match="locked by pid") as caught:
            RunDirectory.resume(tmp_path / "run")
    finally:
        stop.set()
    for child in children:
        child.join()
    winners = [pid for text, pid in told if text == "won"]
    assert len(winners) == 1
    assert str(winners[0]) in str(caught.value)
    assert caught.value.exit_code == 75
    RunDirectory.resume(tmp_path / "run").close()  # the lock died with its holder
    reached(30, "processes", 20)


def test_a_system_without_the_flags_of_links_pipes_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: nothing is opened with them, folders are not opened at all, links are refused all the same, and
    nobody else can read the byte that is locked."""
    for name in ("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "sysconf", "pread", "pwrite"):
        monkeypatch.delattr(os, name)
    read = os.read

    def read_unlocked(descriptor: int, size: int) -> bytes:
        if os.lseek(descriptor, 0, os.SEEK_CUR) == 0 and size == 32:
            raise PermissionError("the byte is locked")
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", read_unlocked)
    with RunDirectory.create(tmp_path / "run") as run:
        write(run, 10)
        run.log_metrics({"step": 10})
        with pytest.raises(RunLockedError, match=f"locked by pid {os.getpid()}"):
            RunDirectory.resume(tmp_path / "run")
    with RunDirectory.resume(tmp_path / "run") as run:
        assert check(run.latest()) == 10
    (tmp_path / "link.json").symlink_to(tmp_path / "run" / "run.lock")
    with pytest.raises(ConfigError, match=r"link\.json"):
        read_json(tmp_path / "link.json")
    assert half_of_memory() == 4 << 30


def test_of_two_at_once_one_wins(tmp_path: Path, reached: Reached) -> None:
    for number in range(50):
        start, stop, answers = fork.Event(), fork.Event(), fork.Queue()
        arguments = (tmp_path / str(number), start, stop, answers)
        children = [fork.Process(target=race, args=arguments, daemon=True) for _ in range(2)]
        for child in children:
            child.start()
        start.set()
        told = [answers.get(timeout=60)[0] for _ in children]
        stop.set()
        for child in children:
            child.join()
        assert told.count("won") == 1, told
        reached(29, "races won by exactly one", 1)


# ------------------------------------------------------------------ logs and JSON


def test_logs_are_cut_back_to_the_checkpoint_byte_for_byte(tmp_path: Path) -> None:
    """Also where a column appeared after it, and where a kill left half a line."""
    with RunDirectory.create(tmp_path) as run:
        run.log_metrics({"step": 1, "loss": 0.1 + 0.2})
        run.log_metrics({"step": 2, "loss": float("nan")})
        run.log_episode({"step": 2, "env_id": 'a,"b', "return": np.float64(1 / 3)})
        write(run, 2)
        before = {name: (tmp_path / name).read_bytes() for name in ("metrics.csv", "episodes.csv")}
        run.log_metrics({"step": 3, "late": 1.5})
        run.log_episode({"step": 3})
        assert run.read_metrics()[2] == {"step": 3, "late": 1.5}
        assert "late" not in run.read_metrics()[0]
    with open(tmp_path / "metrics.csv", "ab") as file:
        file.write(b"4,0.")
    with RunDirectory.resume(tmp_path) as run:
        assert len(run.read_metrics()) == 3
        run.latest()
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
        assert run.read_episodes() == [{"step": 2, "env_id": 'a,"b', "return": 1 / 3}]
        run.log_metrics({"step": 3, "loss": 1.0})
    assert (tmp_path / "metrics.csv").read_text() == "step,loss\n1,0.30000000000000004\n2,nan\n3,1.0\n"


def test_a_run_without_checkpoint_starts_over_with_empty_logs(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path) as run:
        run.log_metrics({"step": 1})
    with RunDirectory.resume(tmp_path) as run:
        assert run.read_metrics() == []
        with pytest.raises(NoCheckpointError):
            run.latest()


def test_lost_log_lines_are_told(two: Path) -> None:
    with RunDirectory.resume(two) as run:
        run.log_metrics({"step": 1})
        write(run, 30)
        (two / "metrics.csv").unlink()
        with pytest.warns(CheckpointWarning, match=r"metrics.csv has 0 rows, the checkpoint saw 1"):
            run.latest()


def test_json_files(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path) as run:
        run.write_json("result.json", {"score": float("nan"), "curve": [1.0, float("inf")], "name": "ü"})
        assert run.read_json("result.json") == {"score": None, "curve": [1.0, None], "name": "ü"}
        for bad in (b"", b"[]", b'{"a": NaN}', b"{" * 100_000, b'{"a":' * 100_000, b"\xff", b" " * 1_000_001):
            (tmp_path / "config.json").write_bytes(bad)
            with pytest.raises(ConfigError, match=r"config\.json"):
                run.read_json("config.json")
        with pytest.raises(MissingInputError):
            run.read_json("nothing.json")


def test_random_states_go_on_where_they_were() -> None:
    python = random.getstate()
    tensors, state = random_state()
    state = json.loads(json.dumps(state))
    expected = torch.randn(5), random.gauss(0, 1)
    torch.randn(3)
    random.random()
    set_random_state(tensors, state)
    assert torch.equal(torch.randn(5), expected[0])
    assert random.gauss(0, 1) == expected[1]
    random.setstate(python)


def test_tensors_that_share_memory_and_odd_shapes_survive(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    given = {"a": base, "b": base[::2], "none": torch.zeros(0, 3), "flag": torch.tensor(True), "t": base.view(2, 3).T}
    save_tensors(tmp_path / "x.safetensors", given)
    found = load_tensors(tmp_path / "x.safetensors")
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
