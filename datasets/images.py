"""Data sets of images: V-D4RL's folders of .npz episodes and Minari's image data sets, read once into flat .npy columns
and memory-mapped from there. They stay uint8.

Nothing that a file says is believed: names, types, shapes and sizes are read from the archive's directory and the
arrays' headers before a byte is unpacked; objects (pickle) are refused; CRC errors, truncation and bombs are one-line
errors.

Alignment, the classic defect: V-D4RL (as Dreamer) stores with each image the action that *led to* it; this library and
Minari hold the action taken *at* it. `load_images` shifts, and `check_alignment` looks at the pixels whether the result
is right.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import gymnasium
import h5py
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from offline_vi.data.frames import Frames
from offline_vi.data.transitions import ACTION_TOLERANCE, Provenance
from offline_vi.datasets import minari, pixels
from offline_vi.datasets.hdf5 import DEFAULT_BUDGET, Budget, child, open_hdf5, read_array, sha256_of
from offline_vi.datasets.tasks import PIXEL_NAMES
from offline_vi.errors import (
    ActionRangeError,
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    DataWarning,
    EmptyDatasetError,
    MissingInputError,
    NonFiniteDataError,
    SpaceMismatchError,
    UnsafeDatasetError,
)
from offline_vi.types import Spec, Task

Alignment = Literal["led-to", "taken-at"]

MAX_EXPANSION = 2000  # of deflate, beyond what its format can reach: 1032
MAX_SIDE = 1024  # pixels
KEYS = ("image", "action", "reward", "discount", "is_first", "is_last")


class Episode(NamedTuple):
    """One episode of T steps, aligned as everywhere here: action[t] is taken at frames[t]."""

    frames: NDArray[np.uint8]  # (T + 1, C, H, W)
    action: NDArray[np.float32]  # (T, A)
    reward: NDArray[np.float32]  # (T,)
    terminated: NDArray[np.bool_]  # (T,)


def load_images(
    name_or_path: str | Path,
    *,
    alignment: Alignment = "led-to",
    max_dataset_bytes: int = DEFAULT_BUDGET,
    check: bool = True,
) -> Frames:
    """A data set of images: a folder of V-D4RL's .npz episodes, a Minari name, or one of ours, drawn on first use.

    ``alignment`` says what the .npz files keep with each image: the action that "led-to" it (V-D4RL, Dreamer) or the
    one "taken-at" it; Minari's are always taken at it. ``check`` looks for a shift by one in the pixels
    (`check_alignment`). The frames are converted once, into $OFFLINE_VI_HOME (default ~/.cache/offline_vi), and
    memory-mapped.

    Raises MissingInputError, UnsafeDatasetError, DatasetCorruptError, DatasetFormatError (keys, types, alignment),
    DatasetTooLargeError, SpaceMismatchError (images of several sizes), NonFiniteDataError, ActionRangeError,
    EmptyDatasetError.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        data = _load_folder(path, alignment, max_dataset_bytes)
    elif path.is_absolute():
        raise MissingInputError(f"{path} is no folder", "a folder of V-D4RL's layout: one .npz episode a file")
    else:
        data = _load_minari(str(name_or_path), max_dataset_bytes)
    if check:
        check_alignment(data)
    return data


# ------------------------------------------------------------------ .npz archives of unknown origin


@dataclass(frozen=True)
class Member:
    """An array in an archive, as its header declares it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def read_directory(path: Path, max_bytes: int = DEFAULT_BUDGET) -> dict[str, Member]:
    """The arrays of an .npz file by their headers; nothing else is unpacked.

    Raises DatasetCorruptError, DatasetFormatError, DatasetTooLargeError, UnsafeDatasetError.
    """
    members: dict[str, Member] = {}
    with _archive(path) as archive:
        for info in archive.infolist():
            key = info.filename.removesuffix(".npy")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
                raise UnsafeDatasetError(f"{path}: '{key[:60]}' is packed in an unusual way", "np.savez_compressed")
            if info.file_size > MAX_EXPANSION * max(info.compress_size, 1):
                raise DatasetTooLargeError(
                    f"{path}: '{key[:60]}' declares {info.file_size:,} bytes in {info.compress_size:,}", "distrust it"
                )
            with _damage(path, key), archive.open(info) as stream:
                member = _header(stream, path, key)
                if member.nbytes + stream.tell() != info.file_size:
                    raise DatasetCorruptError(
                        f"{path}: '{key[:60]}' declares {member.shape} {member.dtype}, {info.file_size:,} bytes follow",
                        "the file is damaged: get it again",
                    )
            members[key] = member
    total = sum(member.nbytes for member in members.values())
    if total > max_bytes:
        raise DatasetTooLargeError(f"{path}: {total:,} bytes declared, {max_bytes:,} allowed", "--max-dataset-bytes")
    return members


def _header(stream: IO[bytes], path: Path, key: str) -> Member:
    version = npy.read_magic(stream)
    read: Any = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise DatasetFormatError(f"{path}: '{key[:60]}' has the .npy version {version}", "1.0 and 2.0 are read")
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise UnsafeDatasetError(f"{path}: '{key[:60]}' holds {dtype}, not numbers", "objects would run code: refused")
    if fortran and len(shape) > 1:
        raise DatasetFormatError(f"{path}: '{key[:60]}' is in Fortran's order", "np.ascontiguousarray before saving")
    return Member(shape, dtype)


def _read(archive: zipfile.ZipFile, path: Path, key: str, member: Member) -> NDArray[Any]:
    with _damage(path, key), archive.open(f"{key}.npy") as stream:
        _header(stream, path, key)
        data = stream.read(member.nbytes + 1)  # one more: the stream's end checks the CRC
        if len(data) != member.nbytes:
            raise DatasetCorruptError(f"{path}: '{key}' ends early", "the file is truncated: get it again")
    return np.frombuffer(data, member.dtype).reshape(member.shape)


class _damage:
    """Whatever zipfile makes of a damaged archive becomes one error that names file and key."""

    errors = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, self.errors):
            raise DatasetCorruptError(
                f"{self.path}: cannot read '{self.key[:60]}' ({error})", "damaged or truncated: get it again"
            ) from error


def _archive(path: Path) -> zipfile.ZipFile:
    with _damage(path, "the archive"):
        return zipfile.ZipFile(path)


def _check_members(members: dict[str, Member], path: Path) -> None:
    missing = [key for key in KEYS if key not in members]
    if missing:
        raise DatasetFormatError(f"{path}: {', '.join(missing)} missing", f"an episode has {', '.join(KEYS)}")
    image = members["image"]
    if image.dtype != np.uint8 or len(image.shape) != 4:
        raise DatasetFormatError(f"{path}: images are {image.dtype} {image.shape}", "uint8 (T + 1, H, W, C)")
    if max(image.shape[1:3]) > MAX_SIDE or image.shape[3] not in (1, 3, 4):
        raise DatasetFormatError(f"{path}: images of shape {image.shape[1:]}", f"(H, W, C) up to {MAX_SIDE} pixels")
    rows = {key: members[key].shape[:1] for key in KEYS}
    if len(set(rows.values())) != 1:
        raise DatasetFormatError(f"{path}: rows {rows}", "one action and one reward with every image")
    if image.shape[0] < 2 or len(members["action"].shape) != 2:
        raise DatasetFormatError(
            f"{path}: {image.shape[0]} images, actions {members['action'].shape}", "at least two, and a vector each"
        )


def read_episode(path: Path, alignment: Alignment = "led-to", max_bytes: int = DEFAULT_BUDGET) -> Episode:
    """One .npz episode. Raises what `load_images` raises."""
    members = read_directory(path, max_bytes)
    _check_members(members, path)
    with _archive(path) as archive:
        columns = {key: _read(archive, path, key, members[key]) for key in KEYS}
        terminal = _read(archive, path, "is_terminal", members["is_terminal"]) if "is_terminal" in members else None
    is_first, is_last = (columns[key].astype(np.bool_) for key in ("is_first", "is_last"))
    if not is_first[0] or is_first[1:].any() or not is_last[-1] or is_last[:-1].any():
        raise DatasetFormatError(f"{path}: is_first or is_last mark other rows than the ends", "one episode a file")
    ended = columns["discount"] == 0.0 if terminal is None else terminal.astype(np.bool_)
    if ended[:-1].any():
        raise DatasetFormatError(f"{path}: the task ends before the last image", "one episode a file")
    action, reward = columns["action"].astype(np.float32), columns["reward"].astype(np.float32)
    if alignment == "led-to" and (action[0] != 0.0).any():
        raise DatasetFormatError(
            f"{path}: the first image has an action, but nothing led to it",
            "actions seem to be those taken at each image, shifted by one: --alignment taken-at",
        )
    shift = slice(1, None) if alignment == "led-to" else slice(None, -1)
    return Episode(np.moveaxis(columns["image"], 3, 1), action[shift], reward[shift], ended[1:])


# ------------------------------------------------------------------ into flat columns


def home() -> Path:
    """$OFFLINE_VI_HOME, else ~/.cache/offline_vi."""
    return Path(os.environ.get("OFFLINE_VI_HOME") or Path.home() / ".cache" / "offline_vi")


def _load_folder(folder: Path, alignment: Alignment, max_bytes: int) -> Frames:
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise MissingInputError(f"{folder} holds no .npz episode", "a folder of V-D4RL's layout: one episode a file")
    members = [read_directory(file, max_bytes) for file in files]
    for file, found in zip(files, members, strict=True):
        _check_members(found, file)
    shapes = [found["image"].shape for found in members]
    _same(files, [shape[1:] for shape in shapes], "images")
    _same(files, [found["action"].shape[1:] for found in members], "actions")
    if sum(found["image"].nbytes for found in members) > max_bytes:
        raise DatasetTooLargeError(f"{folder}: more than the {max_bytes:,} bytes allowed", "--max-dataset-bytes")
    height, width, channels = shapes[0][1:]
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    source = Provenance(folder.name, tuple(map(str, files)))
    return _cached(
        [str(folder.resolve()), alignment, *map(str, stamps)],
        (read_episode(file, alignment, max_bytes) for file in files),
        (sum(shape[0] for shape in shapes), channels, height, width),
        None,
        source,
    )


def _same(files: Sequence[Path], shapes: Sequence[tuple[int, ...]], what: str) -> None:
    for file, shape in zip(files, shapes, strict=True):
        if shape != shapes[0]:
            raise SpaceMismatchError(
                f"{file.name} has {what} of shape {shape}, {files[0].name} of {shapes[0]}", "one size for a data set"
            )


def _cached(
    key: list[str],
    episodes: Iterator[Episode],
    shape: tuple[int, ...],
    task: Task | None,
    source: Provenance,
) -> Frames:
    """Write the columns where they are not there yet, whole or not at all; map them."""
    folder = home() / "frames" / hashlib.sha256("\n".join(key).encode()).hexdigest()[:24]
    if not (folder / "lengths.npy").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".write-", dir=folder.parent) as scratch:
            _write(Path(scratch) / "columns", episodes, shape, source.name)
            try:
                os.rename(Path(scratch) / "columns", folder)
            except OSError:  # another process was faster: same key, same data
                if not (folder / "lengths.npy").is_file():
                    raise
    columns: dict[str, NDArray[Any]] = {
        name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("action", "reward", "terminated")
    }
    frames: NDArray[np.uint8] = np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
    action = _in_the_box(columns["action"], task, source.name)
    return Frames(
        frames,
        action,
        columns["reward"],
        columns["terminated"],
        np.load(folder / "lengths.npy", allow_pickle=False),
        Spec(frames.shape[1:], action.shape[1], "uint8"),
        task,
        source,
    )


def _write(folder: Path, episodes: Iterator[Episode], shape: tuple[int, ...], name: str) -> None:
    """One episode in memory at a time."""
    folder.mkdir()
    frames: Any = npy.open_memmap(folder / "frames.npy", "w+", np.uint8, shape)
    columns: dict[str, list[NDArray[Any]]] = {"action": [], "reward": [], "terminated": []}
    row = 0
    for number, episode in enumerate(episodes):
        for key in ("action", "reward"):
            if not np.isfinite(getattr(episode, key)).all():
                raise NonFiniteDataError(f"{name}: {key} of episode {number} is not finite", "leave the episode out")
        frames[row : row + len(episode.frames)] = episode.frames
        row += len(episode.frames)
        for key, parts in columns.items():
            parts.append(getattr(episode, key))
    if row == 0:
        raise EmptyDatasetError(f"{name}: no episode has a step", "check the files")
    frames.flush()
    for key, parts in columns.items():
        np.save(folder / f"{key}.npy", np.concatenate(parts))
    np.save(folder / "lengths.npy", np.array([len(part) for part in columns["reward"]], np.int64))


def _in_the_box(action: NDArray[np.float32], task: Task | None, name: str) -> NDArray[np.float32]:
    action = action if task is None else task.from_env(action)
    largest = float(np.abs(action).max())
    if largest > ACTION_TOLERANCE:
        raise ActionRangeError(f"{name}: actions reach {largest:.4g}", "they must lie in [-1, 1] of the task's box")
    return action.clip(-1.0, 1.0)


# ------------------------------------------------------------------ Minari


def _load_minari(name: str, max_bytes: int) -> Frames:
    """A data set of Minari whose observations are images; ours are drawn where they are missing."""
    folder = minari.folder_of(name)
    if not (folder / "data").is_dir() and name in PIXEL_NAMES:
        pixels.collect(name)
    if not (folder / "data").is_dir():
        raise MissingInputError(f"{name} is neither a folder nor in {minari.root()}", "`offline-vi data list`")
    metadata = minari.read_metadata(folder / "data" / "metadata.json")
    box, actions = (minari._space(metadata, f"{key}_space", name) for key in ("observation", "action"))
    spaces = gymnasium.spaces
    if not isinstance(box, spaces.Box) or len(box.shape) != 3 or box.dtype != np.uint8 or max(box.shape) > MAX_SIDE:
        raise DatasetFormatError(f"{name}: observation space {box}", "uint8 images of three axes")
    if not isinstance(actions, spaces.Box) or len(actions.shape) != 1 or not actions.is_bounded():
        raise SpaceMismatchError(f"{name}: action space {actions}", "a bounded vector is needed")
    task = minari._task(metadata, name, actions, None, with_env=True)
    if name in PIXEL_NAMES:  # whoever makes the environment must find the module that registers it
        task = replace(task, env_id=f"{pixels.MODULE}:{task.env_id}")
    path = folder / "data" / "main_data.hdf5"
    episodes = minari._total_episodes(metadata, name)
    last = box.shape[2] in (1, 3, 4) and box.shape[0] not in (1, 3, 4)  # channels last
    shape = (box.shape[2], *box.shape[:2]) if last else box.shape
    steps = _total_steps(path, episodes)
    if (steps + episodes) * int(np.prod(shape)) > max_bytes:
        raise DatasetTooLargeError(f"{name}: more than the {max_bytes:,} bytes allowed", "--max-dataset-bytes")
    digest = sha256_of(path)
    return _cached(
        [name, digest],
        _minari_episodes(path, episodes, box.shape, last, max_bytes),
        (steps + episodes, *shape),
        task,
        Provenance(name, (str(path),), (digest,), "strict"),
    )


def _total_steps(path: Path, episodes: int) -> int:
    """By the shapes of the rewards; nothing is read."""
    with open_hdf5(path) as file:
        return sum(_array(file, f"episode_{number}", "rewards", path).shape[0] for number in range(episodes))


def _array(file: h5py.File, episode: str, key: str, path: Path) -> h5py.Dataset:
    group = child(file, episode, path)
    array = child(group, key, path) if isinstance(group, h5py.Group) else None
    if not isinstance(array, h5py.Dataset) or array.shape is None or array.ndim == 0:
        raise DatasetFormatError(f"{path}: '{episode}/{key}' is missing or no array", "get the data set again")
    return array


def _minari_episodes(
    path: Path, episodes: int, shape: tuple[int, ...], last: bool, max_bytes: int
) -> Iterator[Episode]:
    with open_hdf5(path) as file:
        budget = Budget(path, max_bytes)
        for number in range(episodes):
            name = f"episode_{number}"
            columns = {}
            for key in ("actions", "rewards", "terminations"):
                array = _array(file, name, key, path)
                budget.admit(array, f"{name}/{key}")
                columns[key] = read_array(array, path, f"{name}/{key}")
            observations = _array(file, name, "observations", path)
            if observations.ndim < 4:  # Minari packs pictures of 32 pixels and more as JPEG, each a row of bytes
                frames = _decode(observations, shape, path, name)
            else:
                budget.admit(observations, f"{name}/observations")
                frames = read_array(observations, path, f"{name}/observations")
            if frames.dtype != np.uint8 or frames.shape[1:] != shape:
                raise SpaceMismatchError(
                    f"{path}: '{name}' has {frames.dtype} images of shape {frames.shape[1:]}, the metadata say {shape}",
                    "one size for a data set",
                )
            steps = {key: len(values) for key, values in columns.items()} | {"observations": len(frames) - 1}
            if len(set(steps.values())) != 1:
                raise DatasetFormatError(f"{path}: '{name}' has {steps} steps", "get the data set again")
            yield Episode(
                np.moveaxis(frames, 3, 1) if last else frames,
                columns["actions"].astype(np.float32),
                columns["rewards"].astype(np.float32),
                columns["terminations"].astype(np.bool_),
            )


def _decode(array: h5py.Dataset, shape: tuple[int, ...], path: Path, name: str) -> NDArray[np.uint8]:
    """JPEG pictures of a known size, which is checked before one is unpacked."""
    from PIL import Image, UnidentifiedImageError

    frames = np.empty((array.shape[0], *shape), np.uint8)
    for row in range(array.shape[0]):
        data = np.asarray(array[row])
        if data.dtype != np.uint8 or data.ndim != 1:
            raise DatasetFormatError(f"{path}: '{name}/observations' holds {data.dtype}", "bytes of JPEG pictures")
        try:
            with Image.open(io.BytesIO(data.tobytes()), formats=["JPEG"]) as picture:
                if picture.size != (shape[1], shape[0]):
                    raise SpaceMismatchError(f"{path}: a picture of {picture.size} pixels in '{name}'", f"{shape[:2]}")
                frames[row] = np.asarray(picture).reshape(shape)
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise DatasetCorruptError(f"{path}: '{name}' holds a damaged picture ({error})", "get it again") from error
    return frames


# ------------------------------------------------------------------ is an action beside its own image?


class AlignmentScores(NamedTuple):
    """Share of the next frame's innovation, beyond what the last two frames tell, that an action explains; on held-out
    rows, so that it may be below 0."""

    now: float  # the action beside the frame
    before: float  # the one a row earlier, where that beside the frame explains nothing
    after: float  # the one a row later, given the one beside the frame


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
    beside it does not. A DataWarning where they seem early, which a delay in the world would look like, too."""
    scores = alignment_scores(data)
    if scores is None:
        return
    told = f"{data.source.name}: an action explains {max(scores.now, 0):.0%} of what its frame becomes, "
    if scores.after > max(0.05, 4.0 * scores.now):
        raise DatasetFormatError(
            f"{told}the next row's {scores.after:.0%}: actions are beside the frames they led to, shifted by one",
            "choose the other --alignment, or convert the files",
        )
    if scores.before > max(0.05, 4.0 * scores.now):
        warnings.warn(
            f"{told}the row before's {scores.before:.0%}: actions are one row early, or act with a delay",
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


# ------------------------------------------------------------------ writing V-D4RL's layout


def save_episode(path: Path, episode: Episode) -> None:
    """One episode in V-D4RL's layout: the action that led to each image, zeros at the first."""
    steps = len(episode.reward)
    first, last = np.zeros((2, steps + 1), np.bool_)
    first[0] = last[-1] = True
    ended = np.append(False, episode.terminated)
    np.savez_compressed(
        path,
        image=np.moveaxis(episode.frames, 1, 3),
        action=np.concatenate([np.zeros_like(episode.action[:1]), episode.action]),
        reward=np.append(np.float32(0.0), episode.reward),
        discount=1.0 - ended.astype(np.float32),
        is_first=first,
        is_last=last,
        is_terminal=ended,
    )
