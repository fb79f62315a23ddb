"""The documents are in plain English: words of an older prose do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_blocks import NOTEBOOKS, PAGES, ROOT

BRITISH = r"behaviour\w*|\w+(?:malis|imis|ialis|ardis)(?:e|es|ed|ing)"
OLD = rf"\b(stands?|stood|told|of no account|hardly begun|beside|asleep|{BRITISH})\b"
TEXTS = [*PAGES, *NOTEBOOKS, *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "SECURITY"))]


def prose(text: str) -> str:
    """Without code, and without what scripts write between markers."""
    return re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->|```.*?```|`[^`\n]+`", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_the_old_words_are_gone(page: Path) -> None:
    assert re.findall(OLD, prose(page.read_text())) == []


def test_an_old_word_would_be_found() -> None:
    assert re.findall(OLD, prose("it is told `told` <!-- x -->told<!-- /x -->, normalised")) == ["told", "normalised"]
