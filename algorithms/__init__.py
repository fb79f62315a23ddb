"""The algorithms: one paper, one file. The table lists them without importing torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from offline_vi.algorithms.bc import BC
    from offline_vi.algorithms.bcq import BCQ
    from offline_vi.algorithms.bear import BEAR
    from offline_vi.algorithms.cql import CQL
    from offline_vi.algorithms.ddpg import DDPG
    from offline_vi.algorithms.emaq import EMaQ
    from offline_vi.algorithms.iql import IQL
    from offline_vi.algorithms.latent_planning import LatentPlanning
    from offline_vi.algorithms.plas import PLAS
    from offline_vi.algorithms.rebrac import ReBRAC
    from offline_vi.algorithms.sac import KLSAC, SAC
    from offline_vi.algorithms.soft_q import SoftQ
    from offline_vi.algorithms.spot import SPOT
    from offline_vi.algorithms.td3 import TD3
    from offline_vi.algorithms.td3_bc import TD3BC
    from offline_vi.algorithms.vime import VIME


class Entry(NamedTuple):
    """Where an algorithm lives and what it is, in one line."""

    module: str
    name: str
    summary: str
    behavior: str = ""  # its default behaviour model; empty where it uses none
    proposals: str = "model"  # what it is given: the model itself, or a "decoded" view of one that can decode
    normalize: bool = False  # whether its published results normalise the observations


ALGORITHMS: dict[str, Entry] = {
    "bc": Entry("bc", "BC", "behaviour cloning: regress the data's action"),
    "bcq": Entry(
        "bcq",
        "BCQ",
        "batch-constrained Q-learning: perturb and rank a behaviour model's samples",
        "cvae-published",
        "decoded",
    ),
    "bear": Entry("bear", "BEAR", "policy within an MMD of the behaviour's samples", "cvae-published", "decoded"),
    "cql": Entry("cql", "CQL", "soft actor-critic with critics pushed down off the data"),
    "ddpg": Entry("ddpg", "DDPG", "online baseline: extrapolates, and diverges, offline"),
    "emaq": Entry("emaq", "EMaQ", "expected-max Q-learning: the best of N behaviour samples, no actor", "cvae"),
    "iql": Entry("iql", "IQL", "implicit Q-learning: expectiles of Q over the data's actions"),
    "kl-sac": Entry("sac", "KLSAC", "soft actor-critic whose action prior is the behaviour model", "cvae"),
    "plas": Entry("plas", "PLAS", "policy in the latent space of a behaviour model", "cvae-published"),
    "rebrac": Entry("rebrac", "ReBRAC", "TD3+BC with the penalty in the target too, and layer norm", "cvae"),
    "sac": Entry("sac", "SAC", "online: soft actor-critic, the policy as a posterior of optimal actions"),
    "soft-q": Entry("soft_q", "SoftQ", "soft Q-learning over a behaviour model's samples, no actor", "cvae"),
    "spot": Entry("spot", "SPOT", "TD3 under a penalty on the behaviour's log-density", "cvae-published"),
    "td3": Entry("td3", "TD3", "online baseline: two critics, smoothed targets, delayed actor"),
    "td3-bc": Entry("td3_bc", "TD3BC", "TD3 with a squared distance to the data's action", normalize=True),
}

# What learns from sequences of images, and what wraps another algorithm: not from a batch of transitions alone.
OTHERS: dict[str, Entry] = {
    "latent-planning": Entry("latent_planning", "LatentPlanning", "plan in the latent space of a model of images"),
    "vime": Entry("vime", "VIME", "an online algorithm, paid for what its observations teach"),
}

__all__ = [
    "ALGORITHMS",
    "BC",
    "BCQ",
    "BEAR",
    "CQL",
    "DDPG",
    "IQL",
    "KLSAC",
    "OTHERS",
    "PLAS",
    "SAC",
    "SPOT",
    "TD3",
    "TD3BC",
    "VIME",
    "EMaQ",
    "Entry",
    "LatentPlanning",
    "ReBRAC",
    "SoftQ",
]


def __getattr__(name: str) -> Any:
    for entry in (*ALGORITHMS.values(), *OTHERS.values()):
        if entry.name == name:
            return getattr(importlib.import_module(f"{__name__}.{entry.module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
