"""What must never come back: ways for a file to run code. And every error that we promise is raised by some test."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from offline_vi import errors

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("offline_vi", "algorithms", "datasets", "scripts", "benchmarks")
FORBIDDEN = {
    "pickle": (r"\b(import|from) +(c?[pP]ickle|dill|joblib|shelve|marshal|cloudpickle)\b", "import pickle"),
    "torch.load": (r"(?<!safetensors\.)\btorch\.load\(", "torch.load(path)"),
    "allow_pickle": (r"allow_pickle *= *(?!False\b)", "np.load(path, allow_pickle=True)"),
    "np.load": (r"\bnp\.load\((?![^\n]*allow_pickle *= *False)", "np.load(path)"),
    "yaml.load": (r"\byaml\.(unsafe_|full_)?load\(", "yaml.load(text)"),
    "eval": (r"(?<![\w.])eval\(", "eval(text)"),
    "exec": (r"(?<![\w.])exec\(", "exec(text)"),
    "a shell": (r"shell *= *True|\bos\.(system|popen)\(", "subprocess.run(text, shell=True)"),
    "environments from a file": (r"\brecover_environment\(|\bEnvSpec\.from_json\(", "dataset.recover_environment()"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_nothing_in_the_package_can_run_what_a_file_says(name: str) -> None:
    pattern, example = FORBIDDEN[name]
    assert re.search(pattern, example)
    files = {path.resolve() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert len(files) > 90
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted(files)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "harmless", ["model.eval()", "safetensors.torch.load(data)", "allow_pickle=False", "retrieval(x)"]
)
def test_the_guard_lets_pass_what_is_harmless(harmless: str) -> None:
    assert not [name for name, (pattern, _) in FORBIDDEN.items() if re.search(pattern, harmless)]


def test_every_error_is_raised_in_some_test() -> None:
    """By name beside pytest.raises or pytest.warns, or in a table of what is raised; a base by one of its children."""
    text = "\n".join(path.read_text() for path in sorted(Path(__file__).parents[1].rglob("test_*.py")))
    bases = {base for kind in vars(errors).values() if inspect.isclass(kind) for base in kind.__bases__}
    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and kind not in bases}
    expected = [
        kind
        for kind in sorted(kinds)
        if issubclass(getattr(errors, kind), Warning | errors.OfflineVIError)
        and not re.search(rf"(raises|warns|except)[( ][^)\n]*\b{kind}\b|: {kind},|, {kind}\)|\b{kind}\.exit_code", text)
    ]
    assert expected == []
