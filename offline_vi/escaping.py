"""Text of files and environments on its way to people: on a terminal, in a table, on a page it is text, and nothing
else. Each of these has one border, where everything passes one of these functions."""

from __future__ import annotations

import re

OTHERS = r"\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
CONTROLS = re.compile(rf"[\x1b{OTHERS}]")
"""Characters that move a cursor, ring, turn the direction of writing, or stand for bytes that are no text."""
CONTROLS_BUT_COLORS = re.compile(rf"\x1b(?!\[[0-9;]*m)|[{OTHERS}]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)")
MARKUP = re.compile(r"[\\`*\[\]|$~]")

LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "–": "--",
}


def visible(text: str) -> str:
    """The text with its control characters written out, e.g. ``\\x1b``; line breaks and tabs stay."""
    return CONTROLS.sub(_written_out, text)


def colored(text: str) -> str:
    """`visible`, but for colors."""
    return CONTROLS_BUT_COLORS.sub(_written_out, text)


def one_line(text: str) -> str:
    """`visible`, with every white space as one blank."""
    return visible(" ".join(text.split()))


def csv_cell(value: object) -> object:
    """A value for a CSV file: text `visible`, and none that a spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") and not NUMBER.fullmatch(text) else text


def markdown(value: object) -> object:
    """A value for a Markdown file: text on one line, without HTML, links, code and borders of tables."""
    if not isinstance(value, str) or isinstance(value, Verbatim):
        return value
    text = MARKUP.sub(r"\\\g<0>", one_line(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"\\{text}" if text[:1] in ("#", "+", "-", "=") else text


def latex(value: object) -> object:
    """A value for a LaTeX file: text on one line, every character that LaTeX reads as markup written out."""
    if not isinstance(value, str) or isinstance(value, Verbatim):
        return value
    return "".join(LATEX.get(letter, letter) for letter in one_line(value))


class Verbatim(str):
    """Text that stands in a block of code, or is Markdown already."""


def code(text: str) -> Verbatim:
    """A line of a block of code, which it does not end."""
    return Verbatim(one_line(text).replace("```", "` ` `"))


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
