"""Where a policy leaves the data: measured while it trains, prevented when it is deployed.

Everything is a log-density log pi_beta(a|s) in nats, of any `DensityModel`. The data's own actions say what is usual:
an action is *outside the support* where its log-density is below the 1 % quantile of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from offline_vi.behavior.base import DensityModel
from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError
from offline_vi.evaluation.evaluate import Evaluation
from offline_vi.ranges import short
from offline_vi.rl.policies import Policy, q_value
from offline_vi.types import RewardMap

LEVELS = (0.001, 0.01, 0.05, 0.5)  # quantiles that are kept
OUTSIDE = 0.01  # below this quantile an action is outside the support
ROWS, CHUNK = 1_000, 250  # states of a measurement; evaluated so many at a time


@dataclass(frozen=True)
class Support:
    """Quantiles of log pi_beta(a|s) over the data's own actions, in nats: level -> value."""

    quantiles: dict[float, float]  # level -> nats

    def threshold(self, level: float = OUTSIDE) -> float:
        """The quantile at ``level`` (default 0.01), in nats. Raises ConfigError for a level that is not kept."""
        if level not in self.quantiles:
            raise ConfigError(
                f"no quantile of the data is kept for the level {level:g}",
                f"one of {', '.join(map(str, self.quantiles))}",
            )
        return self.quantiles[level]

    def to_json(self) -> dict[str, float]:
        return {str(level): value for level, value in self.quantiles.items()}

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> Support:
        """Raises ConfigError where the record holds anything but numbers."""
        try:
            return cls({float(level): float(value) for level, value in record.items()})  # type: ignore[arg-type]
        except (TypeError, ValueError, AttributeError):
            raise ConfigError(f"{short(record)} are no quantiles", "measure them again") from None


def some_rows(data: Transitions, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Observations (R, O) and actions (R, A) of at most ``rows`` rows (default 1,000), evenly spread over the data."""
    chosen = data.select(np.linspace(0, len(data) - 1, min(rows, len(data))).astype(np.int64))
    return torch.from_numpy(chosen.obs), torch.from_numpy(chosen.action)


@torch.no_grad()
def log_probs(behavior: DensityModel, obs: Tensor, action: Tensor, num_samples: int = 16) -> Tensor:
    """log pi_beta(a|s) of many rows, (R,) nats, a part at a time. The caller's random state is left as it was."""
    cuda = [obs.device] if obs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(0)
        parts = zip(obs.split(CHUNK), action.split(CHUNK), strict=True)
        return torch.cat([behavior.log_prob(s, a, num_samples) for s, a in parts])


def measure_support(behavior: DensityModel, obs: Tensor, action: Tensor) -> Support:
    """The quantiles over the data's actions (R, A) at observations (R, O)."""
    values = log_probs(behavior, obs, action).double()
    return Support({level: float(torch.quantile(values, level)) for level in LEVELS})


@torch.no_grad()
def support_report(policy: Policy, behavior: DensityModel, obs: Tensor, action: Tensor) -> dict[str, float]:
    """How far a policy is from the data at states of the data, (R, O) with their actions (R, A).

    "support/outside": share of the policy's actions below the 1 % quantile (the data's own: 0.01); "support/log_prob"
    and "support/data_log_prob": mean log pi_beta in nats of the policy's and of the data's actions.
    """
    cuda = [obs.device] if obs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(0)
        chosen = torch.cat([policy.act(part) for part in obs.split(CHUNK)])
    usual, ours = log_probs(behavior, obs, action), log_probs(behavior, obs, chosen)
    return {
        "support/outside": float((ours < torch.quantile(usual, OUTSIDE)).float().mean()),
        "support/log_prob": float(ours.mean()),
        "support/data_log_prob": float(usual.mean()),
    }


@torch.no_grad()
def overestimation_report(
    policy: Policy,
    evaluation: Evaluation,
    device: torch.device | str = "cpu",
    *,
    rewards: RewardMap | None = None,
) -> dict[str, float]:
    """Q against Monte-Carlo returns from the starts of an evaluation's episodes, in the environment's units.

    "q/start": mean Q_1(s_0, a_0); "q/return": mean discounted return that followed (cut where the episode was);
    "q/overestimation": their difference. NaN for a policy that has no critic.

    ``rewards`` are those that the critic was trained on. Over an episode of L steps, scale * r + shift is worth
    Q = scale * Q_env + shift * (1 - gamma^L) / (1 - gamma), which is solved for Q_env with the L of each episode; a
    penalty of the end counts where the episode had one.
    """
    kept = ~np.isnan(evaluation.returns)
    obs = torch.from_numpy(evaluation.first_obs[kept]).to(device)
    action = torch.from_numpy(evaluation.first_action[kept]).to(device)
    steps = torch.from_numpy(evaluation.lengths[kept]).to(obs)
    ended = torch.from_numpy(evaluation.terminated[kept]).to(obs)
    value = (rewards or RewardMap()).undo_value(q_value(policy, obs, action), steps, ended, evaluation.discount)
    believed = float(value.mean())
    happened = float(evaluation.discounted[kept].mean())
    return {"q/start": believed, "q/return": happened, "q/overestimation": believed - happened}
