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

    rows: list[dict[str, float]] = field(default_factory=list)  # metric -> mean, "step" among them

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
        self.parts: dict[torch.Size, Sums] = {}  # numbers, and numbers per seed

    def add(self, metrics: Metrics | None, steps: int = 1) -> None:
        """One step's metrics, or their sums over several: each a number, or one per seed. Raises ConfigError for
        anything else."""
        values = metrics or {}
        device = next((value.device for value in values.values() if isinstance(value, Tensor)), None)
        alike: dict[torch.Size, dict[str, Tensor]] = {}
        for name, value in values.items():
            number = self._number(name, value, device)
            alike.setdefault(number.shape, {})[name] = number
        for shape, numbers in alike.items():
            self._part(shape).add(numbers, steps)

    def _number(self, name: str, value: Tensor | float, device: torch.device | None) -> Tensor:
        try:
            number = torch.as_tensor(value, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"the metric {name!r} is a {type(value).__name__}", "a metric is a number") from error
        seeds = next((shape for shape in self.parts if shape), number.shape)
        if number.ndim > 1 or (number.ndim and number.shape != seeds):
            raise ConfigError(
                f"the metric {name!r} has shape {tuple(number.shape)}", "take a mean: metrics are numbers"
            )
        return number if number.is_floating_point() else number.double()

    def _part(self, shape: torch.Size) -> Sums:
        if shape not in self.parts:
            self.parts[shape] = Sums(shape)
        return self.parts[shape]

    @property
    def sums(self) -> dict[str, Tensor]:
        """name -> the sum so far, () or (S,)."""
        return {name: part.total[row] for part in self.parts.values() for name, row in part.row.items()}

    @property
    def counts(self) -> dict[str, int]:
        """name -> over how many steps."""
        return {name: count for part in self.parts.values() for name, count in part.counts().items()}

    def finite(self) -> bool:
        """Whether everything added so far is finite, of one seed at least where several train side by side: one
        synchronisation."""
        finite = [part.total.isfinite().all(0) for part in self.parts.values()]
        return not finite or bool(torch.stack(torch.broadcast_tensors(*finite)).all(0).any())

    def read(self) -> dict[str, float]:
        """The means, one per seed (``name.0``, ``name.1``, ...) where there are several; starts the next interval."""
        means: dict[str, float] = {}
        for shape, part in self.parts.items():
            for (name, count), total in zip(part.counts().items(), part.total.cpu(), strict=True):
                labels = [f"{name}.{seed}" for seed in range(*shape)] if shape else [name]
                means |= dict(zip(labels, (total.reshape(-1) / count).tolist(), strict=True))
        self.parts = {}
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
        self.parts = {}
        for name, value in sums.items():
            self._part(value.shape).add({name: value}, counts[name])


class Sums:
    """Sums of metrics of one shape, in one tensor: a step adds all of its metrics in one operation."""

    def __init__(self, shape: torch.Size) -> None:
        self.total = torch.zeros((0, *shape), dtype=torch.float64)  # (metrics, *shape)
        self.row: dict[str, int] = {}  # name -> row of the total
        self.rows: dict[tuple[str, ...], Tensor] = {}  # metrics that come together -> their rows of the total
        self.times: dict[tuple[str, ...], int] = {}  # how often they came

    def add(self, numbers: dict[str, Tensor], steps: int = 1) -> None:
        """The metrics of a step, or their sums over ``steps``."""
        names = tuple(numbers)
        values = torch.stack(list(numbers.values())).detach().double()
        if names not in self.rows or self.total.device != values.device:
            self._make_room(names, values.device)
        self.total.index_add_(0, self.rows[names], values)
        self.times[names] = self.times.get(names, 0) + steps

    def _make_room(self, names: tuple[str, ...], device: torch.device) -> None:
        self.row |= {name: len(self.row) + new for new, name in enumerate(n for n in names if n not in self.row)}
        fresh = self.total.new_zeros((len(self.row) - len(self.total), *self.total.shape[1:]))
        self.total = torch.cat([self.total, fresh]).to(device)
        known = {**self.rows, names: None}
        self.rows = {key: torch.tensor([self.row[name] for name in key], device=device) for key in known}

    def counts(self) -> dict[str, int]:
        """name -> over how many steps, in the order of the rows."""
        counts = dict.fromkeys(self.row, 0)
        for names, times in self.times.items():
            for name in names:
                counts[name] += times
        return counts


def over_seeds(row: Mapping[str, float]) -> dict[str, float]:
    """The row with ``name.0``, ``name.1``, ... of seeds side by side as one mean under ``name``."""
    values: dict[str, list[float]] = {}
    for name, value in row.items():
        base, _, seed = name.rpartition(".")
        values.setdefault(base if seed.isdigit() else name, []).append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}
