"""Fitted Q evaluation that says how far to believe it: over several seeds of the fit, with its curve, and whether it
has converged.

A fit that stops early reports too small a value with a small standard error. Each step carries values back by about tau
steps of the environment, so that after n steps about exp(-n tau / H) of the value is still missing, where H = 1 / (1 -
gamma) is the horizon: that share is known before anything is fitted. A fit can also diverge, most often where the
policy leaves the data. Then its value soon lies beyond every return that the data's rewards allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from offline_vi.data.transitions import Transitions
from offline_vi.evaluation.off_policy import Estimate, FittedQ, FQEConfig, actions_of, estimate
from offline_vi.rl.algorithm import Algorithm
from offline_vi.rl.policies import Policy
from offline_vi.training.loop import fit

MISSING = 0.05  # share of the value that may be missing in a fit that counts as converged
SLACK = 0.01  # share of the range of possible returns by which an estimate may lie outside: the error of a network
DRIFT = 0.05  # change over the last quarter of the fit, as a share of the value


@dataclass(frozen=True)
class FittedQReport:
    """Estimates of one policy's discounted return over seeds of the fit."""

    value: float  # mean over seeds
    over_starts: float  # standard error over the data's first states, mean over seeds
    over_seeds: float  # standard deviation over seeds of the fit; NaN of one
    steps: NDArray[np.int64]  # (C,) gradient steps
    curves: NDArray[np.float64]  # (S, C) the estimate at each of these, for each seed
    missing: float  # share of the value that so many steps cannot have carried back
    drift: float  # change of the mean over the last quarter of the fit, as a share of the value
    enough_steps: int  # after which at most `MISSING` would be missing
    possible: tuple[float, float]  # lowest and highest return that rewards like the data's allow

    @property
    def converged(self) -> bool:
        """Whether the fit was long enough for the horizon, and the estimate has come to rest within what is possible:
        ``missing`` and ``drift`` are at most 0.05 each."""
        return self.missing <= MISSING and self.drift <= DRIFT and not self.diverged

    @property
    def diverged(self) -> bool:
        """Whether a fit ended beyond the possible returns, by more than a hundredth of their range."""
        low, high = self.possible
        margin, final = SLACK * (high - low), self.curves[:, -1]
        return not bool(np.all((final >= low - margin) & (final <= high + margin)))  # NaN: it has

    def doubt(self) -> str:
        """Why it has not converged, and what to do; empty where it has."""
        if self.diverged:
            low, high = self.possible
            return (
                f"diverged: the data's rewards allow returns from {low:.2f} to {high:.2f}; "
                "the policy may leave the data, or a lower tau or discount may help"
            )
        if self.missing > MISSING:
            return (
                f"not converged: {self.steps[-1]:,} steps leave about {self.missing:.0%} of the value out; "
                f"take {self.enough_steps:,}"
            )
        if self.drift > DRIFT:
            longer = 2 * self.steps[-1]
            return f"not converged: the last quarter of the fit changed it by {self.drift:.0%}; try {longer:,} steps"
        return ""


def fitted_q_report(
    policy: Policy,
    data: Transitions,
    config: FQEConfig | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    points: int = 20,
    progress: bool = False,
    phase: str = "fitted Q",
) -> FittedQReport:
    """`fitted_q` over ``seeds`` of the fit, read off ``points`` times on the way.

    What the numbers leave out is the bias of the method: of a network, and of states that the data do not hold.
    """
    config = config or FQEConfig()
    first = data.obs[[rows.start for rows in data.episode_slices()]]
    curves, estimates = list[list[float]](), list[Estimate]()
    steps: list[int] = []
    for seed in seeds:
        curve: dict[int, Estimate] = {}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            evaluated = FittedQ(policy, data, config)
            action = actions_of(policy, first)

            def read(
                step: int,
                _: Algorithm,
                curve: dict[int, Estimate] = curve,
                evaluated: FittedQ = evaluated,
                action: torch.Tensor = action,
            ) -> dict[str, float]:
                values = evaluated.q_value(torch.from_numpy(first), action).double().numpy()
                curve[step] = estimate(values)
                return {}

            every = max(config.steps // points, 1)
            name = f"{phase}, seed {seed}"
            fit(
                evaluated,
                data,
                config.steps,
                seed=seed,
                log_every=max(config.steps // 4, 1),
                eval_every=every,
                on_eval=read,
                progress=progress,
                phase=name,
            )
        steps = list(curve)
        curves.append([point.value for point in curve.values()])
        estimates.append(curve[steps[-1]])
    return _report(np.array(steps), np.array(curves), estimates, data, config)


def _report(
    steps: NDArray[np.int64],
    curves: NDArray[np.float64],
    estimates: Sequence[Estimate],
    data: Transitions,
    config: FQEConfig,
) -> FittedQReport:
    mean = curves.mean(0)
    before = mean[np.searchsorted(steps, 0.75 * steps[-1])]
    horizon = horizon_of(data, config.discount)
    scale = max(abs(mean[-1]), discounted_returns(data, config.discount).std(), 1e-12)
    return FittedQReport(
        value=float(mean[-1]),
        over_starts=float(np.mean([one.standard_error for one in estimates])),
        over_seeds=float(curves[:, -1].std(ddof=1)) if len(curves) > 1 else math.nan,
        steps=steps,
        curves=curves,
        missing=math.exp(-config.tau * config.steps / horizon),
        drift=float(abs(mean[-1] - before) / scale),
        enough_steps=math.ceil(-math.log(MISSING) * horizon / config.tau),
        possible=possible_returns(data, config.discount),
    )


def horizon_of(data: Transitions, discount: float) -> float:
    """H = 1 / (1 - gamma); without discounting, the steps of the longest episode."""
    if discount < 1.0:
        return 1.0 / (1.0 - discount)
    return float(max(rows.stop - rows.start for rows in data.episode_slices()))


def possible_returns(data: Transitions, discount: float) -> tuple[float, float]:
    """The lowest and the highest discounted return of rewards between the data's smallest and largest: of one step, or
    of one that is repeated over the whole horizon."""
    horizon, low, high = horizon_of(data, discount), float(data.reward.min()), float(data.reward.max())
    return min(low, low * horizon), max(high, high * horizon)


def discounted_returns(data: Transitions, discount: float) -> NDArray[np.float64]:
    """(episodes,) sum_t gamma^t r_t of the data's own episodes, as far as the data hold them."""
    return data.observed_returns(discount)
