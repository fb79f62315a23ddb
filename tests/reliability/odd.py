"""Records and tables in which one place is another than it should be."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import conftest
from hypothesis import HealthCheck, settings, strategies as st

CASES = int(os.environ.get("OFFLINE_VI_CASES", "0"))
"""Cases that `make reliability` asks of all properties together; 0: those of `make test`."""

Place = tuple[str | int, ...]

TEXTS = (
    "",
    " ",
    "-1",
    "nan",
    "=1+1",
    "<b>x</b>",
    "a|b",
    "[x](javascript:y)",
    "\x1b[2J",
    "$x$",
    "..",
    "/etc/passwd",
    "\udce9",
)
NUMBERS = (0, -1, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), -float("inf"))
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([*TEXTS, *NUMBERS, None, True, False, [], {}, [[]], {"": None}, ["x"], [1, "x"], {"x": 1}]),
    st.text(max_size=8),
    st.integers(),
    st.floats(),
    st.just("x" * 300),
)


def cases(few: int) -> settings:
    """So many examples in `make test`, and their share of what `make reliability` asks for."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=conftest.cases(few), deadline=None, derandomize=True, suppress_health_check=quiet)


def places(record: Any, here: Place = ()) -> Iterator[Place]:
    """Of every value in a record, at any depth."""
    entries = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in entries:
        yield (*here, key)
        yield from places(value, (*here, key))


def changed(record: Any, place: Place, value: Any) -> Any:
    """A copy with another value in one place."""
    made = copy.deepcopy(record)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return made


@st.composite
def odd(draw: st.DrawFn, record: Any) -> Any:
    """The record with another value in one place, or without that place."""
    place = draw(st.sampled_from(list(places(record))))
    value = draw(VALUES)
    made = changed(record, place, value)
    if draw(st.integers(0, 5)) == 0 and isinstance(place[-1], str):
        inner = made
        for key in place[:-1]:
            inner = inner[key]
        del inner[place[-1]]
    return made
