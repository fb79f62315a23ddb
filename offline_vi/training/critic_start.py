"""Critics that start from the returns of the data: temporal differences then have little left to propagate.

A Bellman backup carries values back along an episode as slowly as the target networks follow. The returns along the
data's own trajectories are known at once: critics first regress these, together with whatever else the algorithm's
update trains (IQL's V, BCQ's perturbation), and bootstrap afterwards.
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from torch import nn

from offline_vi.data.samplers import Source
from offline_vi.data.transitions import Transitions
from offline_vi.errors import CapabilityError, ConfigError
from offline_vi.nn.optim import polyak_
from offline_vi.rl.algorithm import Algorithm, find_part
from offline_vi.training.loop import LoopOptions, fit
from offline_vi.training.metrics import History


class Critics(NamedTuple):
    """Critics Q(s, a) that regress Bellman targets of slower copies of them."""

    critic: nn.Module
    target: nn.Module


def critics_of(agent: Algorithm) -> Critics:
    """``critic`` and ``critic_target`` of the algorithm, also within wrappers, whose critics bootstrap.

    Raises CapabilityError where it has none: returns would then teach it nothing.
    """
    critic, target = (find_part(agent, name, nn.Module) for name in ("critic", "critic_target"))
    if critic is None or target is None:
        raise CapabilityError(
            f"{type(agent).__name__} has no critics that could regress returns",
            "use an algorithm with a critic and a critic_target, or train without returns",
        )
    return Critics(critic, target)


def start_critics(agent: Algorithm, data: Transitions | Source, steps: int, **options: Unpack[LoopOptions]) -> History:
    """Train ``agent`` for ``steps`` gradient steps on data `Transitions.with_returns`, then copy its critics into their
    targets; ``fit(agent, data, ...)`` goes on from there. A source's batches are to be drawn from such data.

        returns = fit_returns(data, TrajectoryValuesConfig(discount=agent.config.discount))
        start_critics(agent, data.with_returns(returns), 5_000)
        fit(agent, data, 50_000)

    The options are those of `fit`. Raises CapabilityError where the agent's critics do not bootstrap, ConfigError where
    the data have no returns, and what `fit` raises.
    """
    critics = critics_of(agent)
    if isinstance(data, Transitions) and data.returns is None:
        raise ConfigError(f"{data.source.name} has no returns", "give it some: data.with_returns(fit_returns(data))")
    history = fit(agent, data, steps, **options)
    polyak_(critics.target, critics.critic, 1.0)
    return history
