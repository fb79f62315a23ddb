"""Every remedy that a hint names exists: flags, arguments, commands, extras, variables, documents, names of Python."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest
from test_documents import ROOT, modules

from offline_vi import errors, scripts
from offline_vi.errors import OfflineVIError

GAP = "\0"  # what an f-string puts in
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, OfflineVIError)}
PASSED_ON = ("hint", "remedy")  # parameters of functions that raise with them
COMMANDS = {  # verb -> what it needs in front of its flags
    "train": ["bcq"],
    "train-online": ["sac"],
    "fit-behavior": ["cvae"],
}
DATA_VERBS = ("list", "info", "check", "convert", "download", "collect")
ELSEWHERE = "`ray start --head`"  # a command that is not ours


class Hint(NamedTuple):
    """A text that is shown to people, what is put in replaced by `GAP`."""

    place: str
    text: str


def strings(node: ast.AST, known: dict[str, list[ast.expr]], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """All texts that an expression may be made of; names stand for what is assigned to them in the module."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from strings(part.value, known, seen)
    elif isinstance(node, ast.Name):
        for value in known.get(node.id, []) if node.id not in seen else []:
            yield from strings(value, known, seen | {node.id})
    else:
        for child in ast.iter_child_nodes(node):
            yield from strings(child, known, seen)


def assigned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Name -> what is assigned to it anywhere in a module, by a loop, too."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        pairs: list[tuple[ast.AST, ast.expr]] = []
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.For):
            pairs = [(node.target, node.iter)]
        for target, value in pairs:
            for name in ast.walk(target):
                if isinstance(name, ast.Name):
                    found.setdefault(name.id, []).append(value)
    return found


def arguments(call: ast.Call, name: str, forwarding: dict[str, int]) -> list[ast.expr]:
    """Those of a call that people read as a remedy: the hint of an error, the whole message of a warning."""
    if name in ERRORS or name == "__init__":
        given = call.args[1:2]
    elif name == "warn":
        given = call.args[:1]
    elif name in forwarding:
        given = call.args[forwarding[name] :][:1]
    else:
        return []
    return given + [keyword.value for keyword in call.keywords if keyword.arg in PASSED_ON]


@cache
def hints() -> list[Hint]:
    """Of the whole library."""
    found = []
    folders = [ROOT / "offline_vi", ROOT / "algorithms", ROOT / "datasets", ROOT / "scripts"]
    files = {path.resolve() for folder in folders for path in folder.rglob("*.py")}
    for path in sorted(files):
        tree = ast.parse(path.read_text())
        known = assigned(tree)
        forwarding = {
            node.name: [argument.arg for argument in node.args.args].index(name)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            for name in PASSED_ON
            if name in [argument.arg for argument in node.args.args] and not node.name.startswith("__")
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name == "__init__" and path.name != "errors.py":
                    continue
                for given in arguments(node, name, forwarding):
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    found += [Hint(place, text.replace(ELSEWHERE, "")) for text in strings(given, known)]
    return found


@cache
def flags() -> dict[str, set[str]]:
    """Command -> its flags, as ``--help`` names them."""
    commands = [[verb, *COMMANDS.get(verb, [])] for verb in scripts.VERBS if verb != "data"]
    commands += [["data", verb] for verb in DATA_VERBS]
    code = "".join(path.read_text() for path in (ROOT / "scripts").glob("*.py"))
    by_hand = {"--help", "--traceback", *re.findall(r'taken\(\w+, "(--[\w-]+)"\)', code)}
    found = {}
    for words in commands:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            scripts.main([*words, "--help"])
        name = " ".join(words[: 2 if words[0] == "data" else 1])
        found[name] = set(re.findall(r"--[a-z][\w-]*", output.getvalue())) | by_hand
    return found


@cache
def parameters() -> set[str]:
    """The names of all arguments and fields of the library."""
    found: set[str] = set()
    for module in (one for several in modules().values() for one in several):
        for value in vars(module).values():
            owned = [value, *vars(value).values()] if isinstance(value, type) else [value]
            for one in owned:
                found |= set(getattr(one, "__annotations__", {}))
                with contextlib.suppress(TypeError, ValueError):
                    found |= set(inspect.signature(one).parameters)
    return found


def wrong(pattern: str, good: set[str]) -> list[tuple[str, str]]:
    """(place, what is named) of everything that hints name in such a way and that is not there."""
    return [(hint.place, name) for hint in hints() for name in re.findall(pattern, hint.text) if name not in good]


def test_the_walk_finds_them() -> None:
    texts = [hint.text for hint in hints()]
    assert len(texts) > 400
    for part in (
        "--resume continues it",
        "memory_budget=N",
        "pip install 'offline-vi[flows]'",
        "if you trust the data",
    ):
        assert any(part in text for text in texts), part


def test_flags() -> None:
    known = set().union(*flags().values())
    assert {"--dataset", "--resume", "--env", "--columns"} <= known
    assert wrong(r"(?<![\w-])--[a-z][\w-]*", known) == []
    for hint in hints():
        assert set(re.findall(r"--[a-z][\w-]*", scripts.as_flags(hint.text))) <= known, hint.place


def test_arguments() -> None:
    assert wrong(r"(?<![\w.\"'-])([a-z]\w*)=(?![= ])", parameters()) == []


def test_commands_with_their_flags() -> None:
    bad = []
    for hint in hints():
        for quoted, bare in re.findall(r"`offline-vi ([^`]+)`|offline-vi ([a-z][\w-]*)", hint.text):
            words = (quoted or bare).split()
            name = " ".join(words[: 2 if words[0] == "data" else 1])
            asked = {word for word in words if word.startswith("--") and GAP not in word}
            if name not in flags() or not asked <= flags()[name]:
                bad.append((hint.place, quoted or bare))
    assert bad == []


def test_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    required = " ".join(requirement for several in extras.values() for requirement in several)
    good = {("offline-vi", extra) for extra in extras} | {("offline-vi", GAP)}
    named = [(hint.place, pair) for hint in hints() for pair in re.findall(r"'([\w-]+)\[([\w\0]+)\]'", hint.text)]
    assert named
    assert [one for one in named if one[1] not in good and "{}[{}]".format(*one[1]) not in required] == []


def test_variables_documents_and_names() -> None:
    code = "".join(path.read_text() for path in (ROOT / "offline_vi").rglob("*.py")) + "".join(
        path.read_text() for folder in ("datasets", "scripts", "algorithms") for path in (ROOT / folder).rglob("*.py")
    )
    variables = set(re.findall(r"\"([A-Z][A-Z0-9]*_[A-Z0-9_]+)\"", code))
    assert wrong(r"\b([A-Z][A-Z0-9]*_[A-Z0-9_]+)\b", variables) == []
    assert wrong(r"\bdocs/[\w.-]+\w", {f"docs/{path.name}" for path in (ROOT / "docs").iterdir()}) == []
    names = {name for several in modules().values() for module in several for name in vars(module)}
    assert wrong(r"`([A-Za-z_]\w*)`", names | parameters()) == []


@pytest.mark.parametrize(
    "text, pattern",
    [("use --no-such-flag", r"(?<![\w-])--[a-z][\w-]*"), ("say no_such_name=3", r"(?<![\w.\"'-])([a-z]\w*)=(?![= ])")],
)
def test_a_remedy_that_is_not_there_would_be_found(text: str, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "hints", lambda: [Hint("here", text)])
    known = parameters() | set().union(*flags().values())
    assert len(wrong(pattern, known)) == 1
