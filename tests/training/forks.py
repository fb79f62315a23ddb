"""Children of the process of the tests, for what needs many at once, or a limit of memory that goes with the child.

A child shares the memory of its parent, the state of every generator too: where two trainings must not be equal by
that, they run in fresh interpreters (`fresh`).
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path


def forked(work: Callable[[Path], object], path: Path) -> int:
    """The process number of a child that does the work and nothing else."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work(path)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Its exit code, or the negative number of the signal that it died of."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def resident() -> int:
    """Anonymous resident memory of this process, bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])
