"""Planning from images: the experiment of `offline-vi train-pixels`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
import tyro

from offline_vi import datasets, registry
from offline_vi.algorithms.latent_planning import LatentPlanning, LatentPlanningConfig
from offline_vi.data.samplers import Source
from offline_vi.errors import UsageError
from offline_vi.rl.algorithm import Algorithm
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.data import check_task
from offline_vi.study.evaluations import EvalOptions, evaluate_into, summary
from offline_vi.study.experiment import Experiment, options_record
from offline_vi.study.flags import parse
from offline_vi.study.names import run_name
from offline_vi.study.pictures import imagined_frames, reconstructions, traversals
from offline_vi.study.plots import learning_curve
from offline_vi.study.run import Record, RunOptions
from offline_vi.training.randomness import seeds
from offline_vi.types import from_json

NAME = "latent-planning"


@dataclass(frozen=True)
class PixelOptions:
    """Which data to train on, and how long."""

    dataset: Annotated[str, tyro.conf.arg(metavar="FOLDER|NAME")] = ""
    """A folder of V-D4RL's .npz episodes, a Minari data set of images, or one of ours (`offline-vi data list`)."""
    alignment: Literal["led-to", "taken-at"] = "led-to"
    """What a folder's files keep with each image: the action that led to it (V-D4RL), or the one taken at it."""
    env: str = ""
    """Environment to score on, where the data set's name does not tell; it must return the same images. A Gymnasium
    id, or code of yours: module:Id, module:Class or module:function."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment's constructor: key=value ..., or one JSON object."""
    unscored: bool = False
    """Score nothing: no environment is made, and no simulator is needed."""
    max_episode_steps: int = 0
    """Steps after which an episode is cut; 0: the environment's own limit."""
    steps: int = 3_000
    """Gradient steps."""


class PixelTraining(Experiment):
    """A model of images fitted to a data set, and a planner in its latent space."""

    verb = "train-pixels"

    def __init__(self, algorithm: str, options: Any) -> None:
        self.algorithm, self.options, chosen = algorithm, options, options.pixels
        if not chosen.dataset:
            raise UsageError("no data set is given", "add --dataset FOLDER, or a name of `offline-vi data list`")
        self.data = datasets.load_images(chosen.dataset, alignment=chosen.alignment)
        where = datasets.Reading(
            env=chosen.env,
            env_kwargs=chosen.env_kwargs,
            unscored=chosen.unscored,
            max_episode_steps=chosen.max_episode_steps,
        )
        self.task = datasets.scored_on(self.data.task, where)
        self.limit = check_task(replace(self.data, task=self.task))
        self.training, self.held_out = self.data.split_episodes(0.1)
        self.steps, self.eval_every = chosen.steps, options.eval.interval
        self.name = run_name(algorithm, self.data.source.name, [options.run.seed])

    def record(self) -> Record:
        source = self.data.source
        return {
            "algorithm": self.algorithm,
            "data": {"name": source.name, "sha256": list(source.sha256), "steps": len(self.data)},
            "task": self.task.to_json() if self.task is not None else None,
            "max_episode_steps": self.limit,
            **options_record(pixels=self.options.pixels, eval=self.options.eval, algorithm=self.options.algorithm),
        }

    def agent(self) -> Algorithm:
        return LatentPlanning(self.data.spec, self.options.algorithm)

    def prepare(self, run: RunDirectory, agent: Algorithm) -> None:
        """Nothing comes before the fit."""

    @contextmanager
    def batches(self, agent: Algorithm, device: torch.device) -> Iterator[Source]:
        assert isinstance(agent, LatentPlanning)
        yield agent.source(self.training, seeds(self.options.run.seed)["batches"], device)

    def score(self, run: RunDirectory, step: int, agent: Algorithm) -> dict[str, float]:
        if self.task is None or not self.task.env_id:
            return {}
        device = self.options.run.torch_device()
        evaluation = evaluate_into(run, step, agent, self.task, self.options.eval, device=device)
        return evaluation.shown()

    def finish(self, run: RunDirectory, agent: Algorithm) -> Record:
        result = summary(run, self.steps) if run.read_episodes() else {"steps": self.steps}
        return result | {"behavior_return": float(self.data.episode_returns().mean())}

    def draw(self, run: RunDirectory, agent: Algorithm) -> None:
        assert isinstance(agent, LatentPlanning)
        learning_curve(run.path)
        reconstructions(run.path / "reconstructions.png", agent, self.held_out)
        imagined_frames(run.path / "open_loop.png", agent, self.held_out)
        traversals(run.path / "traversals.png", agent, self.held_out)


def parse_options(name: str, saved: Record, arguments: Sequence[str]) -> Any:
    """Defaults < --config < flags."""
    parts = {
        "pixels": from_json(PixelOptions(), saved.get("pixels_options", {})),
        "eval": from_json(EvalOptions(eval_every=0), saved.get("eval_options", {})),
        "run": from_json(RunOptions(), saved.get("run_options", {})),
        "algorithm": from_json(LatentPlanningConfig(), saved.get("algorithm_options", {})),
    }
    return parse(parts, arguments, "offline-vi train-pixels", registry.algorithm(name).summary)
