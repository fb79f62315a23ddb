"""offline-vi train-pixels --dataset FOLDER|NAME: latent planning from a data set of images."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    from offline_vi.scripts import train_pixels_job  # imports torch

    train_pixels_job.run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
