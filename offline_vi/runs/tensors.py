"""Tensors on the disk: safetensors, never a pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from offline_vi.errors import (
    CheckpointCorruptError,
    MissingInputError,
    UnsafeCheckpointError,
)
from offline_vi.runs.files import read_file, replace_file, writing

MAX_HEADER = 4_000_000  # bytes of a safetensors header: some 30,000 tensors; its parser needs many times that


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` as one safetensors file that is whole or absent. Raises CheckpointWriteError."""
    data = tensor_bytes(tensors)
    with writing(Path(path).parent, len(data)):
        replace_file(Path(path), data)


def load_tensors(path: str | Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. The bytes that are parsed are those that were hashed.

    Raises MissingInputError, UnsafeCheckpointError for a pickle (nothing of it is run), CheckpointCorruptError, also
    where the file has not the hash ``sha256``.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"{path} is not there")
    try:
        data = read_file(path)
        tensors = parse_tensors(data, path.name)
    except ValueError as error:
        raise CheckpointCorruptError(f"{path}: {error}") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointCorruptError(f"{path} has not the SHA-256 {sha256}", "it was damaged or changed: copy it again")
    return tensors


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # cloned: safetensors refuses tensors that share memory
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )


def parse_tensors(data: bytes, name: str) -> dict[str, Tensor]:
    length = int.from_bytes(data[:8], "little")
    if not (len(data) >= 8 and length <= len(data) - 8 and data[8:9] == b"{"):
        if _looks_pickled(data):
            raise UnsafeCheckpointError(
                f"{name}: refusing pickle: loading it could run any code",
                "convert it to safetensors where you trust it",
            )
        raise ValueError("no safetensors file")
    if length > MAX_HEADER:
        raise ValueError(f"header of {length:,} bytes, more than {MAX_HEADER:,}")
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, AssertionError, KeyError, OverflowError, RuntimeError, TypeError) as error:
        raise ValueError(f"no safetensors file ({error})") from None


def _looks_pickled(data: bytes) -> bool:
    """Whether these bytes, which are no safetensors file, are a pickle: torch's zip or tar file, or a bare one."""
    container = data.startswith(b"PK") or data[257:262] == b"ustar"
    binary = data[:1] == b"\x80" and data[1:2] <= b"\x05"
    textual = data[:1] in (b"(", b"c", b"]", b"}", b"l", b"d") and data.rstrip().endswith(b".")
    return container or binary or textual
