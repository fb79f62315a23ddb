"""offline-vi fit-guard RUN: fit the density of a run's states, so that a guarded policy recognizes unfamiliar
states; keep a density of its actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from offline_vi.scripts.arguments import parsed


@dataclass(frozen=True)
class FitGuardOptions:
    """Fit the density of the states of a run's data and keep it in RUN/states, for --guard-states of `offline-vi
    evaluate` and `offline-vi export`. With --support-from, keep a density of the data's actions in RUN/actions as well,
    for --guard of these commands."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory of `offline-vi train`."""
    steps: int = 5_000
    """Gradient steps."""
    seed: int = 0
    """Seed of initialization, batches and the choice of episodes."""
    support_from: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Directory of `offline-vi fit-behavior`: the behavior model whose density the guard of actions uses, in the place
    of the one that the run was trained with, if any."""
    env: str = ""
    """Allow the run's environment to be imported, where it is code of yours: module:Id. It is not simulated."""
    threads: int = 1
    """CPU threads of torch."""


def main(arguments: list[str] | None = None) -> None:
    options = parsed(FitGuardOptions, arguments, "offline-vi fit-guard")
    from offline_vi.nn.precision import use_threads  # here and below: not for --help
    from offline_vi.study.fit_guard import fit_guard, keep_density

    use_threads(options.threads)
    support = keep_density(options.run, options.support_from) if options.support_from else None
    found = fit_guard(options.run, options.steps, seed=options.seed)
    print(f"fitted to {found.rows:,} states; the thresholds are quantiles of {found.calibration_rows:,} others")
    print(f"familiar states that are called unknown, in {found.episodes} further episodes (false alarms):")
    for level, share in found.false_alarms.items():
        print(f"  {100 * share:6.2f} % with --guard-states {level:g} (expected: {100 * level:g} %)")
    print("with few episodes, these shares scatter around those that are expected")
    if support is not None:
        print("the density of actions is kept; the policy's action is replaced where its log-density is below")
        for level, nats in support.quantiles.items():
            print(f"  {nats:6.2f} nats with --guard {level:g} ({100 * level:g} % of the data's own actions are)")


if __name__ == "__main__":
    main()
