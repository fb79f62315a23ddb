"""The guard of states of a run: the density of the states that it was trained on."""

from __future__ import annotations

from pathlib import Path

from offline_vi.errors import ConfigError
from offline_vi.evaluation.states import STEPS, StateGuardFit, fit_states, save_states
from offline_vi.study.data import DataOptions
from offline_vi.study.kept import read_config
from offline_vi.study.scoring import STATES


def fit_guard(run: str | Path, steps: int = STEPS, *, seed: int = 0) -> StateGuardFit:
    """Fit the density of a run's states for ``steps`` gradient steps (default 5,000) and keep it in the run, for
    ``guard_states``.

    Raises ConfigError where the run does not say which data it was trained on, and what reading them raises.
    """
    options = DataOptions.from_record(read_config(run).record.get("data_options") or {})
    if not options.dataset:
        raise ConfigError(
            f"{run} was made from data in memory, or from none",
            f"in Python: save_states(fit_states(data), {str(Path(run) / STATES)!r})",
        )
    found = fit_states(options.load(), steps, seed=seed)
    save_states(found, Path(run) / STATES)
    return found
