"""Every reader of a file from outside, under damaged and invented input: it answers, or raises an error of ours.

``tests/corpus/TARGET/`` holds where the mutations begin, and what once went wrong. $HYPOTHESIS_PROFILE=nightly tries a
hundred times as often.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from works import rows

from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.behavior.pretrained import read_card
from offline_vi.datasets import d4rl
from offline_vi.datasets.minari_metadata import observation_keys, read_metadata, space_in, task_in, total_episodes
from offline_vi.datasets.safe.hdf5 import Budget, arrays_of, open_hdf5
from offline_vi.errors import CheckpointCorruptError, CheckpointWarning, NoCheckpointError, OfflineVIError
from offline_vi.nn.description import rebuild
from offline_vi.runs import checkpoint
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import read_json
from offline_vi.runs.tensors import load_tensors
from offline_vi.study.kept import read_config
from offline_vi.study.run import with_steps
from offline_vi.study.suite import read_suite
from offline_vi.study.train import parse_options
from offline_vi.study.verbs import read_saved, subject_of, verb_of
from offline_vi.training.loop import fit
from offline_vi.types import Spec, Task

CORPUS = Path(__file__).parents[1] / "corpus"
STATE = {"step": 5, "logs": {"metrics.csv": {"columns": [], "rows": 0}}, "state": {"counter": 5}}


def hdf5(path: Path) -> None:
    """Structure only: what is read is read by a child elsewhere (test_hostile_data.py)."""
    with open_hdf5(path) as file:
        budget = Budget(path)
        arrays = arrays_of(file, path, d4rl.TOP_LEVEL)
        for key, array in arrays.items():
            budget.admit(array, key)


def metadata(path: Path) -> None:
    record = read_metadata(path)
    actions: Any = space_in(record, "action_space", "fuzz")
    keys = observation_keys(space_in(record, "observation_space", "fuzz"), (), "fuzz")
    total_episodes(record, "fuzz")
    if isinstance(actions, gymnasium.spaces.Box):
        task_in(record, "fuzz", actions, keys, None)


def space(path: Path) -> None:
    space_in({"observation_space": path.read_text(errors="replace")}, "observation_space", "fuzz")


def manifest(path: Path) -> None:
    folder = whole_run(path.parent / "run")
    shutil.copy(path, folder / "MANIFEST.json")
    load_checkpoint(path.parent / "run")


def state(path: Path) -> None:
    """A state.json that its manifest vouches for."""
    folder = whole_run(path.parent / "run")
    names = ("model.safetensors", "trainer.safetensors")
    files = {name: (folder / name).read_bytes() for name in names} | {"state.json": path.read_bytes()}
    (folder / "state.json").write_bytes(files["state.json"])
    (folder / "MANIFEST.json").write_bytes(checkpoint.manifest_bytes(files))
    with RunDirectory.resume(path.parent / "run") as run:
        run.latest()


def whole_run(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    with RunDirectory.create(path) as run:
        return run.save(5, {"w": torch.zeros(2)}, {}, {"counter": 5})


def tensors(path: Path) -> None:
    load_tensors(path)


def configuration(path: Path) -> None:
    """What `train --config`, `resume` and `offline_vi.load` make of config.json."""
    record = read_json(path)
    if isinstance(record.get("task"), dict):
        with suppress(KeyError, TypeError):  # told by whoever reads it
            Task.from_json(record["task"])
    with suppress(OfflineVIError):
        rebuild(read_config(path.parent).agent)
    saved = read_saved(str(path), "train")
    subject_of(saved, verb_of("train"))
    parse_options("bcq", with_steps(saved, 1_000), [])


def suite(path: Path) -> None:
    read_suite(str(path))


def card(path: Path) -> None:
    shutil.copy(path, path.parent / "card.json")
    read_card(path.parent)


TARGETS: dict[str, tuple[Callable[[Path], None], str]] = {
    "hdf5": (hdf5, "file.hdf5"),
    "metadata": (metadata, "metadata.json"),
    "space": (space, "space.json"),
    "manifest": (manifest, "manifest.json"),
    "state": (state, "state.json"),
    "tensors": (tensors, "model.safetensors"),
    "configuration": (configuration, "config.json"),
    "suite": (suite, "suite.toml"),
    "card": (card, "card-of-a-model.json"),
}


def seeds(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def feed(target: str, folder: Path, data: bytes) -> None:
    """Only an error of ours may come out."""
    read, name = TARGETS[target]
    (folder / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(OfflineVIError):
            read(folder / name)


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A file of the corpus with some bytes changed, cut, doubled or put in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["bit", "byte", "cut", "double", "insert", "drop"])):
            case "bit" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if data:
                data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, ord('"'), ord("["), ord("{"), ord("\\")]))
            case "cut":
                del data[at:]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "drop":
                del data[at : at + draw(st.integers(1, 8))]
    return bytes(data)


ODD: list[Any] = [None, True, 0, -1, 1 << 70, 0.5, 1e308, "", "x", [], {}, [[]], {"a": 1}, [-1], ["x"], "1e400"]


@st.composite
def rewritten(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """JSON of the corpus with one value in it replaced by something odd."""
    record = json.loads(draw(st.sampled_from(originals)))
    node = record
    while True:
        keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and draw(st.booleans()):
            node = node[key]
            continue
        node[key] = draw(st.sampled_from(ODD))
        break
    return json.dumps(record).replace('"1e400"', "1e400").encode()


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_and_what_once_went_wrong(target: str, tmp_path: Path) -> None:
    assert seeds(target)
    for data in seeds(target):
        feed(target, tmp_path, data)


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_bytes(target: str, tmp_path: Path) -> None:
    @settings(suppress_health_check=list(HealthCheck))
    @given(damaged(seeds(target)))
    @example(b"")
    def check(data: bytes) -> None:
        feed(target, tmp_path, data)

    check()


def is_json(data: bytes) -> bool:
    try:
        return len(data) < 100_000 and isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


@pytest.mark.parametrize("target", ["metadata", "space", "manifest", "state", "configuration", "card"])
def test_odd_values(target: str, tmp_path: Path) -> None:
    originals = [data for data in seeds(target) if is_json(data)]

    profile = settings().max_examples
    examples = profile // 4 if target == "configuration" else profile  # it asks tyro each time

    @settings(suppress_health_check=list(HealthCheck), max_examples=examples)
    @given(rewritten(originals))
    def check(data: bytes) -> None:
        feed(target, tmp_path, data)

    check()


# ------------------------------------------------------------------ a life: train, save, kill, corrupt, resume


OPTIONS: dict[str, Any] = {"seed": 1, "log_every": 2, "save_every": 2, "progress": False}


def fresh() -> TD3BC:
    torch.manual_seed(0)
    return TD3BC(Spec((3,), 2), TD3BCConfig(hidden=(4,), batch_size=4))


@cache
def truth() -> dict[int, bytes]:
    """Step -> weights of a run that nothing ever happened to."""
    found = {}
    for step in range(1, 13):
        algorithm = fresh()
        fit(algorithm, rows(50), step, **OPTIONS)
        found[step] = weights(algorithm)
    return found


class Life(RuleBasedStateMachine):
    """Whatever happens to a run, what is loaded from it is what was saved at that step, or an error says why not."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="life-"))
        self.path = self.folder / "run"
        self.truth = truth()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(more=st.integers(1, 4))
    def train(self, more: int) -> None:
        """Go on for some steps, from whatever is there."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)
            with RunDirectory.resume(self.path) if self.path.is_dir() else RunDirectory.create(self.path) as run:
                try:
                    start = run.latest().step
                except NoCheckpointError:
                    start = 0
                except CheckpointCorruptError:
                    return  # all are damaged: said so, nothing done
                steps = min(start + more, 12)
                algorithm = fresh()
                fit(algorithm, rows(50), steps, run=run, resume=start > 0, **OPTIONS)
                if steps > start:
                    assert weights(algorithm) == self.truth[steps]

    @rule()
    @precondition(lambda self: self.path.is_dir())
    def killed_while_saving(self) -> None:
        """What a dead writer leaves behind."""
        leftover = self.path / "checkpoints" / f".tmp-1-{0:032x}"
        leftover.mkdir(exist_ok=True)
        (leftover / "model.safetensors").write_bytes(b"half")
        with (self.path / "metrics.csv").open("ab") as file:
            file.write(b"99,0.")

    @rule(which=st.integers(0, 7), at=st.floats(0, 0.999), cut=st.booleans())
    @precondition(lambda self: bool(list(self.path.glob("checkpoints/step_*/*"))))
    def corrupt(self, which: int, at: float, cut: bool) -> None:
        files = sorted(self.path.glob("checkpoints/step_*/*"), reverse=True)
        file = files[which % len(files)]
        data = bytearray(file.read_bytes())
        if data:
            place = int(at * len(data))
            data[place] ^= 1
            file.write_bytes(data[:place] if cut else data)

    @invariant()
    def what_loads_is_right(self) -> None:
        if not self.path.is_dir():
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)
            try:
                found = load_checkpoint(self.path)
            except (CheckpointCorruptError, NoCheckpointError):
                return
        algorithm = fresh()
        algorithm.restore({**found.model})
        assert weights(algorithm) == self.truth[found.step]
        assert torch.isfinite(algorithm.act(torch.zeros(1, 3))).all()


def weights(algorithm: TD3BC) -> bytes:
    return b"".join(tensor.numpy().tobytes() for _, tensor in sorted(algorithm.state_dict().items()))


def test_a_life_of_kills_and_damage() -> None:
    runs = settings(max_examples=8, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Life, settings=runs)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_lives() -> None:
    runs = settings(max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Life, settings=runs)
