"""The training loops: `fit` for algorithms, `fit_behavior` for behaviour models, `fit_online` for algorithms that
collect their own data. Nobody else loops over steps.

The loop owns the random state of training: the sampler's stream and the device's default generator are seeded from one
`numpy.random.SeedSequence`, saved in every checkpoint and restored from it, so that an interrupted run ends with the
same bytes as one that was not.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from offline_vi.behavior.base import BehaviorModel
from offline_vi.behavior.proposals import Scheduled
from offline_vi.data.samplers import Sampler, Source, StackedSampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import (
    CapabilityError,
    CheckpointCorruptError,
    DeterminismWarning,
    Interrupted,
    NonFiniteLossError,
    UsageError,
)
from offline_vi.nn.optim import adam, cosine_, gradient_step
from offline_vi.nn.precision import (
    differences,
    exact_products,
    facts,
    keep_freed_memory,
    precision_of_targets,
    use_products,
)
from offline_vi.rl.algorithm import Algorithm, OnlineAlgorithm
from offline_vi.rl.policies import BehaviorPolicy, Explorer
from offline_vi.runs.directory import RunDirectory
from offline_vi.training.collector import Blended, Collector, Experience
from offline_vi.training.metrics import History, IntervalMean
from offline_vi.training.progress import Progress
from offline_vi.training.randomness import own_random_state, random_state, seeds, set_random_state
from offline_vi.types import Batch, Metrics, Spec, Task

OnEval = Callable[[int, Algorithm], dict[str, float]]
"""(step, algorithm) -> numbers to show beside the metrics, e.g. {"score": 61.2}."""

NONFINITE = "nonfinite.json"  # of a run that stopped: the step, its losses, the rows of its last batch
CHECK_EVERY = 100  # steps between two looks for NaN: one host synchronisation each


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
        (`precision.preferred_precision`)
    log_every, eval_every, save_every: steps; evaluation calls ``on_eval``, saving needs ``run``
    run: where metrics and checkpoints go; without it nothing is written and signals are not handled
    resume: continue from the run's newest checkpoint: bit-identical to never having stopped

    Raises NonFiniteLossError within 100 steps of the first NaN (of several seeds side by side: when the last one is
    lost); Interrupted after SIGINT or SIGTERM, with the checkpoint written.
    """
    keep_freed_memory()
    if torch.device(device).type == "cpu":
        use_products(exact_products())
    streams = seeds(seed)
    algorithm.to(device)
    scheduled = [module for module in algorithm.modules() if isinstance(module, Scheduled)]
    source: Source = (
        Sampler(data, batch_size or algorithm.batch_size, streams["batches"], device)
        if isinstance(data, Transitions)
        else data
    )
    history, interval, start = History(), IntervalMean(), 0
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with own_random_state(streams["noise"], cuda), _stop_requests(run) as stop:
        if run is not None and resume:
            start = _restore(run, algorithm, source, interval, torch.device(device))
        bar = Progress(start, steps, progress, run)
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
            raise CapabilityError(f"{type(algorithm).__name__} does not explore", "give a NoisyPolicy(policy)")
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
        gradient_step(self.model_opt, loss)
        return metrics

    def act(self, obs: Tensor) -> Tensor:
        return BehaviorPolicy(self.model).act(obs)


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
