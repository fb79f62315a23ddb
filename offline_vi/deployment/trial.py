"""What a file does in a process that cannot import this library, compared with what the agent does here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_vi.deployment import fresh
from offline_vi.errors import ExportError

TOLERANCE = 1e-5  # of actions, in units of half the width of the action box
TIED = 0.05  # of the rows, at most, may be near ties
SECONDS = 300  # after which the process is given up
ANOTHER = "export to another format"
Outputs = dict[str, NDArray[Any]]
"""Batch and number of the output -> what it is: see `fresh`."""
Alike = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]
"""(B, A) actions of the file, (B, A) of the agent, of its first rows -> (B,) whether the agent's critic, which chose
between them, values both the same up to rounding."""


@dataclass(frozen=True)
class Trial:
    """The outcome of a trial."""

    rows: int  # observations that were compared
    difference: float  # the largest of all other actions, in units of half the width of the action box
    near_ties: int  # rows in which rounding chose another candidate of the same value
    milliseconds: float  # of one row on one core, the median of many calls
    fastest: float  # the least of them


def tried(
    path: Path,
    observations: NDArray[np.float32],
    expected: Sequence[NDArray[Any]],
    half_width: NDArray[np.float64],
    alike: Alike,
) -> Trial:
    """Load a file in a fresh process, run it on 1, 7 and all rows (R, O), and compare its outputs with the agent's own.

    Rows whose two actions are ``alike`` to the critic that ranks them are counted; at most 5 % of them may be.
    Raises ExportError where the file does not load, or acts differently from the agent.
    """
    ((seconds, outputs),) = in_a_fresh_process([(path, observations)])
    outputs, tied = without_ties(outputs, expected[0], half_width, alike)
    found = difference(path.name, outputs, expected, half_width)
    if tied > TIED * len(observations):
        raise ExportError(
            f"{path.name} chooses another candidate than the agent in {tied} of {len(observations)} rows, since the "
            "critic hardly tells them apart",
            "train the critics for longer",
        )
    if not found <= TOLERANCE:  # NaN too
        raise ExportError(
            f"the actions of {path.name} differ from the agent's by up to {found:.2g} of half the action box", ANOTHER
        )
    return Trial(len(observations), found, tied, *(1e3 * float(value) for value in (np.median(seconds), seconds.min())))


def without_ties(
    outputs: Outputs, wanted: NDArray[Any], half_width: NDArray[np.float64], alike: Alike
) -> tuple[Outputs, int]:
    """The outputs with the agent's action wherever the file's differs and is worth the same; how many rows that are.

    A policy that takes the best of many candidates takes either of two that tie.
    """
    settled, most = dict(outputs), 0
    for label, found in outputs.items():
        own = wanted[: len(found)]
        if label.partition(".")[2] != "0" or found.ndim != 2 or found.shape != own.shape:
            continue
        tied = (np.abs((found - own) / half_width).max(-1) > TOLERANCE) & alike(found, own)
        settled[label] = np.where(tied[:, None], own, found)
        most = max(most, int(tied.sum()))
    return settled, most


def difference(name: str, outputs: Outputs, expected: Sequence[NDArray[Any]], half_width: NDArray[np.float64]) -> float:
    """The largest between the outputs of a file and those of the agent for all rows, actions in units of half the
    width of the box. Raises ExportError where shapes or types differ."""
    largest = 0.0
    for label, found in outputs.items():
        number = int(label.partition(".")[2])
        wanted = expected[number][: len(found)]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            shapes = f"{found.dtype} {found.shape}, the agent {wanted.dtype} {wanted.shape}"
            raise ExportError(f"{name} returns {shapes}", ANOTHER)
        scale = half_width if number == 0 and found.ndim == 2 else 1.0
        largest = max(largest, float((np.abs(found.astype(np.float64) - wanted) / scale).max()))
    return largest


def in_a_fresh_process(
    files: Sequence[tuple[Path, NDArray[np.float32]]],
) -> list[tuple[NDArray[np.float64], Outputs]]:
    """What `fresh` finds of each file: seconds of calls with one row, and the outputs. Raises ExportError where the
    process fails."""
    with tempfile.TemporaryDirectory(prefix="offline-vi-trial-") as folder:
        words = [sys.executable, "-I", str(Path(fresh.__file__))]
        results = [Path(folder) / f"{number}.npz" for number in range(len(files))]
        for (path, observations), result in zip(files, results, strict=True):
            np.save(result.with_suffix(".npy"), observations)
            words += [str(path), str(result.with_suffix(".npy")), str(result)]
        names = ", ".join(path.name for path, _ in files)
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise ExportError(f"{names} did not answer within {SECONDS} s", ANOTHER) from None
        if done.returncode:
            said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise ExportError(f"{names} does not run without this library: {said}", ANOTHER)
        return [read(result) for result in results]


def read(result: Path) -> tuple[NDArray[np.float64], Outputs]:
    with np.load(result, allow_pickle=False) as found:
        outputs = dict(found)
    return outputs.pop("seconds"), outputs
