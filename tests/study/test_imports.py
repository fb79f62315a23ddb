"""Help comes at once: what is heavy is imported by the function that needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "matplotlib", "gymnasium", "minari", "h5py", "optuna", "jinja2")
LIGHT_HELP = ("report", "benchmark", "tune", "evaluate", "sweep-inference", "data", "info", "demo", "resume", "train")


def imported(code: str) -> set[str]:
    """The heavy packages that are loaded after the code has run in a fresh interpreter."""
    after = f"import sys; print(*sorted({{*{HEAVY!r}}} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{after}"], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def help_of(*words: str) -> str:
    return (
        "from offline_vi.scripts import main\n"
        f"try:\n    main([*{words!r}, '--help'])\n"
        "except SystemExit as stop:\n    assert not stop.code"
    )


def test_the_study_room_is_read_without_anything_heavy() -> None:
    assert imported("import offline_vi.study") == set()
    assert imported("import offline_vi as ovi; ovi.study.read_suite('smoke')") == set()


@pytest.mark.parametrize("verb", LIGHT_HELP)
def test_help_imports_nothing_heavy(verb: str) -> None:
    assert imported(help_of(verb)) == set()


def test_the_data_sets_are_listed_without_anything_heavy() -> None:
    assert imported("from offline_vi.scripts import main; main(['data', 'list'])") == set()


def test_help_of_an_algorithm_imports_torch_alone() -> None:
    assert imported(help_of("train", "bcq")) == {"torch"}
