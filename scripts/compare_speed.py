"""Speed next to other libraries: one machine, one interleaved run, one thread each.

    python scripts/compare_speed.py [--rounds 7] [--without d3rlpy] [--json FILE]

Every contender lives in a process of its own, other libraries in environments of their own (made by this script, once,
in --envs). They train on the same synthetic data of MuJoCo hopper's sizes, with equal networks, batches and candidates;
SAC, beside Stable-Baselines3's, collects its own in Hopper-v5: its step is one of the environment and one of gradient.
A round lets each of them take its steps in turn; the ratio of a round compares neighbors in time, so that a machine
that slows down slows all of them. BCQ's reference code is no package; two restatements of its step stand for it, which
need a checkout: "numpy" (tests/oracle_bcq.py, the golden test's, in float32) does the arithmetic and nothing else, on
NumPy's own matrix products; "pytorch" (benchmarks/plain_bcq.py) is the code that people run, with PyTorch's defaults.
"jax" (benchmarks/plain_jax.py) is TD3+BC and IQL as compiled code: eight updates are one jitted call. "products" are
the matrix products of our float32 step alone (benchmarks/products.py). "compiled" steps run as one program (`--graph
compiled`), made before the first turn.

Ratios are of processor time, which waiting for another program does not enter; on an idle machine it is the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

OBS, ACTION, ROWS = 11, 3, 100_000
SECONDS = 1.5  # of a turn
PEERS = {"bcq": ("bcq numpy", "bcq pytorch", "bcq d3rlpy"), "sac": ("sac sb3",)}
PEERS |= {name: (f"{name} d3rlpy", f"{name} jax") for name in ("td3-bc", "iql")}
CONTENDERS: dict[str, tuple[str, tuple[str, ...]]] = {  # name -> (environment, what it is compared with)
    "bcq numpy": ("ours", ()),
    "bcq pytorch": ("ours", ()),
    "bcq d3rlpy": ("d3rlpy", ()),
    **dict.fromkeys(("td3-bc d3rlpy", "iql d3rlpy"), ("d3rlpy", ())),
    **{f"{name} jax": ("jax", (f"{name} products",)) for name in ("td3-bc", "iql")},
    "sac sb3": ("sb3", ()),
    **{
        f"{name} {kind}": ("ours", () if kind == "products" else (*PEERS[name.split()[0]], f"{name} products"))
        for name in ("bcq published", "bcq fast", "bcq recommended", "td3-bc", "iql", "sac")
        for kind in ("products", "float32", "bfloat16", "float32 compiled", "bfloat16 compiled")
    },
}
PACKAGES: dict[str, list[list[str]]] = {  # environment -> what is installed into it, in this order
    "d3rlpy": [["torch==2.13.0"], ["d3rlpy>=2.8"]],
    "jax": [["jax>=0.10"]],
    "sb3": [["torch==2.13.0"], ["stable-baselines3>=2.7", "gymnasium[mujoco]"]],
}
ONE_THREAD = {  # for PyTorch and NumPy, and for JAX
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
CHECKOUT = Path(__file__).resolve().parents[1]
ENV, WARMUP = "Hopper-v5", 1_000  # uniform actions before the first gradient step


def data() -> dict[str, Any]:
    """Columns in D4RL's layout."""
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(ROWS, OBS)).astype(np.float32),
        "actions": rng.uniform(-1.0, 1.0, size=(ROWS, ACTION)).astype(np.float32),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
        "terminals": np.arange(ROWS) % 500 == 499,
    }


# ------------------------------------------------------------------ workers: name -> a function that takes one step

Step = Callable[[], object]


def pytorch_step() -> Step:
    """A step of the PyTorch restatement."""
    sys.path.insert(0, str(CHECKOUT / "benchmarks"))
    from plain_bcq import PlainBCQ  # type: ignore[import-not-found, unused-ignore]

    bcq, columns, rng = PlainBCQ(OBS, ACTION), data(), np.random.default_rng(0)
    return lambda: bcq.step(columns, rng)


def numpy_step() -> Step:
    """A step of the NumPy restatement, float32."""
    sys.path.insert(0, str(CHECKOUT / "tests"))
    import oracle_bcq as oracle  # type: ignore[import-not-found, unused-ignore]

    rng = np.random.default_rng(0)

    def layers(*sizes: int) -> Any:
        return [
            (rng.uniform(-1, 1, (i, o)).astype(np.float32) / i**0.5, np.zeros(o, np.float32))
            for i, o in pairwise(sizes)
        ]

    def actor() -> Any:
        return layers(OBS + ACTION, 400, 300, ACTION)

    def critics() -> Any:
        return [layers(OBS + ACTION, 400, 300, 1) for _ in range(2)]

    latent = 2 * ACTION
    bcq = oracle.ReferenceBCQ(
        layers(OBS + ACTION, 750, 750, 2 * latent),
        layers(OBS + latent, 750, 750, ACTION),
        actor(),
        actor(),
        critics(),
        critics(),
    )
    columns, size = data(), 100

    def noise(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    def step() -> None:
        index = rng.integers(ROWS - 1, size=size)
        batch = {
            "state": columns["observations"][index],
            "action": columns["actions"][index],
            "reward": columns["rewards"][index],
            "next_state": columns["observations"][index + 1],
            "not_done": 1.0 - columns["terminals"][index].astype(np.float32),
        }
        bcq.train(
            batch, {"encoder": noise(size, latent), "target": noise(10, size, latent), "actor": noise(size, latent)}
        )

    return step


def jax_step(algorithm: str) -> Step:
    """A step of the JAX restatement: several of them are one call, at the first of them."""
    sys.path.insert(0, str(CHECKOUT / "benchmarks"))
    import plain_jax  # type: ignore[import-not-found, unused-ignore]

    call, count = plain_jax.call(algorithm, data()), itertools.count()

    def step() -> None:
        if next(count) % plain_jax.UPDATES == 0:
            call()

    return step


def d3rlpy_step(algorithm: str) -> Step:
    """A step of d3rlpy with the same sizes, its sampling included."""
    import d3rlpy  # type: ignore[import-not-found, unused-ignore]

    vector = d3rlpy.models.encoders.VectorEncoderFactory
    if algorithm == "bcq":
        config = d3rlpy.algos.BCQConfig(
            actor_encoder_factory=vector([400, 300]),
            critic_encoder_factory=vector([400, 300]),
            imitator_encoder_factory=vector([750, 750]),
            batch_size=100,
            n_action_samples=10,
            action_flexibility=0.05,
        )
    else:
        config = {"td3-bc": d3rlpy.algos.TD3PlusBCConfig, "iql": d3rlpy.algos.IQLConfig}[algorithm](batch_size=256)
    dataset = d3rlpy.dataset.MDPDataset(**data())
    learner = config.create(device="cpu")
    learner.build_with_dataset(dataset)
    size = config.batch_size

    def step() -> None:
        learner.update(dataset.sample_transition_batch(size))

    return step


def our_step(name: str, kind: list[str]) -> Step:
    """A step of ours, sampling included, as `fit` takes it; ``kind``: "products", or precision and "compiled"."""
    import torch

    from offline_vi.behavior.proposals import CandidateCache, Proposals
    from offline_vi.data.samplers import Sampler
    from offline_vi.data.transitions import Transitions
    from offline_vi.nn.precision import precision_of_targets
    from offline_vi.study.agents import build_agent, new_model
    from offline_vi.study.presets import choice

    transitions = Transitions.from_d4rl({**data(), "timeouts": np.zeros(ROWS, bool)})
    spec, cpu = transitions.spec, torch.device("cpu")
    algorithm_name, preset = (*name.split(), "published")[:2]
    chosen_agent, caches = choice(preset, algorithm_name, spec), list[CandidateCache]()

    def cache(proposals: Proposals) -> CandidateCache:
        caches.append(CandidateCache(proposals, transitions))
        return caches[-1]

    model = new_model(chosen_agent, spec) if chosen_agent.behavior else None
    algorithm = build_agent(chosen_agent, spec, model, cache)
    sampler, update = Sampler(transitions, algorithm.batch_size), updates(algorithm, kind)
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        for one in caches:
            one.advance(count)
        with precision_of_targets(precision_in(kind), cpu):
            update(sampler.sample())

    return step_or_products(step, kind, period=2 if algorithm_name == "td3-bc" else 1)


def updates(algorithm: Any, kind: list[str]) -> Callable[[Any], object]:
    """The algorithm's update as ``kind`` has it and as the training loop takes it, on the faster of torch's paths."""
    from offline_vi.nn.precision import exact_products, keep_freed_memory, use_products, without_denormals
    from offline_vi.training.capture import PROGRAMS, Captured

    keep_freed_memory()
    use_products(exact_products())
    algorithm.train()
    update = Captured(algorithm, *PROGRAMS["compiled"]) if "compiled" in kind else algorithm.update

    def advance(batch: Any) -> object:
        with without_denormals():
            return update(batch)

    return advance


def precision_in(kind: list[str]) -> str:
    return "bfloat16" if "bfloat16" in kind else "float32"


def step_or_products(step: Step, kind: list[str], period: int = 1) -> Step:
    if kind != ["products"]:
        return step
    sys.path.insert(0, str(CHECKOUT / "benchmarks"))
    import products  # type: ignore[import-not-found, unused-ignore]

    for _ in range(2):  # tables of candidates are filled at the first
        step()
    found: Step = products.products_of(step, period)
    return found


def sb3_step() -> Step:
    """A step of Stable-Baselines3's SAC in the environment and its gradient step: the body of its `learn`."""
    import stable_baselines3  # type: ignore[import-not-found, unused-ignore]

    sac = stable_baselines3.SAC(
        "MlpPolicy", ENV, learning_starts=WARMUP, policy_kwargs={"net_arch": [256, 256]}, device="cpu", seed=0
    )
    _, callback = sac._setup_learn(10**9, None)

    def collect() -> None:
        sac.collect_rollouts(sac.env, callback, sac.train_freq, sac.replay_buffer, learning_starts=WARMUP)

    for _ in range(WARMUP):
        collect()

    def step() -> None:
        collect()
        sac.train(gradient_steps=1, batch_size=256)

    return step


def our_sac_step(kind: list[str]) -> Step:
    """A step of ours in the environment and its gradient step, as `fit_online` takes it."""
    import torch

    from offline_vi.algorithms.sac import SAC
    from offline_vi.datasets import environment
    from offline_vi.nn.precision import precision_of_targets
    from offline_vi.training.collector import Collection, Collector
    from offline_vi.types import Spec

    spec, cpu = Spec((OBS,), ACTION), torch.device("cpu")
    sac = SAC(spec)
    collector, update = (
        Collector(sac, environment(ENV), spec, sac.batch_size, Collection(warmup=WARMUP)),
        updates(sac, kind),
    )

    def step() -> None:
        with precision_of_targets(precision_in(kind), cpu):
            update(collector.sample())
        collector.metrics()

    return step_or_products(step, kind)


def worker(name: str, settle: int) -> None:
    """Answer every line on stdin by the milliseconds of a step over one turn: as they pass, and of the processor."""
    algorithm, *kind = name.split()
    others: dict[tuple[str, ...], Callable[[], Step]] = {
        ("numpy",): numpy_step,
        ("pytorch",): pytorch_step,
        ("jax",): lambda: jax_step(algorithm),
        ("d3rlpy",): lambda: d3rlpy_step(algorithm),
        ("sb3",): sb3_step,
    }
    if tuple(kind) in others:
        step = others[tuple(kind)]()
    elif algorithm == "sac":
        step = our_sac_step(kind)
    elif kind[0] in ("published", "fast", "recommended"):
        step = our_step(f"{algorithm} {kind[0]}", kind[1:])
    else:
        step = our_step(algorithm, kind)
    for _ in range(settle):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        started, processor, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - started < SECONDS:
            step()
            count += 1
        spent = time.perf_counter() - started, time.process_time() - processor
        print(*(1e3 * seconds / count for seconds in spent), flush=True)


# ------------------------------------------------------------------ the comparison


def python_of(name: str, folder: Path) -> Path:
    """Python of the environment ``name``, made where it is missing."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        print(f"making {folder / name}: minutes", file=sys.stderr, flush=True)
        venv.create(folder / name, with_pip=True)
        for packages in PACKAGES[name]:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a step of every contender in every round, and the ratios."""
    chosen = [name for name in CONTENDERS if not any(word in name for word in options.without)]
    chosen = [name for name in chosen if any(word in name for word in options.only)]
    one_thread = {**os.environ, **ONE_THREAD}
    one_thread.pop("OPENBLAS_CORETYPE", None)  # NumPy's library is to choose its own kernels
    others = sorted({CONTENDERS[name][0] for name in chosen} - {"ours"})
    pythons = {"ours": Path(sys.executable), **{name: python_of(name, options.envs) for name in others}}
    workers = {}
    for name in chosen:
        command = [str(pythons[CONTENDERS[name][0]]), str(Path(__file__).resolve()), "--worker", name]
        command += ["--settle", str(options.settle)]
        workers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=one_thread
        )
        while (line := _read(workers[name])) != "ready":  # a library may greet first
            if not line:
                sys.exit(f"{name} cannot be started: try `{' '.join(command)}`")
    times, passed = ({name: list[float]() for name in chosen} for _ in range(2))  # of the processor, and as they pass
    for _ in range(options.rounds):
        for name, process in workers.items():
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            for record, milliseconds in zip((passed, times), _read(process).split(), strict=True):
                record[name].append(float(milliseconds))
    for process in workers.values():
        process.terminate()
    ratios = {
        name: {
            other: [theirs / own for theirs, own in zip(times[other], times[name], strict=True)]
            for other in CONTENDERS[name][1]
            if other in times
        }
        for name in chosen
    }
    return {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "threads": 1,
        "rounds": options.rounds,
        "milliseconds": times,
        "milliseconds passed": passed,
        "ratios": ratios,
    }


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def told(record: dict[str, Any]) -> str:
    """The table."""
    lines = ["| contender | processor ms a step | times as fast as: median, range over rounds |", "|---|---|---|"]
    for name, values in record["milliseconds"].items():
        spread = [
            f"{other.split()[-1]} {statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"
            for other, ratio in record["ratios"][name].items()
        ]
        lines.append(f"| {name} | {statistics.median(values):.2f} | {', '.join(spread)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contender (default: %(default)s)")
    parser.add_argument("--without", nargs="*", default=[], metavar="WORD", help="leave contenders out, e.g. d3rlpy")
    parser.add_argument("--only", nargs="*", default=[""], metavar="WORD", help="contenders with such a word, e.g. iql")
    parser.add_argument("--envs", type=Path, default=Path("build/compare_speed"), help="where environments are made")
    parser.add_argument("--json", type=Path, help="write the measurements")
    parser.add_argument("--settle", type=int, default=8, help="steps ahead of the first turn (default: %(default)s)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.settle)
        return
    record = compare(options)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['processor']}, 1 thread, Python {record['python']}, {record['rounds']} rounds of {SECONDS} s\n")
    print(told(record))


if __name__ == "__main__":
    main()
