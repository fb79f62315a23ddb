"""The guards of a run: the densities of the states, and of the actions, that it was trained on."""

from __future__ import annotations

from pathlib import Path

from offline_vi.behavior.pretrained import save_behavior
from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError
from offline_vi.evaluation.states import STEPS, StateGuardFit, fit_states, save_states
from offline_vi.evaluation.support import Support, measure_support, some_rows
from offline_vi.study.data import DataOptions
from offline_vi.study.kept import density_in, read_config
from offline_vi.study.scoring import ACTIONS, STATES


def fit_guard(run: str | Path, steps: int = STEPS, *, seed: int = 0) -> StateGuardFit:
    """Fit the density of a run's states for ``steps`` gradient steps (default 5,000) and keep it in the run, for
    ``guard_states``.

    Raises ConfigError where the run does not say which data it was trained on, and what reading them raises.
    """
    found = fit_states(data_of_guard(run), steps, seed=seed)
    save_states(found, Path(run) / STATES)
    return found


def keep_density(run: str | Path, directory: str | Path) -> Support:
    """Measure the behavior model in ``directory`` on the actions of a run's data, and keep both in the run, for
    ``guard``, in the place of the density that the run was trained with.

    Raises SpaceMismatchError where the model is of other data, CapabilityError where it has no density, and what
    loading it and `fit_guard` raise.
    """
    data = data_of_guard(run)
    model = density_in(directory, data.spec)
    support = measure_support(model, *some_rows(data))
    save_behavior(model, Path(run) / ACTIONS, support=support.to_json())
    return support


def data_of_guard(run: str | Path) -> Transitions:
    """The data that a run was trained on, read again."""
    options = DataOptions.from_record(read_config(run).record.get("data_options") or {})
    if not options.dataset:
        raise ConfigError(
            f"{run} was made from data in memory, or from none",
            f"in Python: save_states(fit_states(data), {str(Path(run) / STATES)!r})",
        )
    return options.load()
