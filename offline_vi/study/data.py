"""Which data an experiment uses, as flags."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from offline_vi import datasets
from offline_vi.data.columns import FORMER_NEXT_OBS
from offline_vi.data.frames import Frames
from offline_vi.data.transitions import Transitions
from offline_vi.datasets.reading import NextObs, Reading
from offline_vi.errors import UsageError
from offline_vi.joined import JOIN
from offline_vi.types import from_json


def _next_obs(words: list[str]) -> NextObs:
    """The value of --next-obs, or of its former name --rows."""
    value: Any = FORMER_NEXT_OBS.get(words[0], words[0])
    if value not in get_args(NextObs):
        raise ValueError(f"{words[0]} is none of {', '.join(get_args(NextObs))}")
    return value  # type: ignore[no-any-return]


_NEXT_OBS: PrimitiveConstructorSpec[NextObs] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="{following_row,within_episode}",
    instance_from_str=_next_obs,
    is_instance=lambda value: value in get_args(NextObs),
    str_from_instance=lambda value: [value],
)


@dataclass(frozen=True)
class DataOptions(Reading):
    """Which data to use, and how they are read."""

    # as in Reading, with the flag's former name
    next_obs: Annotated[NextObs, _NEXT_OBS, tyro.conf.arg(aliases=["--rows"])] = "following_row"
    """Where the next observations of a file in D4RL's layout come from. following_row: from the next row, as in D4RL's
    qlearning_dataset; within_episode: from the same episode alone, stored ones first, so that steps cut by time are
    kept. Tables and Minari's sets are always read as within_episode. --rows is the former name."""
    dataset: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME|FILE ...")] = ()
    """D4RL, Minari or offline-vi names, .hdf5 files, or tables (.csv, .tsv, .parquet) with --columns; several are each
    read alone and then joined."""

    @classmethod
    def from_record(cls, record: Any) -> DataOptions:
        """The options in a run's config.json, also in one that has ``rows`` for ``next_obs``. Raises ConfigError."""
        return from_json(cls(), current_names(record))  # type: ignore[no-any-return]

    @classmethod
    def of(cls, data: Transitions) -> DataOptions:
        """How these data could be read again, as far as they say."""
        env = data.task.env_id if data.task is not None else ""
        names = data.source.name.split(JOIN)
        named = len(names) == len(data.source.paths)
        found = [_by_name(name, path) for name, path in zip(names, data.source.paths, strict=True)] if named else []
        return cls(
            dataset=tuple(found) or data.source.paths,
            next_obs=data.source.next_obs,
            columns=data.source.columns,
            env=env,
            **data.source.rules,
        )

    def load(self) -> Transitions:
        """Raises UsageError where no data set is given, and what `datasets.load` raises."""
        if not self.dataset:
            raise UsageError(
                "no data set is given", "add --dataset NAME or --dataset FILE.hdf5; `offline-vi data list`"
            )
        return datasets.load(*self.dataset, reading=self)


def _by_name(name: str, path: str) -> str:
    """What reads a data set again: its name where that is Minari's or ours, which is not one file; else the file."""
    with suppress(UsageError):
        if datasets.is_minari(name):
            return name
    return path


def current_names(record: Any) -> Any:
    """What config.json says about data and how they were read, with ``rows`` under its present name."""
    if not isinstance(record, dict) or "rows" not in record:
        return record
    rows = record["rows"]
    rest = {name: value for name, value in record.items() if name != "rows"}
    return {**rest, "next_obs": FORMER_NEXT_OBS.get(str(rows), rows)}


def check_task(data: Transitions | Frames) -> int | None:
    """Compare observation and action spaces of data and environment, before the first gradient step. Returns the steps
    after which an episode is cut, None where nothing is scored."""
    if data.task is None or not data.task.env_id:
        return None
    from offline_vi.datasets.task_choice import or_unscored
    from offline_vi.environments import check_spaces

    with or_unscored():
        if isinstance(data, Transitions):
            return check_spaces(data.spec, data.task, data.longest)
        return check_spaces(data.spec, data.task)
