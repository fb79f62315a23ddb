"""offline-vi train-pixels --dataset FOLDER|NAME: plan in the latent space of a model of images."""

from __future__ import annotations

import sys

from offline_vi.scripts import import_torch
from offline_vi.scripts.arguments import taken


def main(arguments: list[str] | None = None) -> None:
    file, rest = taken(sys.argv[1:] if arguments is None else arguments, "--config")
    import_torch()
    from offline_vi.study import verbs

    verbs.run("train-pixels", "latent-planning", file, rest)


if __name__ == "__main__":
    main()
