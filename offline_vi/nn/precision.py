"""What the processor is asked to do beyond the mathematics: memory that is kept, matrix products on the faster path,
passes in half precision.

Nothing here changes an equation. An algorithm marks the passes that need no gradient with `without_gradient`; the
training loop says in which precision they run.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
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


def full_precision(device: torch.device) -> torch.autocast:
    """A context in which `precision_of_targets` is of no account."""
    return torch.autocast(device.type, enabled=False)


@torch.no_grad()
def fastest_precision(device: torch.device, rows: int = 1000, width: int = 384, repeats: int = 15) -> str:
    """The precision in which this machine multiplies matrices of a network's size faster, by trying both: a tenth of a
    second. bfloat16 has to win clearly (a fifth), since it costs accuracy."""
    seconds = {}
    for name, dtype in PRECISIONS.items():
        a = torch.zeros(rows, width, device=device, dtype=dtype)
        b = torch.zeros(width, width, device=device, dtype=dtype)
        laps = []
        for _ in range(repeats):
            started = time.perf_counter()
            float((a @ b)[0, 0])  # waits for a GPU
            laps.append(time.perf_counter() - started)
        seconds[name] = min(laps)
    return "bfloat16" if seconds["bfloat16"] < 0.8 * seconds["float32"] else "float32"


@functools.cache
def fastest_exact_products(rows: int = 1000, width: int = 750, repeats: int = 5) -> str:
    """Which of torch's two CPU paths for float32 matrix products to take, by trying both on a product of the published
    VAE's size: a fifth of a second.

    "medium" permits oneDNN, which on processors that its competitor does not know runs at up to twice the speed. It
    also permits oneDNN to round to bfloat16, which it does where there are instructions for that: hence the second
    trial, against float64. Where the products are not those of float32, or not clearly faster, it is "highest", torch's
    default. The names are those of `torch.set_float32_matmul_precision`, which is left as it was.

    The variable OFFLINE_VI_PRODUCTS names one of the two instead of a trial: the processes of a study then round alike.
    """
    if os.environ.get(PRODUCTS, "") in ("highest", "medium"):
        return os.environ[PRODUCTS]
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, width, generator=generator) for shape in (rows, width))
    exact = a.double() @ b.double()
    seconds, error = {}, {}
    try:
        for name in ("highest", "medium"):
            torch.set_float32_matmul_precision(name)
            laps = []
            for _ in range(repeats):
                started = time.perf_counter()
                product = a @ b
                laps.append(time.perf_counter() - started)
            seconds[name], error[name] = min(laps), float((product.double() - exact).abs().max() / exact.abs().max())
    finally:
        torch.set_float32_matmul_precision(before)
    as_exact = error["medium"] < max(8.0 * error["highest"], 1e-5)  # bfloat16 would be at 1e-3
    return "medium" if as_exact and seconds["medium"] < 0.8 * seconds["highest"] else "highest"


def use_products(name: str) -> None:
    """Take one of the two paths from here on, in the whole process: see `fastest_exact_products`."""
    torch.set_float32_matmul_precision(name)


@functools.cache
def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Let the C library keep blocks up to ``limit`` bytes that are freed instead of handing them back to the kernel.

    A training step allocates the same few megabytes again and again; each hand-over costs page faults, an eighth of
    BCQ's step. True where the C library is glibc, which is the one that needs it.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(m_mmap_threshold, limit)) and bool(mallopt(m_trim_threshold, limit))


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
