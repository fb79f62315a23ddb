"""A simulator in a process of its own: several of them simulate at once, and one that crashes ends its own episode."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import torch

from offline_vi.simulator import EpisodeFailure, Question, Simulator, as_it_is
from offline_vi.stopping import SIGNALS
from offline_vi.types import Task

if TYPE_CHECKING:
    from offline_vi.environments import Env

POSSIBLE = sys.platform == "linux"  # elsewhere a process cannot be forked, or libraries do not survive it


class Elsewhere:
    """A `Simulator` in a child of this process, which is forked: whatever was registered or handed in is known there.

    The child is started by the first reset and ends with this process. It has torch's random numbers of the moment at
    which it was forked, so an environment draws from its own, as Gymnasium asks.
    """

    def __init__(self, task: Task, wrap: Callable[[Env], Env] = as_it_is) -> None:
        self.task, self.wrap = task, wrap
        self._child: tuple[Any, Connection] | None = None  # the process, and our end of the pipe

    def begin(self, question: Question, argument: Any) -> None:
        """Let the child reset with a seed, or step with an action (A,) in [-1, 1]."""
        if self._child is None:
            self._child = self._started()
        with suppress(OSError):  # of a child that has ended, which `answer` says
            self._child[1].send((question, argument))

    def answer(self) -> Any:
        """The first observation (O), or the `Step`. Raises EpisodeFailure, also where the child has ended."""
        assert self._child is not None
        try:
            failure, found = self._child[1].recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if failure is not None:
            raise EpisodeFailure(failure, "the environment is broken")
        return found

    def close(self) -> None:
        """End the child. One that is in the middle of a step is not waited for."""
        child, self._child = self._child, None
        if child is not None:
            process, pipe = child
            with suppress(OSError):
                pipe.send(None)
            pipe.close()
            process.join(timeout=1.0)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()

    def _started(self) -> tuple[Any, Connection]:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(Simulator(self.task, self.wrap), theirs, ours), daemon=True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the child takes none any more
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking next to threads, which it leaves be
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        return process, ours

    def _ended(self) -> EpisodeFailure:
        """The error of a process that is no more."""
        assert self._child is not None
        process = self._child[0]
        process.join(timeout=1.0)
        code = process.exitcode
        self.close()
        return EpisodeFailure(f"{self.task.env_id}: its process ended with code {code}", "the environment is broken")


def _serve(simulator: Simulator, pipe: Connection, parents: Connection) -> None:
    """What the child does until its parent says that it is over, or ends."""
    parents.close()
    for signum in SIGNALS:  # it is the parent who is asked to stop
        signal.signal(signum, signal.SIG_DFL if signum == signal.SIGTERM else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    torch.set_num_threads(1)  # the threads of OpenMP stayed with the parent
    try:
        while (question := pipe.recv()) is not None:
            simulator.begin(*question)
            try:
                pipe.send((None, simulator.answer()))
            except EpisodeFailure as failure:
                pipe.send((str(failure), None))
    except (EOFError, OSError):  # of a parent that is no more
        pass
    finally:
        simulator.close()
