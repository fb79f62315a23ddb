"""offline-vi info: versions, device, paths."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from offline_vi.errors import MissingInputError
from offline_vi.homes import home
from offline_vi.study.versions import versions as versions


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="offline-vi info", description="Versions, device, paths.")
    parser.add_argument("--json", action="store_true", help="machine-readable output on stdout")
    options = parser.parse_args(arguments)
    import torch

    record: dict[str, Any] = {
        "versions": versions(),
        "device": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "absent",
        },
        "paths": {
            "package": str(Path(__file__).resolve().parents[1]),
            "OFFLINE_VI_DATA": os.environ.get("OFFLINE_VI_DATA", "not set"),
            "OFFLINE_VI_HOME": in_home("OFFLINE_VI_HOME", ".cache/offline_vi"),
            "D4RL_DATASET_DIR": in_home("D4RL_DATASET_DIR", ".d4rl/datasets"),
            "MINARI_DATASETS_PATH": in_home("MINARI_DATASETS_PATH", ".minari/datasets"),
        },
    }
    if options.json:
        json.dump(record, sys.stdout, indent=1)
        print()
        return
    for title, rows in record.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:<22}{value}")


def in_home(variable: str, folder: str) -> str:
    """The folder that a variable names; where it is not set, the one in the user's home, if there is one."""
    try:
        return os.environ.get(variable) or str(home() / folder)
    except MissingInputError as error:
        return f"not set, and {error}"


if __name__ == "__main__":
    main()
