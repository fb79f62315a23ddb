"""How good a behavior model is: the density of actions it has not seen, and where its own samples are."""

from __future__ import annotations

import math
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from offline_vi.behavior.base import BehaviorModel, DensityModel, LatentModel
from offline_vi.behavior.proposals import DecoderMeans
from offline_vi.data.transitions import Transitions
from offline_vi.errors import OfflineVIError

if TYPE_CHECKING:
    from offline_vi.datasets.policy import TanhGaussianPolicy


def find_policy(file: str, datasets: tuple[str, ...]) -> TanhGaussianPolicy | None:
    """The policy that made the data, from ``file`` or, where that is empty, from a data set's own file.

    Raises what `read_policy` raises for a file that was named.
    """
    from offline_vi.datasets.policy import read_policy

    if file:
        return read_policy(file)
    for name in datasets:
        if Path(name).is_file():
            with suppress(OfflineVIError):
                return read_policy(name)
    return None


def evenly(data: Transitions, max_rows: int) -> Transitions:
    """Take at most ``max_rows`` rows (0: all), evenly spread."""
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
    from offline_vi.datasets.policy import share_off_support, support_threshold

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
def density_report(model: BehaviorModel, data: Transitions, num_samples: int, max_rows: int) -> dict[str, float]:
    """Mean log-density in nats per action (summed over its dimensions) over rows of ``data``, next to the truth where
    the data have it. The bounds are over actions in [-1, 1]. A model without a density reports its mean loss."""
    rows = evenly(data, max_rows)
    count = len(rows)
    report: dict[str, float] = {"rows": float(count)}
    losses: list[float] = []
    bounds: list[float] = []
    apart = deepcopy(model)  # for the loss, which may keep the rows that it is shown
    with torch.random.fork_rng():
        torch.manual_seed(0)
        device = next(model.parameters()).device
        for start in range(0, count, 500):
            obs = torch.from_numpy(rows.obs[start : start + 500]).to(device)
            action = torch.from_numpy(rows.action[start : start + 500]).to(device)
            losses += (float(apart.loss(obs, action)[0]),) * len(obs)
            if isinstance(model, DensityModel):
                bounds += model.log_prob(obs, action, num_samples).tolist()
    if not bounds:
        return report | {"loss": float(np.mean(losses))}
    report |= {"elbo": -float(np.mean(losses)), f"iwae_{num_samples}": float(np.mean(bounds))}
    if rows.behavior_log_prob is not None:
        truth = float(rows.behavior_log_prob.mean(dtype=np.float64))
        report |= {"truth": truth, "gap": truth - report[f"iwae_{num_samples}"]}
    return report


def print_report(result: dict[str, Any]) -> None:
    if "loss" in result["held_out"]:
        print("the model has no log-density; its loss on the data, in its own units:")
    else:
        print("log-density of the data's actions, nats per action (summed over dimensions):")
    for part in ("held_out", "training"):
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in result[part].items() if name != "rows")
        print(f"  {part.replace('_', '-'):<9} ({result[part]['rows']:,.0f} rows)  {numbers}")
    if "off_support" in result:
        print("actions of the model below the 1 % quantile of the true log-density (the truth: 1.0 %):")
        print("  " + "  ".join(f"{name} {100 * share:.1f} %" for name, share in result["off_support"].items()))
    if "gap" in result["held_out"]:
        print(f"gap to the true density, held out: {result['held_out']['gap']:.3f} nats per action")
