"""From a file to the first gradient step, and what an evaluation costs.

    python benchmarks/loading.py [--rows 1000000] [--run RUN]

Writes a D4RL-like file of hopper's sizes to a temporary folder, loads it, builds BCQ and takes one step; reports
seconds (imports and the first call of every kernel excluded) and the growth of resident memory against the bytes of
the arrays, each size in a process of its own. With --run it also times 10 episodes of that run's policy in batches of
10 and one environment at a time.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from offline_vi import datasets
from offline_vi.algorithms.bcq import BCQ
from offline_vi.behavior import CVAE, DecoderMeans
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.runs.files import read_json
from offline_vi.study.kept import load_policy
from offline_vi.study.scoring import task_of_run
from offline_vi.training.loop import fit


def resident() -> int:
    """Bytes of resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Peak:
    """The largest resident memory while it is open, by looking every few milliseconds."""

    def __enter__(self) -> Peak:
        self.bytes, self.open = resident(), True
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self) -> None:
        while self.open:
            self.bytes = max(self.bytes, resident())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.thread.join()


def write(path: Path, rows: int) -> None:
    """A file as D4RL's -v2 ones, uncompressed: its size is that of its arrays."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(rows + 1, 11)).astype(np.float32)
    columns = {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": rng.uniform(-1, 1, size=(rows, 3)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.arange(rows) % 1000 == 700,
        "timeouts": np.arange(rows) % 1000 == 999,
    }
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file[name] = column


def measure(folder: Path) -> str:
    """The larger of the two files, in this process; the smaller one is for warming up."""
    first_step(folder / "small.hdf5")
    gc.collect()
    before = resident()
    with Peak() as peak:
        loaded, seconds = first_step(folder / "hopper-synthetic-v2.hdf5")
    size, grown = (folder / "hopper-synthetic-v2.hdf5").stat().st_size, peak.bytes - before
    return (
        f"{size / 1e6:5.0f} MB of arrays: loaded in {loaded:.2f} s, first step after {seconds:.2f} s, "
        f"peak memory + {grown / 1e6:.0f} MB = {grown / size:.2f} times the arrays"
    )


def first_step(path: Path) -> tuple[float, float]:
    """Seconds until the data are there, and until a step is taken."""
    started = time.perf_counter()
    data = datasets.load(str(path), env="Hopper-v5")
    loaded = time.perf_counter() - started
    model = CVAE(data.spec).requires_grad_(False)
    fit(BCQ(data.spec, DecoderMeans(model)), data, 1, progress=False)
    return loaded, time.perf_counter() - started


def time_evaluation(run: Path) -> None:
    """Print seconds and rate of 10 episodes, vectorised and not."""
    policy, task = load_policy(run), task_of_run(read_json(run / "config.json"))
    for envs in (10, 1):
        started = time.perf_counter()
        evaluation = evaluate(policy, task, 10, 0, num_envs=envs)
        seconds = time.perf_counter() - started
        rate = evaluation.lengths.sum() / seconds
        print(f"10 episodes, {envs:>2} at a time: {seconds:.1f} s, {rate:.0f} environment steps a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 2_000_000])
    parser.add_argument("--run", type=Path, help="a run of `offline-vi train`, to time its evaluation")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.here:
        print(measure(options.here))
        return
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name) / "small.hdf5", 2_000)
            write(Path(name) / "hopper-synthetic-v2.hdf5", rows)
            print(f"{rows:>9,} rows, ", end="", flush=True)
            subprocess.run([sys.executable, __file__, "--here", name], check=True)
    if options.run:
        time_evaluation(options.run)


if __name__ == "__main__":
    main()
