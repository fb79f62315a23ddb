"""``python -m terminal COMMAND``: give a command a terminal, and take it away while it works."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # only the terminal goes: what SIGHUP does is another case
        os.execvp(sys.argv[1], sys.argv[1:])
    while not Path(sys.argv[-1], "metrics.csv").exists() and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.01)
    os.close(terminal)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
