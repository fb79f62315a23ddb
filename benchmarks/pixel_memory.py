"""Anonymous resident memory of training on a pixel data set that is larger than it: from a folder of .npz episodes in
V-D4RL's layout, through the conversion into memory-mapped columns, to gradient steps of latent planning.

    python benchmarks/pixel_memory.py --gigabytes 2 --folder /tmp/pixels

Prints the largest RssAnon (of /proc/self/status, sampled every 20 ms) beyond the interpreter with torch imported and
warmed up. Pages of the mapped file are the kernel's to drop, and are not in it. Exit code 1 above --limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch


def anonymous() -> int:
    """Bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("the kernel does not tell RssAnon")


class Watch(threading.Thread):
    """The largest value since the last `take`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest = 0
        self.start()

    def run(self) -> None:
        while True:
            self.largest = max(self.largest, anonymous())
            time.sleep(0.02)

    def take(self) -> int:
        largest, self.largest = max(self.largest, anonymous()), 0
        return largest


def draw(folder: Path, total: int, side: int = 64, steps: int = 1000) -> int:
    """Episodes of a point on ``side`` x ``side`` RGB pixels, as many as make ``total`` bytes; returns the bytes."""
    from offline_vi.datasets import images, pixels

    folder.mkdir(parents=True, exist_ok=True)
    written = number = 0
    while written < total:
        rows = pixels.walk(1, steps, 1.0, seed=number)
        grey = pixels.draw_points(rows["obs"][:, 0], size=side)
        frames = np.repeat(grey, 3, axis=1)
        path = folder / f"{number:05}.npz"
        if not path.exists():
            reward = rows["reward"][:, 0].astype(np.float32)
            episode = images.Episode(frames, rows["action"][:, 0], reward, np.zeros(steps, np.bool_))
            images.save_episode(path, episode)
        written, number = written + frames.nbytes, number + 1
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of frames, unpacked (default 2)")
    parser.add_argument("--folder", type=Path, required=True, help="where the episodes and the columns go")
    parser.add_argument("--steps", type=int, default=100, help="gradient steps (default 100)")
    parser.add_argument("--limit", type=float, default=500.0, help="MB (default 500)")
    options = parser.parse_args()
    os.environ["OFFLINE_VI_HOME"] = str(options.folder / "home")
    torch.set_num_threads(1)
    torch.nn.functional.conv2d(torch.rand(1, 3, 64, 64), torch.rand(4, 3, 4, 4)).sum()
    watch = Watch()
    base = watch.take()
    if os.fork() == 0:  # drawing is not what is measured
        draw(options.folder / "episodes", int(options.gigabytes * 1e9))
        os._exit(0)
    os.wait()
    from offline_vi.algorithms.latent_planning import LatentPlanning, LatentPlanningConfig
    from offline_vi.datasets import load_images
    from offline_vi.training.loop import fit

    watch.take()
    data = load_images(options.folder / "episodes")
    loading = watch.take()
    torch.manual_seed(0)
    agent = LatentPlanning(data.spec, LatentPlanningConfig(channels=(16, 32, 64), batch_size=16))
    fit(agent, agent.source(data, 0, "cpu"), options.steps, progress=False)
    training = watch.take()
    peak = (max(loading, training) - base) / 1e6
    print(
        f"{data.frames.nbytes / 1e9:.2f} GB of frames {data.frames.shape} {data.frames.dtype}; "
        f"interpreter and torch {base / 1e6:.0f} MB; beyond them: loading {(loading - base) / 1e6:.0f} MB, "
        f"{options.steps} steps of training {(training - base) / 1e6:.0f} MB (limit {options.limit:.0f})"
    )
    sys.exit(peak > options.limit)


if __name__ == "__main__":
    main()
