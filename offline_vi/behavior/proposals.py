"""Where an algorithm's candidate actions come from: views of a behavior model, drawn on the spot or ahead of time.

A behavior model proposes its own samples; `DecoderMeans` and `MostLikelySamples` propose what is likelier,
`CentralActions` the one action that stands for the others. With a
frozen model the candidates of a data set's states can be drawn once and read many times: drawing them is most of a step
of BCQ. `CandidateCache` draws them anew in turns, so that over a training run a state meets different ones.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from torch import Tensor

from offline_vi.behavior.base import (
    CentralModel,
    DensityModel,
    LatentModel,
    Proposals as Proposals,
    require_capability,
)
from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError
from offline_vi.nn.precision import full_precision
from offline_vi.nn.state import Scheduled
from offline_vi.runs.files import reserved
from offline_vi.stopping import obey
from offline_vi.types import Batch


@final
class CandidateCache(Proposals, Scheduled):
    """Candidates of every row, drawn ahead from frozen proposals and read by ``batch.index``.

    The one class that overrides ``at_obs`` and ``at_next_obs``: what it was made for is to look up the candidates of a
    row instead of drawing them for its observation. ``sample`` draws fresh ones, for states that no row holds.

    A table holds N candidates of every row in float16 (rows x N x A x 2 bytes), beyond ``memory_budget`` bytes in a
    memory map. It is made at first use, and redrawn piece by piece so that every row is new after ``period`` steps.
    What a piece holds depends on (seed, piece, turn) alone, so that a resumed run finds the same candidates.

    Without ``transitions``, as in an agent that was saved and loaded, candidates are drawn for every batch.

    Raises CapabilityError for what proposes nothing, ConfigError where the proposals are still being trained.
    """

    STRIDE = 50  # steps between two pieces
    not_kept = frozenset({"transitions", "device", "memory_budget"})

    def __init__(
        self,
        proposals: Proposals,
        transitions: Transitions | None = None,
        *,
        period: int = 10_000,
        seed: int = 0,
        device: str | torch.device = "cpu",
        memory_budget: int = 2 << 30,
    ) -> None:
        super().__init__()
        self.proposals = require_capability(proposals, Proposals, "CandidateCache")
        if transitions is not None and any(parameter.requires_grad for parameter in proposals.parameters()):
            raise ConfigError(
                "candidates are drawn ahead from a behavior model that is still being trained",
                "fit it first, then freeze it: model.requires_grad_(False)",
            )
        self.spec = proposals.spec
        self.period, self.seed, self.device, self.memory_budget = period, seed, torch.device(device), memory_budget
        columns = ("obs", "next_obs")
        self._rows = {name: getattr(transitions, name) for name in columns} if transitions is not None else {}
        pieces, rows = max(1, -(-period // self.STRIDE)), len(transitions) if transitions is not None else 1
        self.piece = -(-rows // pieces)  # rows
        self.pieces = -(-rows // self.piece)
        self._tables: dict[tuple[str, int], Tensor] = {}
        self._step = 0

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return self.proposals.sample(obs, num_samples)

    def at_obs(self, batch: Batch, num_samples: int) -> Tensor:
        return self._read("obs", batch, num_samples)

    def at_next_obs(self, batch: Batch, num_samples: int) -> Tensor:
        return self._read("next_obs", batch, num_samples)

    def advance(self, step: int) -> None:
        previous, self._step = self._step, step
        if step == previous + 1:
            if step % self.STRIDE == 0:
                for key in self._tables:
                    self._redraw(key, (step // self.STRIDE - 1) % self.pieces)
        elif step != previous:
            for key in self._tables:
                self._fill(key)

    def turn(self, piece: int) -> int:
        """How often ``piece`` has been redrawn by now."""
        return (self._step // self.STRIDE - 1 - piece) // self.pieces + 1 if self._step else 0

    def _read(self, field: str, batch: Batch, num_samples: int) -> Tensor:
        if not self._rows:
            return self.sample(batch.obs if field == "obs" else batch.next_obs, num_samples)
        key = (field, num_samples)
        if key not in self._tables:
            self._tables[key] = self._table(field, num_samples)
            self._fill(key)
        table = self._tables[key]
        rows = batch.index.flatten().to(table.device)
        chosen = table.index_select(0, rows).to(batch.obs.device, batch.obs.dtype)
        return chosen.transpose(0, 1).reshape(num_samples, *batch.action.shape)  # (N, B, A), or (N, S, B, A)

    def _table(self, field: str, num_samples: int) -> Tensor:
        """(rows, N, A) float16, not filled yet."""
        shape = (len(self._rows[field]), num_samples, self.spec.action_dim)
        if 2 * int(np.prod(shape)) <= self.memory_budget:
            return torch.empty(shape, dtype=torch.float16, device=self.device)
        with reserved(2 * int(np.prod(shape))) as file:
            return torch.from_numpy(np.memmap(file, np.float16, "r+", shape=shape))

    def _fill(self, key: tuple[str, int]) -> None:
        for piece in range(self.pieces):
            obey()
            self._redraw(key, piece)

    @torch.no_grad()
    def _redraw(self, key: tuple[str, int], piece: int) -> None:
        field, num_samples = key
        rows = slice(piece * self.piece, (piece + 1) * self.piece)
        obs = torch.from_numpy(np.ascontiguousarray(self._rows[field][rows])).to(self.device)
        stream = np.random.SeedSequence([self.seed, num_samples, field == "obs", piece, self.turn(piece)])
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), full_precision(self.device):  # filled within targets, redrawn outside
            torch.manual_seed(int(stream.generate_state(1, np.uint64)[0] >> 1))
            sample = self.proposals.sample(obs, num_samples)
        self._tables[key][rows] = sample.transpose(0, 1).to(self._tables[key])


class DecoderMeans(Proposals):
    """Decoder means at clipped prior noise: what BCQ and BEAR call sampling (Fujimoto et al. 2019, z ~ N(0, 1) clipped
    to [-0.5, 0.5]). ``noise_clip=float("inf")`` decodes unclipped noise."""

    def __init__(self, model: LatentModel, noise_clip: float = 0.5) -> None:
        super().__init__()
        self.model = require_capability(model, LatentModel, "DecoderMeans")
        self.noise_clip, self.spec = noise_clip, model.spec

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        shape = (num_samples, *obs.shape[:-1], self.model.latent_dim)
        noise = torch.randn(shape, device=obs.device, dtype=obs.dtype).clamp(-self.noise_clip, self.noise_clip)
        return self.model.decode(obs, noise)


class CentralActions(Proposals):
    """The model's central action, once for each candidate that is asked for: a behavior model as a clone without noise,
    ``BehaviorPolicy(CentralActions(model))``."""

    def __init__(self, model: CentralModel) -> None:
        super().__init__()
        self.model = require_capability(model, CentralModel, "CentralActions")
        self.spec = model.spec

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        center = self.model.center(obs)  # (B, A)
        return center.expand(num_samples, *center.shape)


class MostLikelySamples(Proposals):
    """The likelier samples of a density: of N / ``keep`` drawn for a state, the N with the highest log pi_beta, which
    is estimated with ``num_samples`` latent samples where it is a bound.

    Full samples carry the tails of the behavior's noise into a maximum over Q; these do not, and unlike decoder means
    they keep every mode. ``keep=1`` is the model itself. Raises ConfigError for another share than one in (0, 1].
    """

    def __init__(self, model: DensityModel, keep: float = 0.1, num_samples: int = 8) -> None:
        super().__init__()
        if not 0.0 < keep <= 1.0:
            raise ConfigError(f"keep = {keep} is no share of the samples", "in (0, 1]")
        self.model = require_capability(model, DensityModel, "MostLikelySamples")
        self.keep, self.num_samples, self.spec = keep, num_samples, model.spec

    @torch.no_grad()
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        count = math.ceil(num_samples / self.keep)
        drawn, likely = self.model.sample_and_log_prob(obs, count, self.num_samples)  # (M, B, A), (M, B)
        best = likely.topk(num_samples, dim=0).indices  # (N, B)
        return drawn.gather(0, best.unsqueeze(-1).expand(-1, -1, drawn.shape[-1]))
