"""The matrix of cases is whole: every row has tests that exist, or says why not."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from matrix import CASES, MATRIX, Row, counted, table

TESTS = Path(__file__).parents[1]


def functions(file: str) -> set[str]:
    """The test functions of a file, of its classes too."""
    tree = ast.parse((TESTS / f"{file}.py").read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_rows_are_numbered_without_a_gap() -> None:
    assert list(MATRIX) == list(range(1, len(MATRIX) + 1))


@pytest.mark.parametrize("number", MATRIX)
def test_a_row_has_tests_and_figures_or_a_reason(number: int) -> None:
    row = MATRIX[number]
    assert row.tests or row.missing
    assert not row.tests or row.asked or row.nightly
    for test in row.tests:
        file, _, name = test.partition("::")
        assert name in functions(file), test
    assert all(figure > 0 for figure in (*row.asked.values(), *row.nightly.values()))


def test_the_table_rounds_nothing_up_and_names_what_falls_short(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {1: Row("a", {"kills": 25, CASES: 2}, ("f::t",)), 2: Row("b", {}, (), missing="no such device")}
    monkeypatch.setattr("matrix.MATRIX", rows)
    lines = '{"row": 1, "what": "kills", "figure": 20}\n{"row": 1, "what": "kills", "figure": 4}\n{"passed": "f::t"}\n'
    figures, passed = counted(lines)
    assert (figures, passed) == (Counter({(1, "kills"): 24}), Counter({"f::t": 1}))
    text = table(figures, passed)
    assert "| 24; 1 | **short of 25 kills**; **short of 2 cases passed** |" in text
    assert "| 2 | b |  |  | no such device |" in text
