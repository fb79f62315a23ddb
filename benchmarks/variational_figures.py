"""The three figures of docs/variational.md.

python benchmarks/variational_figures.py --output docs/figures        (about a minute on one core)
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

from offline_vi.behavior import CVAE, CVAEConfig
from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.inference.bounds import iwae
from offline_vi.inference.latent import LinearGaussian
from offline_vi.inference.posterior import DiagonalLocalPosterior
from offline_vi.types import Spec

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BLUE, ORANGE, GREY = "#0b6e99", "#c2410c", "#6b7280"
LINE = Spec((1,), 1)


def modes(distance: float, count: int) -> Tensor:
    """Two equally likely actions +-distance with standard deviation 0.05."""
    return distance * torch.sign(torch.randn(count, 1)) + 0.05 * torch.randn(count, 1)


def fitted(config: CVAEConfig, distance: float, steps: int = 1500) -> CVAE:
    torch.manual_seed(0)
    model = CVAE(LINE, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(torch.zeros(256, 1), modes(distance, 256))[0].backward()
        optimizer.step()
    return model.eval()


def small(config: CVAEConfig) -> CVAEConfig:
    return CVAEConfig(hidden=(64, 64), likelihood=config.likelihood, prior=config.prior, encoder=config.encoder)


def multimodal(output: Path) -> None:
    """Two modes; what regression, one Normal and a CVAE make of them."""
    samples = fitted(small(CVAEConfig.gaussian(LINE)), 0.5).sample(torch.zeros(1, 1), 20_000)[:, 0, 0].numpy()
    grid = np.linspace(-1, 1, 400)
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    axes.hist(modes(0.5, 20_000)[:, 0].numpy(), bins=100, range=(-1, 1), density=True, color="#d1d5db", label="data")
    axes.hist(samples, bins=100, range=(-1, 1), density=True, histtype="step", color=BLUE, linewidth=1.6, label="CVAE")
    scale = math.sqrt(0.25 + 0.05**2)
    density = np.exp(-0.5 * (grid / scale) ** 2) / scale / math.sqrt(2 * math.pi)
    axes.plot(grid, density, color=ORANGE, linewidth=1.6, label="one Normal")
    axes.axvline(0, color=GREY, linestyle="--", linewidth=1.4, label="regression: E[a|s]")
    axes.set_xlabel("action")
    axes.set_ylabel("density")
    finish(figure, axes, output / "multimodal.png")


def closing(output: Path) -> None:
    """IWAE_K rises from the ELBO to log p."""
    weight = torch.tensor([[1.0, 0.5], [0.3, 1.2], [-0.4, 0.8]]).double()
    model = LinearGaussian(weight, torch.zeros(3).double(), 0.5)
    x = torch.tensor([[1.0, -0.5, 0.8]]).double()
    q = DiagonalLocalPosterior(
        DiagonalNormal(torch.tensor([[0.3, -0.2]]).double(), torch.tensor([[0.6, 0.4]]).double().log())
    )
    counts = [2**power for power in range(11)]
    torch.manual_seed(0)
    values = [average(model, q, x, count) for count in counts]
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    axes.axhline(float(model.log_prob(x)), color=GREY, linestyle="--", label="log p(x), exact")
    axes.plot(counts, values, color=BLUE, marker="o", markersize=4, label="IWAE_K")
    axes.plot(counts[:1], values[:1], color=ORANGE, marker="s", markersize=7, linestyle="", label="ELBO (K = 1)")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("samples K")
    axes.set_ylabel("nats")
    finish(figure, axes, output / "closing.png")


@torch.no_grad()
def average(model: LinearGaussian, q: DiagonalLocalPosterior, x: Tensor, num_samples: int) -> float:
    """The mean of IWAE_K over 3,000 draws."""
    return float(torch.stack([iwae(model, q, x, num_samples=num_samples).elbo for _ in range(3_000)]).mean())


def collapse(output: Path) -> None:
    """With the published scale the decoder's two answers merge where d^2 + 0.05^2 <= 1/8."""
    distances = np.array([0.2, 0.3, 0.34, 0.36, 0.4, 0.5, 0.6])
    found = []
    for distance in distances:
        model = fitted(small(CVAEConfig.published(LINE)), float(distance))
        decoded = model.decode(torch.zeros(1, 1), torch.randn(4000, 1, 2)).abs().mean().item()
        found.append(decoded)
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    axes.plot(distances, distances, color=GREY, linestyle="--", label="the data's modes")
    axes.plot(distances, found, color=BLUE, marker="o", label="mean |decoded action|, sigma^2 = 1/8")
    axes.axvline(math.sqrt(1 / 8 - 0.05**2), color=ORANGE, linewidth=1.4, label="threshold d^2 + s^2 = sigma^2")
    axes.set_xlabel("half distance d of the modes")
    axes.set_ylabel("action")
    finish(figure, axes, output / "collapse.png")


def finish(figure: plt.Figure, axes: plt.Axes, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for draw in (closing, multimodal, collapse):
        draw(options.output)


if __name__ == "__main__":
    main()
