"""What the processor is asked to do beyond the mathematics: memory that is kept, matrix products on the faster path,
passes in half precision.

Nothing here changes an equation. An algorithm marks the passes that need no gradient with `without_gradient`; the
training loop says in which precision they run.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from offline_vi.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

_DTYPE: ContextVar[torch.dtype | None] = ContextVar("dtype of passes without gradient", default=None)
_DEVICE: ContextVar[str] = ContextVar("type of the device", default="cpu")
PRODUCTS = "OFFLINE_VI_PRODUCTS"
PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}


def without_gradient(method: Callable[P, R]) -> Callable[P, R]:
    """`torch.no_grad`, and the precision chosen by `precision_of_targets`: for targets, candidates, their ranking.

    Matrix products then round to 8 bits of mantissa; sums, losses and what is trained stay in float32.
    """

    @functools.wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        dtype = _DTYPE.get()
        with torch.no_grad():
            if dtype is None:
                return method(*args, **kwargs)
            with torch.autocast(_DEVICE.get(), dtype=dtype):
                return method(*args, **kwargs)

    return run


@contextmanager
def precision_of_targets(name: str, device: torch.device) -> Iterator[None]:
    """Passes marked `without_gradient` run in ``name``: "float32" or "bfloat16".

    Raises ConfigError for another name.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"precision {name!r} is unknown", f"one of {', '.join(PRECISIONS)}")
    tokens = _DTYPE.set(PRECISIONS[name]), _DEVICE.set(device.type)
    try:
        yield
    finally:
        _DTYPE.reset(tokens[0])
        _DEVICE.reset(tokens[1])


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context in which `precision_of_targets` is ignored. Where nothing is cast it does nothing, so that an exported
    network holds no trace of it."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def preferred_precision(device: torch.device) -> str:
    """The precision in which a device of this kind multiplies matrices faster: "bfloat16" where it has instructions for
    that, else "float32". It follows from the processor alone, so that a busy machine chooses as an idle one does."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & processor()[1] else "float32"


@functools.cache
def exact_products(rows: int = 1000, width: int = 750) -> str:
    """Which of torch's two CPU paths for float32 matrix products to take: "highest", torch's default, or "medium".

    "medium" permits oneDNN, which runs at up to twice the speed on processors that the default library does not know:
    those that are not Intel's. It also permits oneDNN to round to bfloat16, which it does where there are instructions
    for that: hence a trial against float64. Where the products are not those of float32, the answer is "highest". The
    names are those of `torch.set_float32_matmul_precision`, which is left as it was.

    The variable OFFLINE_VI_PRODUCTS names one of the two instead.
    """
    if os.environ.get(PRODUCTS, "") in ("highest", "medium"):
        return os.environ[PRODUCTS]
    if processor()[0] in ("", "GenuineIntel"):
        return "highest"
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, width, generator=generator) for shape in (rows, width))
    exact, error = a.double() @ b.double(), {}
    try:
        for name in ("highest", "medium"):
            torch.set_float32_matmul_precision(name)
            error[name] = float(((a @ b).double() - exact).abs().max() / exact.abs().max())
    finally:
        torch.set_float32_matmul_precision(before)
    return "medium" if error["medium"] < max(8.0 * error["highest"], 1e-5) else "highest"  # bfloat16 would be at 1e-3


@functools.cache
def processor() -> tuple[str, frozenset[str]]:
    """(vendor, instruction sets) of the processor as Linux names them; empty where it is not Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "", frozenset()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    return facts.get("vendor_id", ""), frozenset(facts.get("flags", "").split())


def use_threads(count: int) -> None:
    """Compute with so many threads from here on, in the whole process. Raises ConfigError for a number that cannot be
    meant: the system may refuse to start them only when the process is in the middle of a product."""
    most = max(64, 4 * (os.cpu_count() or 1))
    if not 1 <= count <= most:
        raise ConfigError(f"threads = {count:,}", f"from 1 to {most}; this machine has {os.cpu_count()} processors")
    torch.set_num_threads(count)


def use_products(name: str) -> None:
    """Take one of the two paths from here on, in the whole process: see `exact_products`."""
    torch.set_float32_matmul_precision(name)


@contextmanager
def full_products() -> Iterator[None]:
    """Float32 products are those of float32 in here, whichever path was chosen."""
    before = torch.get_float32_matmul_precision()
    use_products("highest")
    try:
        yield
    finally:
        use_products(before)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Numbers too small for a full mantissa (in float32, below 1.2e-38) are zero in here, in this thread.

    Processors are slow at such numbers, and Adam collects them: the mean gradient of a unit that has died shrinks by a
    tenth a step, until nine tenths of it round to it again. In SAC on hopper, after some thousand steps, 7 % of what is
    trained and stored for training was denormal, and a step took a fifth longer.
    """
    before = float(torch.tensor(1e-40, dtype=torch.float32) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@functools.cache
def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Let the C library keep blocks up to ``limit`` bytes that are freed instead of handing them back to the kernel.

    A training step allocates the same few megabytes again and again; each hand-over costs page faults, an eighth of
    BCQ's step. Small blocks are merged when they are freed: glibc would put that off until a large one is freed, which
    is all the time here. True where the C library is glibc, which is the one that needs it.
    """
    m_mxfast, m_trim_threshold, m_mmap_threshold = 1, -1, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {m_mmap_threshold: limit, m_trim_threshold: limit, m_mxfast: 0}
    return all([bool(mallopt(parameter, value)) for parameter, value in settings.items()])


def facts(device: torch.device) -> dict[str, str]:
    """What the bits of a run depend on besides its configuration."""
    return {
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """E.g. "threads 1 -> 2"; empty where a resumed run will be bit-identical."""
    return ", ".join(
        f"{name} {before[name]} -> {now[name]}" for name in now if before.get(name, now[name]) != now[name]
    )
