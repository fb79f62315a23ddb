"""Observations in, actions out, both as the environment has them: what `Algorithm.predict` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from offline_vi.data.columns import array_of
from offline_vi.errors import CapabilityError, EnvError, SpaceMismatchError
from offline_vi.rl.fixed_noise import FixedNoise
from offline_vi.types import Spec, Task, unit_task


@torch.no_grad()
def predict(
    act: Callable[[Tensor], Tensor],
    observation: ArrayLike,
    spec: Spec,
    task: Task | None,
    noise: FixedNoise | None = None,
    device: torch.device | str = "cpu",
) -> NDArray[Any]:
    """Actions in the units of ``task``, [-1, 1] where there is none: (O,) -> (A,), (B, O) -> (B, A). A discrete action
    is a number: (O,) -> (), (B, O) -> (B,).

    Raises SpaceMismatchError for observations of another shape, EnvError where an action is not finite.
    """
    rows = torch.from_numpy(as_rows(observation, spec)).to(device)
    action = array_of(act(rows) if noise is None else held_fixed(act, rows, noise))
    if not np.isfinite(action).all():
        raise EnvError(f"the policy's action is not finite: {action}", "the observations, or the policy's weights, are")
    chosen = action.argmax(-1) if spec.discrete else (task or unit_task(spec.action_dim)).to_env(action.clip(-1.0, 1.0))
    return np.asarray(chosen if np.ndim(observation) > len(spec.obs_shape) else chosen[0])


def as_rows(observation: ArrayLike, spec: Spec) -> NDArray[Any]:
    """(O,) or (B, O) -> (B, O) of the spec's type. Raises SpaceMismatchError."""
    values = np.asarray(observation)
    rows = values[None] if values.ndim == len(spec.obs_shape) else values
    if rows.ndim != len(spec.obs_shape) + 1 or rows.shape[1:] != spec.obs_shape or rows.dtype.kind not in "biuf":
        raise SpaceMismatchError(
            f"observations of shape {values.shape} and type {values.dtype}, the policy's are of shape {spec.obs_shape}",
            "hand in one observation, or rows of them",
        )
    return np.ascontiguousarray(rows, dtype=spec.obs_dtype)


def held_fixed(act: Callable[[Tensor], Tensor], rows: Tensor, noise: FixedNoise) -> Tensor:
    """(B, O) -> (B, A), the same action for the same row. Where the policy draws numbers that `FixedNoise` does not
    know, it acts row by row, each time from the same state of torch's default generator."""
    before = torch.default_generator.get_state()
    with noise:
        action = act(rows)
    if torch.equal(before, torch.default_generator.get_state()):
        return action
    single = []
    try:
        for row in rows.split(1):
            torch.default_generator.manual_seed(0)
            with noise:
                single.append(act(row))
    finally:
        torch.default_generator.set_state(before)
    return torch.cat(single)


@contextmanager
def untouched_generator() -> Iterator[None]:
    """Raises CapabilityError where random numbers were drawn from torch's default generator meanwhile."""
    before = torch.default_generator.get_state()
    yield
    if not torch.equal(before, torch.default_generator.get_state()):
        raise CapabilityError(
            "the policy draws random numbers that cannot be held fixed",
            "draw them by torch.randn, torch.rand or torch.multinomial; `predict` acts without them",
        )


@contextmanager
def evaluation_mode(policy: object) -> Iterator[None]:
    """A policy that is a module acts in evaluation mode and keeps its own mode afterwards."""
    module = policy if isinstance(policy, nn.Module) else nn.Identity()
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
