"""Check that each action is stored with its own image: an action explains how its frame changes."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline_vi.data.frames import Frames
from offline_vi.errors import DatasetFormatError, DataWarning


class AlignmentScores(NamedTuple):
    """Share of the next frame's innovation, beyond what the last two frames tell, that an action explains; on held-out
    rows, so that it may be below 0."""

    now: float  # the action of the frame
    before: float  # the one a row earlier, where that of the frame explains nothing
    after: float  # the one a row later, given the one of the frame


def alignment_scores(data: Frames, rows: int = 12_000, seed: int = 0) -> AlignmentScores | None:
    """Regress frames on actions, now and shifted by one; None where there are too few steps to tell.

    A frame is its leading principal components; the past is the last frame and its change, their products and random
    cosines of them: enough for smooth dynamics. Whatever a feedback policy makes of the past cannot explain the
    innovation, and an action later than the frame cannot cause it.
    """
    rng = np.random.default_rng(seed)
    starts, lengths = data.starts, data.lengths
    inner = np.concatenate([np.arange(s + 1, s + n - 1) for s, n in zip(starts, lengths, strict=True)])
    if len(inner) < 400:
        return None
    step = rng.choice(inner, size=min(rows, len(inner)), replace=False)
    episode = np.searchsorted(np.cumsum(lengths), step, side="right")
    before, now, after = _principal_components(data.frames, step + episode)
    one, pair = np.ones((len(step), 1)), np.concatenate([now, now - before], 1)
    pair /= np.maximum(pair.std(0), 1e-12)
    products = np.einsum("ij,ik->ijk", pair, pair)[:, *np.triu_indices(pair.shape[1])]
    frequency, phase = 0.3 * rng.standard_normal((pair.shape[1], 300)), rng.uniform(0.0, 2.0 * np.pi, 300)
    past = np.concatenate([one, pair, products, np.cos(pair @ frequency + phase)], 1)
    state = np.concatenate([one, pair], 1)

    def acted(shift: int) -> NDArray[np.float64]:
        action = data.action[step + shift].astype(np.float64)
        return np.einsum("ij,ik->ijk", action, state).reshape(len(step), -1)  # type: ignore[no-any-return]

    base = _error(past, after)
    with_now = np.concatenate([past, acted(0)], 1)
    error = _error(with_now, after)
    return AlignmentScores(
        1.0 - error / base,
        1.0 - _error(np.concatenate([past, acted(-1)], 1), after) / base,
        1.0 - _error(np.concatenate([with_now, acted(1)], 1), after) / error,
    )


def check_alignment(data: Frames) -> None:
    """Raise DatasetFormatError where actions are one row late: the action after a frame explains what happens, the one
    of the frame does not. A DataWarning where they seem early, which a delay in the world would look like, too."""
    scores = alignment_scores(data)
    if scores is None:
        return
    found = f"{data.source.name}: an action explains {max(scores.now, 0):.0%} of what its frame becomes, "
    if scores.after > max(0.05, 4.0 * scores.now):
        raise DatasetFormatError(
            f"{found}the next row's {scores.after:.0%}: actions are kept with the frames they led to, shifted by one",
            'a folder of .npz files: choose the other alignment ("led-to" or "taken-at"); else convert the files',
        )
    if scores.before > max(0.05, 4.0 * scores.now):
        warnings.warn(
            f"{found}the row before's {scores.before:.0%}: actions are one row early, or act with a delay",
            DataWarning,
            stacklevel=3,
        )


def _principal_components(
    frames: NDArray[np.uint8], row: NDArray[np.int64], count: int = 6, side: int = 16
) -> tuple[NDArray[np.float64], ...]:
    """Standardised scores (P, count) of the frames before, at and after the given rows."""
    pictures = [_pooled(frames, row + shift, side) for shift in (-1, 0, 1)]
    mean = pictures[1].mean(0)
    _, _, axes = np.linalg.svd(pictures[1] - mean, full_matrices=False)
    scores = [(picture - mean) @ axes[:count].T for picture in pictures]
    scale = np.maximum(scores[1].std(0), 1e-6 * max(float(scores[1].std()), 1e-12))
    return tuple(score / scale for score in scores)


def _pooled(frames: NDArray[np.uint8], row: NDArray[np.int64], side: int) -> NDArray[np.float64]:
    """(P, cells): means over channels and over cells of an at most side x side raster; a chunk at a time."""
    height, width = frames.shape[2:]
    down, right = max(height // side, 1), max(width // side, 1)
    parts = []
    for chunk in np.array_split(row, max(len(row) // 256, 1)):
        grey = frames[chunk, :, : height // down * down, : width // right * right].mean(1, dtype=np.float32)
        cells = grey.reshape(len(chunk), height // down, down, width // right, right).mean((2, 4))
        parts.append(cells.reshape(len(chunk), -1))
    return np.concatenate(parts).astype(np.float64)


def _error(x: NDArray[np.float64], y: NDArray[np.float64], ridge: float = 1e-3) -> float:
    """Mean squared error of the linear regression of y on x, each half predicted from the other."""
    half = len(x) // 2
    total = 0.0
    for fit, test in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        gram = x[fit].T @ x[fit]
        gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
        weights = np.linalg.solve(gram, x[fit].T @ y[fit])
        total += float(np.square(y[test] - x[test] @ weights).sum())
    return total / len(x)
