"""What the verbs do with their first arguments, before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from offline_vi.errors import UsageError
from offline_vi.registry import AlgorithmEntry, BehaviorEntry
from offline_vi.study.flags import one_part

Options = TypeVar("Options")


def parsed(kind: type[Options], arguments: Sequence[str] | None, prog: str) -> Options:
    """The options of a verb, a frozen dataclass. Raises ConfigError for a number out of its range."""
    return one_part(kind, arguments, prog)


def first(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """(the first argument where it is no flag, else empty; the rest)."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    return name, list(arguments[1:] if name else arguments)


def taken(arguments: Sequence[str], flag: str) -> tuple[str, list[str]]:
    """(the value of a flag, empty where it is not given; the other arguments). Raises UsageError where it has none."""
    rest = list(arguments)
    if flag not in rest:
        return "", rest
    at = rest.index(flag)
    if at + 1 >= len(rest):
        raise UsageError(f"{flag} needs a value", f"e.g. {flag} {EXAMPLES.get(flag, 'VALUE')}")
    value = rest[at + 1]
    del rest[at : at + 2]
    return value, rest


EXAMPLES = {"--config": "runs/NAME/config.json", "--plugin": "my_algorithm.py"}


def overview(usage: str, what: str, rows: Mapping[str, AlgorithmEntry] | Mapping[str, BehaviorEntry]) -> str:
    """The help of a verb without a name: what there is."""
    width = max(map(len, rows), default=0) + 2
    lines = "\n".join(f"  {name:<{width}}{row.summary}" for name, row in rows.items())
    verb = usage.split()[2]
    return (
        f"{usage}\n{what}s:\n{lines}\n\n"
        f"`offline-vi {verb} {what.upper()} --help` lists every option and hyper-parameter.\n"
        "--plugin FILE.py adds your own.\n"
    )
