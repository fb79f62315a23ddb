"""What an episode of the better half of a data set is worth from its start, and one of the other half, at a discount.

    python benchmarks/horizon.py --output FOLDER [--data NAME|FILE+FILE ...]

Better is the half of the rows in the episodes of the highest returns. Values are mean discounted sums of the rewards
that the data hold; what would follow a time limit counts as nothing. horizon.md and horizon.png.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from offline_vi import datasets
from offline_vi.data.transitions import Transitions
from offline_vi.data.weights import Best
from offline_vi.rl.returns import lambda_returns

DISCOUNTS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.997, 0.999)
SHIPPED = tuple(f"offline-vi/{robot}/medium-expert-v0" for robot in ("hopper", "walker2d", "halfcheetah"))


def values(data: Transitions) -> NDArray[np.float64]:
    """(2, D): of the other and of the better half, at each discount."""
    starts = np.array([rows.start for rows in data.episode_slices()])
    better = Best(0.5)(data)[starts] > 0.0
    reward, nothing = data.reward.astype(np.float64), np.zeros((1, len(data)))
    ends = data.terminated, data.episode_end
    found = [lambda_returns(reward, nothing, *ends, discount, 1.0)[0, starts] for discount in DISCOUNTS]
    return np.array([[value[half].mean() for value in found] for half in (~better, better)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of table and picture")
    parser.add_argument("--data", nargs="+", default=SHIPPED, help="names or files; FILE+FILE are joined")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(3.6 * len(options.data), 3.0))
    panels = figure.subplots(1, len(options.data), squeeze=False)[0]
    lines = [f"| data set | half | {' | '.join(map(str, DISCOUNTS))} |", "|---" * (2 + len(DISCOUNTS)) + "|"]
    for panel, name in zip(panels, options.data, strict=True):
        title = " + ".join(re.sub(r".*/(?=[^/]*\.hdf5)", "", part) for part in name.split("+"))
        other, better = values(datasets.load(*name.split("+")))
        for half, value in (("other", other), ("better", better)):
            lines.append(f"| {title} | {half} | {' | '.join(f'{one:.0f}' for one in value)} |")
        panel.plot(range(len(DISCOUNTS)), better / other, marker="o", color="#0b6e99")
        panel.axhline(1.0, color="#9aa5b1", linewidth=1)
        panel.set_xticks(range(len(DISCOUNTS)), [f"{discount:g}" for discount in DISCOUNTS], fontsize=7)
        panel.set_title(title.removeprefix("offline-vi/"), fontsize=9)
        panel.set_xlabel("discount")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("value of the better half\nover that of the other")
    figure.tight_layout()
    figure.savefig(options.output / "horizon.png", dpi=130)
    (options.output / "horizon.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
