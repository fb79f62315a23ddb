"""Names of data sets that were joined: all of them in records, a few words for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

JOIN = "+"  # between the names of data sets that were joined
LONGEST = 40  # characters of one of them that are shown
SHOWN = 3  # so many are all shown


def short_name(name: str) -> str:
    """The name of joined data sets for people: of up to three each, of more the first two and how many others."""
    parts = name.split(JOIN)
    if len(parts) == 1:
        return name
    kept = parts if len(parts) <= SHOWN else parts[: SHOWN - 1]
    others = [f"{len(parts) - len(kept)} more"] if len(parts) > SHOWN else []
    return JOIN.join([*(_in_the_middle(part) for part in kept), *others])


def _in_the_middle(text: str) -> str:
    """At most `LONGEST` characters, those of the beginning and of the end."""
    half = (LONGEST - 3) // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def distinct_names(named: Sequence[tuple[str, str]]) -> list[str]:
    """The names of (name, file); where several files have one name, each has that of its folder in front."""
    same = {name: {file for other, file in named if other == name} for name, _ in named}
    return [f"{Path(file).parent.name}/{name}" if len(same[name]) > 1 else name for name, file in named]
