"""The training loop. Nobody else loops over steps.

The loop owns the random state of training: the sampler's stream and the device's default generator are seeded from one
`numpy.random.SeedSequence`, saved in every checkpoint and restored from it, so that an interrupted run ends with the
same bytes as one that was not. A checkpoint is written before an evaluation runs: an evaluation cannot cost the work.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from offline_vi.data.samplers import Sampler, Source, StackedSampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import CheckpointCorruptError, DeterminismWarning, Interrupted, NonFiniteLossError, unknown
from offline_vi.nn import state as whole
from offline_vi.nn.precision import (
    differences,
    exact_products,
    facts,
    keep_freed_memory,
    precision_of_targets,
    use_products,
)
from offline_vi.nn.state import Scheduled
from offline_vi.rl.algorithm import Algorithm, set_task
from offline_vi.runs.directory import RunDirectory
from offline_vi.stopping import Stop, held, listening, requests
from offline_vi.training.capture import Graph
from offline_vi.training.collector import Experience
from offline_vi.training.metrics import History, IntervalMean
from offline_vi.training.progress import Progress
from offline_vi.training.randomness import own_random_state, random_state, seeds, set_random_state
from offline_vi.training.updates import Updates

OnEval = Callable[[int, Algorithm], dict[str, float]]
"""(step, algorithm) -> numbers to show beside the metrics, e.g. {"score": 61.2}."""

NONFINITE = "nonfinite.json"  # of a run that stopped: the step, its losses, the rows of its last batch
CHECK_EVERY = 100  # steps between two looks for NaN: one host synchronization each


class LoopOptions(TypedDict, total=False):
    """The options of `fit`, `fit_behavior` and `fit_online`, all of them keywords: ``batch_size``, ``seed``,
    ``device``, ``precision``, ``graph``, ``log_every``, ``eval_every``, ``on_eval``, ``run``, ``save_every``,
    ``resume``, ``progress`` and ``phase``. The table of `Loop` has their types, defaults and meanings."""

    batch_size: int | None
    seed: int
    device: str | torch.device
    precision: str
    graph: Graph
    log_every: int
    eval_every: int | None
    on_eval: OnEval | None
    run: RunDirectory | None
    save_every: int | None
    resume: bool
    progress: bool
    phase: str


@dataclass(frozen=True)
class Loop:
    """How a training loop runs."""

    batch_size: int | None = None  # transitions a step; None: the algorithm's own
    seed: int = 0  # of batches and training noise; initialization is the caller's (`set_seed`)
    device: str | torch.device = "cpu"  # where updates run
    precision: str = "float32"  # of passes without gradient (targets): float32 | bfloat16 (`preferred_precision`)
    graph: Graph = "off"  # updates run as written, or as programs: compiled | replayed (`preferred_graph`)
    log_every: int = 1_000  # steps between two rows of metrics
    eval_every: int | None = None  # steps between two calls of on_eval, which is called after the last step too
    on_eval: OnEval | None = None  # what it returns stands beside the metrics
    run: RunDirectory | None = None  # where metrics and checkpoints go; without it nothing is written
    save_every: int | None = None  # steps between two checkpoints; one is written before each evaluation too
    resume: bool = False  # continue from the run's newest checkpoint, bit-identical to never having stopped
    progress: bool = True  # a bar on a terminal, lines elsewhere
    phase: str = ""  # what is trained, in the lines of progress

    def is_due(self, step: int, every: int | None) -> bool:
        return every is not None and every > 0 and step % every == 0


def fit(algorithm: Algorithm, data: Transitions | Source, steps: int, **options: Unpack[LoopOptions]) -> History:
    """Train ``algorithm`` for ``steps`` gradient steps on transitions, or on any source of batches.

    The options are those of `Loop`. An algorithm that was trained before goes on with batches that it has not met.

    Raises NonFiniteLossError within 100 steps of the first NaN (of several seeds in parallel: when the last one is
    lost); Interrupted after a signal that asks for the end (`stopping`), with the checkpoint written; CapabilityError
    where a part of the algorithm could not be saved (`nn.state`).
    """
    return train(algorithm, data, steps, loop_of(options))


def loop_of(options: Mapping[str, Any]) -> Loop:
    """The options as an object. Raises UsageError for one that there is not, with the nearest one."""
    names = [field.name for field in fields(Loop)]
    for name in options:
        if name not in names:
            raise unknown(name, names, "option of fit")
    return Loop(**options)


def train(algorithm: Algorithm, data: Transitions | Source, steps: int, loop: Loop) -> History:
    """`fit` with its options in one object."""
    return _Training(algorithm, data, steps, loop).run()


class _Training:
    """One call of `fit`."""

    def __init__(self, algorithm: Algorithm, data: Transitions | Source, steps: int, loop: Loop) -> None:
        whole.refuse_unsaved(algorithm)
        self.algorithm, self.steps, self.loop = algorithm, steps, loop
        self.device = torch.device(loop.device)
        self.streams = seeds(loop.seed, after=0 if loop.resume else algorithm.trained_steps)
        algorithm.to(self.device)
        self.source: Source = data if not isinstance(data, Transitions) else self._sampler(data)
        self.updates = Updates(algorithm, self.source, loop.graph)
        self.collects = isinstance(self.source, Experience)
        self.scheduled = [module for module in algorithm.modules() if isinstance(module, Scheduled)]
        self.history, self.interval = History(), IntervalMean()
        self.done = 0  # gradient steps

    def _sampler(self, data: Transitions) -> Sampler:
        set_task(self.algorithm, data.task)
        size = self.loop.batch_size or self.algorithm.batch_size
        return Sampler(data, size, self.streams["batches"], self.device)

    def run(self) -> History:
        try:
            with listening(), held():
                return self._train()
        except Stop as stop:
            raise self._interrupted(stop.signum) from None
        finally:
            requests.unsaved = False

    def _train(self) -> History:
        loop = self.loop
        keep_freed_memory()
        if self.device.type == "cpu":
            use_products(exact_products())
        cuda = [self.device] if self.device.type == "cuda" else []
        with own_random_state(self.streams["noise"], cuda):
            if loop.run is not None and loop.resume:
                self.done = self._restore(loop.run)
            self.bar = Progress(self.done, self.steps, loop.progress, loop.run, loop.phase)
            if self.done:
                self._conclude(self.done)
            self.algorithm.train()
            while self.done < self.steps:
                self._advance(self._together())
            self.bar.close()
        self.algorithm.eval()
        return self.history

    def _advance(self, steps: int) -> None:
        """Gradient steps, and what follows the last of them. Raises Interrupted where that was asked for, once it is
        saved."""
        loop = self.loop
        rows, step = self._step(steps), self.done + steps
        self.done, requests.unsaved = step, not self.collects
        self._look(step, rows)
        if loop.is_due(step, loop.log_every):
            self._log(step)
        if loop.run is not None and self._saves(step):
            self._save(loop.run, step)
            requests.unsaved = False
        if requests.signum:
            raise self._interrupted(requests.signum)
        self._conclude(step)
        self.bar.advance(steps)

    def _together(self) -> int:
        """How many gradient steps come next at once, after the last of which alone there may be something to do. It
        follows from the step, so that a run that resumes takes the same ones."""
        most, step = self.updates.together, self.done
        free = step % most == 0 and step + most <= self.steps
        return most if free and not any(map(self._stops, range(step + 1, step + most))) else 1

    def _stops(self, step: int) -> bool:
        """Whether something follows a step."""
        return self._looks(step) or self._evaluates(step)

    def _interrupted(self, signum: int) -> Interrupted:
        run = self.loop.run
        stop = Interrupted(signum, self.done, self.steps, saved=run.newest_step() if run else None)
        stop.history = self.history
        return stop

    def _step(self, steps: int) -> Tensor:
        """Returns the rows of the last batch."""
        for part in self.scheduled:
            for step in range(self.done + 1, self.done + steps + 1):
                part.advance(step)
        with precision_of_targets(self.loop.precision, self.device):
            rows, metrics = self.updates(steps)
        for sums, count in metrics:
            self.interval.add(sums, count)
        if isinstance(self.source, Experience):
            self.interval.add(self.source.metrics())
        self.algorithm.trained_steps += steps
        return rows

    def _looks(self, step: int) -> bool:
        loop = self.loop
        return step % CHECK_EVERY == 0 or loop.is_due(step, loop.log_every) or self._saves(step)

    def _look(self, step: int, rows: Tensor) -> None:
        """Raise NonFiniteLossError where a loss is not finite; now and then, and before anything is written."""
        run = self.loop.run
        if self._looks(step) and not self.interval.finite():
            lost = ", ".join(name for name, value in self.interval.sums.items() if not value.isfinite().all())
            if run is not None:
                run.write_json(NONFINITE, {"step": step, "losses": lost, "rows": rows.tolist()})
            raise NonFiniteLossError(
                f"a loss is not finite at step {step:,}: {lost}",
                "lower the learning rate, or look at the data with `offline-vi data check`",
            )

    def _saves(self, step: int) -> bool:
        """Whether a checkpoint is due. One that is not a regular one would end other episodes where experience is
        collected, so that there it is left out."""
        loop = self.loop
        regular = step == self.steps or loop.is_due(step, loop.save_every)
        early = loop.run is not None and (bool(requests.signum) or self._evaluates(step))
        return regular or (early and not self.collects)

    def _evaluates(self, step: int) -> bool:
        loop = self.loop
        return loop.on_eval is not None and (step == self.steps or loop.is_due(step, loop.eval_every))

    def _conclude(self, step: int) -> None:
        """What follows the checkpoint of a step, and is done again where a run resumes from that checkpoint."""
        loop = self.loop
        if step == self.steps and not loop.is_due(step, loop.log_every):
            self._log(
                step
            )  # the last, shorter interval: not in the checkpoint, so that a longer run goes on from there
        if loop.on_eval is not None and self._evaluates(step):
            self.algorithm.eval()
            with held(False):  # its checkpoint is written
                numbers = loop.on_eval(step, self.algorithm)
            self.bar.evaluated(step, numbers)
            self.algorithm.train()

    def _log(self, step: int) -> None:
        row = {"step": float(step), **self.interval.read()}
        self.history.rows.append(row)
        if self.loop.run is not None:
            self.loop.run.log_metrics({**row, "step": step})
        self.bar.show(step, row)

    def _save(self, run: RunDirectory, step: int) -> None:
        rows: dict[str, Tensor] = {}
        if isinstance(self.source, Experience):
            self.source.pause()
            rows = self.source.tensors()
        tensors, values = whole.snapshot(self.algorithm)
        for name, tensor in tensors.items():
            lost = tensor.is_floating_point() and not torch.isfinite(tensor).all()
            if lost and not isinstance(self.source, StackedSampler):
                raise NonFiniteLossError(f"{name} is not finite at step {step:,}", "lower the learning rate")
        weights = self.algorithm.state_dict().keys()
        noise, python_noise = random_state()
        run.save(
            step,
            {name: tensor for name, tensor in tensors.items() if name in weights},
            {name: tensor for name, tensor in tensors.items() if name not in weights}
            | {f"random.{name}": tensor for name, tensor in noise.items()}
            | {f"replay.{name}": tensor for name, tensor in rows.items()},
            {
                "source": self.source.state(),
                "interval": self.interval.state(),
                "algorithm": values,
                "random": python_noise,
                "products": torch.get_float32_matmul_precision(),
                "machine": facts(self.device),
            },
        )

    def _restore(self, run: RunDirectory) -> int:
        checkpoint = run.latest()
        state, trainer = checkpoint.state, checkpoint.trainer
        if changed := differences(state.get("machine", {}), facts(self.device)):
            warnings.warn(f"{changed}: the bits will not be those of one run", DeterminismWarning, stacklevel=4)
        noise, rows = (
            {name.removeprefix(prefix): t for name, t in trainer.items() if name.startswith(prefix)}
            for prefix in ("random.", "replay.")
        )
        moments = {name: t for name, t in trainer.items() if not name.startswith(("random.", "replay."))}
        try:
            whole.restore(self.algorithm, {**checkpoint.model, **moments}, state.get("algorithm", {}))
            self.source.load_state(state["source"])
            if isinstance(self.source, Experience):
                self.source.load_tensors(rows)
            self.interval.load_state(state["interval"])
            set_random_state(noise, state["random"])
            use_products(state.get("products", "highest"))  # as it began: the two paths round differently
        except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointCorruptError(
                f"checkpoint {checkpoint.path.name}: its state is not that of such a run ({error!r})",
                "train it anew with --overwrite",
            ) from error
        return checkpoint.step
