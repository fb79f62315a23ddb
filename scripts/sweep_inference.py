"""offline-vi sweep-inference RUN: let one trained policy act in many ways, from cloning to greedy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from offline_vi.scripts.arguments import parsed
from offline_vi.study.sweep import Sweep, spoken, sweep


def main(arguments: list[str] | None = None) -> None:
    options = parsed(Sweep, arguments, "offline-vi sweep-inference")
    record = sweep(options)
    rows = record["rows"]
    if options.json:
        json.dump({**record, "rows": [spoken(row) for row in rows]}, sys.stdout, indent=1)
        print()
        return
    print(f"{record['measure']}, mean over {record['episodes']} episodes +- their standard deviation")
    for row in rows:
        print(f"{label(row):<42} {row['score']:8.1f} +- {row['std']:.1f}")
    print(f"plot: {Path(options.output or options.run) / 'sweep.png'}")


def label(row: dict[str, Any]) -> str:
    """The setting in words."""
    parts = {"num_candidates": "N", "phi": "Phi", "noise_clip": "clip", "temperature": "T"}
    words = [f"{short} {row[key]:g}" for key, short in parts.items() if row[key] is not None]
    return f"{row['axis'].replace('_', ' ')}  {', '.join(words)}".strip()


if __name__ == "__main__":
    main()
