"""A trained policy as one file that runs without this library. The file is tried before it is kept, and a card
describes it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline_vi.deployment.acting import Acting, ready_to_trace
from offline_vi.deployment.formats import FORMATS, OBSERVATION, Format, quiet
from offline_vi.deployment.trial import Trial, tried
from offline_vi.errors import OutputDirError, UsageError
from offline_vi.nn.description import describe
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.recorded import spec_in
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.fixed_noise import FixedNoise
from offline_vi.rl.policies import GuardedPolicy, q_value
from offline_vi.rl.prediction import as_rows, evaluation_mode, predict
from offline_vi.runs.files import finite, replace_file, require_regular, write_json, writing
from offline_vi.study.kept import algorithm_name, load_policy, read_config
from offline_vi.study.scores import table
from offline_vi.study.scoring import guarded, names_in
from offline_vi.types import FloatArray, Task, unit_task

To = Literal["torch", "onnx", "torchscript"]
ROWS = 1_000  # that a file and its agent are compared on
SAME_VALUE = 1e-5  # of two values, relative to 1 + |Q|: what float32 leaves of a network's output


@dataclass(frozen=True)
class Export:
    """An exported file, and how its trial went."""

    path: Path  # the file
    card: Path  # JSON, beside it
    trial: Trial  # how it compared with the agent


def export(
    agent: Algorithm,
    path: str | Path,
    *,
    guard: GuardedPolicy | None = None,
    observations: NDArray[Any] | None = None,
    obs_names: Sequence[str] = (),
    action_names: Sequence[str] = (),
    overwrite: bool = False,
) -> Export:
    """Write an agent's policy to one file: observations in, actions in the environment's units out (`Acting`).

    The ending of ``path`` says the format: ``.pt2`` (`torch.export`), ``.onnx`` or ``.ts`` (TorchScript). The units are
    those of ``agent.task``; ``guard`` is a `GuardedPolicy` around the agent. The file is then loaded in a process that
    cannot import this library and compared with `Algorithm.predict` on ``observations`` (R, O), by default 1,000 drawn
    from the Normal that the agent normalizes by. What it measured is written to a card next to the file, ``path.json``,
    with the names of the O observations and A actions, where they are given.

    Raises UsageError for another ending, OutputDirError where the file is there already unless ``overwrite``,
    CapabilityError for a policy that cannot be exported, MissingDependencyError without the packages of ONNX, and
    ExportError where the file does anything else than the agent; it is removed then.
    """
    path = Path(path)
    form = format_of(path)
    if path.exists() and not overwrite:
        raise OutputDirError(f"{path} is there already", "overwrite=True replaces it, or choose another name")
    require_regular(path)
    rows = as_rows(typical_states(agent) if observations is None else observations, spec_in(agent)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="offline-vi-export-") as folder:
        draft = Path(folder) / path.name
        with evaluation_mode(agent), ready_to_trace(agent), quiet():
            acting = Acting(agent, guard).eval()
            expected = expected_of(acting, rows)
            form.write(acting, draft)
            half_width = np.maximum(acting.width.double().numpy() / 2.0, 1e-9)
            trial = tried(draft, rows, expected, half_width, partial(valued_alike, agent, rows))
        data = draft.read_bytes()
    with writing(path.parent, len(data)):
        replace_file(path, data)
    card = path.with_name(f"{path.name}.json")
    names = {"observation": list(obs_names) or None, "action": list(action_names) or None}
    write_json(card, card_of(acting, form, path, trial, names) | {"sha256": hashlib.sha256(data).hexdigest()})
    return Export(path, card, trial)


def export_run(
    run: str | Path,
    to: To = "torch",
    output: str | Path = "",
    *,
    seed_index: int = 0,
    guard: float = 0.0,
    guard_states: float = 0.0,
    safe_action: Sequence[float] = (),
    overwrite: bool = False,
) -> Export:
    """`export` of a run's final policy, by default to ``RUN/policy.pt2``, ``.onnx`` or ``.ts``.

    ``guard`` and ``guard_states`` are the quantiles of the two guards, and ``safe_action`` is taken in unknown states,
    all as in `ScoringOptions`. Raises what loading,
    `guarded` and `export` raise.
    """
    suffix = FORMATS[to].suffix
    path = Path(output or Path(run) / f"policy{suffix}")
    if path.suffix != suffix:
        raise UsageError(f"a file of the format {to} ends in {suffix}, {path.name} does not", f"{path.stem}{suffix}")
    agent = load_policy(run, seed_index)
    around = guarded(agent, run, seed_index, guard, guard_states, safe_action=safe_action)
    about = table(read_config(run).record, "data")
    obs_names, action_names = (names_in(about.get(name)) for name in ("obs_names", "action_names"))
    return export(agent, path, guard=around, obs_names=obs_names, action_names=action_names, overwrite=overwrite)


def format_of(path: Path) -> Format:
    """The format that the ending of the name says. Raises UsageError."""
    found = next((form for form in FORMATS.values() if form.suffix == path.suffix), None)
    if found is None:
        endings = ", ".join(f"{form.suffix} ({name})" for name, form in FORMATS.items())
        raise UsageError(f"{path.name!r} ends in no format of an exported policy", f"end it in {endings}")
    return found


def typical_states(agent: Algorithm) -> FloatArray:
    """(R, O) states from the Normal that the agent's networks normalize by: N(0, 1) where they do not."""
    states = np.random.default_rng(0).standard_normal((ROWS, spec_in(agent).obs_dim))
    layers = [part for part in agent.modules() if isinstance(part, Normalizer)]
    layer = max(layers, key=lambda part: float((part.std - 1.0).abs().max()), default=None)
    if layer is not None:
        states = states * layer.std.cpu().numpy().reshape(-1) + layer.mean.cpu().numpy().reshape(-1)
    return states.astype(np.float32)


def expected_of(acting: Acting, observations: FloatArray) -> list[NDArray[Any]]:
    """The actions of the agent in this process, and the verdicts of its guard."""
    agent, guard = acting.agent, acting.guard
    if guard is None:
        return [agent.predict(observations)]
    said: list[NDArray[Any]] = []

    def act(obs: Tensor) -> Tensor:
        verdict = guard.judge(obs)
        said.append(torch.stack([verdict.unknown_state, verdict.unlikely_action], -1).numpy())
        return guard.replaced(obs, verdict)

    return [predict(act, observations, acting.spec, agent.task, FixedNoise()), *said]


@torch.no_grad()
def valued_alike(
    agent: Algorithm, observations: FloatArray, one: NDArray[Any], other: NDArray[Any]
) -> NDArray[np.bool_]:
    """Whether the agent's critic values two actions of each of the first rows the same, up to float32's rounding:
    (B, A), (B, A) -> (B,), actions in the environment's units. Nowhere where there is no critic."""
    task = agent.task or unit_task(one.shape[-1])
    obs = torch.from_numpy(observations[: len(one)])
    first, second = (q_value(agent, obs, torch.from_numpy(task.from_env(values)).float()) for values in (one, other))
    return ((first - second).abs() <= SAME_VALUE * (1.0 + second.abs())).numpy()


def guard_card(guard: GuardedPolicy, task: Task) -> dict[str, Any]:
    """The guard on a card: its two quantiles or thresholds, and what is done in an unknown state, in the environment's
    units."""
    safe = torch.zeros(len(task.action_low)) if guard.safe_action is None else guard.safe_action
    return {
        "states": guard.known and guard.level,
        "action": finite(guard.threshold),
        "safe_action": task.to_env(safe.numpy()).tolist() if guard.known else None,
    }


def card_of(
    acting: Acting, form: Format, path: Path, trial: Trial, names: Mapping[str, list[str] | None]
) -> dict[str, Any]:
    """The card, JSON-ready: what the file holds, how it was checked, and how fast it is. ``names``: those of the
    entries of "observation" and "action"; None where nobody knows them."""
    agent, spec, guard = acting.agent, acting.spec, acting.guard
    task = agent.task or unit_task(spec.action_dim)
    packages = {name: version(name) for name in ("torch", "numpy", *({form.runs_in} - {"torch"}))}
    return {
        "file": path.name,
        "runs_in": form.runs_in,
        "algorithm": algorithm_name(describe(agent)),
        "trained_steps": agent.trained_steps,
        "env_id": task.env_id,
        "observation": {
            "name": OBSERVATION,
            "shape": ["batch", *spec.obs_shape],
            "dtype": "float32",
            "entries": names["observation"],
        },
        "action": {
            "name": "action",
            "shape": ["batch"] if spec.discrete else ["batch", spec.action_dim],
            "dtype": "int64" if spec.discrete else "float32",
            "low": list(task.action_low),
            "high": list(task.action_high),
            "entries": names["action"],
        },
        "outside": None
        if guard is None
        else {"name": "outside", "shape": ["batch", 2], "dtype": "bool", "entries": ["state", "action"]},
        "random_numbers": sum(noise.numel() for noise in acting.noise),  # that are stored, the same for every row
        "guard": None if guard is None else guard_card(guard, task),
        "checked": {
            "rows": trial.rows,
            "batches": [1, 7, trial.rows],
            "largest_difference": trial.difference,
            "near_ties": trial.near_ties,
        },
        "milliseconds": {"median": trial.milliseconds, "fastest": trial.fastest, "rows": 1, "threads": 1},
        "versions": packages,
    }
