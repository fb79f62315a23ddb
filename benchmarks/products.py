"""The matrix products of a training step alone: what a step would take if nothing else cost anything.

    python benchmarks/products.py docs/results/speed/*.json --figure docs/figures/speed.png

`products_of` watches steps as they run, keeps every product with its operands, and gives a function that multiplies
them again, step by step: no losses, no activations, no optimizers, no Python between two products but a loop. The
command draws what `scripts/compare_speed.py --json` measured: the step of each contender over these.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ops: Any = torch.ops.aten
PRODUCTS = {ops.mm.default, ops.addmm.default, ops.bmm.default, ops.baddbmm.default}
PEERS = ("jax", "d3rlpy", "numpy", "pytorch", "sb3")
PEER, WRITTEN, COMPILED = "#9aa5b1", "#7fb8d4", "#0b6e99"
Call = tuple[Any, list[Any], dict[str, Any]]


class Watched(TorchDispatchMode):
    """The products that are computed within, with copies of their operands (and the layout of these)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            operands = [arg.detach().clone() if isinstance(arg, Tensor) else arg for arg in args]
            self.calls.append((func, operands, kwargs or {}))
        return func(*args, **(kwargs or {}))


def products_of(step: Callable[[], object], period: int = 1) -> Callable[[], None]:
    """The products of ``period`` steps, which differ from one to the next; each call multiplies those of one."""
    kinds: list[list[Call]] = []
    for _ in range(period):
        with Watched() as watched:
            step()
        kinds.append(watched.calls)
    turns = itertools.cycle(kinds)

    @torch.no_grad()
    def products() -> None:
        for func, operands, settings in next(turns):
            func(*operands, **settings)

    return products


# ------------------------------------------------------------------ the figure


def over_products(milliseconds: dict[str, list[float]]) -> dict[str, float]:
    """Contender -> its time over that of its algorithm's products alone, medians of rounds."""
    medians = {name: statistics.median(times) for name, times in milliseconds.items()}
    found = {}
    for name in medians:
        own = max((base for base in medians if base.endswith(" products") and name.startswith(base[:-9])), default="")
        if own and own != name:
            found[name] = medians[name] / medians[own]
        elif name.split()[0] == "bcq" and "bcq published products" in medians and name != "bcq published products":
            found[name] = medians[name] / medians["bcq published products"]  # of peers
    return {name: value for name, value in found.items() if not name.endswith(" products")}


def draw(records: dict[str, dict[str, list[float]]], path: Path) -> None:
    """A panel for each machine, a bar for each contender."""
    figure = Figure(figsize=(8.0, 0.24 * sum(map(len, records.values())) + 1.2), layout="constrained")
    heights = [max(len(over_products(times)), 1) for times in records.values()]
    axes = figure.subplots(len(records), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (machine, times) in zip(axes, records.items(), strict=True):
        ratios = over_products(times)
        names = sorted(ratios, key=lambda name: name.split()[0], reverse=True)
        colors = [
            PEER if any(word in name for word in PEERS) else COMPILED if "compiled" in name else WRITTEN
            for name in names
        ]
        bars = ax.barh(names, [ratios[name] for name in names], color=colors)
        ax.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
        ax.margins(y=0.01)
        ax.axvline(1.0, color="#1f2933", linewidth=1)
        ax.tick_params(labelsize=8)
        ax.set_title(machine, fontsize=9, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel(
        "time of a step / time of its matrix products alone (1: nothing else costs anything)", fontsize=9
    )
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+", type=Path, help="what `compare_speed --json` wrote; a machine each")
    parser.add_argument("--figure", type=Path, required=True, help="the picture")
    options = parser.parse_args()
    draw({path.stem: json.loads(path.read_text())["milliseconds"] for path in options.records}, options.figure)


if __name__ == "__main__":
    main()
