"""Pictures of what a model of images has learned, drawn without a display."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from offline_vi.algorithms.latent_planning import LatentPlanning
from offline_vi.data.frames import Frames, SequenceSampler
from offline_vi.study.plots import save_figure
from offline_vi.types import Batch
from offline_vi.world_model.dynamics import averaged


def windows(agent: LatentPlanning, data: Frames, count: int, steps: int, seed: int = 0) -> Batch:
    """``count`` sequences of up to ``steps`` steps of the data, frames stacked as the agent wants them."""
    longest = int(min(steps, data.lengths.max()))
    return SequenceSampler(data, count, longest, seed, stack=agent.config.stack).sample()


@torch.no_grad()
def decoded(agent: LatentPlanning, state: Tensor) -> np.ndarray:
    """States (..., S) -> (..., H, W): the newest frame of the decoder's mean, its first channels' mean, in [0, 1]."""
    shape = (agent.config.stack, -1, *agent.frame_shape[1:])
    mean: Tensor = agent.model.decoder(state).mean.unflatten(-1, shape)[..., -1, :, :, :]
    picture: np.ndarray = mean.mean(-3).clamp(0.0, 1.0).numpy()
    return picture


def newest(agent: LatentPlanning, obs: Tensor) -> np.ndarray:
    """Observations (..., K C, H, W) uint8 -> (..., H, W): the newest frame, in [0, 1]."""
    frame = obs.unflatten(-3, (agent.config.stack, -1))[..., -1, :, :, :]
    picture: np.ndarray = frame.float().mean(-3).div(255.0).numpy()
    return picture


def grid(path: Path, rows: list[tuple[str, np.ndarray]], title: str, columns: list[str] | None = None) -> None:
    """Rows of pictures (T, H, W), each with its name."""
    from matplotlib.figure import Figure

    count = max(len(pictures) for _, pictures in rows)
    figure = Figure(figsize=(0.85 * count + 1.4, 0.92 * len(rows) + 0.6))
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, pictures) in zip(axes, rows, strict=True):
        for ax, picture in zip(line, pictures, strict=False):
            ax.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0)
        for ax in line:
            ax.set_xticks([])
            ax.set_yticks([])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for ax, column in zip(axes[0], columns or [], strict=False):
        ax.set_title(column, fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(pad=0.4, rect=(0.0, 0.0, 1.0, 0.99 - 0.12 / len(rows)))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)


def reconstructions(path: Path, agent: LatentPlanning, data: Frames, count: int = 10) -> None:
    """Frames that training did not see, the decoder's means at the posterior's means, and the differences."""
    obs = windows(agent, data, count, 1).obs[0]
    seen, made = newest(agent, obs), decoded(agent, agent.model.observe_first(obs))
    rows = [("data", seen), ("reconstructed", made), ("|difference|", np.abs(seen - made))]
    grid(path, rows, "reconstructions of held-out frames")


def imagined_frames(path: Path, agent: LatentPlanning, data: Frames, steps: int = 15, sequences: int = 3) -> None:
    """What the data's actions lead to, imagined from the first observation alone, next to what came."""
    batch = windows(agent, data, sequences, steps)
    state = agent.model.imagine(agent.model.observe_first(batch.obs[0]), batch.action.unsqueeze(1), averaged).state
    truth, made = newest(agent, batch.next_obs), decoded(agent, state[:, 0])
    rows = []
    for k in range(sequences):
        rows += [(f"truth {k + 1}", truth[:, k]), (f"imagined {k + 1}", made[:, k])]
    columns = [f"+{t + 1}" for t in range(len(truth))]
    grid(path, rows, "open loop: imagined from one observation and the actions", columns)


def traversals(path: Path, agent: LatentPlanning, data: Frames, most: int = 8, steps: int = 9) -> None:
    """One latent at a time moved over the range that it has in the data, the others at one datum's."""
    obs = windows(agent, data, 256, 1).obs[0]
    state = agent.model.observe_first(obs)
    size = agent.config.latent_dim
    latent = state[:, -size:]  # a state ends with its latent
    low, high = latent.quantile(0.02, dim=0), latent.quantile(0.98, dim=0)
    rows = []
    for z in torch.argsort(latent.std(0), descending=True)[:most].tolist():
        moved = state[:1].repeat(steps, 1)
        moved[:, moved.shape[1] - size + z] = torch.linspace(float(low[z]), float(high[z]), steps)
        rows.append((f"z[{z}]", decoded(agent, moved)))
    grid(path, rows, "latents from their 2 % to their 98 % quantile")
