"""Exported policies do what their agents do, in a process that cannot import the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from agents import built, small_choice
from torch import Tensor

import offline_vi as ovi
from offline_vi import registry
from offline_vi.algorithms.latent_planning import LatentPlanning
from offline_vi.algorithms.soft_q import DiscreteSAC
from offline_vi.deployment import FORMATS, Acting, trial
from offline_vi.deployment.acting import ready_to_trace
from offline_vi.deployment.formats import erfinv, quiet
from offline_vi.errors import CapabilityError, ExportError, OutputDirError, UsageError
from offline_vi.rl.algorithm import Algorithm, set_task
from offline_vi.rl.states import KnownStates
from offline_vi.study import export as exporting
from offline_vi.types import Batch, Metrics, Spec, Task

SPEC = Spec((5,), 2)
TASK = Task("", (-2.0, 0.0), (2.0, 5.0))
HALF = np.array([2.0, 2.5])
ROWS = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
AGENTS = [*registry.trainable(), "emaq/mixture", "emaq/flow-matching", "emaq/least-squares", "bcq/gaussian"]


def agent_of(name: str, spec: Spec = SPEC) -> Algorithm:
    """A small agent, e.g. "emaq/mixture": an algorithm on a behavior model, on observations that it normalizes."""
    algorithm, _, behavior = name.partition("/")
    torch.manual_seed(0)
    agent: Algorithm = built(small_choice(algorithm, spec, behavior=behavior), spec).eval()
    set_task(agent, TASK)
    return agent


def written(agent: Algorithm, to: str, folder: Path, guard: Any = None) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}{FORMATS[to].suffix}"
    with ready_to_trace(agent), quiet():
        FORMATS[to].write(Acting(agent, guard).eval(), path)
    return path


def test_every_algorithm_in_a_process_without_the_library(tmp_path: Path) -> None:
    agents = {name: agent_of(name) for name in AGENTS}
    files = [(written(agent, "torchscript", tmp_path), ROWS) for agent in agents.values()]
    for name, to in (("bc", "torch"), ("bcq", "torch"), ("bcq", "onnx"), ("emaq/least-squares", "onnx")):
        agents[f"{name} {to}"] = agents[name]
        files.append((written(agents[name], to, tmp_path), ROWS))
    found = trial.in_a_fresh_process(files)
    for (name, agent), (seconds, outputs) in zip(agents.items(), found, strict=True):
        assert trial.difference(name, outputs, [agent.predict(ROWS)], HALF) < 1e-5, name
        assert {len(output) for output in outputs.values()} == {1, 7, 40}
        assert (seconds > 0.0).all()


def test_a_file_comes_with_a_card_and_is_not_replaced_unasked(tmp_path: Path) -> None:
    agent = agent_of("td3-bc")
    done = ovi.export(agent, tmp_path / "policy.ts", observations=ROWS)
    card = json.loads(done.card.read_text())
    assert (card["algorithm"], card["file"], card["runs_in"]) == ("td3-bc", "policy.ts", "torch")
    what = {"name": "action", "shape": ["batch", 2], "dtype": "float32", "entries": None}
    assert card["action"] == what | {"low": [-2.0, 0.0], "high": [2.0, 5.0]}
    assert card["outside"] is None
    assert card["checked"]["rows"] == 40
    assert card["checked"]["largest_difference"] < 1e-5
    assert card["milliseconds"]["median"] >= card["milliseconds"]["fastest"] > 0.0
    with pytest.raises(OutputDirError):
        ovi.export(agent, tmp_path / "policy.ts")
    with pytest.raises(UsageError):
        ovi.export(agent, tmp_path / "policy.pkl")


def test_a_file_that_does_anything_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(files: Any) -> Any:
        return [(np.ones(3), {"1.0": np.full((1, 2), 9.0, np.float32)}) for _ in files]

    monkeypatch.setattr(trial, "in_a_fresh_process", other)
    with pytest.raises(ExportError):
        ovi.export(agent_of("bc"), tmp_path / "policy.ts")
    assert list(tmp_path.iterdir()) == []


class Restless(Algorithm):
    """Draws random numbers by a method that cannot be held fixed."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()

    def update(self, batch: Batch) -> Metrics:
        return {}

    def act(self, obs: Tensor) -> Tensor:
        return obs.new_empty(obs.shape[0], 2).uniform_(-1.0, 1.0)


def test_what_cannot_be_exported_is_refused() -> None:
    images = LatentPlanning(Spec((1, 16, 16), 2, "uint8"))
    for agent in (images, Restless(SPEC)):
        with pytest.raises(CapabilityError):
            Acting(agent)


def test_an_onnx_file_calls_its_rows_batch(tmp_path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(written(agent_of("bcq"), "onnx", tmp_path))
    assert [one.shape for one in (*session.get_inputs(), *session.get_outputs())] == [["batch", 5], ["batch", 2]]


def test_a_discrete_action_is_its_number() -> None:
    agent = DiscreteSAC(Spec((5,), 3, discrete=True)).eval()
    chosen = agent.act(torch.from_numpy(ROWS)).argmax(-1)
    assert np.array_equal(agent.predict(ROWS), chosen.numpy())
    with torch.no_grad():
        assert torch.equal(Acting(agent)(torch.from_numpy(ROWS)), chosen)


def test_both_guards_are_a_part_of_the_file(tmp_path: Path) -> None:
    agent, states = agent_of("td3-bc"), KnownStates(SPEC).eval()
    behavior = ovi.behavior.GaussianBehavior(SPEC).eval()
    states.calibrate(torch.from_numpy(ROWS))
    guard = ovi.GuardedPolicy(agent, behavior, 0.0, num_candidates=4, states=states, level=0.5)
    with torch.no_grad():
        action, outside = Acting(agent, guard)(torch.from_numpy(ROWS))
    assert 15 <= int(outside[:, 0].sum()) <= 25  # half of the rows are below the median
    assert torch.allclose(action[outside[:, 0]], torch.tensor([0.0, 2.5]))  # the middle of the box
    path = written(agent, "torchscript", tmp_path, guard)
    ((_, outputs),) = trial.in_a_fresh_process([(path, ROWS)])
    assert trial.difference("guard", outputs, [action.numpy(), outside.numpy()], HALF) < 1e-5


def test_the_inverse_of_erf() -> None:
    y = np.concatenate([np.linspace(-0.999999, 0.999999, 2001), [1.0 - 2**-23, 2**-23 - 1.0, 0.0]])
    found = erfinv(torch.from_numpy(y.astype(np.float32))).double().numpy()
    assert np.allclose(found, scipy.special.erfinv(y.astype(np.float32).astype(np.float64)), rtol=2e-6, atol=1e-7)


def test_a_run_is_exported_where_its_files_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_of("bc")
    ovi.save(agent, tmp_path / "run")
    loaded: Any = ovi.load(tmp_path / "run")
    assert loaded.task == TASK
    assert np.array_equal(loaded.predict(ROWS), agent.predict(ROWS))
    monkeypatch.setattr(exporting, "tried", lambda *_: trial.Trial(1, 0.0, 0, 1.0, 1.0))
    assert exporting.export_run(tmp_path / "run", "torchscript").path == tmp_path / "run" / "policy.ts"
    assert not ovi.runs.ownership.strangers(tmp_path / "run")
    with pytest.raises(UsageError):
        exporting.export_run(tmp_path / "run", "onnx", tmp_path / "policy.pt2")


def test_rows_whose_actions_tie_are_counted_and_others_are_not_excused() -> None:
    own = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.5]], np.float32)
    other = own + np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 1.0]], np.float32)
    outputs = {"3.0": other, "1.0": other[:1]}

    def alike(found: Any, wanted: Any) -> Any:
        return np.arange(len(found)) == 1

    settled, ties = trial.without_ties(outputs, own, HALF, alike)
    assert ties == 1
    np.testing.assert_array_equal(settled["3.0"][:2], own[:2])
    np.testing.assert_array_equal(settled["3.0"][2], other[2])


def test_what_an_agent_s_critic_values_alike() -> None:
    agent = agent_of("bcq")
    action = agent.predict(ROWS)
    assert exporting.valued_alike(agent, ROWS, action, action).all()
    assert not exporting.valued_alike(agent, ROWS, action, np.clip(action + 0.3, [-2.0, 0.0], [2.0, 5.0])).any()
    assert not exporting.valued_alike(agent_of("bc"), ROWS, action, action).any()  # it has no critic
