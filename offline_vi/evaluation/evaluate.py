"""Score a policy in its environment, so that the numbers depend on nothing but policy, task, episodes and seed.

The protocol: the policy sees batches of a fixed width W = 10. Episode e sits in row e mod W and belongs to wave e // W;
the rows of a wave run in lock-step, rows without a running environment hold zeros. Before each ``act`` the (forked)
random state is set from (seed, wave, step). Batch width, row and noise of an episode then never depend on how many
environments run beside each other, nor on which episodes ended before: padding alone would not be enough for a policy
that samples candidates.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from offline_vi.environments import make_env, observation_of
from offline_vi.errors import (
    EnvError,
    EvaluationError,
    EvaluationWarning,
    UsageError,
)
from offline_vi.rl.algorithm import find_capability
from offline_vi.rl.policies import Policy, StatefulPolicy
from offline_vi.types import FloatArray, Task

if TYPE_CHECKING:
    from offline_vi.environments import Env

WIDTH = 10  # W: rows of every policy batch


@dataclass(frozen=True)
class Evaluation:
    """Scores of n episodes; a failed one is NaN and in no mean."""

    returns: NDArray[np.float64]  # (n,), undiscounted
    lengths: NDArray[np.int64]  # (n,), steps
    terminated: NDArray[np.bool_]  # (n,), the task ended (as opposed to the time limit)
    seeds: NDArray[np.int64]  # (n,), given to reset
    normalized: NDArray[np.float64]  # (n,), D4RL score x 100; NaN without reference scores
    env_id: str
    versions: dict[str, str] = field(default_factory=dict)
    discounted: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (n,), sum of gamma^t r_t
    first_obs: NDArray[Any] = field(default_factory=lambda: np.zeros(0))  # (n, O), s_0
    first_action: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))  # (n, A), a_0 in [-1, 1]
    discount: float = 0.99  # gamma of ``discounted``

    @property
    def n_failed(self) -> int:
        """Episodes whose environment crashed twice."""
        return int(np.isnan(self.returns).sum())

    @property
    def mean_return(self) -> float:
        """Mean return over the episodes that did not fail."""
        return float(np.nanmean(self.returns))

    @property
    def mean(self) -> float:
        """Mean normalised score x 100 over the episodes that did not fail; NaN where the task has no references."""
        kept = self.normalized[~np.isnan(self.returns)]
        return float(kept.mean())

    def episode_rows(self, step: int) -> list[dict[str, Any]]:
        """One row per episode, for episodes.csv."""
        return [
            {
                "step": step,
                "seed": int(seed),
                "return": float(value),
                "length": int(length),
                "terminated": int(terminated),
                "normalized": float(score),
                "env_id": self.env_id,
                "mujoco": self.versions["mujoco"],
            }
            for seed, value, length, terminated, score in zip(
                self.seeds, self.returns, self.lengths, self.terminated, self.normalized, strict=True
            )
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "env_id": self.env_id,
            "normalized_score": self.mean,
            "return_mean": self.mean_return,
            "n_failed": self.n_failed,
            "returns": self.returns.tolist(),
            "normalized": self.normalized.tolist(),
            "lengths": self.lengths.tolist(),
            "terminated": self.terminated.tolist(),
            "seeds": self.seeds.tolist(),
            "versions": self.versions,
        }


@torch.no_grad()
def evaluate(
    policy: Policy,
    task: Task,
    episodes: int = 10,
    seed: int = 0,
    *,
    num_envs: int = WIDTH,
    discount: float = 0.99,
    device: str | torch.device = "cpu",
    progress: bool = False,
    wrap: Callable[[Env], Env] = lambda env: env,
) -> Evaluation:
    """Run ``episodes`` episodes; episode e is reset with ``seed + e``; ``discount`` is that of `Evaluation.discounted`;
    ``wrap`` puts something around each environment, e.g. what films it.

    ``num_envs`` environments run beside each other (at most W); the numbers do not depend on it. An environment that
    raises is built anew and its episode repeated once; then it counts as failed.

    Raises EnvError where policy or environment produce NaN or wrong shapes, EvaluationError where every episode failed,
    MissingDependencyError and UsageError from `make_env`. The caller's random state is left as it was.
    """
    if episodes < 1 or num_envs < 1:
        raise UsageError(f"{episodes} episodes in {num_envs} environments", "at least one of each")
    envs = [wrap(make_env(task)) for _ in range(min(num_envs, WIDTH, episodes))]
    records: dict[int, _Episode] = {}
    runner = _Runner(policy, task, seed, discount, torch.device(device))
    # torch.manual_seed reaches every CUDA device, so every one in use is forked, whichever the policy is on
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    bar = tqdm(total=episodes, unit="episode", disable=not progress, dynamic_ncols=True)
    try:
        with torch.random.fork_rng(devices=cuda), _inference(policy):
            for group in _groups(episodes, len(envs)):
                for episode, env in zip(group, envs, strict=False):
                    records[episode] = _Episode(episode, env)
                runner.run([records[episode] for episode in group])
                for place, episode in enumerate(group):
                    if records[episode].error is not None:
                        with suppress(Exception):  # it is broken already
                            envs[place].close()
                        envs[place] = wrap(make_env(task))
                        records[episode] = _Episode(episode, envs[place])
                        runner.run([records[episode]])
                bar.update(len(group))
    finally:
        bar.close()
        for env in envs:
            env.close()
    runner.warn_about_clipping()
    return _summary(task, seed, discount, [records[episode] for episode in range(episodes)])


class _Episode:
    """One episode: its environment and what happened in it."""

    def __init__(self, number: int, env: Env) -> None:
        self.number, self.env = number, env
        self.row = number % WIDTH
        self.total, self.length, self.terminated, self.running = 0.0, 0, False, True
        self.error: Exception | None = None
        self.discounted = 0.0
        self.first_obs: NDArray[Any] | None = None
        self.first_action: FloatArray | None = None


class _Runner:
    """Episodes of one wave in lock-step."""

    def __init__(self, policy: Policy, task: Task, seed: int, discount: float, device: torch.device) -> None:
        self.policy, self.task, self.seed, self.discount, self.device = policy, task, seed, discount, device
        self.clipped = self.entries = 0

    def run(self, episodes: Sequence[_Episode]) -> None:
        """Step all episodes (of one wave) until the last one ends."""
        obs: FloatArray | None = None
        for episode in episodes:
            first = self._guarded(episode, lambda e: e.env.reset(seed=self.seed + e.number)[0])
            if first is not None:
                value = self._observation(first, episode, None if obs is None else obs.shape[1:])
                obs = np.zeros((WIDTH, *value.shape), value.dtype) if obs is None else obs
                obs[episode.row] = value
        wave = episodes[0].number // WIDTH
        stateful = find_capability(self.policy, StatefulPolicy)
        if stateful is not None:
            stateful.reset(torch.ones(WIDTH, dtype=torch.bool, device=self.device))
        step = 0
        while any(episode.running for episode in episodes):
            assert obs is not None
            self._set_noise(int(np.random.SeedSequence([self.seed, wave, step]).generate_state(1, np.uint64)[0] >> 1))
            action = self.policy.act(torch.from_numpy(obs).to(self.device)).cpu().numpy()
            if action.shape != (WIDTH, len(self.task.action_low)):  # NumPy would broadcast some of these silently
                expected = (WIDTH, len(self.task.action_low))
                raise EnvError(f"the policy's actions have the shape {action.shape}, expected {expected}")
            for episode in episodes:
                if episode.running:
                    self._step(episode, action[episode.row], obs)
            step += 1

    def _set_noise(self, seed: int) -> None:
        """Seed what the policy draws at this step. On the CPU the one generator is seeded: `torch.manual_seed` also
        notes a stack trace for every other kind of device, which takes longer than a small policy."""
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _step(self, episode: _Episode, action: FloatArray, obs: FloatArray) -> None:
        where = f"at step {episode.length} of episode {episode.number}"
        if not np.isfinite(action).all():
            raise EnvError(f"the policy's action is not finite {where}: {action}", "the policy has diverged")
        inside = action.clip(-1.0, 1.0)
        self.clipped += int((np.abs(action - inside) > 1e-6).sum())
        self.entries += action.size
        box: Any = episode.env.action_space
        command = self.task.to_env(inside).clip(box.low, box.high).astype(box.dtype)
        result = self._guarded(episode, lambda e: e.env.step(command))
        if result is None:
            return
        next_obs, reward, terminated, truncated, _ = result
        if not np.isfinite(reward):
            raise EnvError(f"{self.task.env_id} returned the reward {reward} {where}", "the environment is broken")
        if episode.length == 0:
            episode.first_obs, episode.first_action = obs[episode.row].copy(), inside
        episode.total += float(reward)
        episode.discounted += self.discount**episode.length * float(reward)
        episode.length += 1
        obs[episode.row] = self._observation(next_obs, episode, obs.shape[1:])
        if terminated or truncated:
            episode.running, episode.terminated = False, bool(terminated)
            obs[episode.row] = 0

    def _guarded(self, episode: _Episode, call: Any) -> Any:
        """The call's result; None where the environment raised, which ends the episode."""
        try:
            return call(episode)
        except Exception as error:  # whatever a simulator raises
            episode.error, episode.running = error, False
            return None

    def _observation(self, obs: Any, episode: _Episode, shape: tuple[int, ...] | None = None) -> FloatArray:
        value = observation_of(obs, self.task)
        where = f"at step {episode.length} of episode {episode.number}"
        if shape is not None and value.shape != shape:
            raise EnvError(f"{self.task.env_id} returned an observation of shape {value.shape} {where}", "")
        if not np.isfinite(value).all():
            raise EnvError(f"{self.task.env_id} returned an observation that is not finite {where}", "")
        return value

    def warn_about_clipping(self) -> None:
        if self.clipped:
            warnings.warn(
                f"clipped {self.clipped:,} of {self.entries:,} action entries to [-1, 1]",
                EvaluationWarning,
                stacklevel=3,
            )


def _groups(episodes: int, size: int) -> Iterator[list[int]]:
    """Episodes that run together: parts of a wave, never across waves."""
    for first in range(0, episodes, WIDTH):
        wave = range(first, min(first + WIDTH, episodes))
        yield from (list(wave[start : start + size]) for start in range(0, len(wave), size))


@contextmanager
def _inference(policy: Policy) -> Iterator[None]:
    """A policy that is a module acts in evaluation mode and keeps its own mode afterwards."""
    module = policy if isinstance(policy, nn.Module) else nn.Identity()
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _summary(task: Task, seed: int, discount: float, episodes: list[_Episode]) -> Evaluation:
    failures = [episode for episode in episodes if episode.error is not None]
    if len(failures) == len(episodes):
        raise EvaluationError(f"all {len(episodes)} episodes on {task.env_id} failed: {failures[0].error!r}", "")
    if failures:
        warnings.warn(
            f"{len(failures)} of {len(episodes)} episodes failed twice and are in no mean: {failures[0].error!r}",
            EvaluationWarning,
            stacklevel=3,
        )
    returns = np.array([np.nan if episode.error is not None else episode.total for episode in episodes])
    return Evaluation(
        returns,
        np.array([episode.length for episode in episodes]),
        np.array([episode.terminated for episode in episodes]),
        np.array([seed + episode.number for episode in episodes]),
        task.normalized(returns),
        task.env_id,
        {name: _version(name) for name in ("mujoco", "gymnasium", "numpy", "torch", "offline_vi")},
        np.array([episode.discounted for episode in episodes]),
        *_starts(episodes),
        discount,
    )


def _starts(episodes: Sequence[_Episode]) -> tuple[NDArray[Any], FloatArray]:
    """First observations and actions, (n, O) and (n, A); zeros for an episode that failed before its first step."""
    pairs = [(e.first_obs, e.first_action) for e in episodes if e.first_obs is not None and e.first_action is not None]
    if not pairs:
        return np.zeros((len(episodes), 0)), np.zeros((len(episodes), 0), np.float32)
    blank_obs, blank_action = (np.zeros_like(part) for part in pairs[0])
    obs = [blank_obs if e.first_obs is None else e.first_obs for e in episodes]
    action = [blank_action if e.first_action is None else e.first_action for e in episodes]
    return np.stack(obs), np.stack(action)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
