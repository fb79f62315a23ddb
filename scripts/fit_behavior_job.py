"""The work of `offline-vi fit-behavior`: fit on most episodes, judge on the others."""

from __future__ import annotations

import json
import math
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from offline_vi.behavior import BEHAVIOR_MODELS, BehaviorModel, DecoderMeans, DensityModel, LatentModel
from offline_vi.behavior.pretrained import behavior_config, build_behavior, save_behavior
from offline_vi.data.transitions import Transitions
from offline_vi.datasets.policy import TanhGaussianPolicy, read_policy, share_off_support, support_threshold
from offline_vi.errors import OfflineVIError
from offline_vi.scripts.common import SCHEMA, DataOptions, RunOptions, data_record, open_run, recorded, without
from offline_vi.scripts.info import versions
from offline_vi.scripts.train_job import resolve
from offline_vi.study.plots import learning_curve
from offline_vi.training.loop import fit_behavior
from offline_vi.training.randomness import set_seed
from offline_vi.types import Spec


@dataclass(frozen=True)
class FitOptions:
    """How long, and how the fit is judged."""

    steps: int = 20_000
    """Gradient steps."""
    held_out: float = 0.1
    """Share of the episodes, the last ones, that the model never sees and is judged on."""
    iwae_samples: int = 64
    """K of the importance-weighted bound."""
    max_rows: int = 10_000
    """Held-out rows that the report uses, evenly spread; 0: all."""
    policy_from: Annotated[str, tyro.conf.arg(metavar="FILE.hdf5")] = ""
    """File that holds the policy which made the data (`metadata/policy`), to judge the model's samples by the true
    density; default: the data set's own file, where it holds one."""


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    """The verb: name of the model, the other flags; returns the record of result.json."""
    options = parse(name, arguments)
    torch.set_num_threads(options.run.threads)
    return fit_and_report(name, options)


def parse(name: str, arguments: list[str]) -> Any:
    """The flags; the model's hyper-parameters are among them."""
    default = behavior_config(name, Spec((1,), 1))
    omit: Any = tyro.conf.OmitArgPrefixes
    flat = [
        (part, omit[type(value)], field(default=value))
        for part, value in [
            ("data", DataOptions()),
            ("fit", FitOptions()),
            ("run", RunOptions()),
            ("behavior", default),
        ]
    ]
    return tyro.cli(
        make_dataclass("Options", flat, frozen=True),
        args=arguments,
        prog=f"offline-vi fit-behavior {name}",
        description=BEHAVIOR_MODELS[name].summary,
    )


def fit_and_report(name: str, options: Any) -> dict[str, Any]:
    device = options.run.torch_device()
    data = options.data.load()
    training, held_out = data.split_episodes(options.fit.held_out)
    policy = policy_of(options)
    settings = resolve(name, data.spec, options.behavior)
    recipe = {"algorithm": "", "spec": data.spec.to_json(), "behavior": name, "behavior_config": asdict(settings)}
    config = {
        "schema": SCHEMA,
        "verb": "fit-behavior",
        "recipe": recipe,
        "data": data_record(data),
        "steps": options.fit.steps,
        "seed": options.run.seed,
        "data_options": asdict(options.data),
        "fit_options": asdict(options.fit),
        "run_options": without(asdict(options.run), "resume", "overwrite", "output"),
    }
    run, resumes = open_run(options.run, f"{name}-{data.source.name}-seed{options.run.seed}".replace("/", "-"), config)
    with run, recorded(run, {"behavior": name, "data": config["data"], "seed": options.run.seed}) as record:
        with torch.random.fork_rng():
            set_seed(options.run.seed)
            model = build_behavior(name, data.spec, settings)
        fit_behavior(
            model,
            training,
            options.fit.steps,
            batch_size=settings.batch_size,
            lr=settings.lr,
            eps=settings.eps,
            seed=options.run.seed,
            device=device,
            log_every=options.run.log_every,
            save_every=options.run.save_every,
            run=run,
            resume=resumes,
            progress=not options.run.quiet,
        )
        result = {"steps": options.fit.steps, "parameters": sum(p.numel() for p in model.parameters())}
        for part, rows in (("held_out", held_out), ("training", training)):
            result[part] = density_report(model, rows, options.fit.iwae_samples, options.fit.max_rows)
        if policy is not None:
            result["off_support"] = support_report(model, held_out, policy, options.fit.max_rows)
        run.write_json("result.json", result)
        save_behavior(
            model,
            name,
            settings,
            run.path / "model",
            data=config["data"],
            fit={"steps": options.fit.steps, "seed": options.run.seed, "held_out": options.fit.held_out},
            versions=versions(),
            **without(result, "steps"),
        )
        record["result"] = result["held_out"]
        learning_curve(run.path)
    if options.run.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    elif not options.run.quiet:
        print_report(result)
        print(f"run directory: {run.path}")
    return result


def policy_of(options: Any) -> TanhGaussianPolicy | None:
    """The policy that made the data, where it is known. Raises what `read_policy` raises for a file that was named."""
    if options.fit.policy_from:
        return read_policy(options.fit.policy_from)
    for name in options.data.dataset:
        if Path(name).is_file():
            with suppress(OfflineVIError):
                return read_policy(name)
    return None


def evenly(data: Transitions, max_rows: int) -> Transitions:
    """At most ``max_rows`` rows (0: all), evenly spread."""
    count = min(max_rows or len(data), len(data))
    return data.select(np.linspace(0, len(data) - 1, count).astype(np.int64))


@torch.no_grad()
def support_report(
    model: BehaviorModel, data: Transitions, policy: TanhGaussianPolicy, max_rows: int
) -> dict[str, float]:
    """The share of the model's actions, one per state, whose true log-density is below the 1 % quantile of the data's:
    the other direction of a density. The truth has 0.01.

    "samples" are full samples; of a latent model also decoded noise ("decoded"), clipped to 0.5 standard deviations as
    BCQ does ("decoded_clip_0.5"), and none ("decoded_mean").
    """
    rows = evenly(data, max_rows)
    threshold = support_threshold(policy, rows.obs, rows.action)
    device = next(model.parameters()).device
    obs = torch.from_numpy(rows.obs).to(device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actions = {"samples": model.sample(obs)}
        if isinstance(model, LatentModel):
            for name, clip in (("decoded", math.inf), ("decoded_clip_0.5", 0.5), ("decoded_mean", 0.0)):
                actions[name] = DecoderMeans(model, clip).sample(obs)
    return {
        name: share_off_support(policy, rows.obs, action.cpu().numpy(), threshold) for name, action in actions.items()
    }


@torch.no_grad()
def density_report(model: Any, data: Transitions, num_samples: int, max_rows: int) -> dict[str, float]:
    """Mean log-density in nats per action (summed over its dimensions) over rows of ``data``, beside the truth where
    the data have it. The bounds are over actions in [-1, 1]."""
    rows = evenly(data, max_rows)
    count = len(rows)
    report: dict[str, float] = {"rows": float(count)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        columns: dict[str, list[float]] = {"elbo": [], f"iwae_{num_samples}": []}
        device = next(model.parameters()).device
        for start in range(0, count, 500):
            obs = torch.from_numpy(rows.obs[start : start + 500]).to(device)
            action = torch.from_numpy(rows.action[start : start + 500]).to(device)
            columns["elbo"] += (-float(model.loss(obs, action)[0]),) * len(obs)
            columns[f"iwae_{num_samples}"] += log_density(model, obs, action, num_samples)
    report |= {name: float(np.mean(values)) for name, values in columns.items()}
    if rows.behavior_log_prob is not None:
        truth = float(rows.behavior_log_prob.mean(dtype=np.float64))
        report |= {"truth": truth, "gap": truth - report[f"iwae_{num_samples}"]}
    return report


def log_density(model: DensityModel, obs: torch.Tensor, action: torch.Tensor, num_samples: int) -> list[float]:
    values: list[float] = model.log_prob(obs, action, num_samples).tolist()
    return values


def print_report(result: dict[str, Any]) -> None:
    print("log-density of the data's actions, nats per action (summed over dimensions):")
    for part in ("held_out", "training"):
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in result[part].items() if name != "rows")
        print(f"  {part.replace('_', '-'):<9} ({result[part]['rows']:,.0f} rows)  {numbers}")
    if "off_support" in result:
        print("actions of the model below the 1 % quantile of the true log-density (the truth: 1.0 %):")
        print("  " + "  ".join(f"{name} {100 * share:.1f} %" for name, share in result["off_support"].items()))
    if "gap" in result["held_out"]:
        print(f"gap to the true density, held out: {result['held_out']['gap']:.3f} nats per action")
