"""Small data sets as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def pendulum(path: Path, change: Callable[[dict[str, Any]], None] = lambda columns: None, rows: int = 400) -> str:
    """A small file in D4RL's layout with Pendulum's shapes."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "observations": rng.normal(size=(rows, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 1)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(1, rows + 1) % 100 == 0,
    }
    change(columns)
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file[name] = column
    return str(path)
