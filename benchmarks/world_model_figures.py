"""What a model of images has learnt: reconstructions, open-loop predictions beside the truth, latent traversals.

    offline-vi train-pixels --dataset offline-vi/pixels/point-mass-v0 --steps 1500 --output runs/point-mass
    python benchmarks/world_model_figures.py --run runs/point-mass --dataset offline-vi/pixels/point-mass-v0 \
        --output docs/figures --prefix point_mass
"""

from __future__ import annotations

import argparse
from pathlib import Path

from offline_vi.algorithms.latent_planning import LatentPlanning
from offline_vi.datasets import load_images
from offline_vi.study.kept import load
from offline_vi.study.pictures import imagined_frames, reconstructions, traversals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run of train-pixels")
    parser.add_argument("--dataset", required=True, help="the data set that it was trained on")
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--prefix", required=True, help="of the files' names")
    options = parser.parse_args()
    agent = load(options.run)
    if not isinstance(agent, LatentPlanning):
        raise SystemExit(f"{options.run} is no run of train-pixels")
    _, held_out = load_images(options.dataset).split_episodes(0.1)
    reconstructions(options.output / f"{options.prefix}_reconstructions.png", agent, held_out)
    imagined_frames(options.output / f"{options.prefix}_open_loop.png", agent, held_out)
    traversals(options.output / f"{options.prefix}_traversals.png", agent, held_out)


if __name__ == "__main__":
    main()
