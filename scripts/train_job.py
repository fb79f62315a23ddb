"""The work of `offline-vi train`: load, check, build, fit, score, keep everything in a run directory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro

from offline_vi.algorithms import ALGORITHMS
from offline_vi.algorithms.build import Bank, Recipe, build, config_class, entry
from offline_vi.behavior import BehaviorModel, DensityModel
from offline_vi.behavior.pretrained import behavior_config, build_behavior, load_behavior, read_card
from offline_vi.behavior.proposals import CandidateCache
from offline_vi.data.samplers import StackedSampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import CapabilityError, ConfigError, SpaceMismatchError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.evaluation.support import measure_support, overestimation_report, some_rows, support_report
from offline_vi.nn.normalizer import Normalizer
from offline_vi.nn.precision import preferred_precision
from offline_vi.nn.stack import stack_, unstack_
from offline_vi.rl.algorithm import Algorithm, Normalized
from offline_vi.rl.equations import return_scale
from offline_vi.runs.config import from_json
from offline_vi.runs.directory import RunDirectory
from offline_vi.runs.files import read_json
from offline_vi.scripts.common import (
    SCHEMA,
    DataOptions,
    RunOptions,
    check_task,
    data_record,
    open_run,
    recorded,
    without,
)
from offline_vi.study.plots import learning_curve
from offline_vi.study.presets import preset
from offline_vi.study.tuned import tuned
from offline_vi.training.loop import fit, fit_behavior
from offline_vi.training.randomness import seeds, set_seed
from offline_vi.types import Spec


@dataclass(frozen=True)
class TrainOptions:
    """How long, how scored, on which behaviour model."""

    steps: int = 50_000
    """Gradient steps."""
    preset: Literal["published", "fast", "likely"] = "published"
    """published: the paper's procedure; fast: a fitted, frozen model (BCQ: the likeliest tenth of a tanh-Normal's
    samples; others: a CVAE), candidates drawn ahead, bfloat16 targets; likely: the same on a mixture, whose samples are
    filtered by their own density (algorithms that rank candidates)."""
    tuned_for: Annotated[str, tyro.conf.arg(metavar="TASK")] = ""
    """Start from the settings that the algorithm's paper tuned for this D4RL task or domain (scripts/configs/)."""
    eval_every: int = 5_000
    """Steps between two evaluations."""
    eval_episodes: int = 10
    """Episodes per evaluation."""
    eval_seed: int = 100
    """Seed of the first evaluation episode; independent of --seed."""
    behavior_model: Annotated[str, tyro.conf.arg(name="behavior", metavar="MODEL")] = ""
    """Behaviour model; default: the algorithm's published one."""
    behavior_steps: int = 0
    """Fit the behaviour model for so many steps first and freeze it; 0: train it jointly, a step each."""
    behavior_from: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Use the fitted behaviour model in this directory (of `offline-vi fit-behavior`), frozen."""
    support_from: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """Measure where the policy leaves the data by the density of the fitted model in this directory; default: by that
    of the algorithm's own behaviour model, where it has one."""
    bank_period: int = 0
    """Draw the candidates of a frozen model ahead, and all of them anew every so many steps; 0: for every batch."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of targets and other passes without gradient; auto: the faster one on this machine, by trial."""
    proposals: Literal["", "samples", "decoded", "likely"] = ""
    """What an algorithm is given of its model: full samples, decoder means at clipped noise, or the likelier ones of
    its samples; default: as the algorithm was published."""
    noise_clip: float = 0.5
    """decoded: prior noise is clipped to this many standard deviations."""
    keep: float = 0.25
    """likely: share of the samples that is kept, by their log-density."""
    normalize: bool = False
    """Normalise observations, the statistics stored with the policy; default: where the published results do."""
    reward_scale: Annotated[str, tyro.conf.arg(metavar="C|returns")] = ""
    """Pay the algorithm C times the reward; returns: 1000 over the range of the episodes' returns (IQL's on locomotion
    tasks). Scores, and Q where it is reported, stay in the data's units."""
    seeds_at_once: int = 1
    """Train so many seeds side by side in this process: --seed, --seed + 1, ...; each is scored, all are one
    checkpoint. A model fitted ahead is shared."""


def run(name: str, file: str, arguments: list[str]) -> dict[str, Any]:
    """The verb: ``name`` of the algorithm or empty, ``file`` of a saved configuration or empty, the other flags.

    Returns the record of result.json.
    """
    saved = read_json(Path(file)) if file else {}
    if saved and (saved.get("schema") != SCHEMA or saved.get("verb") != "train"):
        raise ConfigError(
            f"{file} is not a configuration of `offline-vi train`, schema {SCHEMA}", "use a run's config.json"
        )
    name = name or Recipe.from_json(saved.get("recipe") or {}).algorithm
    entry(name)
    options = parse(name, saved, arguments)
    torch.set_num_threads(options.run.threads)
    return train(name, options)


def parse(name: str, saved: dict[str, Any], arguments: list[str]) -> Any:
    """Defaults < --preset < --config < flags. The hyper-parameters of algorithm and model become flags of their own."""
    for section in ("recipe", "data_options", "train_options", "run_options"):
        if not isinstance(saved.get(section, {}), dict):
            raise ConfigError(f"{section!r} of the configuration is no table", "use a run's config.json")
    from_json(TrainOptions(), saved.get("train_options", {}))
    if "recipe" in saved:
        Recipe.from_json(saved["recipe"])  # whole, before any part of it is used
    recipe, before = saved.get("recipe", {}), saved.get("train_options", {})
    chosen: Any = flag(arguments, "--preset") or before.get("preset", "published")
    directory = flag(arguments, "--behavior-from") or before.get("behavior_from", "")
    card = read_card(directory) if directory else {}
    model = flag(arguments, "--behavior") or card.get("model") or recipe.get("behavior")
    model = model or preset(chosen).behavior_of(name)
    train = TrainOptions(preset=chosen, normalize=entry(name).normalize, **preset(chosen).options(name, model))
    train = replace(from_json(train, before), behavior_model=model)
    task = flag(arguments, "--tuned-for")
    own = tuned(name, task) if task else {}
    if "reward_scale" in own:  # the one setting of a paper's table that is not the algorithm's
        scale = own.pop("reward_scale")
        train = replace(train, reward_scale=train.reward_scale or scale)
    published = from_json(config_class(name)(), preset(chosen).config(name, model) | own)
    settings = from_json(published, recipe["config"]) if recipe else published
    parts: list[tuple[str, Any, Any]] = [
        ("data", DataOptions, from_json(DataOptions(), saved.get("data_options", {}))),
        ("train", TrainOptions, train),
        ("run", RunOptions, from_json(RunOptions(), saved.get("run_options", {}))),
        ("algorithm", config_class(name), settings),
    ]
    omit: Any = tyro.conf.OmitArgPrefixes
    flat = [(part, omit[cls], field(default=default)) for part, cls, default in parts]
    if model:
        source = card or recipe
        spec = Spec.from_json(source["spec"]) if source else Spec((1,), 1)
        default = behavior_config(model, spec)
        if card:
            default = from_json(default, card["config"])
        elif recipe and recipe["behavior"] == model:
            default = from_json(default, recipe["behavior_config"])
        flat.append(("behavior", type(default), field(default=default)))
    options = make_dataclass("Options", flat, frozen=True)
    return tyro.cli(options, args=arguments, prog=f"offline-vi train {name}", description=ALGORITHMS[name].summary)


def flag(arguments: list[str], name: str) -> str:
    """The value of a flag that decides which other flags there are; empty where it is not given."""
    for at, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name and at + 1 < len(arguments):
            return arguments[at + 1]
    return ""


def train(name: str, options: Any) -> dict[str, Any]:
    """Load, check, build, fit, score; returns the record of result.json."""
    device = options.run.torch_device()
    data = options.data.load()
    check_task(data)
    chosen = options.train
    model = chosen.behavior_model
    count = chosen.seeds_at_once
    if count < 1:
        raise ConfigError(f"--seeds-at-once {count}", "at least one")
    recipe = Recipe(
        algorithm=name,
        spec=data.spec.stacked(count) if count > 1 else data.spec,
        config=options.algorithm,
        behavior=model,
        behavior_config=resolve(model, data.spec, options.behavior) if model else None,
        jointly=bool(model) and chosen.behavior_steps == 0 and not chosen.behavior_from,
        proposals=chosen.proposals,
        noise_clip=chosen.noise_clip,
        keep=chosen.keep,
        normalize=chosen.normalize,
        reward_scale=scale_of(chosen.reward_scale, data),
    )
    behavior = shared(chosen, recipe) if chosen.behavior_from else None
    density = density_in(chosen.support_from, data.spec) if chosen.support_from else None
    config = {
        "schema": SCHEMA,
        "verb": "train",
        "recipe": recipe.to_json(),
        "data": data_record(data),
        "task": data.task.to_json() if data.task else None,
        "steps": options.train.steps,
        "seed": options.run.seed,
        "data_options": asdict(options.data),
        "train_options": asdict(options.train),
        "run_options": without(asdict(options.run), "resume", "overwrite", "output"),
    }
    numbers = f"{options.run.seed}" + (f"-{options.run.seed + count - 1}" if count > 1 else "")
    run, resumes = open_run(options.run, f"{name}-{data.source.name}-seed{numbers}".replace("/", "-"), config)
    precision = settled(chosen.precision, run, device, resumes)
    facts = {"algorithm": name, "data": config["data"], "seed": options.run.seed, "precision": precision}
    with run, recorded(run, facts) as record:
        behavior = behavior or fitted(run, recipe, data, options, device)
        trained = begun(recipe, behavior, data, options, device)
        density = density or density_of(trained.behavior, recipe)
        result = fit_and_score(run, trained, density, data, options, device, resumes, precision)
        record["result"] = {key: result[key] for key in ("normalized_score", "return_mean") if key in result}
    tell(run, result, options.run)
    return result


def scale_of(chosen: str, data: Transitions) -> float:
    """The number that --reward-scale stands for, 0 where it is not given. Raises ConfigError."""
    if not chosen:
        return 0.0
    if chosen == "returns":
        return return_scale(data.episode_returns())
    with suppress(ValueError):
        if 0.0 < float(chosen) < float("inf"):
            return float(chosen)
    raise ConfigError(f"--reward-scale {chosen}", "a positive number, or returns")


class Trained(NamedTuple):
    """What is trained, and one seed of it: the same object, unless several train side by side."""

    algorithm: Algorithm
    one: Algorithm
    behavior: BehaviorModel | None  # of the one
    seeds: tuple[int, ...]

    def each(self) -> Iterator[tuple[int, Algorithm]]:
        """(seed, its policy as it stands), one after the other, without those that diverged."""
        for member, seed in enumerate(self.seeds):
            if len(self.seeds) > 1:
                unstack_(self.one, self.algorithm, member)
            if all(bool(parameter.isfinite().all()) for parameter in self.one.parameters()):
                yield seed, self.one.eval()


def begun(
    recipe: Recipe, behavior: BehaviorModel | None, data: Transitions, options: Any, device: torch.device
) -> Trained:
    """The algorithm, freshly initialised, each seed from a random stream of its own."""
    members = tuple(range(options.run.seed, options.run.seed + options.train.seeds_at_once))
    singles: list[tuple[Algorithm, BehaviorModel | None]] = []
    one, ahead = recipe.of_one_seed(), bank(data, options, device)
    with torch.random.fork_rng():
        for seed in members:
            set_seed(seed)
            model = behavior
            if one.behavior and model is None:
                model = build_behavior(one.behavior, one.spec, one.behavior_config)
            singles.append((build(one, model, ahead if len(members) == 1 else None), model))
        algorithm = singles[0][0] if len(members) == 1 else build(recipe, behavior, ahead)
    for each in {algorithm, *(single for single, _ in singles)}:
        if isinstance(each, Normalized):
            each.normalizer.fit(data.obs)
    if len(members) > 1:
        stack_(algorithm, [single for single, _ in singles])
    first, model = singles[0]
    return Trained(algorithm, first.to(device), model, members)


def shared(chosen: TrainOptions, recipe: Recipe) -> BehaviorModel:
    """The fitted model of --behavior-from.

    Raises SpaceMismatchError where it belongs to other data, ConfigError where flags contradict it, and whatever
    `load_behavior` raises.
    """
    model = load_behavior(chosen.behavior_from)
    if not recipe.behavior:
        raise CapabilityError(f"{recipe.algorithm} uses no behaviour model", "leave --behavior-from out")
    if model.spec != recipe.of_one_seed().spec:
        raise SpaceMismatchError(
            f"the behaviour model in {chosen.behavior_from} is of observations {model.spec.obs_shape} and "
            f"{model.spec.action_dim} actions, the data of {recipe.spec.obs_shape} and {recipe.spec.action_dim}",
            "fit one to these data: `offline-vi fit-behavior`",
        )
    if chosen.normalize:
        raise ConfigError("a fitted model sees raw observations", "leave --normalize out")
    return model


def density_in(directory: str, spec: Spec) -> DensityModel:
    """The fitted model in a directory, as a density of these data. Raises SpaceMismatchError, CapabilityError, and
    whatever `load_behavior` raises."""
    model = load_behavior(directory)
    if model.spec != spec:
        raise SpaceMismatchError(f"the behaviour model in {directory} belongs to data of other shapes", "fit another")
    if not isinstance(model, DensityModel):
        raise CapabilityError(f"the behaviour model in {directory} has no density", "choose a DensityModel")
    return model


def density_of(behavior: BehaviorModel | None, recipe: Recipe) -> DensityModel | None:
    """The algorithm's own behaviour model, where it has a density of raw observations."""
    return behavior if isinstance(behavior, DensityModel) and not recipe.normalize else None


def settled(precision: str, run: RunDirectory, device: torch.device, resumes: bool) -> str:
    """The precision of this run: what was asked for, or what a trial finds; a resumed run keeps its own."""
    if precision != "auto":
        return precision
    return str(run.read_json("run.json")["precision"]) if resumes else preferred_precision(device)


def bank(data: Transitions, options: Any, device: torch.device) -> Bank | None:
    """How a bank is made, where one is asked for. The observations of a `Normalized` algorithm are normalised."""
    if options.train.bank_period == 0:
        return None
    rows = normalized(data) if options.train.normalize else data
    return lambda proposals: CandidateCache(
        proposals, rows, period=options.train.bank_period, seed=options.run.seed, device=device
    )


def resolve(model: str, spec: Spec, chosen: Any) -> Any:
    """The model's hyper-parameters: flags were parsed before the data set's shapes were known, so what nobody changed
    takes the value that the shapes give."""
    unknown, known = asdict(behavior_config(model, Spec((1,), 1))), asdict(behavior_config(model, spec))
    changed = {key: value for key, value in asdict(chosen).items() if value != unknown[key]}
    return type(chosen)(**{**known, **changed})


def fitted(
    run: RunDirectory, recipe: Recipe, data: Transitions, options: Any, device: torch.device
) -> BehaviorModel | None:
    """The behaviour model fitted ahead, in RUN/behavior with checkpoints of its own; None where it trains jointly."""
    if not recipe.behavior or recipe.jointly:
        return None
    with torch.random.fork_rng():
        set_seed(options.run.seed)
        model = build_behavior(recipe.behavior, recipe.of_one_seed().spec, recipe.behavior_config)
    if recipe.normalize:
        data = normalized(data)
    path = run.path / "behavior"
    resumes = path.exists()
    with RunDirectory.resume(path) if resumes else RunDirectory.create(path) as part:
        fit_behavior(
            model,
            data,
            options.train.behavior_steps,
            batch_size=recipe.behavior_config.batch_size,
            lr=recipe.behavior_config.lr,
            eps=recipe.behavior_config.eps,
            seed=options.run.seed,
            device=device,
            log_every=options.run.log_every,
            save_every=options.run.save_every,
            run=part,
            resume=resumes and part.has_checkpoint(),
            progress=not options.run.quiet,
        )
    return model


def normalized(data: Transitions) -> Transitions:
    """The data as the behaviour model of a `Normalized` algorithm sees them."""
    normalizer = Normalizer(data.spec.obs_dim).fit(data.obs)
    obs, next_obs = (normalizer(torch.from_numpy(rows)).numpy() for rows in (data.obs, data.next_obs))
    return replace(data, obs=obs, next_obs=next_obs)


def fit_and_score(
    run: RunDirectory,
    trained: Trained,
    density: DensityModel | None,
    data: Transitions,
    options: Any,
    device: torch.device,
    resumes: bool,
    precision: str,
) -> dict[str, Any]:
    """Train with evaluations on the way; result.json holds the final policy's score, the best one apart."""
    obs, action = (rows.to(device) for rows in some_rows(data))
    discount = asdict(options.algorithm).get("discount", 0.99)  # cloning has none

    def score(step: int, _: Algorithm) -> dict[str, float]:
        shown: list[dict[str, float]] = []
        for seed, policy in trained.each():
            whose = {"training_seed": seed} if len(trained.seeds) > 1 else {}
            numbers: dict[str, float] = {}
            row: dict[str, float] = {"step": step, **whose}
            if data.task is not None and data.task.env_id:
                evaluation = evaluate(
                    policy,
                    data.task,
                    options.train.eval_episodes,
                    options.train.eval_seed,
                    discount=discount,
                    device=device,
                )
                for episode in evaluation.episode_rows(step):
                    run.log_episode({**episode, **whose})
                numbers = {"return": evaluation.mean_return, "score": evaluation.mean}
                row |= overestimation_report(policy, evaluation, device)
            if density is not None:
                measured = support_report(policy, density.to(device), obs, action)
                numbers |= {"% outside": 100.0 * measured["support/outside"]}
                row |= measured
            run.log_support(row)
            shown.append(numbers)
        return {name: sum(numbers[name] for numbers in shown) / len(shown) for name in (shown[0] if shown else {})}

    fit(
        trained.algorithm,
        batches(trained, data, device),
        options.train.steps,
        seed=options.run.seed,
        device=device,
        precision=precision,
        log_every=options.run.log_every,
        eval_every=options.train.eval_every,
        on_eval=score,
        run=run,
        save_every=options.run.save_every,
        resume=resumes,
        progress=not options.run.quiet,
    )
    result = summary(run, options.train.steps)
    if density is not None:
        result["support"] = measure_support(density, obs, action).to_json()
    result["diagnostics"] = run.read_support()[-1]
    run.write_json("result.json", result)
    learning_curve(run.path, data)
    return result


def batches(trained: Trained, data: Transitions, device: torch.device) -> Transitions | StackedSampler:
    """What `fit` draws from: the data, or a batch for every seed from the stream that it would have alone."""
    if len(trained.seeds) == 1:
        return data
    streams = [seeds(seed)["batches"] for seed in trained.seeds]
    return StackedSampler(data, trained.algorithm.batch_size, streams, device)


def summary(run: RunDirectory, steps: int) -> dict[str, Any]:
    """result.json: the final policy, per episode; the best evaluation apart. Of several seeds side by side the means,
    and the same for each of them."""
    rows = run.read_episodes()
    result = scores(rows, steps)
    members = sorted({int(row["training_seed"]) for row in rows if "training_seed" in row})
    if members:
        result["seeds"] = {
            str(seed): scores([row for row in rows if int(row["training_seed"]) == seed], steps) for seed in members
        }
    return result


def scores(episodes: Sequence[Mapping[str, Any]], steps: int) -> dict[str, Any]:
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for row in episodes:
        by_step.setdefault(int(row["step"]), []).append(row)
    if not by_step:
        return {"steps": steps, "note": "no environment is known for this data set: nothing was scored"}
    means = {step: sum(row["normalized"] for row in rows) / len(rows) for step, rows in by_step.items()}
    final, best = max(by_step), max(means, key=lambda step: means[step])
    rows = by_step[final]
    return {
        "steps": steps,
        "normalized_score": means[final],
        "normalized_scores": [row["normalized"] for row in rows],
        "return_mean": sum(row["return"] for row in rows) / len(rows),
        "returns": [row["return"] for row in rows],
        "lengths": [row["length"] for row in rows],
        "env_id": rows[0]["env_id"],
        "mujoco": rows[0]["mujoco"],
        "best": {"step": best, "normalized_score": means[best]},
        "curve": {str(step): mean for step, mean in means.items()},
    }


def tell(run: RunDirectory, result: dict[str, Any], options: RunOptions) -> None:
    """On stdout, as the flags ask."""
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    elif not options.quiet:
        report(run.path, result)


def report(path: Path, result: dict[str, Any]) -> None:
    if "normalized_score" in result:
        print(f"normalised score {result['normalized_score']:.1f} (return {result['return_mean']:.1f}), final policy")
    for seed, own in result.get("seeds", {}).items():
        print(f"  seed {seed}: {own['normalized_score']:.1f}")
    print(f"run directory: {path}")
