"""Your own tables: CSV and Parquet files, whose columns another file describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from offline_vi.data.provenance import Provenance
from offline_vi.data.tables import columns_from_table
from offline_vi.datasets.columns_file import ColumnsFile, example, read_columns_file
from offline_vi.datasets.d4rl import check_hash
from offline_vi.datasets.finding import TABLES, absent
from offline_vi.datasets.reading import Read, Reading
from offline_vi.datasets.safe import delimited, parquet
from offline_vi.datasets.safe.delimited import FileTable
from offline_vi.datasets.safe.hdf5 import half_of_memory
from offline_vi.datasets.task_choice import episode_limit, task_of_file
from offline_vi.errors import DatasetTooLargeError, UsageError
from offline_vi.homes import expanded


def read(source: str, sha256: str | None, reading: Reading) -> Read:
    """The columns of a table, its task and where it came from.

    Ends of episodes and next observations are known: the rows are those of "within_episode". Raises MissingInputError,
    UsageError and ConfigError (no file of columns, or one that does not fit), DatasetFormatError, DatasetTooLargeError,
    DatasetCorruptError, MissingDependencyError, EmptyDatasetError.
    """
    path = expanded(source)
    if not path.is_file():
        raise absent(path)
    known = read_columns_file(expanded(reading.columns)) if reading.columns else None
    names, delimiter = _header(path, known.delimiter if known else "")
    if known is None:
        rows = [] if path.suffix == TABLES[-1] else delimited.first_rows(path, delimiter)
        kinds = {name: delimited.kind_of(cells) for name, cells in zip(names, zip(*rows, strict=False), strict=False)}
        raise UsageError(
            f"{path}: nothing says what its columns are: {', '.join(names[:50])}{', ...' * (len(names) > 50)}",
            f'name them in a file, columns="FILE.toml", such as{example(names, kinds)}',
        )
    known = replace(known, roles=known.roles.resolved(names, str(path)), delimiter=delimiter)
    reading = known.applied(reading)
    digest = check_hash(path, sha256)
    table = _table(path, known, reading)
    task = task_of_file(path.stem, (len(known.roles.obs), len(known.roles.action)), reading)
    parted = known.roles.episode or known.roles.timeout or known.roles.episode_gap is not None
    limit = None if parted else episode_limit(task, reading)
    columns = columns_from_table(table, known.roles, max_episode_steps=limit, name=str(path))
    where = Provenance(
        path.stem,
        (str(path),),
        (digest,),
        "within_episode",
        columns=reading.columns,
        obs_names=known.roles.obs,
        action_names=known.roles.action,
    )
    return Read(columns, task, where)


def _header(path: Path, delimiter: str) -> tuple[list[str], str]:
    if path.suffix == TABLES[-1]:
        return parquet.header(path), ""
    return delimited.header(path, delimiter)


def _table(path: Path, known: ColumnsFile, reading: Reading) -> FileTable:
    """The columns that the roles name. A table is read whole: one larger than the memory budget is refused."""
    roles = known.roles.named()
    names = list(dict.fromkeys(name for named in roles.values() for name in named))
    numbers = {name for role, named in roles.items() if role not in ("episode", "time") for name in named}
    texts = [name for name in (known.roles.episode, known.roles.time) if name and name not in numbers]
    remedies = {
        "max_dataset_bytes=N": reading.max_dataset_bytes,
        "memory_budget=N": reading.memory_budget or half_of_memory(),
    }
    remedy, bound = min(((remedy, bound) for remedy, bound in remedies.items() if bound), key=lambda pair: pair[1])
    if path.suffix == TABLES[-1]:
        return parquet.read(path, names, texts, bound, remedy)
    if (size := path.stat().st_size) > bound:
        raise DatasetTooLargeError(f"{path} has {size:,} bytes, {bound:,} are allowed", f"raise it: {remedy}")
    return delimited.read(path, names, texts, known.delimiter, known.decimal)
