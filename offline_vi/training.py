"""The training loops: `fit` for algorithms, `fit_behavior` for behaviour models, `fit_online` for algorithms that
collect their own data. Nobody else loops over steps.

The loop owns the random state of training: the sampler's stream and the device's default generator are seeded from one
`numpy.random.SeedSequence`, saved in every checkpoint and restored from it, so that an interrupted run ends with the
same bytes as one that was not.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from offline_vi.algorithm import Algorithm, OnlineAlgorithm, adam, descend
from offline_vi.bank import CandidateBank, Scheduled
from offline_vi.behavior.base import BehaviorModel
from offline_vi.checkpoint import RunDirectory, random_state, set_random_state
from offline_vi.data import Sampler, Source, StackedSampler, Transitions
from offline_vi.errors import (
    CapabilityError,
    CheckpointCorruptError,
    DeterminismWarning,
    Interrupted,
    MachineWarning,
    NonFiniteLossError,
    UsageError,
)
from offline_vi.experience import Blended, Collector, Experience, Explorer
from offline_vi.machine import (
    compiled,
    compiler,
    differences,
    facts,
    fastest_exact_products,
    keep_freed_memory,
    precision_of_targets,
    uncompiled,
    use_products,
)
from offline_vi.nets import cosine_
from offline_vi.types import Batch, Metrics, Spec, Task

OnEval = Callable[[int, Algorithm], dict[str, float]]
"""(step, algorithm) -> numbers to show beside the metrics, e.g. {"score": 61.2}."""

NONFINITE = "nonfinite.json"  # of a run that stopped: the step, its losses, the rows of its last batch
CHECK_EVERY = 100  # steps between two looks for NaN: one host synchronisation each


@dataclass
class History:
    """One row of means per log interval, as written to metrics.csv."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def column(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The values of one metric over the rows that have it."""
        return np.array([row[name] for row in self.rows if name in row], np.float64)


class IntervalMean:
    """Means of metrics over a log interval, each over the steps that had it, summed in float64 and read once."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Metrics) -> None:
        for name, value in metrics.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def finite(self) -> bool:
        """Whether everything added so far is finite, of one seed at least where several train side by side: one
        synchronisation."""
        if not self.sums:
            return True
        return bool(torch.stack(torch.broadcast_tensors(*self.sums.values())).isfinite().all(0).any())

    def read(self) -> dict[str, float]:
        """The means, one per seed (``name.0``, ``name.1``, ...) where there are several; starts the next interval."""
        means: dict[str, float] = {}
        for name, value in self.sums.items():
            labels = [f"{name}.{seed}" for seed in range(len(value))] if value.ndim else [name]
            means |= dict(zip(labels, (value.reshape(-1) / self.counts[name]).tolist(), strict=True))
        self.sums, self.counts = {}, {}
        return means

    def state(self) -> dict[str, Any]:
        """JSON-ready: floats survive JSON exactly."""
        return {"counts": self.counts, "sums": {name: value.tolist() for name, value in self.sums.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        self.counts = dict(state["counts"])
        self.sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in state["sums"].items()}


def seeds(seed: int) -> dict[str, np.random.SeedSequence]:
    """Independent random streams, one per purpose, from one seed: adding an evaluation never shifts training."""
    names = ("init", "batches", "noise", "behavior")
    return dict(zip(names, np.random.SeedSequence(seed).spawn(len(names)), strict=True))


def torch_seed(sequence: np.random.SeedSequence) -> int:
    """A seed for `torch.manual_seed`."""
    state = int(sequence.generate_state(1, np.uint64).item())
    return state >> 1


def set_seed(seed: int) -> None:
    """Set torch's and Python's default generators to where the initialisation of this seed begins.

    Whatever is built draws from them: call it before the first network is made. Command, suites and Python do.
    """
    start = torch_seed(seeds(seed)["init"])
    torch.manual_seed(start)
    random.seed(start)


@contextmanager
def _own_random_state(noise: np.random.SeedSequence, cuda: list[torch.device]) -> Iterator[None]:
    """Torch's and Python's default generators, seeded from ``noise``; the caller's states come back afterwards."""
    before = random.getstate()
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(torch_seed(noise))
        random.seed(torch_seed(noise))  # nothing here draws from it, but an environment may, and checkpoints hold it
        try:
            yield
        finally:
            random.setstate(before)


@contextmanager
def _stop_requests(run: RunDirectory | None) -> Iterator[list[int]]:
    """In a run, collect SIGINT and SIGTERM instead of dying of them: the loop finishes its step, saves, and leaves."""
    received: list[int] = []

    def note(signum: int, _: FrameType | None) -> None:
        received.append(signum)

    if run is None or threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def fit(
    algorithm: Algorithm,
    data: Transitions | Source,
    steps: int,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: str = "float32",
    compile_losses: bool = False,
    log_every: int = 1_000,
    eval_every: int | None = None,
    on_eval: OnEval | None = None,
    run: RunDirectory | None = None,
    save_every: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Train ``algorithm`` for ``steps`` gradient steps.

    Parameters
    ----------
    data: transitions to draw uniform batches from, or any source of batches (a `StackedSampler` for several seeds)
    batch_size: transitions a step; the algorithm's own where None
    seed: of batches and training noise (initialisation is the caller's)
    precision: of passes without gradient (targets): "float32", or "bfloat16" where the processor is faster in it
        (`machine.fastest_precision`)
    compile_losses: pass every loss of the algorithm through `torch.compile`; a MachineWarning, and nothing else,
        where a CPU has no compiler
    log_every, eval_every, save_every: steps; evaluation calls ``on_eval``, saving needs ``run``
    run: where metrics and checkpoints go; without it nothing is written and signals are not handled
    resume: continue from the run's newest checkpoint: bit-identical to never having stopped

    Raises NonFiniteLossError within 100 steps of the first NaN (of several seeds side by side: when the last one is
    lost); Interrupted after SIGINT or SIGTERM, with the checkpoint written.
    """
    keep_freed_memory()
    if torch.device(device).type == "cpu":
        use_products(fastest_exact_products())
    streams = seeds(seed)
    algorithm.to(device)
    if compile_losses:
        _compile_losses(algorithm, torch.device(device))
    scheduled = [module for module in algorithm.modules() if isinstance(module, Scheduled)]
    source: Source = (
        Sampler(data, batch_size or algorithm.batch_size, streams["batches"], device)
        if isinstance(data, Transitions)
        else data
    )
    history, interval, start = History(), IntervalMean(), 0
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with _own_random_state(streams["noise"], cuda), _stop_requests(run) as stop:
        if run is not None and resume:
            start = _restore(run, algorithm, source, interval, torch.device(device))
        bar = _Progress(start, steps, progress, run)
        algorithm.train()
        for step in range(start + 1, steps + 1):
            for part in scheduled:
                part.advance(step)
            with precision_of_targets(precision, torch.device(device)):
                batch = source.sample()
                interval.add(algorithm.update(batch))
            if isinstance(source, Experience):
                interval.add(source.metrics())
            logs, evaluates = step % log_every == 0, bool(eval_every) and step % (eval_every or 1) == 0
            saves = step == steps or (save_every is not None and step % save_every == 0)
            if (step % CHECK_EVERY == 0 or logs or saves or stop) and not interval.finite():
                if run is not None:
                    run.write_json(NONFINITE, {"step": step, "losses": _worst(interval), "rows": batch.index.tolist()})
                raise NonFiniteLossError(
                    f"a loss is not finite at step {step:,}: {_worst(interval)}",
                    "lower the learning rate, or look at the data with `offline-vi data check`",
                )
            if logs or step == steps:
                row = {"step": float(step), **interval.read()}
                history.rows.append(row)
                if run is not None:
                    run.log_metrics({**row, "step": step})
                bar.show(step, row)
            if (evaluates or step == steps) and on_eval is not None:
                algorithm.eval()
                bar.evaluated(step, on_eval(step, algorithm))
                algorithm.train()
            collects = isinstance(source, Experience)  # between its regular checkpoints it would end other episodes
            if run is not None and (saves or (stop and not collects)):
                _save(run, step, algorithm, source, interval, torch.device(device))
            if stop:
                raise Interrupted(stop[0], step, resumable=run is not None and run.has_checkpoint())
            bar.advance()
        bar.close()
    algorithm.eval()
    return history


def _compile_losses(algorithm: Algorithm, device: torch.device) -> None:
    """Every ``*_loss`` method, of wrapped algorithms too: what lies between two `descend`. A table of candidates drawn
    ahead stays outside: a compiled step would read it whole."""
    if device.type == "cpu" and compiler() is None:
        warnings.warn("there is no C++ compiler: losses run as they are", MachineWarning, stacklevel=3)
        return
    for part in algorithm.modules():
        if isinstance(part, Algorithm):
            for name in (name for name in dir(type(part)) if name.endswith("_loss")):
                setattr(part, name, compiled(getattr(part, name)))
        if isinstance(part, CandidateBank):
            part.at_obs, part.at_next_obs = uncompiled(part.at_obs), uncompiled(part.at_next_obs)  # type: ignore[method-assign]


def _save(
    run: RunDirectory, step: int, algorithm: Algorithm, source: Source, interval: IntervalMean, device: torch.device
) -> None:
    rows: dict[str, Tensor] = {}
    if isinstance(source, Experience):
        source.pause()
        rows = source.tensors()
    tensors = algorithm.snapshot()
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all() and not isinstance(source, StackedSampler):
            raise NonFiniteLossError(f"{name} is not finite at step {step:,}", "lower the learning rate")
    weights = algorithm.state_dict().keys()
    noise, python_noise = random_state()
    run.save(
        step,
        {name: tensor for name, tensor in tensors.items() if name in weights},
        {name: tensor for name, tensor in tensors.items() if name not in weights}
        | {f"random.{name}": tensor for name, tensor in noise.items()}
        | {f"replay.{name}": tensor for name, tensor in rows.items()},
        {
            "source": source.state(),
            "interval": interval.state(),
            "random": python_noise,
            "products": torch.get_float32_matmul_precision(),
            "machine": facts(device),
        },
    )


def _restore(
    run: RunDirectory, algorithm: Algorithm, source: Source, interval: IntervalMean, device: torch.device
) -> int:
    checkpoint = run.latest()
    if changed := differences(checkpoint.state.get("machine", {}), facts(device)):
        warnings.warn(f"{changed}: the bits will not be those of one run", DeterminismWarning, stacklevel=3)
    noise, rows = (
        {name.removeprefix(prefix): t for name, t in checkpoint.trainer.items() if name.startswith(prefix)}
        for prefix in ("random.", "replay.")
    )
    moments = {name: t for name, t in checkpoint.trainer.items() if not name.startswith(("random.", "replay."))}
    algorithm.restore({**checkpoint.model, **moments})
    try:
        source.load_state(checkpoint.state["source"])
        if isinstance(source, Experience):
            source.load_tensors(rows)
        interval.load_state(checkpoint.state["interval"])
        set_random_state(noise, checkpoint.state["random"])
        use_products(checkpoint.state.get("products", "highest"))  # as it began: the two paths round differently
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointCorruptError(
            f"checkpoint {checkpoint.path.name}: its state is not that of such a run ({error!r})",
            "train it anew with --overwrite",
        ) from error
    return checkpoint.step


def _worst(interval: IntervalMean) -> str:
    return ", ".join(name for name, value in interval.sums.items() if not value.isfinite().all())


def over_seeds(row: Mapping[str, float]) -> dict[str, float]:
    """The row with ``name.0``, ``name.1``, ... of seeds side by side as one mean under ``name``."""
    values: dict[str, list[float]] = {}
    for name, value in row.items():
        base, _, seed = name.rpartition(".")
        values.setdefault(base if seed.isdigit() else name, []).append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}


class _Progress:
    """A bar on a terminal, a line per log interval elsewhere; the lines go into the run's log.txt in any case."""

    def __init__(self, start: int, steps: int, enabled: bool, run: RunDirectory | None) -> None:
        self.steps, self.enabled = steps, enabled
        self.log = run.path / "log.txt" if run is not None else None
        self.terminal = enabled and sys.stderr.isatty()
        self.bar = tqdm(total=steps, initial=start, unit="step", disable=not self.terminal, dynamic_ncols=True)
        self.started, self.start = time.monotonic(), start

    def advance(self) -> None:
        if self.terminal:
            self.bar.update()

    def show(self, step: int, row: dict[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in over_seeds(row).items() if name != "step")
        rate = (step - self.start) / max(time.monotonic() - self.started, 1e-9)
        line = f"step {step:>9,}/{self.steps:,}  {rate:6.1f} steps/s  {text}"
        self.write(line)
        if self.terminal:
            self.bar.set_postfix_str(text[:100], refresh=False)
        elif self.enabled:
            print(line, file=sys.stderr, flush=True)

    def evaluated(self, step: int, numbers: dict[str, float]) -> None:
        line = f"step {step:>9,}  evaluation: " + "  ".join(f"{name} {value:.1f}" for name, value in numbers.items())
        self.write(line)
        if self.enabled and numbers:
            tqdm.write(line, file=sys.stderr)

    def write(self, line: str) -> None:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(line + "\n")

    def close(self) -> None:
        self.bar.close()


def fit_online(
    algorithm: Algorithm,
    task: Task,
    spec: Spec,
    steps: int,
    *,
    explorer: Explorer | None = None,
    beginner: Explorer | None = None,
    offline: Transitions | None = None,
    share: float = 0.5,
    warmup: int = 100,
    num_envs: int = 1,
    capacity: int = 1_000_000,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    **options: Any,
) -> tuple[History, Transitions]:
    """Train ``algorithm`` in the task's environment: ``warmup`` uniform actions, then ``steps`` times a step in the
    environment and a gradient step. Returns the history and what was collected (the newest ``capacity`` rows).

    ``explorer`` chooses the actions: the algorithm itself, if it is an `OnlineAlgorithm`, else a policy with noise
    (`experience.GaussianNoise`); ``beginner``, instead of uniform noise, those of the warm-up. With ``offline`` data a
    ``share`` of every batch is of them, and the rest of what was collected. Every checkpoint ends the running episodes;
    SIGINT and SIGTERM save none, so that the resumed run, from the last regular one, is the same to the last bit. Other
    options are those of `fit`.

    Raises CapabilityError where nobody can explore, UsageError for a share that leaves one side no row of a batch,
    EnvError, and what `fit` raises.
    """
    if explorer is None:
        if not isinstance(algorithm, OnlineAlgorithm):
            raise CapabilityError(f"{type(algorithm).__name__} does not explore", "give a GaussianNoise(policy)")
        explorer = algorithm
    size = batch_size or algorithm.batch_size
    kept = 0 if offline is None else round(share * size)
    if offline is not None and not 0 < kept < size:
        raise UsageError(f"{kept} of the {size} rows of a batch are offline data", "a share between 0 and 1")
    stream = seeds(seed)["batches"]
    collector = Collector(
        explorer,
        task,
        spec,
        size - kept,
        warmup=warmup,
        beginner=beginner,
        num_envs=num_envs,
        capacity=capacity,
        seed=stream,
        device=device,
    )
    source: Source = collector
    if offline is not None:
        source = Blended(Sampler(offline, kept, stream.spawn(1)[0], device), collector)
    try:
        history = fit(algorithm, source, steps, seed=seed, device=device, **options)
        return history, collector.transitions()
    finally:
        collector.close()


class _BehaviorFit(Algorithm):
    """Maximum likelihood of a behaviour model, seen by the loop as an algorithm whose policy samples the model."""

    def __init__(self, model: BehaviorModel, optimizer: torch.optim.Optimizer, steps: int, batch_size: int) -> None:
        super().__init__()
        self.model = model
        self.batch_size = batch_size
        self.model_opt, self.lr, self.steps = optimizer, float(optimizer.param_groups[0]["lr"]), steps

    def update(self, batch: Batch) -> Metrics:
        cosine_(self.model_opt, self.lr, self.steps)
        loss, metrics = self.model.loss(batch.obs, batch.action)
        descend(self.model_opt, loss)
        return metrics

    def act(self, obs: Tensor) -> Tensor:
        return Clone(self.model).act(obs)


def fit_behavior(
    model: BehaviorModel,
    data: Transitions | Source,
    steps: int,
    *,
    batch_size: int = 256,
    lr: float = 1e-3,
    eps: float = 1e-8,
    seed: int = 0,
    device: str | torch.device = "cpu",
    **options: Any,
) -> History:
    """Fit a behaviour model to (s, a) for ``steps`` gradient steps with Adam, whose rate falls from ``lr`` to 0 as half
    a cosine; other options are those of `fit`.

    The falling rate is what keeps the density of unseen episodes improving to the end: a constant one over-fits.
    """
    optimizer = adam(model.parameters(), lr, eps=eps)
    return fit(
        _BehaviorFit(model, optimizer, steps, batch_size),
        data,
        steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        **options,
    )


class Clone:
    """A behaviour model as a policy: one sample for each state."""

    def __init__(self, model: BehaviorModel) -> None:
        self.model = model

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A)."""
        return self.model.sample(obs)[0]
