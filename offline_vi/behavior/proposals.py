"""Where an algorithm's candidate actions come from, drawn on the spot or ahead of time, and how one is chosen.

With a frozen behaviour model the candidates of a data set's states can be drawn once and read many times: drawing them
is most of a step of BCQ. `CandidateCache` draws them anew in turns, so that over a training run a state meets as many
different candidates as `Fresh` would show it in as many turns.
"""

from __future__ import annotations

import abc
import math
import tempfile
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from offline_vi.behavior.base import BehaviorModel, DensityModel, LatentModel
from offline_vi.data.transitions import Transitions
from offline_vi.errors import ConfigError
from offline_vi.nn.precision import full_precision
from offline_vi.types import Batch, Metrics


class Proposals(nn.Module, abc.ABC):
    """Candidate actions for the states of a batch."""

    @abc.abstractmethod
    def at_obs(self, batch: Batch, num_samples: int) -> Tensor:
        """(N, B, A) for ``batch.obs``."""

    @abc.abstractmethod
    def at_next_obs(self, batch: Batch, num_samples: int) -> Tensor:
        """(N, B, A) for ``batch.next_obs``."""


@final
class Fresh(Proposals):
    """Drawn from the behaviour model for every batch."""

    def __init__(self, behavior: BehaviorModel) -> None:
        super().__init__()
        self.behavior = behavior

    def at_obs(self, batch: Batch, num_samples: int) -> Tensor:
        return self.behavior.sample(batch.obs, num_samples)

    def at_next_obs(self, batch: Batch, num_samples: int) -> Tensor:
        return self.behavior.sample(batch.next_obs, num_samples)


class Scheduled(abc.ABC):
    """Something whose state is a function of the step alone; the training loop tells it the step."""

    @abc.abstractmethod
    def advance(self, step: int) -> None:
        """``step`` (from 1) is about to be taken. Costs little where the step before was announced too; else, after a
        resume, everything is made as it would be by then."""


@final
class CandidateCache(Proposals, Scheduled):
    """Candidates of every row, drawn ahead from a frozen behaviour model and read by ``batch.index``.

    A table holds N candidates of every row in float16 (rows x N x A x 2 bytes), beyond ``memory_budget`` bytes in a
    memory map. It is made at first use, and redrawn piece by piece so that every row is new after ``period`` steps.
    What a piece holds depends on (seed, piece, turn) alone, so that a resumed run finds the same candidates.

    Raises ConfigError where the behaviour model is still being trained.
    """

    STRIDE = 50  # steps between two pieces

    def __init__(
        self,
        behavior: BehaviorModel,
        transitions: Transitions,
        *,
        period: int = 10_000,
        seed: int = 0,
        device: str | torch.device = "cpu",
        memory_budget: int = 2 << 30,
    ) -> None:
        super().__init__()
        if any(parameter.requires_grad for parameter in behavior.parameters()):
            raise ConfigError(
                "candidates are drawn ahead from a behaviour model that is still being trained",
                "fit it first, then freeze it: model.requires_grad_(False)",
            )
        self.behavior = behavior
        self.period, self.seed, self.device, self.memory_budget = period, seed, torch.device(device), memory_budget
        self._rows = {"obs": transitions.obs, "next_obs": transitions.next_obs}
        pieces = max(1, -(-period // self.STRIDE))
        self.piece = -(-len(transitions) // pieces)  # rows
        self.pieces = -(-len(transitions) // self.piece)
        self._tables: dict[tuple[str, int], Tensor] = {}
        self._step = 0
        self._files = tempfile.TemporaryDirectory(prefix="offline-vi-bank-", ignore_cleanup_errors=True)

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
        shape = (len(self._rows[field]), num_samples, self.behavior.spec.action_dim)
        if 2 * int(np.prod(shape)) <= self.memory_budget:
            return torch.empty(shape, dtype=torch.float16, device=self.device)
        path = Path(self._files.name) / f"{field}-{num_samples}.f16"
        return torch.from_numpy(np.memmap(path, np.float16, "w+", shape=shape))

    def _fill(self, key: tuple[str, int]) -> None:
        for piece in range(self.pieces):
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
            sample = self.behavior.sample(obs, num_samples)
        self._tables[key][rows] = sample.transpose(0, 1).to(self._tables[key])


class DecoderMeans(BehaviorModel):
    """Decoder means at clipped prior noise: what BCQ and BEAR call sampling (Fujimoto et al. 2019, z ~ N(0, 1) clipped
    to [-0.5, 0.5]). ``noise_clip=float("inf")`` decodes unclipped noise."""

    def __init__(self, model: LatentModel, noise_clip: float = 0.5) -> None:
        super().__init__()
        self.model = model
        self.noise_clip = noise_clip
        self.spec = model.spec

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        return self.model.loss(obs, action)

    def with_noise_clip(self, noise_clip: float) -> DecoderMeans:
        """The same model under another clip."""
        return DecoderMeans(self.model, noise_clip)

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        shape = (num_samples, *obs.shape[:-1], self.model.latent_dim)
        noise = torch.randn(shape, device=obs.device, dtype=obs.dtype).clamp(-self.noise_clip, self.noise_clip)
        return self.model.decode(obs, noise)


class MostLikelySamples(BehaviorModel):
    """The likelier samples of a density: of ``num_samples / keep`` drawn for a state, the ``num_samples`` with the
    highest log pi_beta.

    Full samples carry the tails of the behaviour's noise into a maximum over Q; these do not, and unlike decoder means
    they keep every mode. ``keep=1`` is the model itself.
    """

    def __init__(self, model: DensityModel, keep: float = 0.25, num_samples: int = 8) -> None:
        super().__init__()
        if not 0.0 < keep <= 1.0:
            raise ConfigError(f"keep = {keep} is no share of the samples", "in (0, 1]")
        self.model, self.keep, self.num_samples, self.spec = model, keep, num_samples, model.spec

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        return self.model.loss(obs, action)

    @torch.no_grad()
    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        drawn = self.model.sample(obs, math.ceil(num_samples / self.keep))  # (M, B, A)
        likely = self.model.log_prob(obs, drawn, self.num_samples)  # (M, B)
        best = likely.topk(num_samples, dim=0).indices  # (N, B)
        return drawn.gather(0, best.unsqueeze(-1).expand(-1, -1, drawn.shape[-1]))
