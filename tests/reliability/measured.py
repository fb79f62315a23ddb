"""``python tests/reliability/measured.py docs/reliability.md``: measure, and write the tables of the document anew."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[place]) for place in (0, 1, 2)]
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))  # forks

from signalled import SIGNALS, WORKS, signalled  # noqa: E402
from surroundings import SURROUNDINGS, outcome  # noqa: E402

from offline_vi.study.resumption import CLASSES, OnResume  # noqa: E402


def resumption() -> Iterator[str]:
    """Option x class."""
    yield "| options of | " + " | ".join(kind.value for kind in OnResume) + " |"
    yield "|---" * (1 + len(OnResume)) + "|"
    for section, options in CLASSES.items():
        cells = [", ".join(f"`{name}`" for name, own in options.items() if own is kind) for kind in OnResume]
        yield f"| {section} | " + " | ".join(cells) + " |"
    yield "| algorithm, behavior model, bonus | all hyper-parameters |" + "  |" * (len(OnResume) - 1)


def signals() -> Iterator[str]:
    """Signal x what is running -> seconds and the checkpoint's step."""
    yield "| signal | " + " | ".join(WORKS) + " |"
    yield "|---" * (1 + len(WORKS)) + "|"
    for signum in SIGNALS:
        cells = []
        for work in WORKS:
            with tempfile.TemporaryDirectory() as folder:
                found = signalled(work, signum, Path(folder))
            assert (found.code, found.status) == (128 + signum, "interrupted"), found
            cells.append(f"{found.seconds:.1f} s, step {found.step}")
        yield f"| {signum.name} | " + " | ".join(cells) + " |"


def surroundings() -> Iterator[str]:
    """What is lacking -> what comes of it."""
    yield "| surroundings | exit code | run | what is said |"
    yield "|---|---|---|---|"
    for name in SURROUNDINGS:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            found = outcome(name, Path(folder) / "work")
        said = re.sub(r"x{20,}", "x...x", found.word).replace("|", "\\|")
        yield f"| {name.replace('|', chr(92) + '|')} | {found.code} | {found.status or 'none'} | {said} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "resumption": resumption,
    "signals": signals,
    "surroundings": surroundings,
}


def main(path: Path, names: list[str]) -> None:
    for name in names or TABLES:
        rows = "\n".join(TABLES[name]())
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = path.read_text(encoding="utf-8").partition(begin)
        path.write_text(f"{before}{begin}\n{rows}\n{end}{rest.partition(end)[2]}", encoding="utf-8")
        print(f"{name}: {rows.count(chr(10)) - 1} rows", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
