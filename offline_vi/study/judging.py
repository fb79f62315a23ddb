"""A run's policy judged by its data alone: fitted Q evaluation of the policy and of a clone, next to what the data's
own episodes earned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from offline_vi import registry
from offline_vi.data.columns import warn
from offline_vi.data.transitions import Transitions
from offline_vi.errors import UsageError
from offline_vi.evaluation.episodes import WithoutTime, whole_episodes
from offline_vi.evaluation.fitting_q import FittedQReport, discounted_returns, fitted_q_report
from offline_vi.evaluation.off_policy import Estimate, FQEConfig, estimate
from offline_vi.factories import check_kwargs, kwargs_from
from offline_vi.joined import short_name
from offline_vi.rl.algorithm import Algorithm, normalizer_of
from offline_vi.rl.policies import Policy
from offline_vi.study.data import DataOptions
from offline_vi.study.diagnosis import discount_of
from offline_vi.study.kept import RunConfig, innermost, load_policy, read_config
from offline_vi.study.plots import ACCENT, INK, MUTED, decorate_steps, save_figure
from offline_vi.study.run import fingerprint
from offline_vi.training.loop import fit
from offline_vi.types import RewardMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POLICY, CLONE, DATA = "the policy", "the clone", "the data"
Horizon = Literal["discounted", "episode"]
"""Which return is estimated: see `JudgeOptions.horizon`."""


@dataclass(frozen=True)
class JudgeOptions:
    """How a policy is judged without an environment."""

    steps: int = FQEConfig.steps
    """Gradient steps of each fit."""
    tau: float = FQEConfig.tau
    """Rate of the target critics: each gradient step carries values back by about this many steps of the
    environment."""
    horizon: Horizon = "discounted"
    """Which return is estimated. discounted: an episode that was cut by time goes on, and later rewards count less.
    episode: the return up to where the data end an episode, as `offline-vi evaluate` measures it."""
    discount: float | None = None
    """Gamma of every estimate, and of the data's returns; default: the one that the run's algorithm was trained with,
    0.99 for an algorithm that has none, such as BC; 1 with --horizon episode."""
    fits: int = 3
    """Number of fits of each policy, with seeds from --seed on. Their spread shows what one fit is worth."""
    seed: int = 0
    """Seed of the first fit, and of the clone."""
    clone: str = ""
    """Run directory of the clone; default: a clone is trained for --clone-steps."""
    clone_steps: int = 5_000
    """Gradient steps of behavior cloning for the clone."""
    hidden: tuple[int, ...] = FQEConfig.hidden
    """Units per layer of the critics."""


@dataclass(frozen=True)
class Judgment:
    """The returns of a policy, of a clone and of the data, from the data's first states."""

    dataset: str
    horizon: Horizon
    discount: float
    episodes: int
    fitted: Mapping[str, FittedQReport]  # of the policy and of its clone
    data: Estimate  # what the data's own episodes earned, with its standard error

    def to_json(self) -> dict[str, Any]:
        """The judgment, JSON-ready."""
        numbers = ("value", "over_starts", "over_seeds", "missing", "drift", "converged", "diverged")
        fitted = {
            name: {key: finite(getattr(one, key)) for key in numbers}
            | {"steps": one.steps.tolist(), "curves": one.curves.tolist()}
            for name, one in self.fitted.items()
        }
        data = {"value": self.data.value, "over_episodes": finite(self.data.standard_error), "episodes": self.episodes}
        asked = {"dataset": self.dataset, "horizon": self.horizon, "discount": self.discount}
        return {"kind": "off-policy", **asked, "data": data, **fitted}

    @property
    def measure(self) -> str:
        """What is estimated, in words."""
        return measure(self.horizon, self.discount)


def measure(horizon: str, discount: float) -> str:
    """What an estimate is of, in words."""
    name = "return of an episode" if horizon == "episode" else "discounted return"
    return name if discount == 1.0 else f"{name} (gamma {discount:g})"


def finite(value: float) -> float | None:
    """The value, or None for NaN and infinity, which JSON lacks."""
    return value if np.isfinite(value) else None


Clones = dict[tuple[str, float], FittedQReport]
"""(`fingerprint` of the rows that were fitted, discount) -> what a clone of the data earns."""


def judge(run: str | Path, options: JudgeOptions, *, progress: bool = False, clones: Clones | None = None) -> Judgment:
    """Fitted Q evaluation of the run's policy and of a clone on the run's own data. A clone that is among ``clones`` is
    not fitted again, and one that is fitted is put there.

    Raises UsageError where the run does not say which data it learned from, and what loading raises.
    """
    config, policy = read_config(run), load_policy(run)
    data, discount = data_of(config, run), discount_for(config, options)
    whole = options.horizon == "episode"
    rows = whole_episodes(data) if whole else data
    settings = FQEConfig(options.steps, discount, options.tau, hidden=options.hidden)
    seeds = range(options.seed, options.seed + options.fits)

    def report(name: str, one: Policy) -> FittedQReport:
        judged = WithoutTime(one) if whole else one
        return fitted_q_report(judged, rows, settings, seeds=seeds, progress=progress, phase=f"fitted Q of {name}")

    fitted = {POLICY: report(POLICY, policy)}
    clones, key = {} if clones is None else clones, (fingerprint(rows), discount)
    if key not in clones:
        clones[key] = report(CLONE, load_policy(options.clone) if options.clone else cloned(data, options, progress))
    returns = discounted_returns(data, discount)
    fitted[CLONE] = clones[key]
    name = short_name(data.source.name)
    return Judgment(name, options.horizon, discount, len(returns), fitted, estimate(returns))


def discount_for(config: RunConfig, options: JudgeOptions) -> float:
    """The gamma that a run's policy is judged with: that of the options, else 1 for whole episodes, else its
    algorithm's."""
    if options.discount is not None:
        return options.discount
    return 1.0 if options.horizon == "episode" else discount_of(innermost(config))


def data_of(config: RunConfig, run: str | Path) -> Transitions:
    """The data that a run learned from, read as it read them; a DataWarning where their rows are others by now. Raises
    UsageError where the run does not say which data these are."""
    saved = config.record.get("data_options")
    options = DataOptions.from_record(saved) if saved else DataOptions()
    if not options.dataset:
        raise UsageError(f"{run} does not say which data it learned from", "give a run of `offline-vi train`")
    check_kwargs(options.env or "the data's environment", kwargs_from(options.env_kwargs))
    data, saved = options.load(), config.record.get("data") or {}
    rewards = RewardMap.of(saved)
    changed = data.with_reward(rewards.scale, rewards.shift, end_penalty=rewards.end_penalty)
    as_trained = (data, changed)
    if saved.get("fingerprint") not in (None, *map(fingerprint, as_trained)):
        name = short_name(data.source.name)
        warn(f"{run} was trained on other rows than {name} holds now; what follows is of the latter")
    return data


def cloned(data: Transitions, options: JudgeOptions, progress: bool) -> Algorithm:
    """A clone of the behavior, trained on all rows."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        clone: Algorithm = registry.algorithm("bc").load()(data.spec)
        normalizer_of(clone).fit(data.obs)
        fit(clone, data, options.clone_steps, seed=options.seed, progress=progress, phase=CLONE)
    return clone.eval()


def lines(found: Judgment) -> Iterator[str]:
    """The lines of a judgment for a terminal. Every number is named, and so is what none of them contains."""
    yield f"{short_name(found.dataset)}: {found.measure} from the first states of {found.episodes} episodes"
    yield f"  {'':<12}{'value':>10}{'std. error over starts':>24}{'std. over fits':>16}"
    for name, one in found.fitted.items():
        spread = f"{one.over_seeds:.2f}" if len(one.curves) > 1 else "-"
        yield f"  {name:<12}{one.value:>10.2f}{one.over_starts:>24.2f}{spread:>16}  {one.doubt()}".rstrip()
    yield f"  {DATA:<12}{found.data.value:>10.2f}{found.data.standard_error:>24.2f}{'':>16}  observed"
    yield "  Policy and clone are estimated by fitted Q evaluation: compare these two with each other. Errors are those"
    yield "  of averaging over first states, and of the fit's randomness. They leave out the bias of the method."
    if found.horizon == "discounted":
        yield "  An episode that was cut by time counts up to there under observed, and goes on in fitted Q. With"
        yield "  --horizon episode, it ends there in both."
    elif np.isfinite(apart := found.fitted[CLONE].value - found.data.value):
        where = "above" if apart > 0.0 else "below"
        errors = (found.fitted[CLONE].over_seeds, found.data.standard_error)
        within = abs(apart) <= 2.0 * np.sqrt(np.nansum(np.square(errors)))
        yield f"  The clone is estimated {abs(apart):.2f} {where} what the data earned, " + (
            "which is within these errors." if within else "which is more than these errors: so much may be the bias."
        )


def curve_picture(found: Judgment, path: Path) -> None:
    """Write the curves of the fits, of each seed, with the data's observed return, as a PNG file."""
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(5.6, 3.4))
    ax = figure.subplots()
    for (name, one), color in zip(found.fitted.items(), (ACCENT, INK), strict=True):
        for place, curve in enumerate(one.curves):
            ax.plot(
                one.steps, curve, color=color, alpha=0.6, marker="o", markersize=2, label=name if place == 0 else None
            )
    ax.axhline(found.data.value, color=MUTED, linestyle="--", linewidth=1, label=f"{DATA}, observed")
    decorate_steps(ax)
    ax.set_ylabel(found.measure, fontsize=8)
    ax.set_title("fitted Q evaluation, a line for each seed of the fit", fontsize=10, color=INK)
    ax.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    save_figure(figure, path)


def recorded(found: Judgment, options: JudgeOptions) -> dict[str, Any]:
    """The record of a judgment for a file in RUN/evaluations."""
    return found.to_json() | {"options": asdict(options)}
