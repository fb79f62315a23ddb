"""The work of `offline-vi train-pixels`: load, fit the model of images, score the planner, draw what it imagines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, make_dataclass
from typing import Annotated, Any, Literal

import torch
import tyro

from offline_vi import datasets
from offline_vi.algorithms import OTHERS
from offline_vi.algorithms.build import Recipe
from offline_vi.algorithms.latent_planning import LatentPlanning, LatentPlanningConfig
from offline_vi.environments import check_spaces
from offline_vi.errors import UsageError
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.rl.algorithm import Algorithm
from offline_vi.scripts.common import SCHEMA, RunOptions, open_run, recorded, without
from offline_vi.scripts.train_job import summary, tell
from offline_vi.study.pictures import imagined_frames, reconstructions, traversals
from offline_vi.study.plots import learning_curve
from offline_vi.training.loop import fit
from offline_vi.training.randomness import seeds, set_seed

NAME = "latent-planning"


@dataclass(frozen=True)
class PixelOptions:
    """Which data, how long, how scored."""

    dataset: Annotated[str, tyro.conf.arg(metavar="FOLDER|NAME")] = ""
    """A folder of V-D4RL's .npz episodes, a Minari data set of images, or one of ours (`offline-vi data list`)."""
    alignment: Literal["led-to", "taken-at"] = "led-to"
    """What a folder's files keep with each image: the action that led to it (V-D4RL), or the one taken at it."""
    env: str = ""
    """Gymnasium id to score on, where the data set's name does not tell; it must return the same images."""
    steps: int = 3_000
    """Gradient steps."""
    eval_every: int = 0
    """Steps between two evaluations; 0: only the final policy's."""
    eval_episodes: int = 10
    """Episodes per evaluation."""
    eval_seed: int = 100
    """Seed of the first evaluation episode; independent of --seed."""


def run(arguments: list[str]) -> dict[str, Any]:
    """The verb; returns the record of result.json."""
    omit: Any = tyro.conf.OmitArgPrefixes
    parts = [("pixels", PixelOptions()), ("run", RunOptions()), ("algorithm", LatentPlanningConfig())]
    flat = [(part, omit[type(value)], field(default=value)) for part, value in parts]
    options: Any = tyro.cli(
        make_dataclass("Options", flat, frozen=True),
        args=arguments,
        prog="offline-vi train-pixels",
        description=OTHERS[NAME].summary,
    )
    torch.set_num_threads(options.run.threads)
    return train(options)


def train(options: Any) -> dict[str, Any]:
    """Load, check, fit, score, draw; returns the record of result.json."""
    chosen = options.pixels
    if not chosen.dataset:
        raise UsageError("no data set is given", "add --dataset FOLDER, or a name of `offline-vi data list`")
    device = options.run.torch_device()
    data = datasets.load_images(chosen.dataset, alignment=chosen.alignment)
    task = datasets.environment(chosen.env) if chosen.env else data.task
    if task is not None and task.env_id:
        check_spaces(data.spec, task)
    recipe = Recipe(NAME, data.spec, options.algorithm)
    config = {
        "schema": SCHEMA,
        "verb": "train-pixels",
        "recipe": recipe.to_json(),
        "data": {"name": data.source.name, "sha256": list(data.source.sha256), "steps": len(data)},
        "task": task.to_json() if task is not None else None,
        "steps": chosen.steps,
        "seed": options.run.seed,
        "pixel_options": asdict(chosen),
        "run_options": without(asdict(options.run), "resume", "overwrite", "output"),
    }
    run, resumes = open_run(options.run, f"{NAME}-{data.source.name}-seed{options.run.seed}".replace("/", "-"), config)
    with run, recorded(run, {"algorithm": NAME, "data": data.source.name, "seed": options.run.seed}) as record:
        streams = seeds(options.run.seed)
        with torch.random.fork_rng():
            set_seed(options.run.seed)
            agent = LatentPlanning(data.spec, options.algorithm)
        training, held_out = data.split_episodes(0.1)

        def score(step: int, policy: Algorithm) -> dict[str, float]:
            if task is None or not task.env_id:
                return {}
            evaluation = evaluate(policy, task, chosen.eval_episodes, chosen.eval_seed, device=device)
            for episode in evaluation.episode_rows(step):
                run.log_episode(episode)
            return {"return": evaluation.mean_return, "score": evaluation.mean}

        fit(
            agent,
            agent.source(training, streams["batches"], device),
            chosen.steps,
            seed=options.run.seed,
            device=device,
            log_every=options.run.log_every,
            eval_every=chosen.eval_every or None,
            on_eval=score,
            run=run,
            save_every=options.run.save_every,
            resume=resumes,
            progress=not options.run.quiet,
        )
        result = summary(run, chosen.steps) if (run.path / "episodes.csv").exists() else {}
        result |= {"behavior_return": float(data.episode_returns().mean())}
        run.write_json("result.json", result)
        learning_curve(run.path)
        reconstructions(run.path / "reconstructions.png", agent, held_out)
        imagined_frames(run.path / "open_loop.png", agent, held_out)
        traversals(run.path / "traversals.png", agent, held_out)
        record["result"] = {key: result[key] for key in ("normalized_score", "return_mean") if key in result}
    tell(run, result, options.run)
    return result
