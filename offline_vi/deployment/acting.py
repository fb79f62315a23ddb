"""A policy as one module that a compiler can read: from an observation to an action in the environment's units.

    observation -> normalizer -> candidates, networks, ranking -> [-1, 1] -> the environment's units

All of it is the agent's own ``act``. What an algorithm draws at random comes from a fixed bank that is a part of the
module, so that one class exports every algorithm and every behavior model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from offline_vi.errors import CapabilityError
from offline_vi.nn.recorded import spec_in
from offline_vi.rl.algorithm import Algorithm, StatefulPolicy, find_capability
from offline_vi.rl.fixed_noise import FixedNoise
from offline_vi.rl.policies import GuardedPolicy
from offline_vi.rl.prediction import untouched_generator
from offline_vi.types import Task, unit_task


class Acting(nn.Module):
    """Observations (B, O) float32 in, actions (B, A) out, both in the environment's units; a discrete action is its
    number, (B,) int64. With a guard there is a second output (B, 2), bool: whether the state was unknown, and whether
    the policy's action was unlikely.

    Raises CapabilityError for a policy of images or with a memory, for several seeds in one agent, and for one whose
    random numbers cannot be held fixed.
    """

    low: Tensor  # (A,), the environment's value that -1 stands for
    width: Tensor  # (A,)

    def __init__(self, agent: Algorithm, guard: GuardedPolicy | None = None) -> None:
        super().__init__()
        self.spec = spec_in(agent)
        require_exportable(agent)
        task: Task = agent.task or unit_task(self.spec.action_dim)
        self.agent, self.guard = agent, guard
        judges = () if guard is None else (guard.behavior, guard.known)
        self.judges = nn.ModuleList(judge for judge in judges if judge is not None)
        self.register_buffer("low", torch.tensor(task.action_low, dtype=torch.float32))
        self.register_buffer("width", torch.from_numpy(task.high - task.low).float())
        noise = FixedNoise()
        with torch.no_grad(), untouched_generator(), noise:
            self.act(self.example(2))
        self.noise = nn.ParameterList(nn.Parameter(drawn, requires_grad=False) for drawn in noise.bank)

    def example(self, rows: int) -> Tensor:
        """Zeros of the shape of observations, (B, O)."""
        return torch.zeros(rows, *self.spec.obs_shape)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Their names."""
        return ("action",) if self.guard is None else ("action", "outside")

    def act(self, obs: Tensor) -> tuple[Tensor, ...]:
        """(B, O) -> actions (B, A) in [-1, 1], and what the guard says of them."""
        if self.guard is None:
            return (self.agent.act(obs),)
        verdict = self.guard.judge(obs)
        action = self.guard.replaced(obs, verdict)
        return action, torch.stack([verdict.unknown_state, verdict.unlikely_action], -1)

    def forward(self, obs: Tensor) -> Tensor | tuple[Tensor, ...]:
        with FixedNoise(self.noise):
            action, *said = self.act(obs)
        if self.spec.discrete:
            action = action.argmax(-1)
        else:
            action = self.low + (action.clamp(-1.0, 1.0) + 1.0) * 0.5 * self.width
        return (action, *said) if said else action


def require_exportable(agent: Algorithm) -> None:
    """Raises CapabilityError for what `Acting` could not hold."""
    spec, name = spec_in(agent), type(agent).__name__
    if find_capability(agent, StatefulPolicy) is not None or len(spec.obs_shape) != 1:
        raise CapabilityError(
            f"{name} acts on what it remembers of an episode or on images, which is not exported",
            "serve it from Python: load(RUN), reset(first), act(obs)",
        )
    if spec.stack:
        raise CapabilityError(f"{name} holds {spec.stack[0]} seeds", "export one of them: load(RUN, seed_index=0)")


@contextmanager
def ready_to_trace(agent: Algorithm) -> Iterator[None]:
    """Put an agent on the CPU, without gradients and without checks of distributions, which depend on the numbers."""
    device = next((parameter.device for parameter in agent.parameters()), torch.device("cpu"))
    checks = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        agent.to("cpu")
        with torch.no_grad():
            yield
    finally:
        Distribution.set_default_validate_args(checks)
        agent.to(device)
