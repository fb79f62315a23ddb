"""How a training loop takes its updates: as they are written, as compiled programs, or several in one CUDA graph.

A GPU finishes an update of small networks sooner than Python has asked for the next one. A replay therefore asks once
for `TOGETHER` updates: it holds their programs one after the other, each with the gathering of its rows, which it
finds by their numbers. The sums of their metrics are part of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from offline_vi.data.samplers import Sampler, Source, StackedSampler
from offline_vi.errors import CapabilityError, ConfigError, GraphWarning
from offline_vi.nn.precision import without_denormals
from offline_vi.rl.algorithm import Algorithm
from offline_vi.stopping import held
from offline_vi.training.capture import HINT, PROGRAMS, Captured, Graph, Program, took_the_step
from offline_vi.types import Batch, Metrics

TOGETHER = 10  # updates in one replay

Sums = list[tuple[Metrics, int]]
"""Metrics, summed over so many updates."""

Way = Callable[[Sequence[Tensor], int], Sums]
"""(what the batches are made of, how many) -> the metrics of the updates on them."""


class Updates:
    """The updates of an algorithm on batches of a source.

    Where they cannot be captured they run as they are written, on the batches that were drawn, and a GraphWarning says
    why.
    """

    def __init__(self, algorithm: Algorithm, source: Source, graph: Graph = "off") -> None:
        self.algorithm = algorithm
        self.rows: Rows = Batches(source)
        self.way: Way = self._one_by_one(algorithm.update)
        try:
            if graph == "compiled":
                self.way = self._one_by_one(Captured(algorithm, *PROGRAMS[graph]))
            elif graph == "replayed":
                self.rows = numbered(source) or self.rows
                self.way = Replays(Captured(algorithm, *PROGRAMS[graph]), self.rows)
        except CapabilityError as error:
            warnings.warn(f"{error}: they run as they are written", GraphWarning, stacklevel=2)

    @property
    def together(self) -> int:
        """The most updates that a call takes."""
        return self.rows.together

    def __call__(self, steps: int = 1) -> tuple[Tensor, Sums]:
        """Take ``steps`` updates, one or ``together``. Returns the row numbers of the last batch, and the metrics."""
        inputs = self.rows.draw(steps)
        with without_denormals():
            try:
                metrics = self.way(inputs, steps)
            except CapabilityError as error:
                warnings.warn(f"{error}: it runs as it is written", GraphWarning, stacklevel=2)
                self.way = self._one_by_one(self.algorithm.update)
                metrics = self.way(inputs, steps)
        return self.rows.numbers(inputs), metrics

    def _one_by_one(self, update: Callable[[Batch], Metrics]) -> Way:
        return lambda inputs, steps: [(update(self.rows.batch(inputs, step)), 1) for step in range(steps)]


# ------------------------------------------------------------------ batches as tensors that a graph can read


class Rows(Protocol):
    """Where batches come from."""

    together: int  # the most that are drawn at once

    def draw(self, steps: int) -> list[Tensor]:
        """What the next ``steps`` batches are made of."""

    def batch(self, inputs: Sequence[Tensor], step: int) -> Batch:
        """One of them, by operations on tensors alone."""

    def numbers(self, inputs: Sequence[Tensor]) -> Tensor:
        """The row numbers of the last one."""


class Batches:
    """Whole batches of any source, one at a time."""

    together = 1

    def __init__(self, source: Source) -> None:
        self.source = source

    def draw(self, steps: int) -> list[Tensor]:
        return list(self.source.sample())

    def batch(self, inputs: Sequence[Tensor], step: int) -> Batch:
        return Batch(*inputs)

    def numbers(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.batch(inputs, 0).index


class Numbers:
    """Row numbers of several batches, whose rows are gathered where the data lie."""

    together = TOGETHER

    def __init__(self, sampler: Sampler | StackedSampler) -> None:
        self.sampler = sampler

    def draw(self, steps: int) -> list[Tensor]:
        numbers = np.stack([self.sampler.numbers() for _ in range(steps)])  # (steps, B), or (steps, S, B)
        return [torch.from_numpy(numbers).to(self.sampler.device)]

    def batch(self, inputs: Sequence[Tensor], step: int) -> Batch:
        return self.sampler.rows_of(inputs[0][step])

    def numbers(self, inputs: Sequence[Tensor]) -> Tensor:
        return inputs[0][-1]


def numbered(source: Source) -> Numbers | None:
    """None for a class of one's own, which may draw otherwise."""
    if isinstance(source, (Sampler, StackedSampler)) and type(source) in (Sampler, StackedSampler):
        return Numbers(source)
    return None


# ------------------------------------------------------------------ several updates in one graph


class Replay(NamedTuple):
    """A recorded graph of updates."""

    inputs: list[Tensor]  # what it reads
    run: Callable[[], None]
    metrics: Sums  # what it writes; read before the next replay
    after: Hashable  # the phase that follows


class Replays:
    """Updates in CUDA graphs. Calling it is taking as many updates as the inputs are for.

    A graph is recorded for the programs that a phase begins with: `Algorithm.capture_phase` promises that equal phases
    are followed by equal ones. Raises CapabilityError where recording fails, with the algorithm as it was; ConfigError
    where that promise is broken.
    """

    def __init__(self, captured: Captured, rows: Rows) -> None:
        self.captured, self.rows = captured, rows
        self.replays: dict[Hashable, Replay] = {}
        self.promised: Hashable = None  # the phase that follows the last replay

    def __call__(self, inputs: Sequence[Tensor], steps: int) -> Sums:
        phase = self.captured.algorithm.capture_phase()
        if self.promised not in (None, phase):
            name = type(self.captured.algorithm).__name__
            raise ConfigError(
                f"{name}.capture_phase is {phase!r}, where {self.promised!r} followed the same phases before: the"
                " last updates were the wrong ones",
                "return the place in the cycle of updates, such as the steps modulo its length; or use graph='off'",
            )
        key = (steps, phase, *(tensor.shape for tensor in inputs))
        if key not in self.replays:
            self.replays[key] = self._replay([tensor.clone() for tensor in inputs], steps)
        replay = self.replays[key]
        torch._foreach_copy_(replay.inputs, list(inputs))
        replay.run()
        self.promised = replay.after
        return replay.metrics

    def _replay(self, inputs: list[Tensor], steps: int) -> Replay:
        """The graph of the next updates. The algorithm is as it was afterwards, the random numbers too."""
        if inputs[0].device.type not in RECORDERS:
            raise CapabilityError("the update cannot be captured: only a CUDA device replays", HINT)
        before = self.captured.moment()
        try:
            programs = []
            for step in range(steps):
                batch = self.rows.batch(inputs, step)
                programs.append(self.captured.program(batch))
                self.captured(batch)
            after, phase = [tensor.clone() for tensor in before.state], self.captured.algorithm.capture_phase()
            before.restore()
            with held(False):  # the seconds that this takes are not worth waiting for
                run, metrics = RECORDERS[inputs[0].device.type](lambda: self._updates(programs, inputs))
                before.restore()
                run()
            if not all(map(took_the_step, before.tensors, after, after, before.state)):
                raise CapabilityError("the captured updates take other steps", HINT)
        except RuntimeError as error:  # of the device
            raise CapabilityError(f"the update cannot be captured: {str(error).partition(chr(10))[0]}", HINT) from error
        finally:
            before.restore()
        return Replay(inputs, run, metrics, phase)

    @torch.no_grad()
    def _updates(self, programs: list[Program], inputs: Sequence[Tensor]) -> Sums:
        """Programs one after the other, each on its batch, and the sums of their metrics."""
        sums: dict[tuple[str, ...], list[list[Tensor]]] = {}
        for step, (run, state, constants, names) in enumerate(programs):
            metrics = run(*state, *self.rows.batch(inputs, step), *constants)
            sums.setdefault(tuple(names), []).append([value.clone() for value in metrics])
        for total, *others in sums.values():
            for other in others:
                torch._foreach_add_(total, other)
        return [(dict(zip(names, each[0], strict=True)), len(each)) for names, each in sums.items()]


def cuda_graph(updates: Callable[[], Sums]) -> tuple[Callable[[], None], Sums]:
    """What replays a function of tensors that stay where they are, and what it returns."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):  # libraries allocate at their first call
        updates()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        metrics = updates()
    return graph.replay, metrics


RECORDERS: dict[str, Callable[[Callable[[], Sums]], tuple[Callable[[], None], Sums]]] = {"cuda": cuda_graph}
"""type of device -> how its graphs are recorded."""
