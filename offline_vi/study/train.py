"""Training from data: the experiment of `offline-vi train`, and of `fit(..., run=...)` in Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from offline_vi import registry
from offline_vi.behavior.base import BehaviorModel, DensityModel, Proposals
from offline_vi.behavior.cvae import CVAEConfig
from offline_vi.behavior.pretrained import read_card
from offline_vi.behavior.proposals import CandidateCache
from offline_vi.console import standard_error
from offline_vi.data.columns import warn
from offline_vi.data.samplers import Source, StackedSampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import CapabilityError, ConfigError, EnvError, EvaluationError
from offline_vi.nn.precision import preferred_precision
from offline_vi.renamed import as_before
from offline_vi.rl.algorithm import Algorithm, normalizer_of
from offline_vi.rl.equations import return_scale
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.agents import AgentChoice, Agents, build_agents, resolved
from offline_vi.study.data import DataOptions, check_task
from offline_vi.study.diagnosis import Diagnosis, discount_of
from offline_vi.study.evaluations import EvalOptions
from offline_vi.study.experiment import Experiment, options_record
from offline_vi.study.fit_behavior import fit_ahead
from offline_vi.study.flags import Parts, parse, value_of
from offline_vi.study.kept import density_in, fitted_in
from offline_vi.study.names import run_name
from offline_vi.study.plots import learning_curve
from offline_vi.study.presets import note_on, preset
from offline_vi.study.returns import ReturnOptions, start, with_returns
from offline_vi.study.run import Record, RunOptions, data_record
from offline_vi.study.tuned import tuned
from offline_vi.study.weighing import GAINS, VALUES, WeightOptions, fits_gains, with_weights
from offline_vi.training.critic_start import critics_of
from offline_vi.training.randomness import seeds
from offline_vi.types import RewardMap, Spec, from_json

LARGE = 100.0  # observations beyond which a network of raw inputs does not learn


def check_scale(config: Any, data: Transitions) -> None:
    """Warn where a CVAE is to see large observations as they are: its bound then becomes absurd, and its actions one
    constant."""
    if isinstance(config, CVAEConfig) and config.inputs == "raw":
        largest = float(np.abs(data.obs[:: max(len(data) // 10_000, 1)]).max())
        if largest > LARGE:
            warn(
                f"observations are as large as {largest:.0f}, and the CVAE sees them as they are: give it "
                "--behavior.inputs normalized (in Python: CVAEConfig(inputs='normalized'))"
            )


@dataclass(frozen=True)
class TrainOptions:
    """How long to train, and on which behavior model."""

    steps: int = 50_000
    """Gradient steps."""
    preset: Literal["published", "recommended", "fast", "likely"] = "published"
    """published: the paper's procedure; recommended: a good start with new data, best with bc, which then clones the
    steps worth imitating; fast: a behavior model that is fitted first and frozen (BCQ: the likeliest tenth of a
    tanh-Normal's samples; others: a CVAE), candidates drawn ahead, bfloat16 targets; likely: the same with a mixture,
    whose samples are filtered by their own density (algorithms that rank candidates)."""
    tuned_for: Annotated[str, tyro.conf.arg(metavar="TASK")] = ""
    """Start from the settings that the algorithm's paper tuned for this D4RL task or domain, rewards and observations
    among them."""
    behavior_model: Annotated[str, tyro.conf.arg(name="behavior", metavar="MODEL")] = ""
    """Behavior model; default: the algorithm's published one."""
    behavior_steps: int = 0
    """Fit the behavior model for so many steps first and freeze it; 0: train it jointly, a step each. Default: the
    preset's; published: as in the algorithm's paper (PLAS 500,000, SPOT 100,000, others 0)."""
    behavior_from: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Use the fitted behavior model in this directory (of `offline-vi fit-behavior`), frozen."""
    support_from: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Measure where the policy leaves the data by the density of the fitted model in this directory; default: by that
    of the algorithm's own behavior model, where it has one."""
    bank_period: int = 0
    """Draw the candidates of a frozen model ahead of time, and redraw all of them within this many steps; 0: draw them
    for every batch."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Precision of targets and other passes without gradients; auto: the faster one on this kind of processor."""
    proposals: Literal["", "samples", "decoder-means", "most-likely", "central", "decoded", "likely"] = ""
    """What an algorithm gets from its model: full samples, decoder means at clipped noise, the most likely of its
    samples, or its central action alone; default: as published (decoded and likely are older names)."""
    noise_clip: float = 0.5
    """For decoder-means: prior noise is clipped to this many standard deviations."""
    keep: float = 0.25
    """For most-likely: the share of the samples that is kept, by their log-density."""
    normalize: bool = False
    """Normalize the observations of actors and critics, with statistics that are stored with the policy; default: as in
    the published results. Behavior models normalize by themselves, except for cvae-published, which does with
    --behavior.inputs normalized."""
    reward_scale: Annotated[str, tyro.conf.arg(metavar="C|returns")] = ""
    """Train on C times the reward; returns: 1000 over the range of the episodes' returns (IQL's on locomotion tasks).
    Scores, and Q where it is reported, stay in the data's units."""
    reward_shift: float = 0.0
    """Add this to every reward, after the scale (AntMaze: -1)."""
    end_penalty: float = 0.0
    """Train as if the step that ends the task earned so much less, in units of the data's reward: for tasks whose end
    is a failure. Where the data mark failures (`failed` in the file of columns), it is for these alone. Episode weights
    see it, too; scores do not."""
    print_config: bool = False
    """Print what would be done, step by step and in the paper's terms, but do nothing."""
    num_seeds: Annotated[int, tyro.conf.arg(name="parallel-seeds", aliases=["--seeds-at-once"])] = 1
    """Train so many seeds in parallel in this process: --seed, --seed + 1, ...; each is scored, all are one checkpoint.
    A model fitted ahead is shared."""


OLD_PROPOSALS = {"decoded": "decoder-means", "likely": "most-likely"}


class Training(Experiment):
    """One algorithm, or several seeds of it, on a static data set."""

    verb = "train"

    def __init__(self, algorithm: str, options: Any) -> None:
        chosen: TrainOptions = options.train
        self.algorithm, self.options, self.chosen = algorithm, options, chosen
        self.data: Transitions = options.data.load()
        self.limit = check_task(self.data)
        if chosen.num_seeds < 1:
            raise ConfigError(f"--parallel-seeds {chosen.num_seeds}", "at least one")
        self.rewards = RewardMap(scale_of(chosen.reward_scale, self.data), chosen.reward_shift, chosen.end_penalty)
        self.steps, self.eval_every = chosen.steps, options.eval.interval
        self.device = options.run.torch_device()
        self.precision = preferred_precision(self.device) if chosen.precision == "auto" else chosen.precision
        self.seeds = tuple(range(options.run.seed, options.run.seed + chosen.num_seeds))
        self.choice = resolved(choice_of(algorithm, options), self.data.spec)
        self.name = run_name(algorithm, self.data.source.name, self.seeds, chosen.preset, chosen.behavior_model)
        self.agents: Agents
        self.rows: Transitions  # the data as batches are drawn from them: weighted, with the rewards of training
        self.diagnosis = Diagnosis(
            self.data,
            options.eval,
            self.device,
            self.rewards,
            discount=discount_of(options.algorithm),
            density=density_in(chosen.support_from, self.data.spec) if chosen.support_from else None,
        )

    def record(self) -> Record:
        options = self.options
        return {
            "algorithm": self.algorithm,
            "data": data_record(self.data)
            | self.rewards.recorded()
            | options.weights.recorded()
            | options.returns.recorded(),
            "task": self.data.task.to_json() if self.data.task else None,
            "max_episode_steps": self.limit,
            **options_record(data=options.data, weights=options.weights, train=self.chosen, eval=options.eval),
            **options_record(algorithm=options.algorithm, returns=options.returns),
            **(options_record(behavior=self.choice.behavior_config) if self.choice.behavior else {}),
        }

    def agent(self) -> Algorithm:
        model = shared(self.chosen, self.choice, self.data.spec) if self.chosen.behavior_from else None
        self.agents = build_agents(self.choice, self.data.spec, self.seeds, model, self._cache)
        if self.options.returns.used:
            critics_of(self.agents.algorithm)
        if self.diagnosis.density is None and isinstance(self.agents.behavior, DensityModel):
            self.diagnosis.density = self.agents.behavior
        return self.agents.algorithm

    def _cache(self, proposals: Proposals) -> Proposals:
        period = self.chosen.bank_period
        if period == 0:
            return proposals
        return CandidateCache(proposals, self.data, period=period, seed=self.options.run.seed, device=self.device)

    def prepare(self, run: RunDirectory, agent: Algorithm) -> None:
        model, chosen = self.agents.behavior, self.chosen
        penalized = self.data.with_reward(end_penalty=self.rewards.end_penalty)
        if not self.options.run.quiet and len(phases := self._phases(penalized)) > 1:
            print(", then ".join(f"{what}: {steps:,} steps" for what, steps in phases), file=standard_error())
        now = {**vars(chosen), **vars(self.options.algorithm)}
        left = preset(chosen.preset).left_out(self.algorithm, chosen.behavior_model)
        settled = [name for name, value in left.items() if now.get(name) == value]
        if not self.options.run.quiet and (
            note := note_on(chosen.preset, self.algorithm, chosen.behavior_model, settled)
        ):
            print(f"note: {note}", file=standard_error())
        self.rows = with_weights(penalized, self.options.weights, run, self.options.run)
        if self.choice.behavior_config is not None:
            check_scale(self.choice.behavior_config, self.data)
        if chosen.normalize:
            for each in {agent, self.agents.one}:
                normalizer_of(each).fit(self.data.obs)
        if model is not None and not self.choice.jointly and not chosen.behavior_from:
            about = {"data": data_record(self.data) | self.options.weights.recorded(), "name": self.choice.behavior}
            fit_ahead(model, self.rows, chosen.behavior_steps, run.inner("behavior"), self.options.run, about)
        self.agents.one.to(self.device)
        self.rows = self.rows.with_reward(self.rewards.scale, self.rewards.shift)
        if self.options.returns.used:
            self._prepare_returns(run, agent)

    def _phases(self, data: Transitions) -> list[tuple[str, int]]:
        """(what is trained, its gradient steps), in their order."""
        chosen, returns, weights = self.chosen, self.options.returns, self.options.weights
        valued = weights.value_steps if fits_gains(data, weights) else 0
        fitted = self.choice.behavior if not (self.choice.jointly or chosen.behavior_from) else ""
        phases = [
            (VALUES, valued),
            (GAINS, valued),
            (f"fitting the behavior model {fitted}", chosen.behavior_steps if fitted else 0),
            ("returns", returns.return_steps if returns.used else 0),
            ("start of the critics", returns.critic_start_steps),
            (self.algorithm, self.steps),
        ]
        return [(what, steps) for what, steps in phases if steps]

    def _prepare_returns(self, run: RunDirectory, agent: Algorithm) -> None:
        """Give the rows their returns, for all steps or for those in which the critics start."""
        chosen, own = self.options.returns, self.options.run
        if chosen.critic_start_steps and run.has_checkpoint():
            return  # which holds what became of the start
        rows = with_returns(self.rows, self.diagnosis.discount, chosen, run.inner("returns"), own)
        if chosen.returns:
            self.rows = rows
        else:
            start(agent, self._source(rows, agent), chosen.critic_start_steps, run.inner("start"), own)

    def _source(self, rows: Transitions, agent: Algorithm) -> Transitions | Source:
        """What the loop draws from: several seeds in parallel have a random stream each."""
        if len(self.seeds) == 1:
            return rows
        streams = [seeds(seed, after=agent.trained_steps)["batches"] for seed in self.seeds]
        return StackedSampler(rows, agent.batch_size, streams, self.device)

    @contextmanager
    def batches(self, agent: Algorithm, device: torch.device) -> Iterator[Transitions | Source]:
        yield self._source(self.rows, agent)

    def score(self, run: RunDirectory, step: int, agent: Algorithm) -> dict[str, float]:
        several, shown, failures = len(self.seeds) > 1, list[dict[str, float]](), list[str]()
        for seed, policy in self.agents.each():
            try:
                whose = {"training_seed": seed} if several else {}
                shown.append(self.diagnosis.score(run, step, policy, **whose))
            except (EnvError, EvaluationError) as error:  # the other seeds are scored all the same
                failures.append(f"seed {seed}: {error}")
        if failures:
            raise EvaluationError("; ".join(failures))
        names = set.intersection(*map(set, shown)) if shown else set()
        return {name: sum(numbers[name] for numbers in shown) / len(shown) for name in sorted(names)}

    def finish(self, run: RunDirectory, agent: Algorithm) -> Record:
        return self.diagnosis.summary(run, self.steps, self.seeds)

    def draw(self, run: RunDirectory, agent: Algorithm) -> None:
        learning_curve(run.path, self.data)


# ------------------------------------------------------------------ from flags to choices


def parse_options(name: str, saved: Record, arguments: Sequence[str]) -> Any:
    """The options of a run: `default_options` < flags. The hyper-parameters of algorithm and model are flags of their
    own."""
    parts = default_options(name, saved, arguments)
    return parse(parts, arguments, f"offline-vi train {name}", registry.algorithm(name).summary)


def default_options(name: str, saved: Record, arguments: Sequence[str]) -> Parts:
    """The defaults of the flags: those of the classes < --preset < --tuned-for < --config."""
    row, before = registry.algorithm(name), table(saved, "train_options")
    from_json(TrainOptions(), before)
    chosen = value_of(arguments, "--preset") or str(before.get("preset", "published"))
    directory = value_of(arguments, "--behavior-from") or str(before.get("behavior_from", ""))
    card = read_card(directory) if directory else None
    model = value_of(arguments, "--behavior") or (card.model if card else "") or str(before.get("behavior_model", ""))
    begun = "agent" in saved  # the configuration of a run, whole: what it does not say is as that version had it
    model = model or preset(chosen).behavior_of(name)
    own = tuned(name, task) if (task := value_of(arguments, "--tuned-for")) else {}
    of_the_run = {key: own.pop(key) for key in [*own] if key in vars(TrainOptions())}
    usual = {"normalize": row.normalize} | preset(chosen).options(name, model) | of_the_run
    train = replace(from_json(TrainOptions(preset=chosen, **usual), before), behavior_model=model)  # type: ignore[arg-type]
    returns = ReturnOptions(**{"returns": row.returns} | preset(chosen).returns(name, model))
    published = as_before(row.config()) if begun else row.config()()
    published = from_json(published, ({} if begun else preset(chosen).config(name, model)) | own)
    parts: Parts = {
        "data": DataOptions.from_record(table(saved, "data_options")),
        "weights": from_json(WeightOptions(**preset(chosen).weights), table(saved, "weights_options")),
        "returns": from_json(returns, table(saved, "returns_options")),
        "train": train,
        "eval": from_json(EvalOptions(), table(saved, "eval_options")),
        "run": from_json(RunOptions(), table(saved, "run_options")),
        "algorithm": from_json(published, table(saved, "algorithm_options")),
    }
    if model:
        default = registry.behavior_model(model).config(Spec((1,), 1))
        default = as_before(type(default)) if begun else replace(default, **preset(chosen).model_config(name, model))
        parts["behavior"] = card.config if card else from_json(default, table(saved, "behavior_options"))
    return parts


def table(saved: Record, name: str) -> Record:
    """A section of a configuration. Raises ConfigError where it is no table."""
    section = saved.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{name!r} of the configuration is no table", "use a run's config.json")
    return section


def choice_of(name: str, options: Any) -> AgentChoice:
    """The agent that the options describe."""
    chosen: TrainOptions = options.train
    model = chosen.behavior_model
    proposals: Any = OLD_PROPOSALS.get(chosen.proposals, chosen.proposals)
    return AgentChoice(
        algorithm=name,
        config=options.algorithm,
        behavior=model,
        behavior_config=options.behavior if model else None,
        jointly=bool(model) and chosen.behavior_steps == 0 and not chosen.behavior_from,
        proposals=proposals,
        noise_clip=chosen.noise_clip,
        keep=chosen.keep,
    )


def scale_of(chosen: str, data: Transitions) -> float:
    """The number that --reward-scale stands for, 1 where it is not given. Raises ConfigError."""
    if not chosen:
        return 1.0
    if chosen == "returns":
        return return_scale(data.episode_returns())
    try:
        scale = float(chosen)
    except ValueError:
        scale = float("nan")
    if not 0.0 < scale < float("inf"):
        raise ConfigError(f"--reward-scale {chosen}", "a positive number, or returns")
    return scale


def shared(chosen: TrainOptions, choice: AgentChoice, spec: Spec) -> BehaviorModel:
    """The fitted model of --behavior-from.

    Raises SpaceMismatchError where it belongs to other data, CapabilityError where the algorithm uses none, and
    whatever `load_behavior` raises.
    """
    if not registry.algorithm(choice.algorithm).behavior:
        raise CapabilityError(f"{choice.algorithm} uses no behavior model", "leave --behavior-from out")
    return fitted_in(chosen.behavior_from, spec)
