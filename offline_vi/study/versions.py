"""What can move a number and is no option: versions of packages, the revision of the code."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from offline_vi import __version__

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "minari", "h5py", "safetensors", "matplotlib")


def versions() -> dict[str, str]:
    """Versions of everything that can move a number; "absent" where it is not installed."""
    found = {"offline_vi": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def git_revision() -> str:
    """The revision of the checkout that the package lies in; empty where there is none."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
