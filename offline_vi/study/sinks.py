"""Where a run's numbers go in addition to its own files: TensorBoard, Weights & Biases. The files are the truth; these
repeat them row by row."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from offline_vi.errors import MissingDependencyError
from offline_vi.runs.directory import Listener

EPISODES = ("return", "length", "normalized")  # of an evaluation, their mean is shown


class Means:
    """The rows of a run's logs as (step, name -> value): of an evaluation's episodes the means, once all are there."""

    def __init__(self) -> None:
        self.step, self.episodes = -1, dict[str, list[float]]()

    def read(self, log: str, row: Mapping[str, float | int | str]) -> list[tuple[int, dict[str, float]]]:
        """What a new row makes known."""
        step = int(row["step"])
        if log == "episodes.csv":
            known = self.finish() if step != self.step else []
            self.step = step
            for name in EPISODES:
                value = float(row[name])
                if math.isfinite(value):
                    self.episodes.setdefault(f"evaluation/{name}", []).append(value)
            return known
        numbers = {name: float(value) for name, value in row.items() if name != "step" and not isinstance(value, str)}
        return [*self.finish(), (step, {name: value for name, value in numbers.items() if math.isfinite(value)})]

    def finish(self) -> list[tuple[int, dict[str, float]]]:
        """The evaluation so far."""
        means = {name: sum(values) / len(values) for name, values in self.episodes.items()}
        self.episodes = {}
        return [(self.step, means)] if means else []


class Writer(Protocol):
    """TensorBoard's `SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def close(self) -> None: ...


class WandBRun(Protocol):
    """What `wandb.init` returns."""

    def log(self, data: Mapping[str, float], step: int) -> None: ...
    def finish(self) -> None: ...


class TensorBoard:
    """RUN/tensorboard. What an earlier process wrote after ``first_step`` is taken back."""

    def __init__(self, path: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        make: Callable[..., Writer] = SummaryWriter
        self.writer = make(str(path / "tensorboard"), purge_step=first_step)
        self.means = Means()

    def row(self, log: str, row: Mapping[str, float | int | str]) -> None:
        self.write(self.means.read(log, row))

    def write(self, known: list[tuple[int, dict[str, float]]]) -> None:
        for step, numbers in known:
            for name, value in numbers.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.write(self.means.finish())
        self.writer.close()


class WandB:
    """A run of Weights & Biases under the run directory's name; WANDB_PROJECT and WANDB_MODE are its own variables."""

    def __init__(self, path: Path, config: Mapping[str, object]) -> None:
        import wandb

        self.run: WandBRun = wandb.init(
            name=path.name, id=path.name, resume="allow", dir=str(path), config=dict(config), reinit="finish_previous"
        )
        self.means = Means()

    def row(self, log: str, row: Mapping[str, float | int | str]) -> None:
        self.write(self.means.read(log, row))

    def write(self, known: list[tuple[int, dict[str, float]]]) -> None:
        for step, numbers in known:
            self.run.log(numbers, step=step)

    def close(self) -> None:
        self.write(self.means.finish())
        self.run.finish()


def check_sinks(names: Sequence[str]) -> None:
    """Check, before a run is made, that the packages are installed. Raises MissingDependencyError that names the
    missing extra."""
    for name in names:
        if name != "csv" and importlib.util.find_spec(name) is None:
            raise MissingDependencyError(f"--log {name} needs {name}", f"pip install 'offline-vi[{name}]'")


def listeners(names: Sequence[str], path: Path, config: Mapping[str, object], first_step: int) -> list[Listener]:
    """The listeners that --log asks for."""
    made: list[Listener] = []
    if "tensorboard" in names:
        made.append(TensorBoard(path, first_step))
    if "wandb" in names:
        made.append(WandB(path, config))
    return made
