"""How much memory an object that a file describes may take while it is built: in proportion to its saved tensors.

A description is a page of JSON, and can ask for layers of any size. What is built from it is compared with the tensors
that were saved, but only once it is there; so it is refused while it is being built, before its memory is written to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from offline_vi.errors import CheckpointCorruptError

FACTOR, SLACK = 16, 256 << 20  # initialization makes copies; small networks have tables
LEAST = 4096  # bytes that a tensor counts, however small: it is an object, too


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """The memory of saved tensors."""
    return sum(tensor.nbytes for tensor in tensors.values())


class Allowance(TorchDispatchMode):
    """A context in which new tensors may take, all together, so much as objects of ``saved`` bytes do. Raises
    CheckpointCorruptError beyond that."""

    def __init__(self, saved: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.saved, self.left = saved, FACTOR * saved + SLACK

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        before = {memory(argument) for argument in args if isinstance(argument, Tensor)}
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, Tensor) and memory(tensor) not in before:
                self.left -= max(tensor.nbytes, LEAST)
        if self.left < 0:
            raise CheckpointCorruptError(
                f"the description asks for more memory than {self.saved / 1e6:.1f} MB of saved tensors can need",
                "it does not belong to them: copy both again",
            )
        return found


def memory(tensor: Tensor) -> int:
    """Where it lies."""
    return tensor.untyped_storage().data_ptr()
