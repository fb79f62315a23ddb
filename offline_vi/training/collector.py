"""Experience as a source of batches: every batch costs a step in the environment.

The training loop draws from a `Collector` as it draws from a data set. Its checkpoints hold the replay buffer; each one
first ends the running episodes, whether the run is interrupted there or not: a simulator's state is not saved, and so
an interrupted run meets the same episodes as one that was not.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offline_vi.data.replay import Replay
from offline_vi.data.samplers import Sampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import EnvError, EvaluationWarning, UsageError
from offline_vi.rl.policies import Explorer
from offline_vi.simulator import EpisodeFailure, Simulator, Step
from offline_vi.types import Batch, Metrics, RewardMap, Spec, Task

PATIENCE = 10  # episodes in a row that an environment may break off; one that ends as it should starts the count anew


@dataclass(frozen=True)
class Collection:
    """How experience is collected, and what a batch is made of."""

    warmup: int = 100  # actions before the first gradient step
    num_envs: int = 1  # environments in lock-step
    capacity: int = 1_000_000  # transitions that the replay buffer keeps, the newest ones
    explorer: Explorer | None = None  # chooses the actions; None: the algorithm, which has to be an `OnlineAlgorithm`
    warmup_policy: Explorer | None = None  # chooses those of the warm-up; None: uniform ones
    offline: Transitions | None = None  # a data set that a share of every batch is drawn from
    share: float = 0.5  # of a batch, the rows that are drawn from it
    rewards: RewardMap = field(default_factory=RewardMap)  # of batches; what is kept has the environment's


class Experience(abc.ABC):
    """A source whose rows are part of a checkpoint."""

    @abc.abstractmethod
    def pause(self) -> None:
        """End the running episodes: a checkpoint follows."""

    @abc.abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside ``state``."""

    @abc.abstractmethod
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them over, after ``load_state``."""

    @abc.abstractmethod
    def metrics(self) -> Metrics:
        """The metrics of the episodes that ended since the last call."""


class Collector(Experience):
    """Steps ``num_envs`` environments in lock-step and draws batches from all that was seen.

    The first ``warmup`` actions are uniform over the box, or those of the warm-up policy; from then on a batch costs
    one step of one environment (with E environments: every E-th batch costs a step of all). ``terminated`` is the end
    of the task, a time limit is not; episode n is reset with a seed of its own.

    ``how.rewards`` maps the rewards of the batches; what is kept, and `transitions`, has the environment's.

    An environment that does anything impossible (see `Simulator`) is made anew; its episode is cut at the last step
    that went well, and counted in ``failures``.

    Raises EnvError where `PATIENCE` episodes in a row failed so, or where the policy produces NaN; what `make_env`
    raises.
    """

    def __init__(
        self,
        explorer: Explorer,
        task: Task,
        spec: Spec,
        batch_size: int,
        how: Collection = Collection(),
        *,
        seed: int | np.random.SeedSequence = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if how.warmup < 0 or how.num_envs < 1:
            raise UsageError(f"{how.warmup} random steps in {how.num_envs} environments", "at least one environment")
        root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        rows, self._episodes = root.spawn(2)
        self.explorer, self.task, self.spec, self.warmup = explorer, task, spec, how.warmup
        self.rewards = how.rewards
        self.begin = self._uniform if how.warmup_policy is None else how.warmup_policy.explore
        self.device = torch.device(device)
        self.replay = Replay(spec, batch_size, how.capacity, rows, device)
        self.simulators = [Simulator(task) for _ in range(how.num_envs)]
        self.simulators[0].open()  # raises what has nothing to do with its episodes
        self.episodes = self.turn = 0  # episodes begun, batches drawn
        self.failures = self.failures_in_a_row = 0  # episodes that an environment broke off
        self._obs: list[Tensor | None] = [None] * how.num_envs
        self._returns, self._lengths = [0.0] * how.num_envs, [0] * how.num_envs
        self._ended: list[tuple[float, int]] = []

    def sample(self) -> Batch:
        """The next batch, after a step in the environment."""
        while self.replay.count < self.warmup:
            self._step(self.begin)
        if self.turn % len(self.simulators) == 0:
            self._step(self.explorer.explore)
        self.turn += 1
        batch = self.replay.sample()
        return batch._replace(reward=self.rewards.apply(batch.reward, batch.terminated))

    def _uniform(self, obs: Tensor) -> Tensor:
        return torch.rand((len(obs), self.spec.action_dim), device=self.device) * 2.0 - 1.0

    def _step(self, choose: Callable[[Tensor], Tensor]) -> None:
        obs = torch.stack([self._begin(place) if x is None else x for place, x in enumerate(self._obs)])
        action = self._choose(choose, obs)
        for place in range(len(self.simulators)):
            found = self._try(place, action[place])
            while found is None:  # each step adds a row of each environment
                obs[place] = self._begin(place)
                action[place] = self._choose(choose, obs)[place]
                found = self._try(place, action[place])
            next_obs, ended = torch.from_numpy(found.obs), found.terminated or found.truncated
            self.replay.add(obs[place], action[place], found.reward, next_obs, found.terminated, ended)
            self._returns[place] += found.reward
            self._lengths[place] += 1
            self._obs[place] = next_obs
            if ended:
                self._ended.append((self._returns[place], self._lengths[place]))
                self._obs[place], self.failures_in_a_row = None, 0

    def _choose(self, choose: Callable[[Tensor], Tensor], obs: Tensor) -> Tensor:
        """Actions in [-1, 1], (E, A) for the observations (E, O). Raises EnvError where they are not finite."""
        action = choose(obs.to(self.device)).clamp(-1.0, 1.0)
        if not bool(action.isfinite().all()):
            raise EnvError(f"the policy's action is not finite after {self.replay.count} steps", "it has diverged")
        return action

    def _try(self, place: int, action: Tensor) -> Step | None:
        """A step of one environment; None where it failed, which cuts its episode."""
        try:
            return self.simulators[place].step(action.cpu().numpy())
        except EpisodeFailure as failure:
            if self._lengths[place]:  # its newest row is as far back as there are environments
                self.replay.cut(len(self.simulators))
            self._count(failure)
            return None

    def _count(self, failure: EpisodeFailure) -> None:
        """Take note of an episode that was broken off. Raises EnvError where too many were, one after the other."""
        self.failures += 1
        self.failures_in_a_row += 1
        if self.failures == 1:
            warnings.warn(f"an episode is cut, its environment made anew: {failure}", EvaluationWarning, stacklevel=2)
        if self.failures_in_a_row >= PATIENCE:
            raise EnvError(
                f"{PATIENCE} episodes in a row failed: {failure}", "mend the environment, then resume the run"
            ) from failure

    def _begin(self, place: int) -> Tensor:
        """The first observation of the next episode. Raises EnvError where there is none, however often it begins."""
        while True:
            key = (*self._episodes.spawn_key, self.episodes)
            entropy = np.random.SeedSequence(self._episodes.entropy, spawn_key=key)
            self.episodes += 1
            self._returns[place], self._lengths[place] = 0.0, 0
            try:
                return torch.from_numpy(self.simulators[place].reset(int(entropy.generate_state(1)[0])))
            except EpisodeFailure as failure:
                self._count(failure)

    def metrics(self) -> Metrics:
        ended, self._ended = self._ended, []
        if not ended:
            return {}
        returns, lengths = np.mean(ended, axis=0)
        numbers = {"episode/return": returns, "episode/length": lengths}
        if self.failures:
            numbers["episode/failures"] = float(self.failures)
        return {name: torch.tensor(value, device=self.device) for name, value in numbers.items()}

    def pause(self) -> None:
        for place, obs in enumerate(self._obs):
            if obs is not None:  # its newest row is as far back as there are environments from here on
                self.replay.cut(len(self.simulators) - place)
                self._obs[place] = None

    def state(self) -> dict[str, Any]:
        """JSON-ready."""
        failures = [self.failures, self.failures_in_a_row]
        return {"replay": self.replay.state(), "episodes": self.episodes, "turn": self.turn, "failures": failures}

    def load_state(self, state: dict[str, Any]) -> None:
        self.replay.load_state(state["replay"])
        self.episodes, self.turn = int(state["episodes"]), int(state["turn"])
        self.failures, self.failures_in_a_row = map(int, state.get("failures", (0, 0)))

    def tensors(self) -> dict[str, Tensor]:
        return self.replay.tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.replay.load_tensors(tensors)

    def transitions(self) -> Transitions:
        """Everything that was collected and is still kept, as a data set: one environment after the other."""
        rows, count = self.replay.transitions(self.task), len(self.simulators)
        place = (np.arange(len(rows)) + self.replay.count - len(rows)) % count  # they are added in turns
        order = np.argsort(place, kind="stable")
        episode_end = rows.episode_end[order]
        episode_end[np.flatnonzero(np.diff(place[order]))] = True
        episode_end[-1] = True
        return replace(rows.select(order), episode_end=episode_end)

    def close(self) -> None:
        """Close the environments."""
        for simulator in self.simulators:
            simulator.close()


class Blended(Experience):
    """Batches that are partly of a data set and partly of what is collected: the rows of each follow one another, so
    that no experience crowds out the other (Ball et al. 2023, RLPD, who take half of each)."""

    def __init__(self, offline: Sampler, online: Collector) -> None:
        self.offline, self.online = offline, online

    def sample(self) -> Batch:
        """The next batch, after a step in the environment; row numbers of the collected ones follow the data set's."""
        kept, new = self.offline.sample(), self.online.sample()
        new = new._replace(index=new.index + self.offline.rows)
        return Batch(*(torch.cat(parts) for parts in zip(kept, new, strict=True)))

    def metrics(self) -> Metrics:
        return self.online.metrics()

    def pause(self) -> None:
        self.online.pause()

    def state(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"offline": self.offline.state(), "online": self.online.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.offline.load_state(state["offline"])
        self.online.load_state(state["online"])

    def tensors(self) -> dict[str, Tensor]:
        return self.online.tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.online.load_tensors(tensors)
