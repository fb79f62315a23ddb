"""What every algorithm is: a policy with an `update`, and a whole checkpoint of itself."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Protocol, Self, TypeVar, final, runtime_checkable

from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from offline_vi.behavior.base import BehaviorModel, Proposals, fit_settings, require_capability, training_loss
from offline_vi.errors import CapabilityError
from offline_vi.nn import state
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step
from offline_vi.nn.recorded import Recorded, spec_in
from offline_vi.rl.fixed_noise import FixedNoise
from offline_vi.rl.prediction import evaluation_mode, predict
from offline_vi.types import Batch, Metrics, Task

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)


class Algorithm(Recorded, abc.ABC):
    """An offline algorithm. ``update`` only orders the `gradient_step` calls; every loss is a method."""

    batch_size: int = 256  # transitions per step, from the algorithm's configuration
    trained_steps: int = 0  # gradient steps that `fit` has taken so far
    task: Task | None = None  # the environment of the data, in whose units `predict` acts; `fit` and `load` set it

    @abc.abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """One training step; returns detached metrics."""

    @abc.abstractmethod
    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A) in [-1, 1], under no_grad."""

    def capture_phase(self) -> Hashable:
        """Which operations the next `update` performs, for `training.capture`: equal phases perform equal ones, change
        nothing but tensors, draw from torch's default generator alone, and are followed by equal phases. None: that is
        not known, so that updates always run as they are written."""
        return None

    @final
    def predict(self, observation: ArrayLike, deterministic: bool = True) -> NDArray[Any]:
        """Act in the environment's units, NumPy in and NumPy out: one observation (O,) -> (A,), or many (B, O) ->
        (B, A). The units are those of ``task``, [-1, 1] where it is None.

        ``deterministic``: what the policy draws at random is drawn once (`FixedNoise`), so that the same observation
        always gets the same action. Otherwise it is drawn anew from torch's default generator, as in `evaluate`.

        Raises SpaceMismatchError for observations of another shape, EnvError where an action is not finite, and
        CapabilityError for a policy that remembers its episode, or whose random numbers cannot be held fixed.
        """
        if find_capability(self, StatefulPolicy) is not None:
            raise CapabilityError(
                f"{type(self).__name__} remembers what it saw of an episode, one observation does not do",
                "call reset(first) where episodes begin and act(obs) at every step",
            )
        device = next((parameter.device for parameter in self.parameters()), "cpu")
        noise = FixedNoise() if deterministic else None
        with evaluation_mode(self):
            return predict(self.act, observation, spec_in(self), self.task, noise, device)

    @final
    def train(self, mode: bool = True) -> Self:
        """Training mode of the algorithm's own networks. What its candidate actions come from stays in evaluation mode:
        a behavior model is in training mode while its own loss is computed (`training_loss`)."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, Proposals):
                part.eval()
        return self

    @final
    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all tensors that make the algorithm what it is: parameters and buffers under their module names,
        optimizer state as ``critic_opt.0.exp_avg`` (number of the parameter, name of the moment). See `nn.state` for
        what else is part of a checkpoint."""
        return state.snapshot(self).tensors

    @final
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a `snapshot`, copying every tensor.

        Raises CheckpointCorruptError where names or shapes are not those of this algorithm.
        """
        state.restore(self, tensors)


class OnlineAlgorithm(Algorithm):
    """An algorithm that also collects its own data."""

    @abc.abstractmethod
    def explore(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A): the action to take while collecting."""


class Policy(Protocol):
    """Maps observations (B, O) to actions (B, A) in [-1, 1]."""

    def act(self, obs: Tensor) -> Tensor: ...


@runtime_checkable
class StatefulPolicy(Policy, Protocol):
    """A policy with memory (planners, recurrent policies)."""

    def reset(self, first: Tensor) -> None:
        """Forget the rows where ``first`` (B,) is True: their episodes begin."""


class Wrapper(Algorithm):
    """An algorithm around another one, which goes on acting as it did. What else the other one can do,
    `find_capability` finds."""

    algorithm: Algorithm

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.batch_size = algorithm.batch_size

    @final
    def act(self, obs: Tensor) -> Tensor:
        return self.algorithm.act(obs)


def unwrapped(agent: object) -> Iterator[object]:
    """``agent``, then the algorithm within it, and so on."""
    yield agent
    while isinstance(agent, Wrapper):
        agent = agent.algorithm
        yield agent


def find_capability(agent: object, kind: type[C]) -> C | None:
    """``agent``, or the algorithm within its wrappers, that is of the class or protocol ``kind``; None if none is.

    A protocol may ask for methods alone: from Python 3.12 on, ``isinstance`` does not see the parts of a module.
    `find_part` does.
    """
    return next((part for part in unwrapped(agent) if isinstance(part, kind)), None)


def find_part(agent: object, name: str, kind: type[M]) -> M | None:
    """The module ``name`` of ``agent``, or of the algorithm within its wrappers, as in ``find_part(agent, "critic",
    nn.Module)``; None where none is a ``kind``."""
    modules = [part for part in unwrapped(agent) if isinstance(part, nn.Module)]
    found = [module._modules.get(name) for module in modules]  # `named_children` leaves out second names
    return next((part for part in found if isinstance(part, kind)), None)


def set_task(agent: Algorithm, task: Task | None) -> None:
    """Let an agent, and the algorithms within it, act in the units of a task: see `Algorithm.predict`."""
    for part in agent.modules():
        if isinstance(part, Algorithm):
            vars(part).pop("task", None)  # None is the class's own: no part of a checkpoint
            if task is not None:
                part.task = task


def normalizer_of(agent: object) -> Normalizer:
    """The layer ``inputs`` that an algorithm's networks begin with, also within wrappers:
    ``normalizer_of(agent).fit(data.obs)``.

    Raises CapabilityError where it has none.
    """
    found = find_part(agent, "inputs", Normalizer)
    if found is None:
        raise CapabilityError(
            f"{type(agent).__name__} does not normalize observations", "give it inputs = Normalizer(spec)"
        )
    return found


class Jointly(Wrapper):
    """One step of the behavior model, then one of the algorithm: BCQ's published order of training.

    ``behavior`` is the model that the algorithm's candidates come from, not a `DecoderMeans` view of it. The learning
    rate and eps of its Adam are those of the model's configuration (`fit_settings`).
    """

    def __init__(self, behavior: BehaviorModel, algorithm: Algorithm) -> None:
        super().__init__(algorithm)
        self.behavior = require_capability(behavior, BehaviorModel, "Jointly")
        settings = fit_settings(behavior)
        self.behavior_opt = adam(behavior.parameters(), settings.lr, eps=settings.eps)

    def update(self, batch: Batch) -> Metrics:
        loss, metrics = training_loss(self.behavior, batch.obs, batch.action)
        gradient_step(self.behavior_opt, loss)
        return metrics | self.algorithm.update(batch)

    def capture_phase(self) -> Hashable:
        return self.algorithm.capture_phase()
