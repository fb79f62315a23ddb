"""An extension of griffe, which reads the docstrings: the fields of a dataclass or a NamedTuple as a table under its
docstring. What a field means is its docstring or the comment on its line."""

from __future__ import annotations

import ast
import html
import re
from typing import Any

from griffe import Class, Extension, ObjectNode


class Fields(Extension):
    """Name, type, default and meaning of each field."""

    def on_class_members(self, *, node: ast.AST | ObjectNode, cls: Class, **_: Any) -> None:
        if cls.docstring is None or not isinstance(node, ast.ClassDef) or not has_fields(node):
            return
        fields = [field for field in node.body if is_field(field)]
        lines = cls.lines_collection[cls.filepath]
        source = "\n".join(lines)
        rows = [row(field, source, meaning(field, cls, lines)) for field in fields]
        cls.docstring.value += "\n\n| field | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)


def has_fields(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass or a NamedTuple."""
    return any("dataclass" in ast.unparse(one) for one in node.decorator_list) or any(
        ast.unparse(base) == "NamedTuple" for base in node.bases
    )


def is_field(node: ast.AST) -> bool:
    """Whether a statement of a class declares a public field."""
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_")


def meaning(field: ast.AnnAssign, cls: Class, lines: list[str]) -> str:
    """Its docstring, which the table then shows in place of an entry of its own; else the comment on its line."""
    member = cls.members[ast.unparse(field.target)]
    if member.docstring is not None:
        text, member.docstring = member.docstring.value, None
        return text
    rest = lines[field.end_lineno - 1].encode()[field.end_col_offset :].decode()
    return re.sub(r"^#\s*type: ignore\S*\s*", "", rest.strip()).partition("#")[2]


def row(field: ast.AnnAssign, source: str, text: str) -> str:
    """Of the table."""
    default = "" if field.value is None else code(ast.get_source_segment(source, field.value) or "")
    name, kind = code(ast.unparse(field.target)), code(ast.unparse(field.annotation))
    return f"| {name} | {kind} | {default} | {cell(text.strip())} |"


def code(text: str) -> str:
    """Code within a cell."""
    return f"<code>{plain(text)}</code>"


def cell(text: str) -> str:
    """Text within a cell, in which `this` and ``this`` are code."""
    return "".join(code(part) if at % 2 else plain(part) for at, part in enumerate(re.split(r"``?([^`]+)``?", text)))


def plain(text: str) -> str:
    """Text as it is, which Markdown and the borders of a table leave alone."""
    lines = re.sub(r"\s+", " ", text)
    return html.escape(lines).replace("|", "&#124;").replace("*", "&#42;").replace("_", "&#95;")
