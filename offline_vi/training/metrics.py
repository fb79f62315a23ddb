"""Metrics of a training run: means over log intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from offline_vi.errors import ConfigError, unknown
from offline_vi.types import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(repr=False)
class History:
    """One row of means per log interval, as written to metrics.csv."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def column(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The values of one metric over the rows that have it."""
        return np.array([row[name] for row in self.rows if name in row], np.float64)

    @property
    def names(self) -> list[str]:
        """The metrics that any row has."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name != "step"))

    def plot(self, *names: str) -> Figure:
        """Each metric over gradient steps, a panel each; of ``names`` alone where they are given.

        Raises UsageError for an unknown metric, with the nearest one.
        """
        from offline_vi.training.picture import Picture  # here, not above: matplotlib

        for name in names:
            if name not in self.names:
                raise unknown(name, self.names, "metric")
        chosen = list(names or self.names) or ["no metrics"]
        figure = Picture(figsize=(4.2 * min(len(chosen), 3), 2.9 * -(-len(chosen) // 3)), layout="constrained")
        axes = figure.subplots(-(-len(chosen) // 3), min(len(chosen), 3), squeeze=False)
        for ax in axes.flat[len(chosen) :]:
            ax.axis("off")
        for ax, name in zip(axes.flat, chosen, strict=False):
            steps = [row["step"] for row in self.rows if name in row]
            ax.plot(steps, self.column(name), marker="o" if len(steps) == 1 else "")  # a line of one point is none
            ax.set_title(name, fontsize=10, parse_math=False)
            ax.set_xlabel("gradient steps", fontsize=8)
            ax.grid(alpha=0.25)
        return figure

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no rows)"
        last = {name: f"{value:.4g}" for name, value in self.rows[-1].items() if name != "step"}
        metrics = ", ".join(f"{name} {value}" for name, value in last.items())
        return f"History({len(self.rows)} rows, up to step {self.rows[-1]['step']:,.0f}: {metrics})"


class IntervalMean:
    """Means of metrics over a log interval, each over the steps that had it, summed in float64 and read once."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.seeds: torch.Size | None = None  # the shape of metrics with one value per seed

    def add(self, metrics: Metrics | None) -> None:
        """One step's metrics: each a number, or one per seed. Raises ConfigError for anything else."""
        for name, value in (metrics or {}).items():
            value = self._number(name, value)
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def _number(self, name: str, value: Tensor | float) -> Tensor:
        try:
            number = torch.as_tensor(value).detach().double()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"the metric {name!r} is a {type(value).__name__}", "a metric is a number") from error
        if number.ndim:
            self.seeds = self.seeds or number.shape
            if number.ndim > 1 or number.shape != self.seeds:
                raise ConfigError(
                    f"the metric {name!r} has shape {tuple(number.shape)}", "take a mean: metrics are numbers"
                )
        return number

    def finite(self) -> bool:
        """Whether everything added so far is finite, of one seed at least where several train side by side: one
        synchronisation."""
        if not self.sums:
            return True
        return bool(torch.stack(torch.broadcast_tensors(*self.sums.values())).isfinite().all(0).any())

    def read(self) -> dict[str, float]:
        """The means, one per seed (``name.0``, ``name.1``, ...) where there are several; starts the next interval."""
        means: dict[str, float] = {}
        for name, value in self.sums.items():
            labels = [f"{name}.{seed}" for seed in range(len(value))] if value.ndim else [name]
            means |= dict(zip(labels, (value.reshape(-1) / self.counts[name]).tolist(), strict=True))
        self.sums, self.counts = {}, {}
        return means

    def state(self) -> dict[str, Any]:
        """JSON-ready: floats survive JSON exactly."""
        return {"counts": self.counts, "sums": {name: value.tolist() for name, value in self.sums.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises ValueError where it is no such state."""
        counts = dict(state["counts"])
        sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in state["sums"].items()}
        counted = all(type(count) is int and count > 0 for count in counts.values())
        if not counted or counts.keys() != sums.keys() or any(value.ndim > 1 for value in sums.values()):
            raise ValueError("the sums of the metrics are none")
        self.counts, self.sums = counts, sums


def over_seeds(row: Mapping[str, float]) -> dict[str, float]:
    """The row with ``name.0``, ``name.1``, ... of seeds side by side as one mean under ``name``."""
    values: dict[str, list[float]] = {}
    for name, value in row.items():
        base, _, seed = name.rpartition(".")
        values.setdefault(base if seed.isdigit() else name, []).append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}
