"""What one GPU makes of the library, in under ten minutes.

    python benchmarks/device.py --output docs/results/device [--device cuda] [--parts agree speed train] [--quick]

agree: losses of 100 steps (TF32 off) on the device and on the CPU, with the same rows and the same noise, for every
    algorithm that the speed is measured of; asked in float32: equal to 1e-4. Rounding alone is shown beside it.
speed: steps a second of BCQ (published, fast), TD3+BC and IQL for 1, 16 and 64 seeds in parallel, their updates as
    they are written, compiled, and replayed as CUDA graphs; of TD3+BC and IQL in plain, jitted JAX where it is
    installed (`benchmarks/plain_jax.py`). Rounds of all contenders alternate; batches are drawn within the time.
train: 16 seeds of BCQ (published, fast, 100,000 steps) and of the recommended clone on the medium-expert sets of hopper
    and walker2d: minutes, and the score of the final policy on this machine's cores. The data sets are collected where
    they are missing; --data names files instead.

Each part is a process of its own with a time limit, writes agree.json, speed.json or train.json as it goes, and can be
repeated alone. device.md has all of them in tables, speed.png the second as a picture. --quick is a rehearsal with few
steps, which a CPU can do.
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
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any, NamedTuple

import numpy as np
import torch
from cells import table
from torch.overrides import TorchFunctionMode

from offline_vi.behavior.proposals import CandidateCache, Proposals
from offline_vi.data.samplers import Sampler, StackedSampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import GraphWarning
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.fixed_noise import LIKE
from offline_vi.runs.files import write_json
from offline_vi.study.agents import build_agents
from offline_vi.study.presets import choice
from offline_vi.training.capture import Graph
from offline_vi.training.picture import Picture
from offline_vi.training.randomness import set_seed
from offline_vi.training.updates import Updates
from offline_vi.types import Metrics

PARTS = {"agree": 90, "speed": 190, "train": 310}  # seconds
AGENTS = (("bcq", "published"), ("bcq", "fast"), ("td3-bc", "published"), ("iql", "published"))
SEEDS = (1, 16, 64)
PATIENCE = 90  # seconds that the makers of programs wait for each other
GRAPHS: tuple[Graph, ...] = ("off", "compiled", "replayed")
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
        self, data: Transitions, name: str, preset: str, device: str, seeds: int = 1, graph: Graph = "off"
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
        self.updates = Updates(self.algorithm, self.sampler, graph)
        self.count = 0

    def step(self) -> Metrics:
        """One step, or as many as are taken together; the metrics of the last."""
        for _ in range(self.updates.together):
            self.count += 1
            for cache in self.caches:
                cache.advance(self.count)
        _, metrics = self.updates(self.updates.together)
        return metrics[-1][0]


# ------------------------------------------------------------------ agree


class SameNoise(TorchFunctionMode):
    """Random numbers are drawn on the CPU in float32, whatever they are for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in LIKE:
            return LIKE[func](args[0].shape).to(args[0])
        if func in LIKE.values():
            drawn = func(*args, **{**given, "device": "cpu", "dtype": torch.float32})
            return drawn.to(given.get("device") or "cpu", given.get("dtype") or torch.float32)
        return func(*args, **given)


def losses(
    data: Transitions, name: str, preset: str, device: str, steps: int, dtype: torch.dtype = torch.float32
) -> dict[str, list[float]]:
    """Loss -> its value at every step."""
    set_seed(0)
    found: dict[str, list[float]] = {}
    training = Steps(data, name, preset, device)
    training.algorithm.to(dtype)
    training.sampler._columns = tuple(column.to(dtype) for column in training.sampler._columns)
    torch.manual_seed(1)
    with SameNoise():
        for _ in range(steps):
            for metric, value in training.step().items():
                if metric.endswith("/loss"):
                    found.setdefault(metric, []).append(float(value))
    return found


def agree(options: argparse.Namespace) -> dict[str, Any]:
    """In float64 too, which tells rounding from another computation: not of candidates, which are kept in halves."""
    torch.set_float32_matmul_precision("highest")
    rows, data, steps = [], Transitions.from_d4rl(options.columns), options.steps(100, 3)
    for name, preset in AGENTS:
        kinds = (torch.float32, torch.float64) if preset == "published" else (torch.float32,)
        here, there = (
            {dtype: losses(data, name, preset, device, steps, dtype) for dtype in kinds}
            for device in ("cpu", options.device)
        )
        row = {"algorithm": f"{name} {preset}", "float32": difference(here[torch.float32], there[torch.float32])}
        row["float64"] = row["float32 against float64, both on the CPU"] = ""
        if torch.float64 in kinds:
            row["float64"] = difference(here[torch.float64], there[torch.float64])
            row["float32 against float64, both on the CPU"] = difference(here[torch.float64], here[torch.float32])
        rows.append(row)
    return {"rows": rows}


def difference(one: dict[str, list[float]], other: dict[str, list[float]]) -> str:
    """The largest relative one of any loss at any step, with the name of the loss."""
    errors = {
        metric: max(abs(a - b) / max(abs(a), 1e-2) for a, b in zip(values, other[metric], strict=True))
        for metric, values in one.items()
    }
    worst = max(errors, key=errors.__getitem__)
    return f"{errors[worst]:.1e} ({worst})"


# ------------------------------------------------------------------ speed


class Contender(NamedTuple):
    name: str
    seeds: int
    call: Callable[[], object]
    steps: int  # of each seed that a call takes


def jax_contenders(rows: dict[str, Any]) -> Iterator[Contender]:
    """Where JAX is installed, with products in full float32, as ours."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        plain_jax = importlib.import_module("plain_jax")
    except ImportError:
        return
    importlib.import_module("jax").config.update("jax_default_matmul_precision", "highest")
    for name in ("td3-bc", "iql"):
        yield Contender(f"{name} jax", 1, plain_jax.call(name, rows), plain_jax.UPDATES)


def ours(options: argparse.Namespace, name: str, preset: str, seeds: int) -> Iterator[Contender]:
    """What cannot be made is left out, with a line that says why."""
    data = Transitions.from_d4rl(options.columns)
    for graph in GRAPHS if seeds == 1 else ("off", "replayed"):  # compiled for several seeds: minutes each
        label = f"{name} {preset} {'as written' if graph == 'off' else graph}"
        started = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", GraphWarning)
                training = Steps(data, name, preset, options.device, seeds, graph)
                for _ in range(4):
                    training.step()
        except Exception as error:
            print(f"{label}, {seeds} seeds: {str(error)[:300]}", file=sys.stderr, flush=True)
            continue
        print(f"{label}, {seeds} seeds: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        yield Contender(label, seeds, training.step, training.updates.together)


def measured_alone(arguments: list[str], what: tuple[str, str, int] | None, turns: Turns) -> None:
    """A process that makes some contenders beside the others, and measures them in turn with the others."""
    options = parsed(arguments)
    torch.set_float32_matmul_precision("highest")
    try:
        made = [*(ours(options, *what) if what else jax_contenders(options.columns))]
    except Exception as error:
        print(f"{what or 'jax'}: {str(error)[:300]}", file=sys.stderr, flush=True)
        made = []
    turns.meet()
    rates: list[list[float]] = [[] for _ in made]
    for _ in range(options.steps(2, 1)):
        for (_, seeds, call, steps), rate in zip(made, rates, strict=True):
            with turns.device:
                rate.append(seeds * steps * rate_of(call, options.device, options.steps(0.2, 0.02)))
        turns.meet()
    for one, rate in zip(made, rates, strict=True):
        turns.rows.put(
            {
                "contender": one.name,
                "seeds": str(one.seeds),
                "seed-steps a second": f"{statistics.median(rate):,.0f}",
                "range": f"{min(rate):,.0f} to {max(rate):,.0f}",
            }
        )
    turns.rows.put(None)


class Turns(NamedTuple):
    """What the processes share."""

    ready: Any  # a barrier
    device: Any  # a lock: one measures at a time
    rows: Any  # a queue of rows; None ends those of a process

    def meet(self) -> None:
        """Wait for the others, but not for one that takes too long."""
        with suppress(BrokenBarrierError):
            self.ready.wait(PATIENCE)


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Each algorithm and number of seeds in a process of its own, since most of the time goes into making programs;
    they measure one at a time, in rounds."""
    kinds = [(name, preset, seeds) for name, preset in AGENTS for seeds in ((1, 2) if options.quick else SEEDS)]
    whats: list[tuple[str, str, int] | None] = [None, *kinds]
    context = get_context("spawn")
    turns = Turns(context.Barrier(len(whats)), context.Lock(), context.Queue())
    processes = [context.Process(target=measured_alone, args=(sys.argv[1:], what, turns)) for what in whats]
    for process in processes:
        process.start()
    rows: list[dict[str, str]] = []
    for _ in whats:
        while (row := turns.rows.get()) is not None:
            rows.append(row)
            rows.sort(key=lambda row: (row["contender"], int(row["seeds"])))
            write_json(options.output / "speed.json", {"machine": machine(options.device), "rows": rows})
    for process in processes:
        process.join()
    return {
        "rows": sorted(rows, key=lambda row: (row["contender"].partition(" ")[0], row["contender"], int(row["seeds"])))
    }


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def rate_of(call: Callable[[], object], device: str, seconds: float) -> float:
    """Calls a second, all work done."""
    call()
    synchronize(device)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        call()
        count += 1
        if count % 10 == 0:
            synchronize(device)
    synchronize(device)
    return count / (time.perf_counter() - started)


# ------------------------------------------------------------------ train


def train(options: argparse.Namespace) -> dict[str, Any]:
    """The data sets side by side, the policies of each one after the other."""
    rows: list[dict[str, str]] = []

    def chain(data: str) -> None:
        for name, words in ways(options).items():
            rows.append(trained(options, data, name, words))
            write_json(options.output / "train.json", {"machine": machine(options.device), "rows": rows})

    with ThreadPoolExecutor(len(options.data)) as pool:
        list(pool.map(chain, options.data))
    return {"rows": rows}


def ways(options: argparse.Namespace) -> dict[str, list[str]]:
    steps, short = str(options.steps(100_000, 40)), ["--behavior-steps", "40"] if options.quick else []
    clone = ["bc", "--preset", "recommended", *(["--steps", "40", "--value-steps", "40"] if options.quick else [])]
    fast = ["bcq", "--preset", "fast", "--steps", steps, *short]
    return {"recommended": clone, "bcq fast": fast, "bcq published": ["bcq", "--steps", steps]}


def trained(options: argparse.Namespace, data: str, name: str, words: list[str]) -> dict[str, str]:
    """A row of the table: one training of several seeds side by side, with the evaluation of their final policies."""
    seeds = options.steps(16, 2)
    folder = options.output / "runs" / f"{data.replace('/', '-')}-{name.replace(' ', '-')}"
    command = ["-m", "offline_vi", "train", *words, "--dataset", data, "--parallel-seeds", str(seeds)]
    command += ["--device", options.device, "--graph", "auto", "--eval-every", "0", "-q", "--overwrite"]
    command += ["--eval-episodes", str(options.steps(10, 1)), "--output", str(folder)]
    started = time.monotonic()
    ended = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True)
    row = {"data set": data, "policy": name, "seeds": str(seeds), "seconds": f"{time.monotonic() - started:.0f}"}
    for line in ended.stderr.strip().splitlines()[-6:]:
        print(f"{data} {name}: {line[:300]}", file=sys.stderr, flush=True)
    if ended.returncode:
        return {**row, "score": f"failed with exit code {ended.returncode}", "steps": ""}
    return row | scores_of(folder)


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


def draw(output: Path) -> None:
    """speed.png: seed-steps a second over the seeds, an algorithm a panel."""
    rows = json.loads((output / "speed.json").read_text())["rows"]
    names = sorted({f"{name} {preset}" for name, preset in AGENTS})
    figure = Picture(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True)
    for ax, name in zip(panels, names, strict=True):
        ways = {"as written": "tab:gray", "compiled": "tab:blue", "replayed": "tab:orange"}
        for way, color in {
            **{f"{name} {way}": color for way, color in ways.items()},
            f"{name.split()[0]} jax": "k",
        }.items():
            points = sorted(
                (int(r["seeds"]), float(r["seed-steps a second"].replace(",", "")))
                for r in rows
                if r["contender"] == way
            )
            ax.plot(
                *zip(*points, strict=True),
                marker="o",
                color=color,
                label=way.removeprefix(name).removeprefix(name.split()[0]).strip(),
            ) if points else None
        ax.set(xscale="log", yscale="log", title=name, xlabel="seeds in parallel")
        ax.set_xticks(SEEDS, [str(seeds) for seeds in SEEDS])
        ax.minorticks_off()
        ax.grid(alpha=0.25)
        ax.legend(fontsize=7)
    panels[0].set_ylabel("seed-steps a second")
    figure.savefig(output / "speed.png", dpi=110)


def report(output: Path) -> str:
    """device.md, of the parts that are there."""
    lines = ["`python benchmarks/device.py --output docs/results/device`", ""]
    for part in PARTS:
        if (output / f"{part}.json").exists():
            found = json.loads((output / f"{part}.json").read_text())
            facts = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
            lines += [f"## {part}", "", facts, "", table(found["rows"])]
    return "\n".join(lines)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of results")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--data", nargs="+", default=DATA, help="names or files for `train`")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: few steps, two seeds")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.steps = lambda full, quick: quick if options.quick else full
    options.columns = columns(options.steps(100_000, 2_000))
    return options


def main() -> None:
    options = parsed(sys.argv[1:])
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
    if (options.output / "speed.json").exists():
        draw(options.output)
    text = report(options.output)
    (options.output / "device.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
