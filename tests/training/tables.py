"""Many agents trained one after the other in a fresh interpreter, and the digest of what each left behind.

``python -m tables TABLE FOLDER START ORDER``: the default generators start at START, the table's cases are gone
through forwards (ORDER 1) or backwards (-1), and {case: digest} is printed as JSON. Two such processes share nothing
that a seed does not fix: equal digests mean that nothing is drawn outside the seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from agents import built
from commands import PENDULUM
from fresh import environment
from works import SPEC, rows

from offline_vi import registry
from offline_vi.errors import CapabilityError
from offline_vi.scripts import main as command
from offline_vi.study.agents import new_model
from offline_vi.study.presets import PRESETS, choice
from offline_vi.training.behavior import fit_behavior
from offline_vi.training.loop import fit
from offline_vi.training.randomness import set_seed

Case = Callable[[Path], str]  # an empty folder -> a digest, or REFUSED
REFUSED = "refused"  # where the algorithm cannot use the model
SEED = 5
SMALL: dict[str, dict[str, Any]] = {"flow-matching": {"ode_steps": 3}, "flow": {"transforms": 1}}
TINY = ["--steps", "8", "--log-every", "4", "--precision", "float32", "--hidden", "8", "--batch-size", "8"]
# algorithms that take any proposals, so the likelier samples too
RANKING = {"bcq", "bear", "emaq", "idql", "onestep", "rebrac", "soft-q"}
WITHOUT_LATENTS = {"plas mixture", "plas least-squares"}  # no maps of noise, for the algorithm that acts in latents


def is_refused(case: str) -> bool:
    """Whether the algorithm's type excludes what the case "preset: algorithm model" gives it."""
    preset, _, agent = case.partition(": ")
    return agent.split()[0] not in RANKING if preset == "likely" else agent in WITHOUT_LATENTS


def main(table: str, folder: Path, start: int, order: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(start)
    random.seed(start)
    cases = list(TABLES[table]())[::order]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a case prints is no answer
    json.dump({name: case(folder / name.replace(": ", "-").replace(" ", "-")) for name, case in cases}, answers)
    answers.close()


def digests(table: str, folder: Path) -> dict[str, str]:
    """The digests of a table, the same from two fresh interpreters that begin at different states of all generators and
    go through it in opposite order. Raises AssertionError where they are not."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tables", table, str(folder), str(start), str(order)],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        for start, order in ((1, 1), (2, -1))
    ]
    answers = [process.communicate(timeout=500)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    one, other = map(json.loads, answers)
    assert one == other
    return dict(one)


# ------------------------------------------------------------------ the command


def arguments_of(preset: str) -> Iterator[tuple[str, list[str]]]:
    """Every algorithm as `offline-vi train --preset` trains it, in a few steps: its name and the arguments."""
    for name, row in registry.trainable().items():
        behavior = "--behavior.hidden 8" if row.behavior else ""
        model = PRESETS[preset].behavior_of(name)
        ahead = "--behavior-steps 6" if PRESETS[preset].options(name, model).get("behavior_steps") else ""
        values = "--value-steps 6" if preset == "recommended" else ""
        starts = PRESETS[preset].returns(name, model)
        values += " --return-steps 6" if row.returns or starts else ""
        values += " --critic-start-steps 4" if starts else ""
        if row.behavior or values or preset == "published":  # without a behaviour model the other presets are one
            yield name, f"{name} --preset {preset} {behavior} {ahead} {values}".split()


def of_command(preset: str) -> Iterator[tuple[str, Case]]:
    for name, arguments in arguments_of(preset):
        yield name, partial(trained_by_command, arguments)


def trained_by_command(arguments: list[str], path: Path) -> str:
    """SHA-256 over every tensor file and log of the run. Torch's default generator is as it was: from its first
    line to its last, the command draws from states that it has set itself, and gives back what it found."""
    path = path.with_name(f"{path.name}-{os.getpid()}")
    before = torch.get_rng_state()
    try:
        command(["train", *arguments, "--dataset", str(path.parent / PENDULUM), "--seed", f"{SEED}", *TINY,
                 "-q", "--output", str(path)])  # fmt: skip
    except SystemExit as stop:
        assert stop.code == CapabilityError.exit_code
        return REFUSED
    assert torch.equal(torch.get_rng_state(), before), arguments
    digest, files = hashlib.sha256(), [*path.rglob("*.safetensors"), *path.rglob("metrics.csv")]
    assert len(files) >= 3
    for file in sorted(files):
        digest.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return digest.hexdigest()


# ------------------------------------------------------------------ Python


def of_python(preset: str) -> Iterator[tuple[str, Case]]:
    """Every algorithm on every behaviour model, in the way of the preset; `recommended` weighs rows, which only the
    command does."""
    for name, row in registry.trainable().items():
        if not row.behavior and preset in ("published", "recommended"):
            yield name, partial(trained_by_python, name, preset, "")
        for model in registry.behavior_models() if row.behavior and preset != "recommended" else []:
            yield f"{name} {model}", partial(trained_by_python, name, preset, model)


def trained_by_python(name: str, preset: str, model: str, _: Path) -> str:
    """SHA-256 over the snapshot and the rows of metrics, of the model fitted ahead and of the agent."""
    made = choice(preset, name, SPEC, model)
    config = replace(made.config, hidden=(8, 8), batch_size=8)
    settings = replace(made.behavior_config, hidden=(8, 8), **SMALL.get(model, {})) if model else None
    made = replace(made, config=config, behavior_config=settings)
    digest, behavior = hashlib.sha256(), None
    set_seed(SEED)
    if model and not made.jointly:
        behavior = new_model(made, SPEC)
        history = fit_behavior(behavior, rows(), 4, seed=SEED, log_every=2, progress=False)
        digest.update(repr(history.rows).encode())
    try:
        agent = built(made, SPEC, behavior)
    except CapabilityError:
        return REFUSED
    history = fit(agent, rows(), 4, seed=SEED, log_every=2, progress=False)
    digest.update(repr(history.rows).encode())
    for key, tensor in sorted(agent.snapshot().items()):
        digest.update(key.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def of_presets(cases: Callable[[str], Iterator[tuple[str, Case]]]) -> Iterator[tuple[str, Case]]:
    """The cases of every preset, as "preset: case"."""
    for preset in PRESETS:
        for name, case in cases(preset):
            yield f"{preset}: {name}", case


TABLES: dict[str, Callable[[], Iterator[tuple[str, Case]]]] = {
    "command": partial(of_presets, of_command),
    "python": partial(of_presets, of_python),
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
