"""Optimizers, their steps and schedules, moving averages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

Schedule = Literal["cosine", "constant"]
"""Of a learning rate: it falls to 0 along half a cosine, or stays."""

_RECORDS: ContextVar[bool] = ContextVar("whether steps are recorded as operations on tensors", default=False)


@contextmanager
def recorded_steps(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Within it, steps and schedules are operations on tensors alone, counters included, for `training.capture` to
    record. The numbers of ``optimizers``, such as their learning rates, are afterwards what they were."""
    settings = [(group, dict(group)) for optimizer in optimizers for group in optimizer.param_groups]
    token = _RECORDS.set(True)
    try:
        yield
    finally:
        _RECORDS.reset(token)
        for group, before in settings:
            group.update(before)


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, in place, over all parameters."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)


def steps_taken(optimizer: torch.optim.Optimizer) -> int:
    """How many steps ``optimizer`` has taken, from its own state: the counter that a checkpoint holds already, and that
    lies on the host wherever the parameters are."""
    state = optimizer.state.get(optimizer.param_groups[0]["params"][0])
    with _disable_current_modes() if _RECORDS.get() else nullcontext():
        return int(state["step"]) if state else 0


def cosine_(optimizer: torch.optim.Optimizer, lr: float, horizon: int) -> None:
    """Set the learning rate of the next step: from ``lr`` to 0 along half a cosine over ``horizon`` steps."""
    rate: float | Tensor
    if _RECORDS.get():
        step = optimizer.state[optimizer.param_groups[0]["params"][0]]["step"]
        rate = 0.5 * lr * (1.0 + torch.cos(math.pi * (step.double() / horizon).clamp(max=1.0)))
    else:
        rate = 0.5 * lr * (1.0 + math.cos(math.pi * min(steps_taken(optimizer) / horizon, 1.0)))
    for group in optimizer.param_groups:
        group["lr"] = rate


def follow_(schedule: Schedule, optimizer: torch.optim.Optimizer, lr: float, horizon: int) -> None:
    """Set the learning rate of the next step as ``schedule`` has it, from ``lr`` over ``horizon`` steps."""
    if schedule == "cosine":
        cosine_(optimizer, lr, horizon)


class Adam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015): all parameters in one call of torch's fused kernel.

    `torch.optim.Adam` with ``fused=True`` calls the same kernel and keeps the same state, after more work in Python
    than the kernel itself takes for networks of a few layers. The bits are the same.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        # "fused" tells `load_state_dict` to put counters beside the parameters, where the kernel expects them
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "fused": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                states = [self.moments(parameter) for parameter in parameters]
                (recorded_adam_ if _RECORDS.get() else fused_adam_)(parameters, states, group)

    def moments(self, parameter: Tensor) -> dict[str, Tensor]:
        """The state of one parameter, made when it is first asked for: how often it was stepped, and its moments."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def fused_adam_(parameters: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]) -> None:
    """A step of Adam in torch's kernel for all parameters."""
    steps, means, squares = ([state[key] for state in states] for key in ("step", "exp_avg", "exp_avg_sq"))
    torch._foreach_add_(steps, torch.ones_like(steps[0]))  # a number would be wrapped once for each parameter
    torch._fused_adam_(
        parameters,
        [parameter.grad for parameter in parameters if parameter.grad is not None],
        means,
        squares,
        [],
        steps,
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=0.0,
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


def recorded_adam_(parameters: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]) -> None:
    """The same step one operation after the other, which a compiler fuses.

    The corrections of the moments' bias are computed for all parameters at once, see `powers`.
    """
    (beta1, beta2), lr, eps = group["betas"], group["lr"], group["eps"]
    counters = [state["step"] for state in states]
    torch._foreach_add_(counters, 1.0)
    steps = torch.stack(counters).double()
    rates = (lr / (1.0 - powers(beta1, steps))).unbind()
    roots = (1.0 - powers(beta2, steps)).sqrt().unbind()
    for parameter, state, rate, root in zip(parameters, states, rates, roots, strict=True):
        mean, square, gradient = state["exp_avg"], state["exp_avg_sq"], parameter.grad
        assert gradient is not None
        mean.lerp_(gradient, 1.0 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        parameter.sub_(rate * mean / (square.sqrt() / root + eps))


def powers(beta: float, steps: Tensor) -> Tensor:
    """beta^t of every t in ``steps``, as an exponential.

    TorchInductor computes an expression once and keeps it, if it contains an exponential and is used several times. It
    would compute a power again for every few elements of each parameter, which takes longer than the rest of the step.
    """
    return torch.exp(steps * (math.log(beta) if beta > 0.0 else -math.inf))


def adam(parameters: Iterable[Tensor], lr: float, *, eps: float = 1e-8) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), one pass over each parameter."""
    return Adam(parameters, lr=lr, eps=eps)


def gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of ``optimizer`` down ``loss``, a scalar or one value per seed (summed).

    Gradients reach the optimiser's own parameters and nothing else: no network is trained by accident through another
    one's loss, and no gradient is computed that nobody uses.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = None
    loss.backward(torch.ones_like(loss), inputs=parameters)
    optimizer.step()
