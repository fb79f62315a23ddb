"""What one GPU makes of the library, in under ten minutes.

    python benchmarks/device.py --output docs/results/device [--device cuda] [--parts agree speed train] [--quick]

agree: losses of 100 float32 steps (TF32 off) on the device and on the CPU, with the same rows and the same noise, for
    every algorithm that the speed is measured of; asked: equal to 1e-4.
speed: steps a second of BCQ (published, fast), TD3+BC and IQL for 1, 16 and 64 seeds in parallel, their updates as
    they are written, compiled, and replayed as CUDA graphs; of TD3+BC and IQL in plain, jitted JAX where it is
    installed (`benchmarks/plain_jax.py`). Rounds of all contenders alternate; batches are drawn within the time.
train: 16 seeds of BCQ (published, fast, 100,000 steps) and of the recommended clone on the medium-expert sets of hopper
    and walker2d: minutes, and the score of the final policy on this machine's cores. The data sets are collected where
    they are missing; --data names files instead.

Each part is a process of its own with a time limit, writes agree.json, speed.json or train.json as it goes, and can be
repeated alone. device.md has all of them in tables. --quick is a rehearsal with few steps, which a CPU can do.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cells import table
from torch.overrides import TorchFunctionMode

from offline_vi.behavior.proposals import CandidateCache, Proposals
from offline_vi.data.samplers import Sampler, StackedSampler
from offline_vi.data.transitions import Transitions
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.fixed_noise import LIKE
from offline_vi.runs.files import write_json
from offline_vi.study.agents import build_agents
from offline_vi.study.presets import choice
from offline_vi.training.capture import PROGRAMS, Captured
from offline_vi.training.randomness import set_seed
from offline_vi.types import Batch, Metrics

PARTS = {"agree": 60, "speed": 200, "train": 310}  # seconds
AGENTS = (("bcq", "published"), ("bcq", "fast"), ("td3-bc", "published"), ("iql", "published"))
SEEDS = (1, 16, 64)
DATA = ("offline-vi/hopper/medium-expert-v0", "offline-vi/walker2d/medium-expert-v0")


def columns(rows: int) -> dict[str, Any]:
    """Synthetic rows of hopper's sizes, in D4RL's layout."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, 11)).astype(np.float32)
    action, reward = rng.uniform(-1, 1, (rows, 3)).astype(np.float32), rng.normal(size=rows).astype(np.float32)
    ends, none = rng.random(rows) < 0.005, np.zeros(rows, bool)
    return {"observations": obs, "actions": action, "rewards": reward, "terminals": ends, "timeouts": none}


class Steps:
    """An algorithm on synthetic rows, stepped as `fit` steps it."""

    def __init__(
        self, data: Transitions, name: str, preset: str, device: str, seeds: int = 1, graph: str = "off"
    ) -> None:
        self.caches: list[CandidateCache] = []

        def ahead(proposals: Proposals) -> Proposals:
            self.caches.append(CandidateCache(proposals.to(device), data, device=device))
            return self.caches[-1]

        agents = build_agents(choice(preset, name, data.spec), data.spec, tuple(range(seeds)), None, ahead)
        self.algorithm: Algorithm = agents.algorithm.to(device)
        self.algorithm.train()
        size = self.algorithm.batch_size
        one = Sampler(data, size, 0, device)
        self.sampler = one if seeds == 1 else StackedSampler(data, size, range(seeds), device)
        update = self.algorithm.update
        self.update: Callable[[Batch], Metrics] = (
            update if graph == "off" else Captured(self.algorithm, PROGRAMS[graph])
        )
        self.count = 0

    def step(self) -> Metrics:
        self.count += 1
        for cache in self.caches:
            cache.advance(self.count)
        return self.update(self.sampler.sample())


# ------------------------------------------------------------------ agree


class SameNoise(TorchFunctionMode):
    """Random numbers are drawn on the CPU, whatever device they are for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in LIKE:
            return LIKE[func](args[0].shape, dtype=args[0].dtype).to(args[0].device)
        if func in LIKE.values():
            device = given.get("device") or "cpu"
            return func(*args, **{**given, "device": "cpu"}).to(device)
        return func(*args, **given)


def losses(data: Transitions, name: str, preset: str, device: str, steps: int) -> dict[str, list[float]]:
    """Metric -> its value at every step."""
    set_seed(0)
    found: dict[str, list[float]] = {}
    training = Steps(data, name, preset, device)
    torch.manual_seed(1)
    with SameNoise():
        for _ in range(steps):
            for metric, value in training.step().items():
                found.setdefault(metric, []).append(float(value))
    return found


def agree(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_float32_matmul_precision("highest")
    rows, data = [], Transitions.from_d4rl(options.columns)
    for name, preset in AGENTS:
        here, there = (losses(data, name, preset, device, options.steps(100, 3)) for device in ("cpu", options.device))
        errors = {
            metric: max(abs(a - b) / max(abs(a), 1e-2) for a, b in zip(here[metric], there[metric], strict=True))
            for metric in here
            if metric.endswith("/loss")
        }
        worst = max(errors, key=errors.__getitem__)
        rows.append(
            {"algorithm": f"{name} {preset}", "largest relative difference": f"{errors[worst]:.1e}", "of": worst}
        )
    return {"rows": rows}


# ------------------------------------------------------------------ speed


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class Contender(NamedTuple):
    name: str
    seeds: int
    call: Callable[[], object]
    steps: int  # of each seed that a call takes


def jax_contenders(rows: dict[str, Any]) -> Iterator[Contender]:
    """Where JAX is installed."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        plain_jax = importlib.import_module("plain_jax")
    except ImportError:
        return
    for name in ("td3-bc", "iql"):
        yield Contender(f"{name} jax", 1, plain_jax.call(name, rows), plain_jax.UPDATES)


def ours(options: argparse.Namespace, graphs: tuple[str, ...]) -> Iterator[Contender]:
    """Each is made when it is asked for. What cannot be made is left out, with a line that says why."""
    data = Transitions.from_d4rl(options.columns)
    for graph, seeds in ((graph, seeds) for graph in graphs for seeds in ((1, 2) if options.quick else SEEDS)):
        for name, preset in AGENTS if graph != "compiled" or seeds == 1 else ():  # compiled for more: minutes each
            label = f"{name} {preset} {'as written' if graph == 'off' else graph}"
            try:
                training = Steps(data, name, preset, options.device, seeds, graph)
                for _ in range(4):
                    training.step()
            except Exception as error:
                print(f"{label}, {seeds} seeds: {str(error)[:200]}", file=sys.stderr, flush=True)
                continue
            print(f"{label}, {seeds} seeds: ready", file=sys.stderr, flush=True)
            yield Contender(label, seeds, training.step, 1)


def speed(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_float32_matmul_precision("highest")
    first = [*jax_contenders(options.columns), *ours(options, ("off", "replayed"))]
    rows = measured(first, options)
    write_json(options.output / "speed.json", {"machine": machine(options.device), "rows": rows})
    for contender in ours(options, ("compiled",)):  # slowly made: each measured and written as it comes
        rows += measured([contender], options)
        write_json(options.output / "speed.json", {"machine": machine(options.device), "rows": rows})
    return {"rows": rows}


def measured(made: list[Contender], options: argparse.Namespace) -> list[dict[str, str]]:
    """Seed-steps a second of each, their rounds alternating."""
    rates: list[list[float]] = [[] for _ in made]
    for _ in range(options.steps(5, 1)):
        for (_, seeds, call, steps), rate in zip(made, rates, strict=True):
            rate.append(seeds * steps * rate_of(call, options.device, options.steps(0.5, 0.02)))
    return [
        {
            "contender": one.name,
            "seeds": str(one.seeds),
            "seed-steps a second": f"{statistics.median(rate):,.0f}",
            "range": f"{min(rate):,.0f} to {max(rate):,.0f}",
        }
        for one, rate in zip(made, rates, strict=True)
    ]


def rate_of(call: Callable[[], object], device: str, seconds: float) -> float:
    """Calls a second, all work done."""
    call()
    synchronize(device)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            call()
        count += 10
        synchronize(device)
    return count / (time.perf_counter() - started)


# ------------------------------------------------------------------ train


def train(options: argparse.Namespace) -> dict[str, Any]:
    seeds, steps = options.steps(16, 2), options.steps(100_000, 40)
    quick = ["--behavior-steps", "40"] if options.quick else []
    ways: dict[str, list[str]] = {
        "bcq published": ["bcq", "--steps", str(steps)],
        "bcq fast": ["bcq", "--preset", "fast", "--steps", str(steps), *quick],
        "recommended": [
            "bc",
            "--preset",
            "recommended",
            *(["--steps", "40", "--value-steps", "40"] if options.quick else []),
        ],
    }
    common = ["--parallel-seeds", str(seeds), "--device", options.device, "--graph", "auto", "--eval-every", "0"]
    common += ["--eval-episodes", str(options.steps(10, 1)), "-q", "--overwrite"]
    rows: list[dict[str, str]] = []
    for data in options.data:
        for name, words in ways.items():
            folder = options.output / "runs" / f"{Path(data).parent.name}-{name.replace(' ', '-')}"
            command = ["-m", "offline_vi", "train", *words, "--dataset", data, *common, "--output", str(folder)]
            started = time.monotonic()
            ended = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True)
            row = {
                "data set": data,
                "policy": name,
                "seeds": str(seeds),
                "seconds": f"{time.monotonic() - started:.0f}",
            }
            if ended.returncode:
                row["score"] = (
                    f"failed: {ended.stderr.strip().splitlines()[-1][:120] if ended.stderr else ended.returncode}"
                )
            else:
                row |= scores_of(folder)
            rows.append(row)
            write_json(options.output / "train.json", {"machine": machine(options.device), "rows": rows})
    return {"rows": rows}


def scores_of(folder: Path) -> dict[str, str]:
    """Mean and range over the seeds of the final policies."""
    result = json.loads((folder / "result.json").read_text())
    scores = [one["normalized_score"] for one in result["seeds"].values()]
    mean = statistics.mean(scores)
    return {"score": f"{mean:.1f} ({min(scores):.1f} to {max(scores):.1f})", "steps": f"{result['steps']:,}"}


# ------------------------------------------------------------------ all of it


def machine(device: str) -> dict[str, str]:
    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    return {
        "device": gpu,
        "torch": torch.__version__,
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }


def report(output: Path) -> str:
    """device.md, of the parts that are there."""
    lines = ["`python benchmarks/device.py --output docs/results/device`", ""]
    for part in PARTS:
        if (output / f"{part}.json").exists():
            found = json.loads((output / f"{part}.json").read_text())
            facts = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
            lines += [f"## {part}", "", facts, "", table(found["rows"])]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of results")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--data", nargs="+", default=DATA, help="names or files for `train`")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: few steps, two seeds")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.steps = lambda full, quick: quick if options.quick else full
    options.columns = columns(options.steps(100_000, 2_000))
    options.output.mkdir(parents=True, exist_ok=True)
    if options.part:
        found = {"agree": agree, "speed": speed, "train": train}[options.part](options)
        write_json(options.output / f"{options.part}.json", {"machine": machine(options.device), **found})
        return
    for part in options.parts:
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, *sys.argv, "--part", part], start_new_session=True)
        try:
            code = process.wait(PARTS[part])
            outcome = "done" if code == 0 else f"failed with code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its trainings too
            outcome = "cut at its time limit"
        print(f"{part}: {outcome} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    text = report(options.output)
    (options.output / "device.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
