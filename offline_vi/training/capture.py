"""An update as one program: recorded operation by operation, compiled, and run in place of its Python.

An `update` is a page of equations. Run as it stands, a third of its time goes between the matrix products, into some
two hundred small operations that Python calls one by one. A recording holds the operations of a whole update, backward
passes and optimizers included: torch's tracer sees them as they run. "compiled" gives the recording to TorchInductor,
which fuses what lies between the products into loops of C++ (on a GPU: kernels of Triton). "replayed" puts such
programs into a CUDA graph, which the GPU runs without asking Python (`training.updates`).

A program repeats the operations that were recorded, so only algorithms that say when their updates do the same ones
(`Algorithm.capture_phase`) are captured: one program for each phase. Before it is used, its step is compared with that
of the algorithm's own code from the same state with the same random numbers. Where products are rounded to bfloat16, a
gradient near zero is mostly rounding, which differs between the two. So products are not rounded in that comparison,
and where targets are, the steps may differ by as much as the rounding does.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Optimizer

from offline_vi.errors import CapabilityError
from offline_vi.homes import cache
from offline_vi.nn import state as whole
from offline_vi.nn.optim import Adam, recorded_steps
from offline_vi.nn.precision import full_products, precision_of_targets
from offline_vi.rl.algorithm import Algorithm
from offline_vi.stopping import held
from offline_vi.training.randomness import random_state, set_random_state
from offline_vi.types import Batch, Metrics

Run = Callable[..., Sequence[Tensor]]
"""The inputs of a recording -> its metrics; the state among its inputs is changed in place."""

Make = Callable[[GraphModule, list[Tensor], slice], Run]
"""(recording, example inputs, which of them are the batch) -> what runs it."""

Graph = Literal["off", "compiled", "replayed"]
"""How updates run: as they are written, as a compiled program, as a CUDA graph."""

HINT = "train it with graph='off'"
PLACE = "TORCHINDUCTOR_CACHE_DIR"  # the variable
WORTH = {"cpu": 20_000, "cuda": 5_000}  # steps: from there on a program saves more time than its making takes
TOLERANCE = 0.25  # of the length of a tensor's step: Adam's first steps have the sign of a gradient, however small


def preferred_graph(device: torch.device, steps: int) -> Graph:
    """What pays on this machine: "replayed" on a CUDA device, "compiled" on a CPU where there is a C++ compiler, "off"
    without one and for short trainings."""
    if steps < WORTH.get(device.type, math.inf):
        return "off"
    if device.type == "cuda":
        return "replayed"
    from torch._inductor.cpp_builder import get_cpp_compiler  # here, not above: it takes a second
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "off"
    return "compiled"


def keep_programs() -> None:
    """Keep what the compiler makes in the user's own cache, for later runs, unless the user's variable says where.

    Torch fills that variable too, when it is imported: with a folder for everybody's temporary files.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(PLACE) in (None, default_cache_dir()):
        os.environ[PLACE] = str(cache() / "programs")


class Program(NamedTuple):
    """What runs instead of `update` in one phase."""

    run: Run  # of the update, on its tensors
    state: list[Tensor]  # of the algorithm, changed in place
    constants: list[Tensor]  # what the update reads besides, such as a table of candidates
    names: list[str]  # of the metrics


class Captured:
    """The updates of an algorithm as programs: calling it is calling `update`. Of the programs that ``makes`` make of a
    recording, it takes the first that takes the step.

    Raises CapabilityError where they cannot be captured; calls raise it too, before anything has changed.
    """

    def __init__(self, algorithm: Algorithm, *makes: Make) -> None:
        self.algorithm, self.makes = algorithm, makes
        self.programs: dict[Hashable, Program] = {}
        optimizers = [value for _, value, _ in whole.slots(algorithm) if isinstance(value, Optimizer)]
        self.optimizers = [optimizer for optimizer in optimizers if isinstance(optimizer, Adam)]
        if algorithm.capture_phase() is None:
            raise CapabilityError(f"{type(algorithm).__name__} does not say when its updates repeat", HINT)
        if len(self.optimizers) < len(optimizers):
            raise CapabilityError("only the steps of nn.optim.Adam can be recorded", HINT)

    def __call__(self, batch: Batch) -> Metrics:
        run, state, constants, names = self.program(batch)
        with torch.no_grad():
            return dict(zip(names, run(*state, *batch, *constants), strict=True))

    def program(self, batch: Batch) -> Program:
        """What runs instead of the next `update`."""
        key = (self.algorithm.capture_phase(), *((tensor.shape, tensor.dtype) for tensor in batch))
        if key not in self.programs:
            self.programs[key] = self._first(batch)
        return self.programs[key]

    def moment(self) -> Moment:
        """Where the training stands."""
        return Moment(self._state(), self.optimizers)

    def _first(self, batch: Batch) -> Program:
        failed: list[CapabilityError] = []
        for make in self.makes:
            try:
                return self._program(batch, make)
            except CapabilityError as error:
                failed.append(error)
        raise failed[0]

    def _program(self, batch: Batch, make: Make) -> Program:
        """The program of the phase that comes next. The algorithm is as it was afterwards, the random numbers too."""
        state = self._state()
        before, whole_before = Moment(state, self.optimizers), whole.snapshot(self.algorithm)
        names, expected = self._written(state, batch, before)
        with precision_of_targets("float32", batch.obs.device):
            _, exact = self._written(state, batch, before)
        try:
            if whole.snapshot(self.algorithm).values != whole_before.values:
                raise CapabilityError("the update changes values other than tensors", HINT)
            with held(False), full_products():  # the seconds that this takes are not worth waiting for
                program = self._captured(state, batch, before, names, make)
            if not all(map(took_the_step, before.tensors, expected, exact, state)):
                raise CapabilityError("the captured update takes another step", HINT)
        except BaseException as error:  # of the tracer, the compiler or the device, which have their own; or a request
            before.restore()
            if whole.snapshot(self.algorithm).values != whole_before.values:
                whole.restore(self.algorithm, *whole_before)
            if not isinstance(error, Exception):
                raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CapabilityError(f"the update cannot be captured: {reason[:200]}", HINT) from error
        before.restore()
        return program

    def _written(self, state: list[Tensor], batch: Batch, before: Moment) -> tuple[list[str], list[Tensor]]:
        """The names of the metrics, and the state after the step of the algorithm's own code, which is taken back."""
        with full_products():
            names = list(self.algorithm.update(batch))
        after = [tensor.clone() for tensor in state]
        before.restore()
        return names, after

    def _captured(self, state: list[Tensor], batch: Batch, before: Moment, names: list[str], make: Make) -> Program:
        """The program; it has been run once from ``before``."""
        keep_programs()
        fixed = len(state)

        def update(*inputs: Tensor) -> list[Tensor]:  # its inputs are the algorithm's own tensors
            return list(self.algorithm.update(Batch(*inputs[fixed:])).values())

        with warnings.catch_warnings(), recorded_steps(self.optimizers):
            warnings.simplefilter("ignore")  # of the tracer's own parts
            recording = make_fx(update, SPLIT, _allow_non_fake_inputs=True)(*state, *batch)
        before.restore()
        constants, plain = lifted(recording), [tensor.detach() for tensor in state]
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = make(recording, [*plain, *batch, *constants], slice(fixed, fixed + len(batch)))
            before.restore()
            run(*plain, *batch, *constants)
        return Program(run, plain, constants, names)

    def _state(self) -> list[Tensor]:
        """Every tensor that an update may change, each once."""
        moments = [
            tensor
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
            for tensor in optimizer.moments(parameter).values()
        ]
        others = [value for _, value, _ in whole.slots(self.algorithm) if isinstance(value, Tensor)]
        named = [*self.algorithm.parameters(), *self.algorithm.buffers(), *moments, *others]
        return list({id(tensor): tensor for tensor in named}.values())


class Moment:
    """Where a training stands: its tensors, the numbers of its optimizers, its random numbers."""

    def __init__(self, state: list[Tensor], optimizers: list[Adam]) -> None:
        self.state, self.tensors = state, [tensor.detach().clone() for tensor in state]
        self.settings = [(group, dict(group)) for optimizer in optimizers for group in optimizer.param_groups]
        self.random = random_state()

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, before in zip(self.state, self.tensors, strict=True):
            tensor.copy_(before)
        for group, numbers in self.settings:
            group.update(numbers)
        set_random_state(*self.random)


def _product(left: Tensor, right: Tensor) -> Any:
    """(..., M, K) x (..., K, N); products with a single column, row or inner dimension are sums, which fuse."""
    if right.shape[-1] == 1:
        return (left * right.mT).sum(-1, keepdim=True)
    if right.shape[-2] == 1:
        return left * right
    return NotImplemented


def _with_bias(bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1.0, alpha: float = 1.0) -> Any:
    """The product, then the bias, which fuses with what follows."""
    return left @ right + bias if beta == alpha == 1.0 else NotImplemented


SPLIT: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.ops.aten.mm.default, torch.ops.aten.bmm.default), _product),
    **dict.fromkeys((torch.ops.aten.addmm.default, torch.ops.aten.baddbmm.default), _with_bias),
}
"""Products as a compiler likes to have them."""


def lifted(recording: GraphModule) -> list[Tensor]:
    """The constants of a recording, which become its last inputs: their contents may change between two calls."""
    graph, found = recording.graph, []
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        found.append(getattr(recording, node.target))
        with graph.inserting_after(last):
            last = graph.placeholder(f"constant_{len(found)}")
        node.replace_all_uses_with(last)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    recording.recompile()
    return found


def compiled(recording: GraphModule, inputs: list[Tensor], batch: slice) -> Run:
    """The recording in TorchInductor's loops (on a GPU: Triton's), with torch's random numbers. On a CPU, what calls
    the loops and the products is C++ as well: called from Python, they took 5 % longer."""
    options: dict[str, Any] = {"fallback_random": True}
    options["loop_ordering_after_fusion"] = False  # torch 2.11 fails to order loops
    if inputs[batch][0].device.type == "cpu":
        options |= {"cpp_wrapper": True, "cpp_wrapper_build_separate": True}
    for node in recording.graph.nodes:
        node.meta.clear()  # the tracer's notes on shapes, which the compiler takes for its own and cannot mix with them
    return cast(Run, torch._inductor.compile(recording, [*inputs], options=options))


def plain(recording: GraphModule, inputs: list[Tensor], batch: slice) -> Run:
    """The recording itself, operation by operation."""
    return cast(Run, recording)


PROGRAMS: dict[str, tuple[Make, ...]] = {"compiled": (compiled,), "replayed": (compiled, plain)}


def took_the_step(before: Tensor, expected: Tensor, exact: Tensor, found: Tensor) -> bool:
    """Whether a tensor went where it was expected, but for rounding: ``exact`` is where it goes without."""
    if not expected.is_floating_point():
        return bool(torch.equal(expected, found))
    step, rounding, error, size = (
        float(part.detach().double().norm())
        for part in (expected - before, expected - exact, found - expected, expected)
    )
    return error <= TOLERANCE * step + 3.0 * rounding + 1e-6 * size + 1e-12
