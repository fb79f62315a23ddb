"""The formats of an exported policy, by the ending of the file's name."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from offline_vi.deployment.acting import Acting
from offline_vi.errors import CapabilityError, MissingDependencyError

OBSERVATION = "observation"  # the name of the input
SHAPES = ({0: torch.export.Dim("batch", min=1)},)  # of the input: any number of rows


def write_torch(acting: Acting, path: Path) -> None:
    """`torch.export`'s archive: weights and a graph of ATen operations."""
    example = acting.example(2)
    graph = exported(acting, example).module()
    graph.graph.eliminate_dead_code()
    graph.recompile()
    drop_unused(graph)
    torch.export.save(exported(graph, example), path)


def write_onnx(acting: Acting, path: Path) -> None:
    """ONNX, for onnxruntime and others. Raises MissingDependencyError without the packages, CapabilityError where the
    policy computes something that ONNX does not have."""
    for package in ("onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"an ONNX file needs the package {package}", "pip install 'offline-vi[export]'"
            ) from error
    example = acting.example(2)
    program = exported(acting, example).run_decompositions({torch.ops.aten.erfinv.default: erfinv})
    names: dict[str, Any] = {"input_names": [OBSERVATION], "output_names": list(acting.outputs)}
    names["dynamic_shapes"] = SHAPES  # the graph has them already: for the name of the dimension
    try:
        converted: Any = torch.onnx.export(program, (example,), dynamo=True, verbose=False, **names)
    except torch.onnx.errors.OnnxExporterError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise CapabilityError(f"ONNX lacks what this policy computes ({cause})", "export to another format") from error
    converted.save(path)


def write_torchscript(acting: Acting, path: Path) -> None:
    """TorchScript, for C++ and phones."""
    traced = torch.jit.trace(acting, acting.example(2), check_trace=False)
    torch.jit.freeze(traced.eval()).save(path)


class Format(NamedTuple):
    """One of the formats."""

    suffix: str  # of the file's name
    write: Callable[[Acting, Path], None]
    runs_in: str  # what a program needs to load the file


FORMATS: Mapping[str, Format] = {
    "torch": Format(".pt2", write_torch, "torch"),
    "onnx": Format(".onnx", write_onnx, "onnxruntime"),
    "torchscript": Format(".ts", write_torchscript, "torch"),
}


def exported(module: torch.nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The graph of a module for any number of rows. Raises CapabilityError where there is none."""
    try:
        return torch.export.export(module, (example,), dynamic_shapes=SHAPES, strict=False)
    except Exception as error:  # the compiler raises classes of several packages
        raise CapabilityError(
            f"the policy cannot be compiled for any number of rows ({str(error).splitlines()[0]})",
            "act without branches that depend on values, and use obs.shape[0] instead of len(obs)",
        ) from error


def drop_unused(graph: torch.fx.GraphModule) -> None:
    """Remove what the graph does not read: target networks, critics of a policy that asks none."""
    read = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [*dict(graph.named_parameters()), *dict(graph.named_buffers())]:
        if name not in read:
            owner, _, attribute = name.rpartition(".")
            delattr(graph.get_submodule(owner), attribute)


def erfinv(y: Tensor) -> Tensor:
    """The inverse of erf in float32 (M. Giles: Approximating the erfinv function, GPU Computing Gems, 2012), which ONNX
    lacks."""
    w = -torch.log((1.0 - y) * (1.0 + y))
    near: tuple[float, ...] = (
        2.81022636e-08,
        3.43273939e-07,
        -3.5233877e-06,
        -4.39150654e-06,
        0.00021858087,
        -0.00125372503,
    )
    near += (-0.00417768164, 0.246640727, 1.50140941)
    far: tuple[float, ...] = (
        -0.000200214257,
        0.000100950558,
        0.00134934322,
        -0.00367342844,
        0.00573950773,
        -0.0076224613,
    )
    far += (0.00943887047, 1.00167406, 2.83297682)
    return y * torch.where(w < 5.0, horner(w - 2.5, near), horner(w.clamp(min=5.0).sqrt() - 3.0, far))


def horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """The polynomial with these coefficients, the highest power first."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


@contextmanager
def quiet() -> Iterator[None]:
    """Without the compilers' advice to their own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
