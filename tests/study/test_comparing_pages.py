"""The blocks of docs/comparing.md and docs/off-policy.md run as a reader would run them, with fewer steps."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from offline_vi.datasets import recipes
from offline_vi.scripts import main
from offline_vi.study.checks import check_options
from offline_vi.study.suite import suite_from

DOCS = Path(__file__).resolve().parents[2] / "docs"
FEWER = {  # verb -> flags that keep it short
    "train": "--steps 4 --eval-every 0 --eval-episodes 1 --hidden 8 -q",
    "ope": "--steps 4 --fits 1 --clone-steps 2 --hidden 8 -q",
    "evaluate": "--episodes 2 -q",
    "select": "--rollouts 2",
    "benchmark": "--check",
}


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code of a page."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


@pytest.fixture
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few episodes of the pendulum, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    recipes.collect("offline-vi/pendulum/mixed-v0", 4)
    for suite in blocks("comparing.md", "toml"):
        (tmp_path / "phi.toml").write_text(suite)


@pytest.mark.usefixtures("_data")
@pytest.mark.parametrize("page", ["comparing.md", "off-policy.md"])
def test_commands_and_code_of_the_page_run(page: str) -> None:
    if page == "off-policy.md":  # which goes on from the runs of the other page
        main(shlex.split(f"train bc --dataset offline-vi/pendulum/mixed-v0 --output runs/bc-0 {FEWER['train']}"))
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)[1:]
        if "runs/benchmark-phi" not in words:  # which takes minutes to make; tests of reports have such folders
            main([*words, *(FEWER.get(words[0], "").split())])
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), {})  # noqa: S102


def test_the_suite_of_the_page_is_right() -> None:
    (text,) = blocks("comparing.md", "toml")
    suite = suite_from(tomllib.loads(text), "phi")
    check_options(suite)
    assert len(suite.methods()) == 2 + 1 + 4
