"""The code of the documents and notebooks runs, as a reader would run it, with fewer steps.

The blocks of a page run one after the other in one folder: Python in one namespace, the lines of a `bash` block as
commands. A block with a title is written to a file of that name. `<!-- not run: REASON -->` above a block leaves it
out. The cells of a notebook are its blocks.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import pytest
import torch
from matplotlib.figure import Figure

from offline_vi import scripts
from offline_vi.datasets import recipes

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/guides/*.md")])
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n+)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
FEWER = (  # what is counted, and how many are enough here
    (r"(?<![a-z_-])((?:--)?(?!max[-_]episode)(?:[a-z]+[-_])*steps(?: ?= ?| ))[\d_]+", "4"),
    (r"\b((?:[a-z]+-)?episodes(?: ?= ?| ))\d+", "2"),
    (r"\b(eval[-_]every(?: ?= ?| ))[\d_]+", "4"),
    (r"\b(seeds ?= ?)\[[\d, ]+\]", "[0, 1]"),
)
SHOWN = "--8<--"  # a file takes the place of this line
LANGUAGES = {"", "bash", "python", "text", "toml"}


class Block(NamedTuple):
    """A fenced block of a page."""

    why: str | None  # why it is not run
    language: str
    title: str | None
    text: str

    @property
    def runs(self) -> bool:
        """An example that is shown as a whole runs elsewhere: `test_examples`."""
        meant = self.title is not None or self.language in ("bash", "python")
        return meant and not self.why and SHOWN not in self.text


def blocks(page: Path) -> list[Block]:
    if page in NOTEBOOKS:
        cells = [cell for cell in json.loads(page.read_text())["cells"] if cell["cell_type"] == "code"]
        return [Block(None, "python", None, "".join(cell["source"])) for cell in cells]
    return [Block(**match.groupdict()) for match in BLOCK.finditer(page.read_text())]


def with_fewer(text: str) -> str:
    for pattern, enough in FEWER:
        text = re.sub(pattern, rf"\g<1>{enough}", text)
    return text


def carry_out(block: Block, names: dict[str, Any]) -> None:
    """Write a file, run Python, or run commands."""
    text = with_fewer(block.text)
    if block.title:
        Path(block.title).write_text(text)
    elif block.language == "python":
        exec(compile(text, "block", "exec"), names)  # noqa: S102
    elif block.language == "bash":
        for line in text.replace("\\\n", " ").splitlines():
            command(shlex.split(line, comments=True))


def command(words: list[str]) -> None:
    """`offline-vi ...` or `python FILE ...`."""
    if words[:1] == ["offline-vi"]:
        with contextlib.suppress(SystemExit):
            scripts.main(words[1:])
            return
        raise RuntimeError(f"{shlex.join(words)} failed")
    if words:
        assert words[0] == "python", words
        sys.argv = words[1:]
        runpy.run_path(words[1], run_name="__main__")


def child(page: Path, folder: Path) -> None:
    """Run in a process of its own, so that plug-ins and settings end with it."""
    shutil.copytree(ROOT / "examples", folder / "here" / "examples")
    shutil.copytree(ROOT / "docs" / "results" / "hopper-suite", folder / "results" / "hopper-suite")
    os.chdir(folder / "here")
    gymnasium.registry["Pendulum-v1"].max_episode_steps = 20  # short episodes
    sys.path.insert(0, str(folder / "here"))
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.runs:
            carry_out(block, names)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set under the name that the documents use, and what takes long to import."""
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    Figure().subplots()
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        recipes.collect("offline-vi/pendulum/mixed-v0", 6)
    return folder


RUNNABLE = [page for page in PAGES + NOTEBOOKS if any(block.runs for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(home / "minari"))
    monkeypatch.setenv("OFFLINE_VI_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert torch.get_num_threads() == 1
    process = multiprocessing.get_context("fork").Process(target=child, args=(page, tmp_path))
    process.start()
    try:
        process.join()
    finally:
        process.kill()
    assert process.exitcode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page: Path) -> None:
    fences = re.findall(r"^```(\w*)", page.read_text(), flags=re.MULTILINE)[::2]
    assert len(blocks(page)) == len(fences)
    assert set(fences) <= LANGUAGES
    commands = [one.text for one in blocks(page) if one.language in ("", "text")]
    assert all(tomllib.loads(one.text) for one in blocks(page) if one.language == "toml")
    assert not any(re.search(r"^(offline-vi|python|make|pip) ", text, flags=re.MULTILINE) for text in commands)


def test_numbers_of_steps_shrink_and_limits_do_not() -> None:
    assert with_fewer("fit(agent, data, steps=50_000)") == "fit(agent, data, steps=4)"
    assert with_fewer("--behavior-steps 20000 --max-episode-steps 200") == "--behavior-steps 4 --max-episode-steps 200"
    assert with_fewer("max_episode_steps=200, episodes=20") == "max_episode_steps=200, episodes=2"
    assert with_fewer("seeds = [0, 1, 2]\neval-every = 500") == "seeds = [0, 1]\neval-every = 4"
