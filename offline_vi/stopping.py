"""Requests to stop: the signals by which people, terminals and batch systems announce the end of a process.

A request is obeyed at once: `Stop` is raised wherever the process is. In a gradient step, and in whatever else is
`held`, it is only noted; the training loop finishes the step, saves it and obeys then. Long work within a step calls
`obey` on the way, which leaves where nothing would be lost.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = tuple(signal.Signals[name] for name in NAMES if name in signal.Signals.__members__)  # Windows has two


class Stop(KeyboardInterrupt):
    """Leave now. It is no `Exception`: what catches the errors of environments and plots lets it pass."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Requests:
    """What this process was asked for. Signals belong to a process, so there is one of these: `requests`."""

    def __init__(self) -> None:
        self.signum = 0  # of the first request; 0: none
        self.held = False  # whether requests are only noted for now
        self.unsaved = False  # whether there are gradient steps that no checkpoint has
        self.listening = False

    def note(self, signum: int, _: FrameType | None) -> None:
        """The handler of the signals. Only the first one counts: many batch systems send several."""
        if not self.signum:
            self.signum = signum
            if not self.held:
                raise Stop(signum)


requests = Requests()


@contextmanager
def listening() -> Iterator[Requests]:
    """Take requests. Within another one, and outside the main thread, nothing is to be done. A process that `nohup`
    started goes on without its terminal."""
    if requests.listening or threading.current_thread() is not threading.main_thread():
        yield requests
        return
    taken = [one for one in SIGNALS if not (one.name == "SIGHUP" and signal.getsignal(one) == signal.SIG_IGN)]
    previous = {one: signal.signal(one, requests.note) for one in taken}
    requests.listening = True
    try:
        yield requests
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
        requests.signum, requests.held, requests.unsaved, requests.listening = 0, False, False, False


@contextmanager
def held(whether: bool = True) -> Iterator[None]:
    """What is done within comes to its end before a request is obeyed, or not."""
    before, requests.held = requests.held, whether
    try:
        yield
    finally:
        requests.held = before


def obey() -> None:
    """Raise `Stop` where that was asked for and nothing would be lost."""
    if requests.signum and not requests.unsaved:
        raise Stop(requests.signum)
