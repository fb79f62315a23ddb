"""What optimizers and schedulers keep: moments as tensors, learning rates and counters as plain values."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from offline_vi.errors import CapabilityError, CheckpointCorruptError
from offline_vi.nn.encoding import ELSEWHERE, alike, encode, is_data


def moments_of(name: str, optimizer: Optimizer) -> dict[str, Tensor]:
    found = optimizer.state_dict()["state"]
    return {f"{name}.{number}.{key}": torch.as_tensor(v) for number, part in found.items() for key, v in part.items()}


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Learning rates and the like of each group: a scheduler changes them."""
    groups = optimizer.param_groups
    return [{key: value for key, value in group.items() if key != "params" and is_data(value)} for group in groups]


def take_moments(name: str, optimizer: Optimizer, rest: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Move the moments of one optimizer out of ``rest``: of each parameter none, or all that the optimizer keeps."""
    prefix = f"{name}."
    held = {key.removeprefix(prefix).partition(".")[0] for key in rest if key.startswith(prefix)}
    found: dict[int, dict[str, Tensor]] = {}
    for key, own in moments_of(name, _stepped(optimizer)).items() if held else ():
        number, _, moment = key.removeprefix(prefix).partition(".")
        if number in held:
            found.setdefault(int(number), {})[moment] = alike(key, rest.pop(key, None), own).clone()  # it is aliased
    return found


@torch.enable_grad()
def _stepped(optimizer: Optimizer) -> Optimizer:
    """A copy that has taken a step, with gradients of zero: it shows which moments the optimizer keeps. To take moments
    of other shapes on trust would be to let a file write beyond them: the fused kernels do not look."""
    twin = copy.deepcopy(optimizer)
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    twin.step()
    return twin


def check_settings(name: str, saved: Any, own: list[dict[str, Any]]) -> None:
    """Raises CheckpointCorruptError where the settings of an optimizer's groups, or of a scheduler, are none."""
    fits = isinstance(saved, list) and len(saved) == len(own) and all(isinstance(group, dict) for group in saved)
    for before, now in zip(saved, own, strict=True) if fits else ():
        fits = fits and all(_same_kind(value, now[key]) for key, value in before.items() if key in now)
        fits = fits and not {"params", "optimizer"} & before.keys()
    if not fits:
        raise CheckpointCorruptError(f"the checkpoint's {name} are no settings of this algorithm", ELSEWHERE)


def _same_kind(saved: Any, own: Any) -> bool:
    """Whether two settings are of one kind: numbers, tuples of as many, or of one class; None stands for any."""
    if isinstance(saved, bool) or isinstance(own, bool):
        return isinstance(saved, bool | None) and isinstance(own, bool | None)
    if isinstance(saved, tuple) and isinstance(own, tuple):
        return len(saved) == len(own) and all(map(_same_kind, saved, own))
    numbers = isinstance(saved, int | float) and isinstance(own, int | float)
    return saved is None or own is None or numbers or type(saved) is type(own)


def plain_state(scheduler: LRScheduler) -> dict[str, Any]:
    """What is data in a scheduler: its counters and rates."""
    return {key: value for key, value in scheduler.state_dict().items() if is_data(value)}


def schedule_of(name: str, scheduler: LRScheduler) -> Any:
    """The counters and rates of a scheduler. Its functions are code, not state. Raises CapabilityError."""
    record = scheduler.state_dict()
    lost = [key for key, value in record.items() if not (is_data(value) or callable(value))]
    if lost:
        raise CapabilityError(f"{lost[0]} of the scheduler {name} cannot be saved", "use a scheduler of torch.optim")
    return encode(plain_state(scheduler))
