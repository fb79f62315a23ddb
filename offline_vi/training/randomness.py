"""Random streams: one seed, one stream for each purpose, and the state of torch's and Python's generators."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offline_vi.errors import (
    DeterminismWarning,
)


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, JSON values): torch's default generators, of the CPU and of each CUDA device in use, and Python's.

    NumPy's global generator is not among them: nothing here draws from it.
    """
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors |= {f"cuda:{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    version, words, gauss = random.getstate()
    return tensors, {"python": [version, list(words), gauss]}


def set_random_state(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Go back to a `random_state`. Warns where a CUDA device of then is not here now. Raises ValueError where a state
    is missing, or is none of a generator."""
    own, saved = torch.get_rng_state(), tensors.get("cpu")
    if saved is None or saved.shape != own.shape or saved.dtype != own.dtype:
        raise ValueError("the state of the CPU's generator is none")
    if strange := [name for name in tensors if not re.fullmatch(r"cpu|cuda:\d+", name)]:
        raise ValueError(f"there is no generator {strange[0]!r}")
    for name, value in tensors.items():
        if name == "cpu":
            torch.set_rng_state(value)
        elif torch.cuda.is_available() and int(name.removeprefix("cuda:")) < torch.cuda.device_count():
            torch.cuda.set_rng_state(value, name)
        else:
            warnings.warn(f"{name} is not here: what it draws will differ", DeterminismWarning, stacklevel=2)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def seeds(seed: int, after: int = 0) -> dict[str, np.random.SeedSequence]:
    """Independent random streams, one per purpose, from one seed: adding an evaluation never shifts training.

    ``after`` is the number of steps that were trained before: what goes on from there meets fresh batches.
    """
    names = ("init", "batches", "noise", "behavior")
    root = np.random.SeedSequence([seed, after] if after else seed)
    return dict(zip(names, root.spawn(len(names)), strict=True))


def torch_seed(sequence: np.random.SeedSequence) -> int:
    """A seed for `torch.manual_seed`."""
    state = int(sequence.generate_state(1, np.uint64).item())
    return state >> 1


def set_seed(seed: int) -> None:
    """Set torch's and Python's default generators to where the initialization of this seed begins.

    Whatever is built draws from them: call it before the first network is made. The command and suites do.
    """
    start = torch_seed(seeds(seed)["init"])
    torch.manual_seed(start)
    random.seed(start)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """`set_seed` for what is built inside; the caller's random state comes back afterwards."""
    before = random.getstate()
    with torch.random.fork_rng():
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(before)


@contextmanager
def own_random_state(noise: np.random.SeedSequence, cuda: list[torch.device]) -> Iterator[None]:
    """Torch's and Python's default generators, seeded from ``noise``; the caller's states come back afterwards."""
    before = random.getstate()
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(torch_seed(noise))
        random.seed(torch_seed(noise))  # nothing here draws from it, but an environment may, and checkpoints hold it
        try:
            yield
        finally:
            random.setstate(before)
