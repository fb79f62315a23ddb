"""What people read on a terminal: no text of a file controls it, and where nobody can read it, nothing ends."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

from offline_vi.escaping import colored, visible

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # nobody reads any more

Shown = Callable[[str], str]
"""What is written for a text."""


def as_drawn(text: str) -> str:
    """The text itself, for what draws on the terminal."""
    return text


class Console(io.TextIOBase):
    """A standard stream, where a text appears as ``shown`` makes it, and a write that fails is kept, not raised.

    Without ``shown``, text is `visible`; on a terminal its colors stay, as those of the help.
    """

    def __init__(self, stream: TextIO | None, shown: Shown | None = None) -> None:
        self.stream = stream  # None: it was closed when the process began
        self.failure: OSError | None = None  # of the first write that failed
        self.shown = shown or (colored if self.isatty() else visible)

    def write(self, text: str) -> int:
        if self.stream is not None and self.failure is None:
            known = self.encoding
            self._try(self.stream.write, self.shown(text).encode(known, "backslashreplace").decode(known))
        return len(text)

    def flush(self) -> None:
        if self.stream is not None and self.failure is None:
            self._try(self.stream.flush)

    def _try(self, work: Callable[..., object], *arguments: str) -> None:
        try:
            work(*arguments)
        except OSError as error:
            self.failure = error
        except ValueError:  # it was closed since
            self.failure = OSError(errno.EBADF, os.strerror(errno.EBADF))

    @property
    def lost(self) -> OSError | None:
        """Why text could not be written that somebody expects; None where there is nothing to tell."""
        return self.failure if self.failure is not None and self.failure.errno not in GONE else None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return (self.stream and self.stream.encoding) or "utf-8"

    def isatty(self) -> bool:
        return self.stream is not None and not self.stream.closed and self.stream.isatty()

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("the stream was closed when the process began")
        return self.stream.fileno()

    def writable(self) -> bool:
        return True


def standard_error(shown: Shown | None = None) -> Console:
    """Where progress goes."""
    stream = sys.stderr
    return Console(stream.stream if isinstance(stream, Console) else stream, shown)
