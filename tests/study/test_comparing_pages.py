"""The suite of docs/comparing.md is one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from offline_vi.study.checks import check_options
from offline_vi.study.suite import suite_from

PAGE = Path(__file__).resolve().parents[2] / "docs" / "comparing.md"


def test_the_suite_of_the_page_is_right() -> None:
    (text,) = re.findall(r"```toml[^\n]*\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    suite = suite_from(tomllib.loads(text), "phi")
    check_options(suite)
    assert len(suite.methods()) == 2 + 1 + 4
