"""What `--help` prints: sentences as they were written, whatever the width of the source."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Annotated

import pytest
import tyro
from command_line import run

from offline_vi.study.flags import described, one_part, parse, plain

VERBS = [
    ["train", "bcq"],
    ["evaluate"],
    ["data", "check"],
    ["fit-behavior", "cvae"],
    ["ope"],
    ["report"],
    ["benchmark"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_an_empty_default_goes_without_saying(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run([*verb, "--help"], capsys)
    assert code == 0
    assert out.count("(default: ") > 0
    for empty in ("(default: )", "(default: '')", "(default: None)"):
        assert empty not in " ".join(out.split())


@dataclass(frozen=True)
class Inner:
    """Nested options."""

    depth: int = 3
    """How deep,
    in meters."""


@dataclass(frozen=True)
class Before:
    """What another inherits."""

    share: float = 0.5
    """Share of
    the rows."""


@dataclass(frozen=True)
class Outer(Before):
    """Options."""

    names: tuple[str, ...] = ()
    """All of
    them."""
    inner: Annotated[Inner, tyro.conf.OmitArgPrefixes] = Inner(4)
    plain: float = 1.0  # a comment is help, too
    many: list[int] = field(default_factory=list)


def test_options_are_of_the_class_that_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Other:
        """Further options."""

        steps: int = 5
        """Gradient
        steps."""

    found = one_part(Inner, ["--depth", "5"], "test")
    assert found == Inner(5) and type(found) is Inner
    both = parse({"a": Inner(), "b": Other()}, ["--depth", "6", "--steps", "7"], "test", "what")
    assert (both.a, both.b) == (Inner(6), Other(7))
    default = plain(described(Outer)(), Outer)
    assert default == Outer() and type(default.inner) is Inner
    with pytest.raises(SystemExit):
        one_part(Outer, ["--help"], "test")
    out = capsys.readouterr().out.splitlines()
    for words in ("How deep, in meters.", "Share of the rows.", "All of them.", "a comment is help, too"):
        assert any(words in line for line in out), words


def test_a_class_of_a_plug_in_may_be_of_any_kind() -> None:
    """Not frozen, with a field that its constructor does not take, made without source."""

    @dataclass
    class Loose:
        width: int = 4
        area: int = field(init=False, default=0)
        tags: list[str] = field(default_factory=list, kw_only=True)

        def __post_init__(self) -> None:
            self.area = self.width**2

    found = one_part(Loose, ["--width", "5", "--tags", "a", "b"], "test")
    assert (type(found), found.area, found.tags) == (Loose, 25, ["a", "b"])
    bare = make_dataclass("Bare", [("width", int, 4)])
    assert parse({"one": bare()}, ["--width", "6"], "test", "what").one == bare(6)
