"""How noisy the gradient estimators of the ELBO are: a table and a picture.

    python benchmarks/gradient_variance.py --output docs/figures

The model is a linear Gaussian one with a diagonal q beside its posterior; the gradient is that of the ELBO with respect
to q's mean and log-scale (four numbers). Every estimator has the same expectation; shown is the total variance (the sum
over the four) times the number of samples K, so that an estimator gains nothing by averaging.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch

from offline_vi.distributions.normal import DiagonalNormal
from offline_vi.inference.bounds import elbo
from offline_vi.inference.latent import LinearGaussian
from offline_vi.inference.posterior import DiagonalLocalPosterior

matplotlib.use("Agg")
from matplotlib import pyplot as plt

WEIGHT = [[1.0, 0.5], [0.3, 1.2], [-0.4, 0.8]]
DATUM, MEAN, SCALE = [1.0, -0.5, 0.8], [0.3, -0.2], [0.6, 0.4]


def total_variance(estimator: str, num_samples: int, replicates: int) -> tuple[float, list[float]]:
    """(K x total variance, mean gradient) over independent replicates: one datum each."""
    model = LinearGaussian(torch.tensor(WEIGHT).double(), torch.zeros(3).double(), 0.5)
    init = DiagonalNormal(torch.tensor(MEAN).double(), torch.tensor(SCALE).double().log())
    posterior = DiagonalLocalPosterior(init.expand((replicates,)))
    x = torch.tensor(DATUM).double().expand(replicates, 3)
    bound = elbo(model, posterior, x, num_samples=num_samples, estimator=estimator)
    gradient = torch.cat(torch.autograd.grad(bound.objective.sum(), [posterior.loc, posterior.log_scale]), -1)
    return float(num_samples * gradient.var(0).sum()), gradient.mean(0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=200_000, help="independent gradients (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rows = [("stl", 1), ("dreg", 1), ("analytic", 1), ("reparam", 1), ("score", 4), ("score", 1)]
    print(f"{'estimator':<12}{'K':>3}{'K x total variance':>20}   mean gradient (means, log-scales)")
    values = []
    for estimator, num_samples in rows:
        value, mean = total_variance(estimator, num_samples, options.replicates)
        values.append(value)
        print(f"{estimator:<12}{num_samples:>3}{value:>20.3f}   {' '.join(f'{entry:+.3f}' for entry in mean)}")
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    axes.barh([f"{name}, K = {k}" for name, k in rows], values, color="#0b6e99")
    for place, value in enumerate(values):
        axes.text(value * 1.08, place, f"{value:.3g}", va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(right=max(values) * 3)
    axes.invert_yaxis()
    axes.set_xlabel("K x total variance of the gradient (log scale)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(options.output / "gradient_variance.png", dpi=120)


if __name__ == "__main__":
    main()
