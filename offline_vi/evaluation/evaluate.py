"""Score a policy in its environment, so that the numbers depend on nothing but policy, task, episodes and seed.

The protocol: the policy sees batches of a fixed width W = 10. Episode e sits in row e mod W and belongs to wave e // W;
the rows of a wave run in lock-step, rows without a running environment hold zeros. Before each ``act`` the (forked)
random state is set from (seed, wave, step). Batch width, row and noise of an episode then never depend on how many
environments run beside each other, in which processes they run, nor on which episodes ended before: padding alone would
not be enough for a policy that samples candidates.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from offline_vi.console import as_drawn, standard_error
from offline_vi.data.columns import array_of
from offline_vi.environments import episode_limit, require_bounded, task_in
from offline_vi.errors import (
    EnvError,
    EvaluationError,
    EvaluationWarning,
    UsageError,
)
from offline_vi.evaluation.statistics import Interval, bootstrap_interval, mean
from offline_vi.factories import Factory, allow
from offline_vi.processes import POSSIBLE, Elsewhere
from offline_vi.rl.algorithm import find_capability
from offline_vi.rl.policies import Counting, Policy, StatefulPolicy
from offline_vi.rl.prediction import evaluation_mode
from offline_vi.simulator import EpisodeFailure, Simulator, Step, as_it_is
from offline_vi.types import FloatArray, Task

if TYPE_CHECKING:
    from offline_vi.environments import Env

WIDTH = 10  # W: rows of every policy batch


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of n episodes; a failed one is NaN and in no number."""

    returns: NDArray[np.float64]  # (n,), undiscounted
    lengths: NDArray[np.int64]  # (n,), steps
    terminated: NDArray[np.bool_]  # (n,), the task ended (as opposed to the time limit)
    seeds: NDArray[np.int64]  # (n,), given to reset
    normalized: NDArray[np.float64]  # (n,), D4RL score x 100; NaN without reference scores
    env_id: str  # Gymnasium id, or the name of the class or function that made the environments
    versions: dict[str, str] = field(default_factory=dict)  # package -> version: Gymnasium, the simulator
    discounted: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (n,), sum of gamma^t r_t
    first_obs: NDArray[Any] = field(default_factory=lambda: np.zeros(0))  # (n, O), s_0
    first_action: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))  # (n, A), a_0 in [-1, 1]
    discount: float = 0.99  # gamma of ``discounted``
    failures: dict[int, str] = field(default_factory=dict)  # seed -> why the episode failed twice
    max_episode_steps: int | None = None  # after which an episode was cut

    @property
    def succeeded(self) -> NDArray[np.bool_]:
        """(n,), the episodes that count."""
        return ~np.isnan(self.returns)

    @property
    def n_failed(self) -> int:
        """Episodes that failed twice."""
        return int((~self.succeeded).sum())

    @property
    def mean_return(self) -> float:
        """Mean return over the episodes that did not fail."""
        return float(self.returns[self.succeeded].mean())

    @property
    def mean(self) -> float:
        """Mean normalized score x 100 over the episodes that did not fail; NaN where the task has no references."""
        return float(self.normalized[self.succeeded].mean())

    @property
    def scored(self) -> bool:
        """Whether the task has reference scores; where it has none, returns take the place of scores."""
        return bool(np.isfinite(self.normalized[self.succeeded]).all())

    @property
    def score(self) -> float:
        """The mean normalized score, or the mean return where the task has no reference scores."""
        return self.mean if self.scored else self.mean_return

    def interval(self, scores: bool = True) -> Interval:
        """The mean over the episodes that did not fail, and its 95 % bootstrap interval: of normalized scores, or of
        returns. It is of this one policy; another training seed gives another policy. Of one episode it is a point."""
        values = (self.normalized if scores else self.returns)[self.succeeded]
        return bootstrap_interval([values], mean)

    @property
    def spread(self) -> tuple[float, float]:
        """Standard deviations over the episodes that did not fail, of returns and of scores."""
        return float(self.returns[self.succeeded].std()), float(self.normalized[self.succeeded].std())

    def __repr__(self) -> str:
        score = f"normalized score {self.mean:.1f}, " if self.scored else ""
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        ended = int(self.terminated[self.succeeded].sum())
        ends = f", {ended} ended by the task" if ended else ""
        episodes = f"{self.env_id}, {len(self.returns)} episodes"
        return f"Evaluation({episodes}: {score}return {self.mean_return:.1f}{ends}{failed})"

    def shown(self) -> dict[str, float]:
        """Numbers for a line on the way: the mean return, the mean score where there is one, the mean length in steps,
        failed episodes."""
        score = {"score": self.mean} if self.scored else {}
        length = {"length": float(self.lengths[self.succeeded].mean())} if self.succeeded.any() else {}
        failed = {"failed": float(self.n_failed)} if self.n_failed else {}
        return {"return": self.mean_return, **score, **length, **failed}

    def episode_rows(self, step: int) -> list[dict[str, Any]]:
        """One row per episode, for episodes.csv; "failure" only of one that failed."""
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
                **({} if self.max_episode_steps is None else {"max_episode_steps": self.max_episode_steps}),
                **({"failure": self.failures[int(seed)]} if int(seed) in self.failures else {}),
            }
            for seed, value, length, terminated, score in zip(
                self.seeds, self.returns, self.lengths, self.terminated, self.normalized, strict=True
            )
        ]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, all numbers finite: lists are of the episodes that did not fail; scores only where the task has
        reference scores."""
        kept = self.succeeded
        scores = {"normalized_score": self.mean, "normalized": self.normalized[kept].tolist()} if self.scored else {}
        return {
            "env_id": self.env_id,
            "max_episode_steps": self.max_episode_steps,
            **scores,
            "return_mean": self.mean_return,
            "n_failed": self.n_failed,
            "failures": {str(seed): why for seed, why in self.failures.items()},
            "returns": self.returns[kept].tolist(),
            "lengths": self.lengths[kept].tolist(),
            "terminated": self.terminated[kept].tolist(),
            "seeds": self.seeds[kept].tolist(),
            "versions": self.versions,
        }


@torch.no_grad()
def evaluate(
    policy: Policy,
    task: Task | str | Factory,
    episodes: int = 10,
    seed: int = 0,
    *,
    num_envs: int = WIDTH,
    discount: float = 0.99,
    device: str | torch.device = "cpu",
    progress: bool = False,
    wrap: Callable[[Env], Env] = as_it_is,
    max_episode_steps: int | None = None,
    env_processes: bool = False,
) -> Evaluation:
    """Run ``episodes`` episodes; episode e is reset with ``seed + e``; ``discount`` is that of `Evaluation.discounted`;
    ``wrap`` puts something around each environment, e.g. what films it.

    ``task`` may also be a Gymnasium id, a class of environments or a function that makes one; its box then gives the
    action bounds. ``max_episode_steps`` cuts episodes there, instead of where task or environment do.

    ``num_envs`` environments run side by side, at most W = 10, the default; with ``env_processes`` each of them in a
    process of its own, on Linux. The numbers do not depend on either. An episode in which an environment does anything
    impossible (see `Simulator`) is repeated once in a new one; then it counts as failed.

    Raises EnvError where the policy produces NaN or wrong shapes, EvaluationError where every episode failed,
    UsageError where no limit of the episodes is known, and what `make_env` raises. The caller's random state is left
    as it was.
    """
    if episodes < 1 or num_envs < 1:
        raise UsageError(f"{episodes} episodes in {num_envs} environments", "at least one of each")
    if max_episode_steps is not None and max_episode_steps < 1:
        raise UsageError(f"max_episode_steps is {max_episode_steps}", "an episode has at least one step")
    if not isinstance(task, Task):
        task = require_bounded(task_in(allow(task), max_episode_steps=max_episode_steps))
    task = task if max_episode_steps is None else replace(task, max_episode_steps=max_episode_steps)
    first = Simulator(task, wrap)  # which says how long its episodes may be
    simulators = _simulators(first, min(num_envs, WIDTH, episodes), env_processes)
    records: dict[int, _Episode] = {}
    runner = _Runner(policy, task, seed, discount, torch.device(device))
    # torch.manual_seed reaches every CUDA device, so every one in use is forked, whichever the policy is on
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    drawing = standard_error(as_drawn)
    shown = progress and drawing.isatty()
    bar = tqdm(total=episodes, unit="episode", disable=not shown, dynamic_ncols=True, file=drawing)
    try:
        limit = episode_limit(first.open(), task)
        with torch.random.fork_rng(devices=cuda), evaluation_mode(policy):
            for group in _groups(episodes, len(simulators)):
                for episode, simulator in zip(group, simulators, strict=False):
                    records[episode] = _Episode(episode, simulator)
                runner.run([records[episode] for episode in group])
                for episode in group:
                    if records[episode].failure:
                        records[episode] = _Episode(episode, records[episode].simulator)
                        runner.run([records[episode]])
                bar.update(len(group))
    finally:
        bar.close()
        for simulator in (first, *simulators):
            simulator.close()
    runner.warn_about_clipping()
    found = _summary(task, seed, discount, [records[episode] for episode in range(episodes)])
    return replace(found, max_episode_steps=limit)


def _simulators(first: Simulator, count: int, apart: bool) -> Sequence[Simulator | Elsewhere]:
    if apart and POSSIBLE:
        return [Elsewhere(first.task, first.wrap) for _ in range(count)]
    return [first, *(Simulator(first.task, first.wrap) for _ in range(count - 1))]


class _Episode:
    """One episode: its environment and what happened in it."""

    def __init__(self, number: int, simulator: Simulator | Elsewhere) -> None:
        self.number, self.simulator = number, simulator
        self.row = number % WIDTH
        self.total, self.length, self.terminated, self.running = 0.0, 0, False, True
        self.failure = ""  # why it failed
        self.discounted = 0.0
        self.first_obs: NDArray[Any] | None = None
        self.first_action: FloatArray | None = None

    def fail(self, failure: EpisodeFailure) -> None:
        """It ends without a result."""
        self.failure, self.running = f"{failure} (step {self.length})", False


class _Runner:
    """Episodes of one wave in lock-step."""

    def __init__(self, policy: Policy, task: Task, seed: int, discount: float, device: torch.device) -> None:
        self.policy, self.task, self.seed, self.discount, self.device = policy, task, seed, discount, device
        self.clipped = self.entries = 0

    def run(self, episodes: Sequence[_Episode]) -> None:
        """Step all episodes (of one wave) until the last one ends."""
        obs: FloatArray | None = None
        for episode in episodes:
            episode.simulator.begin("reset", self.seed + episode.number)
        for episode in episodes:
            try:
                first = episode.simulator.answer()
            except EpisodeFailure as failure:
                episode.fail(failure)
                continue
            obs = np.zeros((WIDTH, *first.shape), first.dtype) if obs is None else obs
            obs[episode.row] = first
        wave = episodes[0].number // WIDTH
        stateful = find_capability(self.policy, StatefulPolicy)
        if stateful is not None:
            stateful.reset(torch.ones(WIDTH, dtype=torch.bool, device=self.device))
        counting = find_capability(self.policy, Counting)
        step = 0
        while any(episode.running for episode in episodes):
            assert obs is not None
            self._set_noise(int(np.random.SeedSequence([self.seed, wave, step]).generate_state(1, np.uint64)[0] >> 1))
            if counting is not None:
                running = {episode.row for episode in episodes if episode.running}
                counting.count_only(torch.tensor([row in running for row in range(WIDTH)], device=self.device))
            action = array_of(self.policy.act(torch.from_numpy(obs).to(self.device)))
            if action.shape != (WIDTH, len(self.task.action_low)):  # NumPy would broadcast some of these silently
                expected = (WIDTH, len(self.task.action_low))
                raise EnvError(f"the policy's actions have the shape {action.shape}, expected {expected}")
            stepped = [episode for episode in episodes if episode.running]
            for episode in stepped:
                self._begin(episode, action[episode.row], obs)
            for episode in stepped:
                self._finish(episode, obs)
            step += 1
        if counting is not None:
            counting.count_only(None)

    def _set_noise(self, seed: int) -> None:
        """Seed what the policy draws at this step. On the CPU the one generator is seeded: `torch.manual_seed` also
        notes a stack trace for every other kind of device, which takes longer than a small policy."""
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _begin(self, episode: _Episode, action: FloatArray, obs: FloatArray) -> None:
        if not np.isfinite(action).all():
            where = f"at step {episode.length} of episode {episode.number}"
            raise EnvError(f"the policy's action is not finite {where}: {action}", "the policy has diverged")
        inside = action.clip(-1.0, 1.0)
        self.clipped += int((np.abs(action - inside) > 1e-6).sum())
        self.entries += action.size
        if episode.length == 0:
            episode.first_obs, episode.first_action = obs[episode.row].copy(), inside
        episode.simulator.begin("step", inside)

    def _finish(self, episode: _Episode, obs: FloatArray) -> None:
        try:
            found: Step = episode.simulator.answer()
        except EpisodeFailure as failure:
            episode.fail(failure)
        else:
            episode.total += found.reward
            episode.discounted += self.discount**episode.length * found.reward
            episode.length += 1
            obs[episode.row] = found.obs
            if found.terminated or found.truncated:
                episode.running, episode.terminated = False, found.terminated
        if not episode.running:
            obs[episode.row] = 0

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


def _summary(task: Task, seed: int, discount: float, episodes: list[_Episode]) -> Evaluation:
    failures = {seed + episode.number: episode.failure for episode in episodes if episode.failure}
    first = next(iter(failures.values()), "")
    if len(failures) == len(episodes):
        raise EvaluationError(f"all {len(episodes)} episodes on {task.env_id} failed: {first}", "")
    if failures:
        warnings.warn(
            f"{len(failures)} of {len(episodes)} episodes failed twice and are in no mean: {first}",
            EvaluationWarning,
            stacklevel=3,
        )
    returns = np.array([np.nan if episode.failure else episode.total for episode in episodes])
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
        failures,
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
