"""Load exported policies and run them, with nothing of this library: `python -I fresh.py FILE ROWS.npy RESULT.npz ...`.

It runs in a process of its own, in which importing this library fails, and so shows what a user of a file needs. A
result holds the outputs for the first row, for the first 7, and for all of them ("1.0", "7.0", "all.0"; a second output
is ".1"), and the seconds of calls with one row on one core.
"""

from __future__ import annotations

import importlib.abc
import sys
import time
from typing import Any

LIBRARY = "offline_vi"
CALLS, SECONDS = 100, 2.0  # of the measurement, at most


class Blocked(importlib.abc.MetaPathFinder):
    """Refuses to find the library."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == LIBRARY:
            raise ImportError(f"{LIBRARY} is blocked in this process")


def torch_program(path: str) -> Any:
    import torch

    torch.set_num_threads(1)
    loaded = torch.jit.load(path) if path.endswith(".ts") else torch.export.load(path).module()

    def run(rows: Any) -> list[Any]:
        with torch.inference_mode():
            found = loaded(torch.from_numpy(rows))
        return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]

    return run


def onnx_program(path: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (observation,) = session.get_inputs()
    return lambda rows: session.run(None, {observation.name: rows})


def seconds_per_call(run: Any, row: Any) -> list[float]:
    """The seconds that calls with one row take, after some that are not counted."""
    for _ in range(20):
        run(row)
    found: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(found) < CALLS and time.perf_counter() < end:
        start = time.perf_counter()
        run(row)
        found.append(time.perf_counter() - start)
    return found


def main(path: str, rows_file: str, result_file: str) -> None:
    import numpy as np

    rows = np.load(rows_file, allow_pickle=False)
    run = onnx_program(path) if path.endswith(".onnx") else torch_program(path)
    results: dict[str, Any] = {}
    for label, batch in {"1": rows[:1], "7": rows[:7], "all": rows}.items():
        results |= {f"{label}.{number}": output for number, output in enumerate(run(batch))}
    assert LIBRARY not in sys.modules
    np.savez(result_file, seconds=np.array(seconds_per_call(run, rows[:1])), **results)


if __name__ == "__main__":
    sys.meta_path.insert(0, Blocked())
    for first in range(1, len(sys.argv), 3):
        main(*sys.argv[first : first + 3])
