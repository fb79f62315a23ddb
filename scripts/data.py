"""offline-vi data: list, describe, check, convert, download and collect data sets."""

from __future__ import annotations

import importlib
import json
import math
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from offline_vi import datasets
from offline_vi.datasets.local import local_names
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
from offline_vi.errors import DataError, UsageError
from offline_vi.joined import JOIN, short_name
from offline_vi.ranges import check_numbers
from offline_vi.registry import data_sets
from offline_vi.study.flags import described, plain

if TYPE_CHECKING:
    from offline_vi.data.report import DataReport

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE")]
AS_TRAINED = Reading()
LENIENT = {  # how data are read that training would refuse
    "action_range": "clip",
    "on_nonfinite": "split",
    "discrete_actions": "continuous",
    "max_episode_steps": 1 << 40,
}
SATURATED = 0.25  # share of action entries on the bounds above which a tanh-Normal is a poor model
FEW = 6  # features that are printed one by one
STORED = Reading(next_obs="within_episode")  # with the next observations that a file has
Json = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class List:
    """List the data sets that have a name, mark those in Minari's folder on this machine ("here"), and name the
    environments that score them."""

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
        local, known = local_names(), {str(row["name"]) for row in rows}
        rows += [{"name": name, "source": "Minari", "env": ""} for name in local if name not in known]
        rows = [row | {"local": row["name"] in local} for row in rows]
        if self.json:
            _print_json(rows)
            return
        width = max(len(str(row["name"])) for row in rows)
        for row in rows:
            here = "here" if row["local"] else ""
            print(
                f"{row['name']:<{width}}  {row['source']:<7}  {here:<4}  {row['env']:<22}  "
                f"{row.get('note', '')}".rstrip()
            )


@dataclass(frozen=True)
class Info:
    """Describe a data set: rows, episodes, returns, ends, ranges, units, known defects, and what training would drop.
    No environment is made. Where training would refuse the data, the reason is shown along with everything else."""

    name: Name
    """Name of a data set, or a file."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = AS_TRAINED
    json: Json = False
    """Machine-readable output on stdout."""

    def run(self) -> None:
        record = describe(self.name, self.reading)
        if self.json:
            _print_json(record)
        else:
            _print_table(record)


@dataclass(frozen=True)
class Check:
    """Read data sets (files, names, a folder of images) exactly as training would with the same options, and report
    what is in them and what training would drop. Several are each read alone and then joined, as for `--dataset`. With
    --env, that environment is made, and its spaces and the limit of its episodes are checked as well. The exit code is
    65 if the data cannot be used."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE ...")]
    """Names of data sets, or files."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = AS_TRAINED
    json: Json = False
    """Machine-readable output on stdout."""

    def run(self) -> None:
        if not self.names:
            raise UsageError("no data set is given", "name one, or several: FILE MORE ...")
        first, *more = self.names
        if not more and (first in PIXEL_NAMES or Path(first).is_dir()):
            record = _images(first, self.reading)
        else:
            record = _record(datasets.inspect(first, *more, reading=self.reading))
            if self.reading.env and not self.reading.unscored:
                record["limit of episodes"] = f"{_limit(self.names, self.reading)} steps"
        if self.json:
            _print_json(record)
            return
        for message in record["warnings"]:
            print(f"warning: {message}")
        name, rows, episodes = (record[key] for key in ("name", "transitions", "training episodes"))
        print(f"ok: {short_name(name)}, {rows:,} transitions, {episodes:,} episodes")
        _print_table({title: value for title, value in record.items() if title not in ("name", "warnings")})


@dataclass(frozen=True)
class Convert:
    """Write a data set as a Minari data set (NAME-v0) or as a file in D4RL's layout (FILE.hdf5). Actions are in
    physical units, and the transitions stay the same bit for bit."""

    source: Name
    """Name of a data set, or a file."""
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME-v0|FILE.hdf5")]
    """What is written: a Minari data set of this name, or a file in D4RL's layout."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = STORED

    def run(self) -> None:
        from offline_vi.datasets.converting import convert

        print(convert(self.source, self.target, self.reading))
        print(f"read it as: --dataset {self.target} --next-obs within_episode")


@dataclass(frozen=True)
class Download:
    """Download a data set into D4RL's or Minari's own folder. It is verified where its hash is known."""

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
        minari.read(minari.describe(self.name))  # the guards: what came is refused now, not in a training run
        print(minari.folder_of(self.name))


@dataclass(frozen=True)
class Collect:
    """Make one of the library's own data sets."""

    recipe: Annotated[str, tyro.conf.Positional]
    episodes: int | None = None
    """Episodes to collect, of the pendulum and of images; default: the recipe's own number."""
    rows: int | None = None
    """Transitions to collect, of locomotion; default: the recipe's own number."""
    seed: int = 0
    """Seed of the collection: the same seed gives the same data."""

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


def describe(source: str, reading: Reading = AS_TRAINED) -> dict[str, Any]:
    """The facts about a data set that `data info` prints, JSON values only."""
    if source in PIXEL_NAMES or Path(source).is_dir():
        return _images(source, reading)
    try:
        return _record(datasets.inspect(source, reading=reading))
    except DataError as error:
        for ways in ({}, {"next_obs": "within_episode"}):
            lenient = replace(reading, **LENIENT, **ways)  # type: ignore[arg-type]
            with suppress(DataError):
                return _record(datasets.inspect(source, reading=lenient)) | {"training refuses": str(error)}
        raise


def saturated(share: float) -> str:
    """What follows for the behavior model if so many action entries are on the bounds; empty for few."""
    return "; prefer --behavior least-squares, or --preset recommended" if share > SATURATED else ""


def _record(report: DataReport) -> dict[str, Any]:
    """A report under the titles that are printed."""
    ends, observations, actions = report.ends, report.observations, report.actions
    record: dict[str, Any] = {
        "name": report.name,
        "file": list(report.paths),
        "sha256": list(report.sha256),
        "rows": report.rows,
        "episodes": report.episodes,
        "transitions": report.transitions,
        "training episodes": report.training_episodes,
        "dropped rows": report.dropped,
        "dropped episodes": report.dropped_episodes,
        "returns": report.returns._asdict(),
        "lengths": report.lengths._asdict(),
        "terminations": ends.terminal,
        **({} if ends.failed is None else {"failures": ends.failed}),
        "timeouts": "no column" if ends.timeout is None else ends.timeout,
        "other ends": {"limit of steps": ends.limit, "not marked": ends.unmarked, "unfinished": ends.open},
        "observations": [len(observations.low)],
        "observation range": {"min": list(observations.low), "max": list(observations.high)},
        "constant observations": list(observations.constant),
        "equal observations": [list(pair) for pair in observations.duplicated],
        "actions": [len(actions.low)],
        "action kind": report.action_kind,
        "action range": {"min": list(actions.low), "max": list(actions.high)},
        "constant actions": list(actions.constant),
        "equal actions": [list(pair) for pair in actions.duplicated],
        "-1 stands for": list(report.action_low),
        "+1 stands for": list(report.action_high),
        "on the bounds": f"{report.on_bounds:.2%} of action entries" + saturated(report.on_bounds),
        "next observations": "stored" if report.next_obs_stored else "not stored",
        "next_obs": report.next_obs,
        "log-densities": "of the behavior policy, stored" if report.log_prob_stored else "not stored",
    }
    if report.scores is not None:
        record["normalized"] = report.scores._asdict()
    record["environment"] = report.environment or "none"
    record["note"] = report.note
    names = report.name.split(JOIN)
    defects = [f"{name}: {text}" if len(names) > 1 else text for name in names for text in defects_of(name)]
    record["known defects"] = list(dict.fromkeys(defects)) or "none known"
    return record | {"warnings": list(report.warnings)}


def _limit(names: tuple[str, ...], reading: Reading) -> int | None:
    """Steps after which an episode is cut on the environment that the reading names. Raises what training would, where
    the environment does not suit the data."""
    from offline_vi.study.data import check_task

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `inspect` has reported them
        return check_task(datasets.load(*names, reading=reading))


def _images(source: str, reading: Reading) -> dict[str, Any]:
    """The facts about a data set of images, read as `train-pixels` reads it."""
    from offline_vi.data.report import Statistics

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = datasets.load_images(source, max_dataset_bytes=reading.max_dataset_bytes)
    return {
        "name": data.source.name,
        "rows": len(data),
        "episodes": len(data.lengths),
        "transitions": len(data),
        "training episodes": len(data.lengths),
        "frames": list(data.frames.shape),
        "actions": [data.spec.action_dim],
        "returns": Statistics.of(data.episode_returns())._asdict(),
        "lengths": Statistics.of(data.lengths)._asdict(),
        "terminations": int(data.terminated.sum()),
        "environment": data.task.env_id if data.task else "none",
        "warnings": [str(warning.message) for warning in caught],
    }


def _d4rl_facts(name: str) -> dict[str, Any]:
    family = family_of(name)
    defects = "; ".join(defects_of(name))
    return {"env": family.env_id if family else "", "note": defects, "sha256": d4rl_hashes().get(name)}


def _print_table(record: dict[str, Any]) -> None:
    """One line for each title; numbers for each feature only where there are few."""
    for title, value in record.items():
        print(f"{title:<24}{_short(value)}".rstrip())


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_short(entry)}" for key, entry in value.items())
    if isinstance(value, list) and value and all(isinstance(entry, float) for entry in value):
        return " ".join(map(_short, value)) if len(value) <= FEW else f"{_short(min(value))} to {_short(max(value))}"
    if isinstance(value, list):
        return ", ".join(map(_short, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_json(record: Any) -> None:
    json.dump(_finite(record), sys.stdout, indent=1)
    print()


def _finite(value: Any) -> Any:
    """JSON has no NaN: scores of tasks without reference returns become null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(arguments: list[str] | None = None) -> None:
    verbs: dict[str, type[Any]] = {
        "list": List,
        "info": Info,
        "check": Check,
        "convert": Convert,
        "download": Download,
        "collect": Collect,
    }
    command = tyro.extras.subcommand_cli_from_dict(
        {name: described(kind) for name, kind in verbs.items()},
        args=arguments,
        prog="offline-vi data",
        description="List, describe, check, convert, download, collect data sets.",
    )
    check_numbers(command)
    plain(command, next(kind for kind in verbs.values() if isinstance(command, kind))).run()


if __name__ == "__main__":
    main()
