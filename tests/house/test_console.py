"""What reaches people: no text of a file controls a terminal, a table or a page; where nobody reads, nothing ends."""

from __future__ import annotations

import csv
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run

from offline_vi.console import Console, as_drawn
from offline_vi.errors import SystemRefusal
from offline_vi.escaping import code, csv_cell, markdown, visible
from offline_vi.runs.logs import CsvLog
from offline_vi.scripts import main
from offline_vi.stopping import Stop, held, listening, obey, requests
from offline_vi.study import verbs


class Broken(io.StringIO):
    """A stream whose reader has gone, or whose disk is full."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def write(self, text: str) -> int:
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_a_stream_that_fails_keeps_its_failure(code: int) -> None:
    console = Console(Broken(code))
    assert console.write("text") == 4
    console.flush()
    assert console.failure is not None and console.failure.errno == code
    assert (console.lost is not None) == (code == errno.ENOSPC)  # where the reader has gone nobody misses anything


def test_a_stream_that_is_closed_is_silent() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        console = Console(stream)
        print("text", file=console, flush=True)
        assert not console.isatty() and console.lost is None


@pytest.mark.parametrize("which", ["stdout", "stderr"])
@pytest.mark.parametrize("code", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_a_command_ends_well_without_its_streams(which: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Broken(code)
    monkeypatch.setattr(sys, which, stream)
    expected = SystemRefusal.exit_code if (which, code) == ("stdout", errno.ENOSPC) else None
    if expected is None:
        main(["--version"])
    else:
        with pytest.raises(SystemExit) as stopped:
            main(["--version"])
        assert stopped.value.code == expected
    assert getattr(sys, which) is stream


def test_text_that_controls_a_terminal_is_written_out() -> None:
    stream = io.StringIO()
    print("\x1b]0;title\x07 a\rb \x9b2J \u202e \udce9 \x1b[31m", file=Console(stream))
    assert stream.getvalue() == "\\x1b]0;title\\x07 a\\x0db \\x9b2J \\u202e \\xe9 \\x1b[31m\n"
    Console(stream := io.StringIO(), as_drawn).write("\r\x1b[A")
    assert stream.getvalue() == "\r\x1b[A"


def test_letters_that_a_stream_does_not_have_are_written_out() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(ascii_only)
    print("\u2013", file=console, flush=True)
    assert ascii_only.buffer.getvalue() == b"\\u2013\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@a", "\tx"])
def test_a_cell_is_no_formula(text: str, tmp_path: Path) -> None:
    number = text == "+1"
    assert csv_cell(text) == (text if number else f"'{text}")
    assert csv_cell("-1.5e3") == "-1.5e3" and csv_cell(-2.0) == -2.0
    CsvLog(tmp_path / "log.csv").append({"step": 1, "failure": text})
    with (tmp_path / "log.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["failure"] == csv_cell(text)


def test_markdown_holds_no_markup_of_a_name() -> None:
    assert markdown("<img src=x>|[a](javascript:b)`c`\n# d") == ("&lt;img src=x&gt;\\|\\[a\\](javascript:b)\\`c\\` # d")
    assert markdown("# a") == "\\# a" and markdown(2.5) == 2.5
    assert markdown(code("x ```\n<b>")) == "x ` ` ` <b>"
    assert visible("a\nb\tc") == "a\nb\tc"


# ------------------------------------------------------------------ requests to stop


@pytest.fixture
def hears_hangups() -> Iterator[None]:
    """Also where the tests run under nohup, which ignores them."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hears_hangups")
def test_a_request_is_obeyed_at_once_unless_work_is_held() -> None:
    with pytest.raises(Stop) as stop, listening():
        signal.raise_signal(signal.SIGUSR1)
    assert stop.value.signum == signal.SIGUSR1
    with listening():
        with held():
            signal.raise_signal(signal.SIGHUP)
            requests.unsaved = True
            obey()
            requests.unsaved = False
            with pytest.raises(Stop):
                obey()
        signal.raise_signal(signal.SIGTERM)  # the second one changes nothing
        assert requests.signum == signal.SIGHUP
    assert requests.signum == 0


def test_a_process_of_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening():
            signal.raise_signal(signal.SIGHUP)
            assert requests.signum == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/x/y"), 74),
        (MemoryError(), 71),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 71),
        (BaseException("PyObject pointer is null"), 71),
        (Stop(signal.SIGUSR2), 140),
        (KeyboardInterrupt(), 130),
    ],
    ids=["handles", "memory", "allocator", "panic", "signal", "interrupt"],
)
def test_what_the_system_refuses_is_one_sentence(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(verbs, "resume", fail)
    ended, out, told = run(["resume", "runs/x"], capsys)
    assert (ended, out) == (code, "")
    assert 1 <= len(told.splitlines()) <= 2 and "Traceback" not in told
