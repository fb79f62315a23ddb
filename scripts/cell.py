"""The process of one cell of a study: the command, but it ends with whoever started it."""

from __future__ import annotations

import sys

from offline_vi.scripts import main
from offline_vi.study.cells import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1:])
