"""What every algorithm is: a policy with an `update`, and a whole checkpoint of itself."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from typing import final

import torch
from torch import Tensor, nn

from offline_vi.behavior.base import BehaviorModel
from offline_vi.errors import CheckpointCorruptError, ConfigError
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.optim import adam, gradient_step
from offline_vi.rl.policies import q_value
from offline_vi.types import Batch, Metrics


class Algorithm(nn.Module, abc.ABC):
    """An offline algorithm. ``update`` only orders the `gradient_step` calls; every loss is a method."""

    batch_size: int  # transitions per step, from the algorithm's configuration

    @abc.abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """One training step; returns detached metrics."""

    @abc.abstractmethod
    def act(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A) in [-1, 1], under no_grad."""

    @final
    def _tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers, each once however many modules share it; constants (not persistent) left out."""
        saved = self.state_dict().keys()
        named = [*self.named_parameters(), *self.named_buffers()]
        return {name: tensor for name, tensor in named if name in saved}

    @final
    def _optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, torch.optim.Optimizer):
                    yield f"{prefix}.{name}" if prefix else name, value

    @final
    @torch.no_grad()
    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all tensors that make the algorithm what it is: parameters and buffers under their module names,
        optimiser state as ``critic_opt.0.exp_avg`` (number of the parameter, name of the moment)."""
        tensors = self._tensors()
        for name, optimizer in self._optimizers():
            for number, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{number}.{key}": torch.as_tensor(value) for key, value in state.items()}
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}

    @final
    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a `snapshot`, copying every tensor.

        Raises CheckpointCorruptError where names or shapes are not those of this algorithm.
        """
        own = self._tensors()
        optimizers = dict(self._optimizers())
        moments: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in optimizers}
        rest = dict(tensors)
        for name, tensor in own.items():
            saved = rest.pop(name, None)
            if saved is None or saved.shape != tensor.shape:
                found = "missing" if saved is None else f"of shape {tuple(saved.shape)}"
                raise CheckpointCorruptError(
                    f"the checkpoint's {name} is {found}, expected {tuple(tensor.shape)}",
                    "the checkpoint belongs to another configuration",
                )
            tensor.copy_(saved)
        for key, value in rest.items():
            owner, _, tail = key.rpartition(".")
            owner, _, number = owner.rpartition(".")
            if owner not in moments or not number.isdigit():
                raise CheckpointCorruptError(
                    f"the checkpoint holds {key}, which this algorithm has not",
                    "the checkpoint belongs to another configuration",
                )
            moments[owner].setdefault(int(number), {})[tail] = value.clone()
        for name, optimizer in optimizers.items():
            state = optimizer.state_dict()
            state["state"] = moments[name]
            optimizer.load_state_dict(state)  # aliases what it is given: hence the clones above


class OnlineAlgorithm(Algorithm):
    """An algorithm that also collects its own data."""

    @abc.abstractmethod
    def explore(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, A): the action to take while collecting."""


class Jointly(Algorithm):
    """One step of the behaviour model, then one of the algorithm: BCQ's published order of training.

    ``behavior`` is the model that the algorithm samples from, not a `DecoderMeans` view of it. Adam with ``lr`` and
    ``eps``; a loss that is c times another one's takes the same steps with c times its eps.
    """

    def __init__(self, behavior: BehaviorModel, algorithm: Algorithm, lr: float = 1e-3, eps: float = 1e-8) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.behavior = behavior
        self.batch_size = algorithm.batch_size
        self.behavior_opt = adam(behavior.parameters(), lr, eps=eps)

    def update(self, batch: Batch) -> Metrics:
        loss, metrics = self.behavior.loss(batch.obs, batch.action)
        gradient_step(self.behavior_opt, loss)
        return metrics | self.algorithm.update(batch)

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return q_value(self.algorithm, obs, action)

    def act(self, obs: Tensor) -> Tensor:
        return self.algorithm.act(obs)


class Normalized(Algorithm):
    """An algorithm that sees (s - mean) / std, with the statistics saved beside it. Its behaviour model, too, lives in
    these coordinates."""

    def __init__(self, normalizer: Normalizer, algorithm: Algorithm) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.algorithm = algorithm
        self.batch_size = algorithm.batch_size

    def update(self, batch: Batch) -> Metrics:
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        return self.algorithm.update(batch._replace(obs=obs, next_obs=next_obs))

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return q_value(self.algorithm, self.normalizer(obs), action)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        return self.algorithm.act(self.normalizer(obs))


class Rescaled(Algorithm):
    """An algorithm that is paid c times the reward. Its Q is told in units of the data, where the algorithm itself, its
    losses and its temperatures live in units of c times that."""

    def __init__(self, scale: float, algorithm: Algorithm) -> None:
        super().__init__()
        if not 0.0 < scale < float("inf"):
            raise ConfigError(f"the scale of the reward is {scale}", "a positive number")
        self.scale = scale
        self.algorithm = algorithm
        self.batch_size = algorithm.batch_size

    def update(self, batch: Batch) -> Metrics:
        return self.algorithm.update(batch._replace(reward=self.scale * batch.reward))

    def q_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return q_value(self.algorithm, obs, action) / self.scale

    def act(self, obs: Tensor) -> Tensor:
        return self.algorithm.act(obs)


class NormalizedOnline(Normalized, OnlineAlgorithm):
    """`Normalized`, for an algorithm that explores."""

    algorithm: OnlineAlgorithm

    @torch.no_grad()
    def explore(self, obs: Tensor) -> Tensor:
        return self.algorithm.explore(self.normalizer(obs))
