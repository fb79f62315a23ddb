"""The file that says what the columns of a table are: ``--columns FILE.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from offline_vi.data.tables import LISTS, SINGLE, Roles
from offline_vi.datasets.reading import Reading
from offline_vi.errors import ConfigError, MissingInputError

MAX_BYTES = 1 << 20
NEEDED = ("obs", "action", "reward", "terminated")
TEXTS = ("env", "delimiter", "decimal")
BOUNDS = ("action_low", "action_high")
KEYS = (*LISTS, *SINGLE, *BOUNDS, "episode_gap", "max_episode_steps", *TEXTS)
LIKELY = {  # how columns of these roles are called where people do not choose: for the example alone
    "episode": ("episode", "run", "trial", "trajectory", "traj", "patient", "subject", "id"),
    "time": ("time", "t", "step", "date", "timestamp"),
    "action": ("action", "act", "control", "u", "a"),
    "reward": ("reward", "r", "rew"),
    "terminated": ("terminated", "terminal", "terminals", "done", "failed"),
    "timeout": ("timeout", "timeouts", "time_limit", "timelimit", "truncated", "truncation", "cut"),
}


@dataclass(frozen=True)
class ColumnsFile:
    """What the columns of a table are, and how it is read. Options of the call go before those of the file."""

    roles: Roles
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    env: str = ""
    max_episode_steps: int = 0
    delimiter: str = ""  # of a CSV file; empty: the one of its first line
    decimal: str = "."  # or ","

    def applied(self, reading: Reading) -> Reading:
        """The options with those of the file where the call has none."""
        own = reading.action_low or reading.action_high or reading.action_range == "data"
        return replace(
            reading,
            env=reading.env or self.env,
            max_episode_steps=reading.max_episode_steps or self.max_episode_steps,
            action_low=reading.action_low if own else self.action_low,
            action_high=reading.action_high if own else self.action_high,
        )


def read_columns_file(path: Path) -> ColumnsFile:
    """Raises MissingInputError, and ConfigError for an unknown key, a value of another type, or a role that is
    missing."""
    if not path.is_file():
        raise MissingInputError(f"there is no file {path}", "it says what the columns are, e.g. " + example([]))
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES:,} bytes", "it names columns")
    try:
        record = tomllib.loads(path.read_bytes().decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", "it is TOML, e.g. " + example([])) from None
    return _checked(record, str(path))


def example(columns: Sequence[str], kinds: Mapping[str, str] = MappingProxyType({})) -> str:
    """A file for a table of these columns, as far as their names tell, and the ``kinds`` of what is in them
    (`delimited.kind_of`): text and truth values are no observations."""
    taken: dict[str, list[str]] = {
        role: [column for column in columns if column.lower().rstrip("0123456789_") in names]
        for role, names in LIKELY.items()
    }
    truths = [column for column in columns if kinds.get(column) == "truths"]
    if not taken["terminated"] and len(truths) == 1:
        taken["terminated"] = truths
    free = [column for column in columns if all(column not in found for found in taken.values())]
    rest = [column for column in free if kinds.get(column) not in ("text", "truths")]
    one = {role: (found or ["COLUMN"])[0] for role, found in taken.items()}
    lines = [
        f'episode = "{one["episode"]}"  # or episode_gap = 900: a pause of more seconds begins an episode',
        f'time = "{one["time"]}"',
        f"obs = {rest or ['COLUMN', 'sensor_*']}".replace("'", '"')
        + "  # what the policy sees; move or delete the rest",
        f"action = {taken['action'] or ['COLUMN']}".replace("'", '"'),
        f'reward = "{one["reward"]}"',
        f'terminated = "{one["terminated"]}"  # or false: every episode was cut; or true: every one ends the task',
        *(f'timeout = "{column}"  # the time limit cut the episode' for column in taken["timeout"][:1]),
        f"action_low = {[0.0] * (len(taken['action']) or 1)}  # physical bounds, one for each action",
        f"action_high = {[1.0] * (len(taken['action']) or 1)}",
        *(['decimal = ","'] if "decimal commas" in kinds.values() else []),
    ]
    return "".join(f"\n  {line}" for line in lines)


def _checked(record: Mapping[str, Any], path: str) -> ColumnsFile:
    for key in record:
        if key not in KEYS:
            close = get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(KEYS)}"
            raise ConfigError(f"{path}: unknown key {key!r}", hint)
    if missing := [key for key in NEEDED if key not in record]:
        raise ConfigError(f"{path} does not say {', '.join(missing)}", "e.g. " + example([]))
    lists = {key: _names(record.get(key, []), key, path) for key in LISTS}
    single = {key: _text(record.get(key, ""), key, path) for key in SINGLE if key != "terminated"}
    every = record["terminated"] is True  # episode ends the task
    terminated = "" if isinstance(record["terminated"], bool) else _text(record["terminated"], "terminated", path)
    steps = record.get("max_episode_steps", 0)
    if type(steps) is not int or steps < 0:
        raise ConfigError(f"{path}: max_episode_steps = {steps!r}", "a whole number of steps")
    gap = record.get("episode_gap")
    if gap is not None and type(gap) not in (int, float):
        raise ConfigError(f"{path}: episode_gap = {gap!r} is no number", "e.g. episode_gap = 900, for 15 minutes")
    low, high = (_bounds(record.get(key, []), key, path) for key in BOUNDS)
    texts = {key: _text(record[key], key, path) for key in TEXTS if key in record}
    roles = Roles(**lists, **single, terminated=terminated, every_end=every, episode_gap=gap)  # type: ignore[arg-type]
    found = ColumnsFile(roles, low, high, max_episode_steps=steps, **texts)
    if len(found.delimiter) > 1 or found.decimal not in (".", ",") or found.delimiter == found.decimal:
        raise ConfigError(
            f"{path}: delimiter = {found.delimiter!r}, decimal = {found.decimal!r}",
            'e.g. delimiter = ";", decimal = ","',
        )
    return found


def _names(value: Any, key: str, path: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{path}: {key} = {value!r} is no list of columns", f'e.g. {key} = ["x", "sensor_*"]')
    if key in NEEDED and not names:
        raise ConfigError(f"{path}: {key} names no column", f'e.g. {key} = ["x", "sensor_*"]')
    return tuple(names)


def _text(value: Any, key: str, path: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {key} = {value!r} is no text", f'e.g. {key} = "..."')
    return value


def _bounds(value: Any, key: str, path: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not all(type(number) in (int, float) for number in numbers):
        raise ConfigError(f"{path}: {key} = {value!r} are no numbers", f"e.g. {key} = [-1.0, 0.0], or one for all")
    return tuple(map(float, numbers))
