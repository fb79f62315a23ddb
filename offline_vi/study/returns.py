"""Whether critics regress returns along the data's own trajectories, as flags: to begin with, or all the time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from offline_vi.data.samplers import Source
from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError
from offline_vi.rl.algorithm import Algorithm
from offline_vi.study.ahead import fitted_ahead
from offline_vi.study.run import Record, RunOptions
from offline_vi.training.critic_start import start_critics
from offline_vi.training.trajectory_values import TrajectoryValuesConfig, fit_returns


@dataclass(frozen=True)
class ReturnOptions:
    """What critics regress: bootstrapped targets, or returns of the data's own trajectories."""

    returns: bool = False
    """Regress returns of the data's own trajectories in place of bootstrapped targets; default: where the algorithm is
    defined by them (onestep)."""
    critic_start_steps: int = 0
    """Gradient steps ahead of --steps in which critics regress these returns; 0: they bootstrap from the first step."""
    return_lambda: float = 0.95
    """lambda of the returns: 1 is Monte-Carlo, 0 trusts value networks alone; time limits are bootstrapped. Their
    discount is the algorithm's."""
    return_steps: int = 4_000
    """Gradient steps of the value networks that the returns need."""

    def __post_init__(self) -> None:
        if self.critic_start_steps < 0 or self.return_steps < 1:
            steps = f"{self.critic_start_steps} steps from returns, {self.return_steps} of their values"
            raise ConfigError(steps, "none or more from returns, at least one of the values")
        if self.returns and self.critic_start_steps:
            raise ConfigError(
                "critics that regress returns in every step need no start from them", "leave --critic-start-steps out"
            )

    @property
    def used(self) -> bool:
        """Whether returns are needed at all."""
        return self.returns or self.critic_start_steps > 0

    def recorded(self) -> Record:
        """What config.json says about the returns: nothing where critics bootstrap from the first step."""
        return {"returns": asdict(self)} if self.used else {}


def with_returns(
    data: Transitions, discount: float, options: ReturnOptions, path: Path, run: RunOptions
) -> Transitions:
    """The data with the returns that the options ask for; their values are fitted to all rows alike, in a run in
    ``path`` that goes on where it was cut. Raises what `fit_returns` raises."""
    steps = options.return_steps
    config = TrajectoryValuesConfig(discount, options.return_lambda, steps=steps, refresh=max(steps // 5, 1))
    with fitted_ahead(path, run, "returns") as loop:
        return data.with_returns(fit_returns(data.with_weights(None, {}), config, **loop))


def start(agent: Algorithm, source: Transitions | Source, steps: int, path: Path, run: RunOptions) -> None:
    """`start_critics` in a run in ``path`` that goes on where it was cut."""
    with fitted_ahead(path, run, "start of the critics") as loop:
        start_critics(agent, source, steps, **loop)
