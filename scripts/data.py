"""offline-vi data: list, describe, check, convert, download and collect data sets."""

from __future__ import annotations

import importlib
import json
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from offline_vi import datasets
from offline_vi.datasets.reading import Reading
from offline_vi.datasets.tasks import (
    MINARI_NAMES,
    PIXEL_NAMES,
    RECIPE_NAMES,
    RECIPES,
    Recipe,
    d4rl_hashes,
    d4rl_references,
    defects_of,
    family_of,
)
from offline_vi.errors import UsageError
from offline_vi.registry import data_sets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from offline_vi.data.columns import Columns

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE")]
WITHIN_EPISODE = Reading(next_obs="within_episode")
STORED = Reading(next_obs="within_episode")  # with the next observations that a file has
Json = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class List:
    """The data sets that have a name, and the environments that score them."""

    json: Json = False
    """Machine-readable output on stdout."""

    def run(self) -> None:
        rows = [
            *(
                {"name": name, "source": "plug-in", "env": "", "note": entry.summary}
                for name, entry in data_sets().items()
            ),
            *({"name": name, "source": "recipe", "env": recipe.env} for name, recipe in RECIPES.items()),
            *({"name": name, "source": "pixels", "env": env} for name, env in PIXEL_NAMES.items()),
            *({"name": name, "source": "D4RL"} | _d4rl_facts(name) for name in d4rl_references()),
            *({"name": name, "source": "Minari", "env": ""} for name in MINARI_NAMES),
        ]
        if self.json:
            _print_json(rows)
            return
        width = max(len(str(row["name"])) for row in rows)
        for row in rows:
            print(f"{row['name']:<{width}}  {row['source']:<7}  {row['env']:<22}  {row.get('note', '')}".rstrip())


@dataclass(frozen=True)
class Info:
    """What is in a data set: sizes, returns, actions, episode ends, known defects."""

    name: Name
    json: Json = False
    """Machine-readable output on stdout."""

    def run(self) -> None:
        record = describe(self.name)
        if self.json:
            _print_json(record)
            return
        for title, value in record.items():
            if isinstance(value, dict):
                value = "  ".join(f"{key} {_short(number)}" for key, number in value.items())
            elif isinstance(value, list):
                value = f"\n{'':<16}".join(map(str, value))
            print(f"{title:<16}{_short(value)}")


@dataclass(frozen=True)
class Check:
    """Read a data set (a file, a name, a folder of images) as training would, say what is wrong with it. Exit code 65
    where it cannot be used."""

    name: Name
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = WITHIN_EPISODE
    json: Json = False
    """Machine-readable output on stdout."""

    def run(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data: Any
            if self.name in PIXEL_NAMES or Path(self.name).is_dir():
                data = datasets.load_images(self.name, max_dataset_bytes=self.reading.max_dataset_bytes)
            else:
                data = datasets.load(self.name, reading=self.reading)
        messages = [str(warning.message) for warning in caught]
        if self.json:
            _print_json({"name": data.source.name, "rows": len(data), "warnings": messages})
            return
        for message in messages:
            print(f"warning: {message}")
        print(f"ok: {data.source.name}, {len(data):,} transitions, {len(data.episode_returns()):,} episodes")


@dataclass(frozen=True)
class Convert:
    """Write a data set as Minari's (NAME-v0) or as a file in D4RL's layout (FILE.hdf5): in physical units, the same
    transitions bit for bit."""

    source: Name
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME-v0|FILE.hdf5")]
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = STORED

    def run(self) -> None:
        from offline_vi.datasets.converting import convert

        print(convert(self.source, self.target, self.reading))
        print(f"read it as: --dataset {self.target} --next-obs within_episode")


@dataclass(frozen=True)
class Download:
    """Fetch a data set into D4RL's or Minari's own folder, verified where its hash is known."""

    name: Annotated[str, tyro.conf.Positional]

    def run(self) -> None:
        if datasets.is_registered(self.name):
            raise UsageError(f"{self.name} comes from a plug-in, there is nothing to download", "give it to --dataset")
        if self.name in (*RECIPE_NAMES, *PIXEL_NAMES):
            raise UsageError(f"{self.name} is collected, not downloaded", f"`offline-vi data collect {self.name}`")
        if self.name in d4rl_references():
            from offline_vi.datasets import d4rl

            print(d4rl.download(self.name))
            return
        if self.name not in MINARI_NAMES:
            raise datasets.unknown_name(self.name)
        from offline_vi.datasets import minari

        minari.download(self.name)
        minari.read(self.name)  # the guards: what came is refused now, not in a training run
        print(minari.folder_of(self.name))


@dataclass(frozen=True)
class Collect:
    """Make one of our own data sets."""

    recipe: Annotated[str, tyro.conf.Positional]
    episodes: int | None = None
    """Episodes to collect, of the pendulum and of images; default: the recipe's own number."""
    rows: int | None = None
    """Transitions to collect, of locomotion; default: the recipe's own number."""
    seed: int = 0
    """Same seed, same data."""

    def run(self) -> None:
        known = (*RECIPE_NAMES, *PIXEL_NAMES)
        if self.recipe not in known:
            raise UsageError(f"unknown recipe {self.recipe!r}", f"one of {', '.join(known)}")
        from offline_vi.datasets import minari

        if minari.is_local(self.recipe):
            raise UsageError(f"{minari.folder_of(self.recipe)} exists", "remove it to collect it anew")
        recipe = RECIPES.get(self.recipe, Recipe("pixels", "", "episodes"))
        size, other = ("rows", "episodes") if recipe.size == "rows" else ("episodes", "rows")
        if getattr(self, other) is not None:
            raise UsageError(f"{self.recipe} is measured in {size}", f"--{size} N")
        asked = {} if getattr(self, size) is None else {size: getattr(self, size)}
        module = importlib.import_module(f"offline_vi.datasets.{recipe.module}")
        print(module.collect(self.recipe, **asked, seed=self.seed))


def describe(source: str) -> dict[str, Any]:
    """The facts about a data set that `data info` prints, JSON values only."""
    import numpy as np

    columns, task, provenance = datasets.read(source)
    reward = columns.reward.reshape(-1).astype(np.float64)
    action = columns.action
    ends = _episode_ends(columns, task.max_episode_steps if task else None)
    returns, lengths = _per_episode(reward, ends)
    terminal = columns.terminal.reshape(-1).astype(bool)
    bounds = (np.array(task.action_low), np.array(task.action_high)) if task else (-1.0, 1.0)
    record: dict[str, Any] = {
        "name": provenance.name,
        "file": list(provenance.paths),
        "sha256": list(provenance.sha256),
        "rows": len(reward),
        "episodes": len(returns),
        "observations": list(columns.obs.shape[1:]),
        "actions": list(action.shape[1:]),
        "returns": _statistics(returns),
        "lengths": _statistics(lengths),
        "terminations": int(terminal.sum()),
        "timeouts": "no column" if columns.timeout is None else int(columns.timeout.sum()),
        "action range": {"min": float(action.min()), "max": float(action.max())},
        "on the bounds": f"{np.mean((action <= bounds[0]) | (action >= bounds[1])):.2%} of action entries",
        "next states": "taken from the next row" if columns.next_obs is None else "stored",
        "log-densities": "not stored" if columns.log_prob is None else "of the behaviour policy, stored",
    }
    if task is not None:
        record["normalized"] = _statistics(task.normalized(returns))
        record["environment"] = f"{task.env_id or 'none'} {json.dumps(task.kwargs) if task.kwargs else ''}".strip()
        record["note"] = task.note
    record["known defects"] = defects_of(provenance.name) or "none known"
    return record


def _episode_ends(columns: Columns, limit: int | None) -> NDArray[np.bool_]:
    """(N,) the last row of each episode; where there are no timeouts, episodes are cut after ``limit`` steps."""
    import numpy as np

    ends = columns.terminal.reshape(-1).astype(np.bool_)
    if columns.timeout is not None:
        return ends | columns.timeout.reshape(-1).astype(np.bool_)
    if limit is not None:
        rows = np.arange(len(ends))
        start = np.maximum.accumulate(np.where(np.append(True, ends[:-1]), rows, 0))
        ends = ends | ((rows - start) % limit == limit - 1)
    return ends


def _per_episode(reward: NDArray[np.float64], ends: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    import numpy as np

    starts = np.concatenate([[0], np.flatnonzero(ends[:-1]) + 1])
    return np.add.reduceat(reward, starts), np.diff(np.append(starts, len(reward)))


def _statistics(values: NDArray[Any]) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _d4rl_facts(name: str) -> dict[str, Any]:
    family = family_of(name)
    defects = "; ".join(defects_of(name))
    return {"env": family.env_id if family else "", "note": defects, "sha256": d4rl_hashes().get(name)}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_json(record: Any) -> None:
    json.dump(_finite(record), sys.stdout, indent=1)
    print()


def _finite(value: Any) -> Any:
    """JSON has no NaN: scores of tasks without reference returns become null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(arguments: list[str] | None = None) -> None:
    verbs: dict[str, Callable[..., Any]] = {
        "list": List,
        "info": Info,
        "check": Check,
        "convert": Convert,
        "download": Download,
        "collect": Collect,
    }
    command = tyro.extras.subcommand_cli_from_dict(
        verbs,
        args=arguments,
        prog="offline-vi data",
        description="List, describe, check, convert, download, collect data sets.",
    )
    command.run()


if __name__ == "__main__":
    main()
