"""Training in an environment: every batch costs a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Unpack

import numpy as np
import torch

from offline_vi.data.samplers import Sampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import CapabilityError, UsageError
from offline_vi.rl.algorithm import Algorithm, OnlineAlgorithm, find_capability, set_task
from offline_vi.rl.policies import Explorer
from offline_vi.training.collector import Blended, Collection, Collector
from offline_vi.training.loop import Loop, LoopOptions, loop_of, train
from offline_vi.training.metrics import History
from offline_vi.training.randomness import seeds
from offline_vi.types import RewardMap, Spec, Task


class OnlineOptions(LoopOptions, total=False):
    """The options of `fit_online`, all of them keywords: ``warmup``, ``num_envs``, ``capacity``, ``explorer``,
    ``warmup_policy``, ``offline``, ``share`` and ``rewards``, whose meanings are in the table of `Collection`, and
    those of `LoopOptions`."""

    warmup: int
    num_envs: int
    capacity: int
    explorer: Explorer | None
    warmup_policy: Explorer | None
    offline: Transitions | None
    share: float
    rewards: RewardMap


def fit_online(
    algorithm: Algorithm, task: Task, spec: Spec, steps: int, **options: Unpack[OnlineOptions]
) -> tuple[History, Transitions]:
    """Train ``algorithm`` in the task's environment: the warm-up, then ``steps`` times a step in the environment and a
    gradient step. Returns the history and what was collected.

    Every checkpoint ends the running episodes, because a simulator's state is not saved. SIGINT and SIGTERM save none,
    so that the resumed run, from the last regular one, is the same to the last bit.

    Raises CapabilityError where nobody can explore, UsageError for a share that leaves one side no row of a batch,
    EnvError, and what `fit` raises.
    """
    loop, collection = split({**options})
    set_task(algorithm, task)
    stream, device = seeds(loop.seed)["batches"], torch.device(loop.device)
    with collecting(algorithm, task, spec, collection, stream, device, loop.batch_size) as (source, collector):
        history = train(algorithm, source, steps, loop)
        return history, collector.transitions()


def split(options: dict[str, Any]) -> tuple[Loop, Collection]:
    """The two kinds of options that `fit_online` takes."""
    names = {field.name for field in fields(Collection)}
    collection = {name: value for name, value in options.items() if name in names}
    loop = {name: value for name, value in options.items() if name not in names}
    return loop_of(loop), Collection(**collection)


@contextmanager
def collecting(
    algorithm: Algorithm,
    task: Task,
    spec: Spec,
    how: Collection,
    stream: np.random.SeedSequence,
    device: torch.device,
    batch_size: int | None = None,
) -> Iterator[tuple[Collector | Blended, Collector]]:
    """(what the loop draws from, what collects); the environments are closed afterwards."""
    explorer = how.explorer or find_capability(algorithm, OnlineAlgorithm)
    if explorer is None:
        raise CapabilityError(f"{type(algorithm).__name__} does not explore", "give explorer=GaussianNoise(policy)")
    size = batch_size or algorithm.batch_size
    kept = 0 if how.offline is None else round(how.share * size)
    if how.offline is not None and not 0 < kept < size:
        raise UsageError(f"{kept} of the {size} rows of a batch are offline data", "a share between 0 and 1")
    collector = Collector(explorer, task, spec, size - kept, how, seed=stream, device=device)
    try:
        if how.offline is None:
            yield collector, collector
        else:
            rows = how.offline.with_reward(how.rewards.scale, how.rewards.shift, end_penalty=how.rewards.end_penalty)
            yield Blended(Sampler(rows, kept, stream.spawn(1)[0], device), collector), collector
    finally:
        collector.close()
